//! A mailbox that gets a copy of all that a real mail server has taken, served by a real IMAP
//! server.

use std::time::Duration;

use onlyonce_testbed::{Cut, Dovecot, Fate, MailRelay, MailSink, Postfix, Word};

use super::{Shop, WELCOME};
use crate::process::{Running, until};

const ANN: &str = "ann@mail.example";
const BOB: &str = "bob@mail.example";
const DAN: &str = "dan@mail.example";
const ARCHIVE: &str = "archive@shop.example";

/// A shop before a Postfix that sends a copy of everything to an archive.
struct Real {
    shop: Shop,
    sink: MailSink,
    relay: MailRelay,
    dovecot: Dovecot,
    /// How many of the copies are in the archive.
    copied: usize,
    _mx: Postfix,
}

impl Real {
    fn open() -> Self {
        let sink = MailSink::open();
        let mx = Postfix::start_with(Some(sink.address()), &format!("always_bcc = {ARCHIVE}\n"));
        let relay = MailRelay::to(mx.address());
        let shop = Shop::before(relay.address());
        shop.folder.write("password", "secret\n");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(shop.folder.path("password"), mode).unwrap();
        Self { shop, sink, relay, dovecot: Dovecot::start(), copied: 0, _mx: mx }
    }

    fn run(&self, more: &[&str]) -> Running {
        let archive = format!("imap://archive@{}/INBOX", self.dovecot.address());
        let password = self.shop.folder.path("password").display().to_string();
        let probe = ["--on-unknown", "probe", "--probe", &archive, "--probe-tls", "none"];
        let password = ["--probe-password-file", &password, "--settle", "0s", "--late", "0s"];
        self.shop.run(&[&probe[..], &password, more].concat())
    }

    fn run_once(&self) -> String {
        self.run(&["--once"]).ended().done()
    }

    /// Hands what is for the archive to it, once there is more.
    fn archives(&mut self, more: usize) {
        let copies = || {
            let arrived = self.sink.arrived().into_iter().filter(|it| it.to == ARCHIVE);
            arrived.map(|it| it.content).collect::<Vec<_>>()
        };
        let wanted = self.copied + more;
        let copies = until("copies", || Some(copies()).filter(|it| it.len() == wanted));
        for copy in &copies[self.copied..] {
            self.dovecot.deliver(copy);
        }
        self.copied = wanted;
    }

    fn taken(&self, to: &str) -> usize {
        self.sink.arrived().iter().filter(|it| it.to == to).count()
    }
}

/// Case B123. The server has Ann's copy, and its answer was lost; of Bob's it has nothing. It has
/// Dan's, so it keeps more than one message of a Message-ID.
#[test]
fn an_archive_on_a_real_server_says_whether_a_message_was_taken() {
    let mut real = Real::open();
    real.shop.add("older", &["carl@mail.example"], WELCOME).done();
    assert!(real.run_once().contains("sent older/carl@mail.example"));
    real.archives(1);
    // Dates have no fractions of seconds: what is sent from now on is younger.
    std::thread::sleep(Duration::from_millis(1_100));
    real.relay.decide(|word, to| match (word, to) {
        (Word::End, ANN) => Fate::Unanswered(Cut::Close),
        (Word::End, BOB) => Fate::Lost(Cut::Close),
        _ => Fate::Passes,
    });
    real.shop.add("welcome", &[ANN, BOB, DAN], WELCOME).done();
    let out = real.run(&["--once", "--workers", "1"]).ended().done();
    assert_eq!(out.matches("unknown welcome/").count(), 2, "{out}");
    real.relay.decide(|_, _| Fate::Passes);

    // The archive has got nothing since: that it has nothing says nothing.
    std::thread::sleep(Duration::from_millis(1_100));
    let out = real.run_once();
    assert_eq!(out.matches("unknown welcome/").count(), 2, "{out}");
    real.archives(2);
    let out = real.run_once();
    assert!(out.contains("sent welcome/ann@mail.example") && out.contains("found_by"), "{out}");
    until("Bob's message, of which nothing is there", || {
        let sent = out.contains("sent welcome/bob@mail.example");
        (sent || real.run_once().contains("sent welcome/bob@mail.example")).then_some(())
    });
    until("what was taken", || (real.taken(BOB) == 1).then_some(()));
    assert_eq!((real.taken(ANN), real.shop.counts()), (1, [0, 0, 0, 4, 0]));
}

#[test]
fn a_wrong_archive_is_told_before_anything_is_sent() {
    let real = Real::open();
    real.shop.add("welcome", &[ANN], WELCOME).done();
    let password = real.shop.folder.path("password").display().to_string();
    let there = format!("imap://archive@{}/INBOX", real.dovecot.address());
    let nowhere = format!("imap://archive@{}/Nowhere", real.dovecot.address());
    let none = ["--probe-tls", "none"];
    let settles = ["--settle", "6h"];
    let ran = real.shop.run(&["--once", "--on-unknown", "probe", "--probe", &there]).ended();
    assert!(ran.code != Some(0) && ran.err.contains("it needs --settle"), "{ran:?}");
    for (archive, more, says) in [
        (&*there, &[][..], "--probe-password-file"),
        (&nowhere, &[&none[..], &["--probe-password-file", &password]].concat(), "--probe"),
        ("imap://archive@mail.example/INBOX", &none, "--probe-password-file"),
        ("imap://archive", &["--probe-password-file", &password], "imap://USER@HOST/MAILBOX"),
        (&there, &["--probe-password-file", &password, "--probe-absent", "1"], "no exit codes"),
        (
            "imap://archive@mail.example/INBOX",
            &[&none[..], &["--probe-password-file", &password]].concat(),
            "in the clear",
        ),
    ] {
        let flags = ["--once", "--on-unknown", "probe", "--probe", archive];
        let flags = [&flags[..], &settles, more].concat();
        let ran = real.shop.run(&flags).ended();
        assert!(ran.code != Some(0) && ran.err.contains(says), "{archive} {more:?}: {ran:?}");
    }
    assert_eq!((real.taken(ANN), real.shop.counts()), (0, [1, 0, 0, 0, 0]));
}
