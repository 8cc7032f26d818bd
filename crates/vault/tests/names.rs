//! The names of the keys that answers may need: what several processes may count on.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_conformance::claimed;
use onlyonce_core::{KeyId, Policy, Reply, Revision, State, Timestamp, settle};
use onlyonce_store::{
    Due, Filter, MemoryStore, Store, StoreErrorKind, Swap, transaction::NAMES as ID,
};
use onlyonce_vault::{EVERY, Encrypted, Keyring, Names, PLAIN, QUIET, Settled};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn begin(store: &Arc<dyn Store>, name: &str, now: Timestamp) {
    block_on(Names::begin(&**store, name, now)).unwrap();
}

fn go_on(store: &Arc<dyn Store>, name: &str, now: Timestamp) {
    block_on(Names::go_on(&**store, name, now)).unwrap();
}

fn settled(store: &Arc<dyn Store>, newest: &str, began: Timestamp) -> Settled {
    block_on(Names::settle(&**store, newest, began)).unwrap()
}

fn names(store: &Arc<dyn Store>) -> Vec<String> {
    block_on(Names::read(&**store)).unwrap().iter().map(str::to_owned).collect()
}

fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn put(store: &Arc<dyn Store>, number: u8) {
    assert_eq!(block_on(store.swap(id(number), None, Some(claimed(1)))), Ok(Swap::Done));
}

#[test]
fn a_key_is_named_before_it_is_used_and_what_was_before_it_is_plain() {
    let empty = store();
    begin(&empty, "one", NOW);
    assert_eq!(names(&empty), ["one"], "there was nothing to encrypt");
    let used = store();
    put(&used, 1);
    begin(&used, "one", NOW);
    begin(&used, "two", NOW);
    begin(&used, "one", NOW.plus(QUIET));
    assert_eq!(names(&used), [PLAIN, "one", "two"], "in the order in which they came");
    assert_eq!(block_on(Names::read(&*used)).unwrap().latest(), Some("two"));
}

#[test]
fn a_name_goes_only_when_nobody_has_used_it_for_long_enough_before_the_pass() {
    let store = store();
    begin(&store, "one", NOW);
    begin(&store, "two", NOW);
    let last = NOW.plus(EVERY);
    go_on(&store, "one", last);
    for began in [NOW, last, last.plus(QUIET).minus(EVERY)] {
        let Settled::Used(used) = settled(&store, "two", began) else { panic!("{began:?}") };
        assert_eq!((&*used.name, used.used), ("one", last));
        assert_eq!(names(&store), ["one", "two"]);
    }
    assert_eq!(settled(&store, "two", last.plus(QUIET)), Settled::Done);
    assert_eq!(names(&store), ["two"]);
}

/// The pass began when nobody used the old key; somebody came back to it while it went on.
#[test]
fn who_uses_a_key_again_during_the_pass_keeps_its_name() {
    let store = store();
    begin(&store, "one", NOW);
    begin(&store, "two", NOW);
    let began = NOW.plus(QUIET * 2);
    go_on(&store, "one", began.plus(EVERY));
    assert!(matches!(settled(&store, "two", began), Settled::Used(used) if used.name == "one"));
}

/// Whoever stood still for so long that it was taken for gone.
#[test]
fn who_was_taken_for_gone_is_named_again_and_is_not_the_latest() {
    let store = store();
    begin(&store, "one", NOW);
    begin(&store, "two", NOW);
    assert_eq!(settled(&store, "two", NOW.plus(QUIET)), Settled::Done);
    go_on(&store, "one", NOW.plus(QUIET * 2));
    assert_eq!(names(&store), ["one", "two"]);
    assert_eq!(block_on(Names::read(&*store)).unwrap().latest(), Some("two"));
}

#[test]
fn to_say_it_again_soon_is_no_write() {
    let store = store();
    begin(&store, "one", NOW);
    let written = block_on(store.revision_max()).unwrap();
    go_on(&store, "one", NOW.plus(EVERY / 3));
    assert_eq!(block_on(store.revision_max()).unwrap(), written);
    go_on(&store, "one", NOW.plus(EVERY));
    assert!(written < block_on(store.revision_max()).unwrap());
}

#[test]
fn many_who_begin_at_once_are_all_named() {
    for round in 0..50 {
        let (store, barrier) = (store(), Barrier::new(8));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    begin(store, &format!("key-{number}"), NOW);
                });
            }
        });
        assert_eq!(names(&store).len(), 8, "round {round}");
    }
}

#[test]
fn copied_answers_bring_their_names() {
    let store = store();
    begin(&store, "two", NOW);
    let more = [PLAIN, "one", "two"].map(str::to_owned);
    block_on(Names::add(&*store, &more, NOW)).unwrap();
    block_on(Names::add(&*store, &more, NOW)).unwrap();
    assert_eq!(names(&store), ["two", PLAIN, "one"]);
}

#[test]
fn time_leaves_the_names_and_nobody_else_sees_or_changes_them() {
    let store = store();
    begin(&store, "one", NOW);
    let record = block_on(store.get(ID)).unwrap().unwrap();
    let far = NOW.plus(Duration::from_secs(1_000 * 365 * 86_400));
    assert_eq!(settle(far, &Policy::default(), &record), record);
    let due = Due { over_at: far, forget_until: far, released_until: far };
    assert!(!due.names(&record));

    for keys in [Keyring::parse(&"1".repeat(64)).unwrap(), Keyring::none()] {
        let around = Encrypted::new(Arc::clone(&store), keys);
        assert_eq!(block_on(around.get(ID)), Ok(None));
        let page = block_on(around.list(Filter::default(), None)).unwrap();
        assert!(page.records.is_empty() && page.damaged.is_empty());
        for expected in [None, Some(record.revision)] {
            let error = block_on(around.swap(ID, expected, None)).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::NotApplied);
        }
        let turned = block_on(around.count(None)).unwrap();
        assert_eq!((turned.answers(), turned.unread.len()), (0, 0));
    }
    assert_eq!(block_on(store.get(ID)), Ok(Some(record)));
}

#[test]
fn names_that_are_not_understood_are_said_to_be_so() {
    let store = store();
    let mut record = claimed(1);
    for content in ["", "one", "one two", "one 1\n\n"] {
        let expected = block_on(store.get(ID)).unwrap().map(|it| it.revision);
        record.revision = Revision::after(expected, NOW);
        record.state = State::Completed {
            reply: Reply::kept(0, content),
            answered_at: NOW,
            retain_until: NOW,
            sealed: true,
        };
        block_on(store.swap(ID, expected, Some(record.clone()))).unwrap();
        let error = block_on(Names::read(&*store)).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Damaged, "{content:?}");
    }
}

/// A process that began before anything was encrypted.
#[test]
fn without_a_key_nothing_is_encrypted_and_what_is_encrypted_is_no_answer() {
    let store = store();
    let answer = |number: u8, keys: Keyring| {
        let mut record = claimed(1);
        let reply = Reply::kept(201, "charged");
        let (answered_at, retain_until) = (NOW, NOW.plus(EVERY));
        record.state = State::Completed { reply, answered_at, retain_until, sealed: false };
        let around = Encrypted::new(Arc::clone(&store), keys);
        assert_eq!(block_on(around.swap(id(number), None, Some(record.clone()))), Ok(Swap::Done));
        record
    };
    let plain = answer(1, Keyring::none());
    answer(2, Keyring::parse(&"1".repeat(64)).unwrap());
    let around = Encrypted::new(Arc::clone(&store), Keyring::none());
    assert_eq!(block_on(around.get(id(1))), Ok(Some(plain)));
    assert_eq!(around.reply_max(), store.reply_max());
    for error in [block_on(around.get(id(2))).unwrap_err(), {
        block_on(around.swap(id(2), None, Some(claimed(2)))).unwrap_err()
    }] {
        assert_eq!(error.kind(), StoreErrorKind::Damaged);
        assert!(error.to_string().contains("which is not in the key file"), "{error}");
    }
}
