//! What a failover loses, and what is done about it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use onlyonce_conformance::{claimed, id};
use onlyonce_core::{Floor, Record, Timestamp};
use onlyonce_store::{Store as _, StoreErrorKind, Swap};
use onlyonce_testbed::{Redis, Sentinel, until};

use common::{RUNTIME, claim, get, init, open, try_claim};

/// A claim of a key that carries no time.
fn untimed(number: u64) -> Record {
    Record { key_time: None, ..claimed(number) }
}

struct Pair {
    master: Redis,
    replica: Redis,
    sentinel: Sentinel,
}

impl Pair {
    fn start() -> Self {
        let master = Redis::start();
        let replica = Redis::replica_of(&master);
        let sentinel = Sentinel::watching(&master);
        sentinel.await_replica();
        Self { master, replica, sentinel }
    }

    fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main?accept=failover", self.sentinel.port())
    }

    /// The master dies and the replica takes its place.
    fn fail_over(&mut self) {
        let port = self.master.port();
        self.replica.server().thaw();
        self.master.kill();
        self.sentinel.await_other_master(port);
        until("it is the master", || {
            self.replica.info("replication").contains("role:master").then_some(())
        });
    }
}

/// Case B79: a limit of Redis, which is shown and not hidden. A replica that had not got a claim
/// is promoted, and the claim is gone: a key without a time can be claimed once more. A key with a
/// time cannot: the floor has passed it.
#[test]
fn a_failover_loses_claims_that_were_not_copied_and_the_floor_covers_keys_with_a_time() {
    let mut pair = Pair::start();
    init(&pair.url(), Floor::NONE);
    let store = open(&pair.url());
    assert!(
        store.warnings().iter().any(|it| it.risk == Some("failover")),
        "{:?}",
        store.warnings()
    );
    claim(&store, 1);
    assert_eq!(RUNTIME.block_on(store.floor()).unwrap(), Floor::NONE);
    until("it is copied", || pair.replica.info("keyspace").contains("keys=").then_some(()));
    // From here on the replica gets nothing.
    pair.replica.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let swap = |record: Record, number| {
        RUNTIME.block_on(store.swap(id(number), None, Some(record))).map(|swap| swap == Swap::Done)
    };
    assert_eq!(swap(claimed(2), 2), Ok(true));
    assert_eq!(swap(untimed(3), 3), Ok(true));
    let port = pair.master.port();
    pair.master.kill();
    pair.replica.ask(&["REPLICAOF", "NO", "ONE"]);
    pair.sentinel.await_other_master(port);
    until("it goes on", || RUNTIME.block_on(store.get(id(2))).ok());

    assert_eq!((get(&store, 2), get(&store, 3)), (None, None), "both were confirmed");
    assert_eq!(swap(untimed(3), 3), Ok(true), "the limit: it would run twice");
    let error = try_claim(&store, 2).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied, "{error}");
    // Whoever reads the floor refuses it from now on.
    let floor = RUNTIME.block_on(store.floor()).unwrap();
    assert!(floor.is_above(claimed(2).key_time), "{floor:?}");
}

/// Case B79: with `replicas=1` what was confirmed is on the replica that is promoted.
#[test]
fn with_replicas_a_failover_keeps_what_was_confirmed() {
    let mut pair = Pair::start();
    let url = format!("{}&replicas=1", pair.url());
    init(&url, Floor::NONE);
    let store = open(&url);
    let records: Vec<Record> = (0..50).map(|number| claim(&store, number)).collect();
    // A replica that gets nothing: the claim is not confirmed.
    pair.replica.server().freeze();
    let error = try_claim(&store, 100).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    pair.fail_over();
    // Without a replica nothing is confirmed by the new master either, nor is it let in.
    let plain = format!("redis://{}", pair.replica.address());
    let store = open(&plain);
    for (number, record) in (0..).zip(records) {
        assert_eq!(get(&store, number), Some(record));
    }
    let floor = RUNTIME.block_on(store.floor()).unwrap();
    assert!(Floor::at(Timestamp::from_millis(1_764_000_000_000)) < floor, "a failover is noticed");
}

#[test]
fn a_restart_is_no_failover() {
    let mut redis = Redis::start();
    let url = format!("redis://{}", redis.address());
    init(&url, Floor::NONE);
    let store = open(&url);
    claim(&store, 1);
    redis.restart();
    until("it goes on", || RUNTIME.block_on(store.get(id(1))).ok());
    assert_eq!(RUNTIME.block_on(store.floor()).unwrap(), Floor::NONE);
    drop(store);
    assert_eq!(RUNTIME.block_on(open(&url).floor()).unwrap(), Floor::NONE);
    claim(&open(&url), 2);
}
