//! Servers that are killed, replaced or stand still, while callers write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use onlyonce_conformance::{answered, block_on, claimed, id};
use onlyonce_core::StateKind;
use onlyonce_store::{Store as _, StoreErrorKind, Swap};
use onlyonce_testbed::{MariaDb as Server, until};

use crate::common::{database, end_connections, init, open};

/// Callers, and how many pairs each must have had confirmed before the server is killed.
const CALLERS: u64 = 8;
const PAIRS: u64 = 15;

#[test]
fn what_was_confirmed_survives_a_kill_of_the_server_under_load_and_callers_go_on() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let store = open(&server, &name).unwrap();
    let (stop, confirmed) = (AtomicBool::new(false), AtomicU64::new(0));
    let told: Vec<Vec<u64>> = thread::scope(|scope| {
        let (store, stop, confirmed) = (&store, &stop, &confirmed);
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for round in 0.. {
                        if stop.load(Ordering::SeqCst) {
                            break;
                        }
                        let number = round * CALLERS + caller;
                        let one = claimed(number);
                        let two = answered(&one, number + 1, "order");
                        let first = store.swap(id(number), None, Some(one.clone()));
                        if block_on(first) == Ok(Swap::Done) {
                            let second = store.swap(id(number), Some(one.revision), Some(two));
                            if block_on(second) == Ok(Swap::Done) {
                                told.push(number);
                                confirmed.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                    told
                })
            })
            .collect();
        for round in 1..=3 {
            let enough = round * CALLERS * PAIRS;
            until("pairs", || (enough <= confirmed.load(Ordering::SeqCst)).then_some(()));
            server.restart();
        }
        let last = confirmed.load(Ordering::SeqCst);
        until("they go on", || (last < confirmed.load(Ordering::SeqCst)).then_some(()));
        stop.store(true, Ordering::SeqCst);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let store = open(&server, &name).unwrap();
    for number in told.into_iter().flatten() {
        let expect = answered(&claimed(number), number + 1, "order");
        assert_eq!(block_on(store.get(id(number))).unwrap(), Some(expect), "pair {number}");
    }
}

#[test]
fn a_server_that_is_away_has_not_taken_it_and_says_so() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let store = open(&server, &name).unwrap();
    server.kill();
    // The first call may have been on its way.
    let _ = block_on(store.swap(id(1), None, Some(claimed(1))));
    let error = block_on(store.swap(id(2), None, Some(claimed(2)))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied, "{error}");
    assert!(block_on(store.get(id(2))).is_err());
    server.restart();
    let swap = until("it is back", || block_on(store.swap(id(2), None, Some(claimed(2)))).ok());
    assert_eq!(swap, Swap::Done);
}

#[test]
fn a_store_that_was_made_anew_behind_the_same_address_is_not_used() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let store = open(&server, &name).unwrap();
    assert_eq!(block_on(store.swap(id(1), None, Some(claimed(1)))).unwrap(), Swap::Done);
    server.sql("mysql", &format!("DROP DATABASE {name}; CREATE DATABASE {name}"));
    init(&server, &name).unwrap();
    // Connections that were looked through before are closed, as a server does that starts again.
    end_connections(&server);
    let error = until("it is noticed", || {
        let error = block_on(store.swap(id(2), None, Some(claimed(2)))).unwrap_err();
        error.to_string().contains("another store").then_some(error)
    });
    assert_eq!(error.kind(), StoreErrorKind::NotApplied);
    assert_eq!(server.sql(&name, "SELECT count(*) FROM onlyonce_records"), "0");
}

#[test]
fn two_processes_that_want_the_same_keys_in_any_order_do_not_hold_each_other_up() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let stores = [open(&server, &name).unwrap(), open(&server, &name).unwrap()];
    let winners = AtomicU64::new(0);
    thread::scope(|scope| {
        for caller in 0..16_u64 {
            let (store, winners) = (&stores[caller as usize % 2], &winners);
            scope.spawn(move || {
                for step in 0..40 {
                    // Half of them come from the other end.
                    let number = if caller % 4 < 2 { step } else { 39 - step };
                    let mine = claimed(1_000 * (caller + 1) + number);
                    match block_on(store.swap(id(number), None, Some(mine))).unwrap() {
                        Swap::Done => winners.fetch_add(1, Ordering::SeqCst),
                        Swap::Conflict(found) => {
                            let found = found.unwrap();
                            if found.state.kind() == StateKind::InFlight {
                                let next = answered(&found, 100_000 + caller, "order");
                                let swap = store.swap(id(number), Some(found.revision), Some(next));
                                // Whether it wins or not, it must not fail.
                                block_on(swap).unwrap();
                            }
                            0
                        }
                    };
                }
            });
        }
    });
    assert_eq!(winners.load(Ordering::SeqCst), 40);
    let deadlocks = server.sql(&name, "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'");
    assert_eq!(deadlocks, "Innodb_deadlocks\t0");
}
