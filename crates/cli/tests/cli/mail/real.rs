//! Real mail servers, and what their queues and logs say of messages whose answer was lost.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use onlyonce_testbed::{Cut, Exim, Fate, MailRelay, MailSink, Postfix, Word};
use rustix::process::Signal;

use super::{Shop, WELCOME};
use crate::process::{Folder, Ran, Running, until};

const ANN: &str = "ann@mail.example";
const BOB: &str = "bob@mail.example";

/// A shop before a real mail server, with a relay between them and a sink behind the server.
struct Real {
    shop: Shop,
    sink: MailSink,
    relay: MailRelay,
    mx: Mx,
    /// The flags that name the probe.
    probe: Vec<OsString>,
}

/// The server; it ends with the test.
enum Mx {
    Postfix(Postfix),
    Exim(Exim),
}

impl Real {
    /// `delivers`: the server hands on what it takes at once; else it keeps it in its queue.
    fn open(name: &str, delivers: bool) -> Self {
        let sink = MailSink::open();
        let to = delivers.then(|| sink.address());
        let mx = match name {
            "postfix" => Mx::Postfix(Postfix::start(to)),
            _ => Mx::Exim(Exim::start(to)),
        };
        let (address, config) = match &mx {
            Mx::Postfix(it) => (it.address(), it.config()),
            Mx::Exim(it) => (it.address(), it.config()),
        };
        let relay = MailRelay::to(address);
        let shop = Shop::before(relay.address());
        let probe = vec!["--probe".into(), format!("{name}:{}", config.display()).into()];
        // Logs have no fractions of seconds: what is sent from now on is younger than this one.
        std::thread::sleep(Duration::from_millis(1_100));
        Self { shop, sink, relay, mx, probe }
    }

    /// A sender that asks about doubts; what came of each message.
    fn run(&self, bounds: [&str; 2]) -> Ran {
        self.run_with(bounds, &[])
    }

    fn run_with(&self, bounds: [&str; 2], more: &[&str]) -> Ran {
        let [settle, late] = bounds;
        let flags = ["--once", "--on-unknown", "probe", "--settle", settle, "--late", late];
        let flags = flags.iter().chain(more).map(OsString::from).chain(self.probe.clone());
        self.started(flags).ended()
    }

    fn started(&self, flags: impl IntoIterator<Item = OsString>) -> Running {
        let arguments = self.shop.arguments().into_iter().map(OsString::from);
        Running::start_with(arguments.chain(flags), self.environment())
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.mx {
            Mx::Postfix(it) => it.environment().into_iter().collect(),
            Mx::Exim(it) => {
                let folder = it.program().parent().map(Path::display).unwrap();
                vec![("PATH", format!("{folder}:/usr/bin:/bin"))]
            }
        }
    }

    fn queue(&self) -> String {
        match &self.mx {
            Mx::Postfix(it) => it.queue().concat(),
            Mx::Exim(it) => it.queue(),
        }
    }

    /// How many copies the server has taken for somebody, whether or not it has handed them on.
    fn taken(&self, to: &str) -> usize {
        let arrived = self.sink.arrived().iter().filter(|it| it.to == to).count();
        self.queue().matches(to).count() + arrived
    }

    /// Sends a message to both, the end of which has this fate for Ann, and is lost for Bob.
    fn in_doubt(&self, ann: Fate) {
        self.shop.add("welcome", &[ANN, BOB], WELCOME).done();
        self.relay.decide(move |word, to| match (word, to) {
            (Word::End, ANN) => ann,
            (Word::End, BOB) => Fate::Lost(Cut::Close),
            _ => Fate::Passes,
        });
        let out = self.started(["--once".into(), "--workers".into(), "1".into()]).ended().done();
        assert_eq!(out.matches("unknown welcome/").count(), 2, "{out}");
        self.relay.decide(|_, _| Fate::Passes);
    }
}

/// Case B123. The server has the message and its answer was lost; of another recipient's copy, with
/// the same Message-ID, it has nothing. Both are found out, from queue and log.
#[test]
fn queue_and_log_of_a_real_server_say_whether_it_has_a_message() {
    std::thread::scope(|threads| {
        for (name, delivers) in
            [("postfix", true), ("postfix", false), ("exim", true), ("exim", false)]
        {
            threads.spawn(move || found_out(name, delivers));
        }
    });
}

fn found_out(name: &str, delivers: bool) {
    let real = Real::open(name, delivers);
    real.in_doubt(Fate::Unanswered(Cut::Close));
    if delivers {
        until("a delivery", || (real.sink.arrived().len() == 1).then_some(()));
    }
    // It has it whenever one asks; that it has nothing counts once nothing can come any more.
    until("an answer about Ann's", || {
        let out = real.run(["1h", "0s"]).done();
        assert!(out.contains("unknown welcome/bob@mail.example"), "{name}: {out}");
        out.contains("sent welcome/ann@mail.example").then_some(())
    });
    assert_eq!(real.shop.counts(), [0, 0, 1, 1, 0], "{name}");
    until("a final no about Bob's", || {
        let out = real.run(["0s", "0s"]).done();
        out.contains("sent welcome/bob@mail.example").then_some(())
    });
    assert_eq!(real.shop.counts(), [0, 0, 0, 2, 0], "{name}");
    assert_eq!((real.relay.ends(ANN), real.relay.ends(BOB)), (1, 2), "{name}");
    if delivers {
        until("both deliveries", || (real.sink.arrived().len() == 2).then_some(()));
        until("an empty queue", || real.queue().is_empty().then_some(()));
    }
    assert_eq!((real.taken(ANN), real.taken(BOB)), (1, 1), "{name}");
}

/// Case B123. The welcome that was sent by a process that was killed before it could say so: a real
/// server has one, and the next process knows it.
#[test]
fn a_real_server_gets_one_welcome_from_a_sender_killed_after_sending_and_before_marking() {
    for name in ["postfix", "exim"] {
        let real = Real::open(name, true);
        real.shop.add("welcome", &[ANN], WELCOME).done();
        let silent = |word, _: &str| if word == Word::End { Fate::Silent } else { Fate::Passes };
        real.relay.decide(silent);
        let running = real.started([]);
        until("a welcome that has arrived", || (real.sink.arrived().len() == 1).then_some(()));
        running.signal(Signal::KILL);
        assert_eq!(running.ended().code, None);
        real.relay.decide(|_, _| Fate::Passes);
        until("a sender that knows", || {
            let out = real.run(["0s", "15m"]).done();
            out.contains("sent welcome/ann@mail.example").then_some(())
        });
        assert_eq!(real.run(["0s", "0s"]).done(), "", "{name}");
        assert_eq!((real.relay.ends(ANN), real.taken(ANN)), (1, 1), "{name}");
        assert_eq!(real.shop.counts(), [0, 0, 0, 1, 0], "{name}");
    }
}

/// A log that was begun anew, or that nobody writes any more, does not say "no".
#[test]
fn a_log_that_does_not_tell_all_does_not_say_no() {
    let real = Real::open("postfix", false);
    let Mx::Postfix(postfix) = &real.mx else { panic!() };
    real.in_doubt(Fate::Lost(Cut::Close));
    let whole = std::fs::read_to_string(postfix.log()).unwrap();
    let folder = Folder::empty();
    let young = whole.lines().last().unwrap();
    let old = whole.lines().find(|it| it.contains("/smtpd[")).unwrap();
    for log in [young.to_owned(), format!("{old}\n"), String::new()] {
        let log = folder.write("log", &log);
        let out = real.run_with(["0s", "0s"], &["--probe-log", &log]).done();
        assert_eq!(out.matches("unknown welcome/").count(), 2, "{out}");
    }
    assert_eq!(real.relay.ends(ANN), 1);
}

#[test]
fn a_server_that_cannot_be_asked_is_told_before_anything_is_sent() {
    let shop = Shop::open();
    shop.add("welcome", &[ANN], WELCOME).done();
    let nowhere = shop.folder.path("nowhere").display().to_string();
    for who in [format!("postfix:{nowhere}"), format!("exim:{nowhere}")] {
        let told = shop.run(&["--on-unknown", "probe", "--probe", &who]).ended();
        assert_ne!(told.code, Some(0), "{told:?}");
        assert!(told.err.contains("--probe: "), "{told:?}");
    }
    assert_eq!(shop.server.ended().len(), 0);
}
