//! How the demo ends, and what is left of it.

use std::path::Path;

use rustix::process::Signal;

use crate::plain::{Answer, request};
use crate::process::Demo;

fn purchase(demo: &Demo) -> Answer {
    let headers =
        [("Idempotency-Key", "\"tap-1\""), ("Content-Type", "application/x-www-form-urlencoded")];
    request(demo.proxy(), "POST", "/purchase", &headers, "card=4242")
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn an_interrupt_ends_it_cleanly_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start();
        assert_eq!(purchase(&demo).status, 201);
        assert!(!is_empty(demo.temporary()));
        demo.signal(signal);
        assert!(demo.ended().success());
        assert!(is_empty(demo.temporary()));
    }
}

#[test]
fn a_kept_journal_holds_the_receipt_through_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let arguments = ["--keep", journal.to_str().unwrap()];

    let mut demo = Demo::start_with(&arguments);
    let first = purchase(&demo);
    assert_eq!(first.header("idempotency-status"), Some("executed"));
    demo.signal(Signal::KILL);
    demo.ended();

    let demo = Demo::start_with(&arguments);
    let again = purchase(&demo);
    assert_eq!(again.header("idempotency-status"), Some("replayed"));
    assert_eq!((again.status, again.body), (first.status, first.body));
    assert_eq!(demo.state()["curl"]["charges"], 0, "the shop of this demo was not asked");
}
