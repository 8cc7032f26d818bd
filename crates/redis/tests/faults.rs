//! Servers that die, stand still or fill up, and connections that are cut: what was confirmed is
//! there, and what an error says is true.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use onlyonce_conformance::{answered, claimed, id};
use onlyonce_core::{Floor, Timestamp};
use onlyonce_store::{Store as _, StoreErrorKind, Swap};
use onlyonce_testbed::{Relay, Way, until};

use common::{RUNTIME, Server, claim, get, init, open, try_claim};

/// What became of the claims of some callers.
#[derive(Debug, Default)]
struct History {
    done: Vec<u64>,
    not_applied: Vec<u64>,
    unknown: Vec<u64>,
}

/// Ends the callers, also if what disturbs them panics.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Claims keys from several threads while `disturb` runs.
fn load(store: &onlyonce_redis::Redis, disturb: impl FnOnce()) -> History {
    let stop = AtomicBool::new(false);
    let histories = thread::scope(|scope| {
        let callers: Vec<_> = (0..4_u64)
            .map(|caller| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut history = History::default();
                    for number in caller * 1_000_000.. {
                        if stop.load(Ordering::Relaxed) {
                            return history;
                        }
                        match try_claim(store, number) {
                            Ok(_) => history.done.push(number),
                            Err(error) if error.may_have_happened() => history.unknown.push(number),
                            Err(_) => history.not_applied.push(number),
                        }
                    }
                    history
                })
            })
            .collect();
        let stopping = Stopping(&stop);
        disturb();
        drop(stopping);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
    });
    histories.into_iter().fold(History::default(), |mut all, one| {
        all.done.extend(one.done);
        all.not_applied.extend(one.not_applied);
        all.unknown.extend(one.unknown);
        all
    })
}

/// The server is killed three times under load, and the same store goes on each time.
#[test]
fn every_claim_that_was_confirmed_survives_a_kill_of_the_server() {
    let mut server = Server::start();
    init(&server.url(), Floor::NONE);
    let store = open(&server.url());
    let history = load(&store, || {
        for _ in 0..3 {
            let before = RUNTIME.block_on(store.count(None)).unwrap();
            until("some are claimed", || {
                let count = RUNTIME.block_on(store.count(None)).unwrap_or_default();
                (before + 100 < count).then_some(())
            });
            server.redis.restart();
            until("it goes on", || RUNTIME.block_on(store.count(None)).ok());
        }
    });
    assert!(300 < history.done.len(), "{}", history.done.len());
    assert!(!history.unknown.is_empty() || !history.not_applied.is_empty());
    for number in &history.done {
        assert_eq!(get(&store, *number), Some(claimed(*number)), "a confirmed claim is lost");
    }
    for number in &history.not_applied {
        assert_eq!(get(&store, *number), None, "it was said not to have taken place");
    }
}

#[test]
fn an_answer_that_is_lost_is_unknown_and_the_claim_is_there() {
    let server = Server::start();
    let relay = Relay::to(server.redis.address());
    let url = format!("redis://{}", relay.address());
    init(&url, Floor::NONE);
    let store = open(&url);
    claim(&store, 1);
    // After the commit: the server answers, and the connection is cut before that arrives. What it
    // says to another connection of the store may come first: then the claim is cut on its way.
    let lost = (1..10).map(|turn| 1 + 64 * turn).find(|number| {
        relay.cut_after(Way::ToClient, 0);
        let error = try_claim(&store, *number).unwrap_err();
        relay.mend();
        let found = until("it is reached again", || RUNTIME.block_on(store.get(id(*number))).ok());
        assert!(found.is_none() || error.kind() == StoreErrorKind::Unknown, "{error}");
        found.is_some()
    });
    let lost = lost.expect("an answer that was lost");
    assert_eq!(get(&store, lost), Some(claimed(lost)));
    // The caller asks again with what it wanted, and sees that it has it.
    let again = RUNTIME.block_on(store.swap(id(lost), None, Some(claimed(lost)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(lost))));
}

#[test]
fn a_claim_that_is_cut_on_its_way_does_not_take_place() {
    let server = Server::start();
    let relay = Relay::to(server.redis.address());
    let url = format!("redis://{}", relay.address());
    init(&url, Floor::NONE);
    let store = open(&url);
    claim(&store, 1);
    relay.cut_after(Way::ToServer, 40);
    let error = try_claim(&store, 65).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    until("nobody is reached any more, which is certain", || {
        let error = try_claim(&store, 129).unwrap_err();
        (error.kind() == StoreErrorKind::NotApplied).then_some(())
    });
    relay.mend();
    for number in [65, 129] {
        let found = until("it is reached again", || RUNTIME.block_on(store.get(id(number))).ok());
        assert_eq!(found, None);
    }
}

/// A server that stands still gets what was sent meanwhile when it goes on, however long the
/// caller has been gone: it must not take place then.
#[test]
fn a_swap_that_comes_too_late_does_not_take_place() {
    let server = Server::start();
    init(&server.url(), Floor::NONE);
    let store = open(&server.url());
    claim(&store, 1);
    server.redis.server().freeze();
    let error = try_claim(&store, 65).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    server.redis.server().thaw();
    until("it goes on", || RUNTIME.block_on(store.get(id(65))).ok());
    assert_eq!(get(&store, 65), None);
    assert_eq!(try_claim(&store, 65).unwrap(), claimed(65));
}

/// Case B79: a server that is full refuses new claims as a whole, and completions come back once
/// there is room.
#[test]
fn a_full_server_refuses_whole_records_and_lets_go_of_old_ones() {
    let server = Server::start();
    init(&server.url(), Floor::NONE);
    let store = open(&server.url());
    let one = claim(&store, 1);
    server.redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = try_claim(&store, 2).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
    let two = answered(&one, 2, "order");
    let swap = |next| RUNTIME.block_on(store.swap(id(1), Some(one.revision), next));
    assert_eq!(swap(Some(two.clone())).unwrap_err().kind(), StoreErrorKind::Full);
    assert_eq!(get(&store, 2), None);
    assert_eq!(get(&store, 1), Some(one.clone()));
    assert_eq!(RUNTIME.block_on(store.count(None)).unwrap(), 1, "no index without a record");
    // What gives room back is not refused.
    assert_eq!(swap(None).unwrap(), Swap::Done);
    server.redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    claim(&store, 2);
}

#[test]
fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = Server::start();
    init(&server.url(), Floor::NONE);
    let store = open(&server.url());
    server.redis.ask(&["SCRIPT", "FLUSH"]);
    claim(&store, 1);
    RUNTIME.block_on(store.raise_floor(Floor::at(Timestamp::from_millis(5)))).unwrap();
}

/// Nothing expires: what the sweeper does not delete stays.
#[test]
fn no_key_of_the_store_expires() {
    let server = Server::start();
    init(&server.url(), Floor::NONE);
    let store = open(&server.url());
    let one = claim(&store, 1);
    let two = answered(&one, 2, "order");
    RUNTIME.block_on(store.swap(id(1), Some(one.revision), Some(two))).unwrap();
    let keyspace = server.redis.info("keyspace");
    assert!(keyspace.contains("expires=0"), "{keyspace}");
}
