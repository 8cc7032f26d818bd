//! A primary that is lost, and the standby that takes its place.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{Postgres as Server, until};

use crate::common::{database, init, open_as};

/// Claims that are confirmed before the primary is killed.
const CLAIMS: usize = 100;

#[test]
fn a_failover_to_a_synchronous_standby_loses_no_claim_that_was_confirmed() {
    let mut primary = Server::start();
    let name = database(&primary);
    init(&primary, &name).unwrap();
    let standby = Server::standby_of(&primary);
    // Not before: the standby would wait for one of its own once it is the primary.
    let wait = "ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()";
    primary.sql("postgres", wait);
    let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    until("the standby is waited for", || (primary.sql("postgres", sync) == "1").then_some(()));
    let hosts = [&primary, &standby].map(|server| server.address().to_string()).join(",");
    let store = open_as(&format!("postgres://postgres@{hosts}/{name}")).unwrap();

    let (next, confirmed) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let swap = store.swap(id(number), None, Some(claimed(number)));
                    let Ok(swapped) = block_on(swap) else { return };
                    assert_eq!(swapped, Swap::Done);
                    confirmed.lock().unwrap().push(number);
                }
            });
        }
        until("claims", || (CLAIMS <= confirmed.lock().unwrap().len()).then_some(()));
        primary.kill();
    });
    standby.sql("postgres", "SELECT pg_promote()");

    // The same store goes on there.
    for number in confirmed.into_inner().unwrap() {
        let found = until("the standby answers", || block_on(store.get(id(number))).ok());
        assert_eq!(found, Some(claimed(number)), "claim {number} was lost");
    }
    let number = next.fetch_add(1, Ordering::Relaxed);
    let claim = || block_on(store.swap(id(number), None, Some(claimed(number)))).ok();
    assert_eq!(until("the standby takes claims", claim), Swap::Done);
}

/// Case B79. The same without waiting: what may be lost is shown here, and refused at the door.
#[test]
fn a_failover_to_a_standby_that_no_commit_waits_for_loses_a_claim_that_was_confirmed() {
    let mut primary = Server::start();
    let name = database(&primary);
    init(&primary, &name).unwrap();
    let mut standby = Server::standby_of(&primary);
    let store = open_as(&format!("{}?accept=asynchronous", primary.url(&name))).unwrap();
    let claim = |number| block_on(store.swap(id(number), None, Some(claimed(number))));
    assert_eq!(claim(1).unwrap(), Swap::Done);
    let has = "SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication";
    until("the standby has it", || (primary.sql("postgres", has) == "t").then_some(()));
    standby.kill();
    assert_eq!(claim(2).unwrap(), Swap::Done);
    primary.kill();
    standby.restart();
    standby.sql("postgres", "SELECT pg_promote()");

    let store = open_as(&standby.url(&name)).unwrap();
    assert_eq!(block_on(store.get(id(1))).unwrap(), Some(claimed(1)));
    let again = block_on(store.swap(id(2), None, Some(claimed(2)))).unwrap();
    assert_eq!(again, Swap::Done, "it was confirmed before, and is granted once more");
}
