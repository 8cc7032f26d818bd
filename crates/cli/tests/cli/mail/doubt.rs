//! A sender that is killed at some moment, and what the next one makes of it: before the end of the
//! message it is tried again, after it a command is asked.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Shop, WELCOME};
use crate::process::{onlyonce, until};

const ANN: &str = "ann@mail.example";

/// Adds a message, and kills its sender while the server leaves this word unanswered.
fn killed_at(word: &'static str) -> Shop {
    let shop = Shop::open();
    shop.add("welcome", &[ANN], WELCOME).done();
    shop.server.leaves(word);
    let running = shop.run(&[]);
    until("a word that is not answered", || (shop.server.left() == 1).then_some(()));
    running.signal(Signal::KILL);
    assert_eq!(running.ended().code, None);
    shop.server.answers();
    shop
}

impl Shop {
    /// What is said of each message that is tried once, with this probe, whose "no" is 10.
    fn probed(&self, probe: &str, bounds: [&str; 2]) -> String {
        let [settle, late] = bounds;
        let asking = ["--once", "--on-unknown", "probe", "--probe", probe];
        let bounds = ["--probe-absent", "10", "--settle", settle, "--late", late];
        self.run(&[&asking[..], &bounds].concat()).ended().done()
    }

    /// How many records are in this state.
    fn records(&self, state: &str) -> usize {
        let store = self.folder.store();
        let arguments = ["keys", "list", "--state", state, "--json", "--store", &store];
        onlyonce(arguments).done().lines().count()
    }
}

/// Case B126. Nothing before the end can have been taken: the next sender sends it.
#[test]
fn a_sender_killed_before_the_end_is_followed_by_one_that_sends_it() {
    for word in ["EHLO", "MAIL", "RCPT", "DATA"] {
        let shop = killed_at(word);
        let out = shop.run(&["--once"]).ended().done();
        assert!(out.contains("sent welcome/ann@mail.example"), "{word}: {out}");
        assert_eq!(shop.server.ended(), [ANN], "{word}");
        assert_eq!(shop.counts(), [0, 0, 0, 1, 0], "{word}");
    }
}

/// Case B123. The welcome that was taken is found, and is one.
#[test]
fn a_probe_that_finds_the_message_has_it_sent_and_nothing_goes_again() {
    let shop = killed_at(".");
    let asked = shop.folder.path("asked").display().to_string();
    let names = "$ONLYONCE_KEY $ONLYONCE_RECIPIENT $ONLYONCE_FENCE $ONLYONCE_MESSAGE_ID";
    let probe = format!("echo \"{names}\" >> {asked}; echo 4F8A31C2E7");
    let out = shop.probed(&probe, ["1h", "1h"]);
    assert!(out.contains("sent welcome/ann@mail.example") && out.contains("4F8A31C2E7"), "{out}");
    assert_eq!(shop.probed(&probe, ["0s", "0s"]), "");
    assert_eq!(shop.server.ended(), [ANN]);
    assert_eq!(shop.counts(), [0, 0, 0, 1, 0]);
    let store = shop.folder.store();
    let listed = onlyonce(["keys", "list", "--json", "--store", &store]).done();
    let fence = serde_json::from_str::<Value>(&listed).unwrap()["fence"].to_string();
    let id = shop.server.shared.id.lock().unwrap().clone();
    let asked = std::fs::read_to_string(asked).unwrap();
    assert_eq!(asked, format!("welcome/{ANN} {ANN} {fence} {id}\n"), "asked once");
}

/// Case B123. That the server has nothing is believed only once nothing can arrive any more.
#[test]
fn a_probe_that_finds_nothing_is_believed_once_the_bounds_have_passed() {
    let shop = killed_at(".");
    for bounds in [["0s", "1h"], ["1h", "0s"]] {
        let out = shop.probed("exit 10", bounds);
        assert!(out.contains("unknown welcome/ann@mail.example"), "{out}");
    }
    assert_eq!((shop.server.ended().len(), shop.counts()), (1, [0, 0, 1, 0, 0]));
    // Clocks may differ by a second.
    until("a final no", || {
        let out = shop.probed("exit 10", ["0s", "0s"]);
        out.contains("sent welcome/ann@mail.example").then_some(())
    });
    assert_eq!((shop.server.ended().len(), shop.counts()), (2, [0, 0, 0, 1, 0]));
}

/// Case B123. A probe that fails says nothing.
#[test]
fn a_probe_that_cannot_tell_leaves_the_message_unknown() {
    let shop = killed_at(".");
    for probe in ["exit 1", "exit 11", "no-such-program", "kill -9 $$", "((("] {
        let out = shop.probed(probe, ["0s", "0s"]);
        assert!(out.contains("unknown welcome/ann@mail.example"), "{probe}: {out}");
    }
    // Nor does what nobody asks.
    let out = shop.run(&["--once"]).ended().done();
    assert!(out.contains("unknown welcome/ann@mail.example"), "{out}");
    assert_eq!((shop.server.ended().len(), shop.counts()), (1, [0, 0, 1, 0, 0]));
}

#[test]
fn a_probe_that_would_not_be_asked_or_could_not_be_told_from_a_failure_is_refused() {
    let shop = Shop::open();
    for (flags, says) in [
        (&["--on-unknown", "probe"][..], "--probe <WHO>"),
        (&["--probe", "true"], "--on-unknown probe"),
        (&["--on-unknown", "probe", "--probe", "true", "--probe-absent", "0"], "0 is not in"),
        (&["--on-unknown", "probe", "--probe", "true", "--probe-absent", "127"], "127 is not in"),
        (&["--on-unknown", "probe", "--probe", "true", "--probe-log", "x"], "not of a command"),
        (&["--on-unknown", "probe", "--probe", "exim", "--probe-absent", "1"], "no exit codes"),
        (&["--on-unknown", "probe", "--probe", "postfix:"], "behind the colon"),
    ] {
        let told = shop.run(flags).ended().failed(2);
        assert!(told.contains(says), "{flags:?}: {told}");
    }
}

/// Nobody asks for a message that was sent any more: what time does to its record, the sender
/// writes down.
#[test]
fn a_sender_sweeps_its_store() {
    let shop = Shop::open();
    let flags = ["--once", "--retention", "1s"];
    shop.add("welcome", &[ANN], WELCOME).done();
    shop.run(&flags).ended().done();
    assert_eq!((shop.records("completed"), shop.records("tombstone")), (1, 0));
    until("a receipt that is no longer kept", || {
        shop.run(&flags).ended().done();
        (shop.records("tombstone") == 1).then_some(())
    });
    // Also one that goes on: its first pass is not to come too early, the second is a minute later.
    shop.add("news", &[ANN], WELCOME).done();
    shop.run(&flags).ended().done();
    std::thread::sleep(Duration::from_millis(1_200));
    shop.add("more", &[ANN], WELCOME).done();
    let running = shop.run(&["--retention", "1s"]);
    // It has the journal by then, and nobody who asks takes it away.
    until("the end of a message", || (shop.server.ended().len() == 3).then_some(()));
    until("a receipt that is no longer kept", || (2 <= shop.records("tombstone")).then_some(()));
    running.signal(Signal::TERM);
    running.ended().done();
    assert_eq!(shop.counts(), [0, 0, 0, 3, 0]);
}
