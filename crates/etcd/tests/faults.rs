//! Members that die, stand still or are cut off: what was confirmed is there, and what an error
//! says is true.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use onlyonce_conformance::{answered, claimed, id};
use onlyonce_etcd::Etcd;
use onlyonce_store::{Store as _, StoreErrorKind, Swap};
use onlyonce_testbed::{EtcdCluster, Relay, Way, until};

use common::{RUNTIME, claim, get, init, numbers, open, single, try_claim, url};

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

/// Claims keys from several threads while `disturb` runs, which sees how many were confirmed.
fn load(store: &Etcd, disturb: impl FnOnce(&AtomicU64)) -> History {
    let (stop, count) = (&AtomicBool::new(false), &AtomicU64::new(0));
    let histories = thread::scope(|scope| {
        let caller = |caller: u64| {
            let mut history = History::default();
            for number in caller * 1_000_000.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                match try_claim(store, number) {
                    Ok(_) => {
                        history.done.push(number);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if error.may_have_happened() => history.unknown.push(number),
                    Err(_) => history.not_applied.push(number),
                }
            }
            history
        };
        let callers: Vec<_> = (0..4).map(|it| scope.spawn(move || caller(it))).collect();
        let stopping = Stopping(stop);
        disturb(count);
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

fn await_more(count: &AtomicU64) {
    let before = count.load(Ordering::Relaxed);
    until("more are claimed", || (before + 50 < count.load(Ordering::Relaxed)).then_some(()));
}

fn is_kept(store: &Etcd, history: &History) {
    for number in &history.done {
        assert_eq!(get(store, *number), Some(claimed(*number)), "a confirmed claim is lost");
    }
    for number in &history.not_applied {
        assert_eq!(get(store, *number), None, "it was said not to have taken place");
    }
    for number in &history.unknown {
        let found = get(store, *number);
        assert!(found.is_none() || found == Some(claimed(*number)), "by half: {found:?}");
    }
}

/// Case B79: the leader is killed under load, twice.
#[test]
fn every_claim_that_was_confirmed_survives_a_kill_of_the_leader() {
    let mut cluster = EtcdCluster::start();
    let url = url(cluster.members());
    init(&url);
    let store = open(&url);
    let history = load(&store, |count| {
        for _ in 0..2 {
            await_more(count);
            let leader = cluster.await_leader();
            cluster.members()[leader].kill();
            await_more(count);
            cluster.members()[leader].restart();
        }
        await_more(count);
    });
    assert!(250 < history.done.len(), "{}", history.done.len());
    is_kept(&store, &history);
}

/// Case B91: the leader is cut off from the others, and clients reach all of them: it confirms
/// nothing any more, and tells nothing old.
#[test]
fn a_member_that_is_cut_off_neither_confirms_nor_tells_what_is_old() {
    let mut cluster = EtcdCluster::start();
    let all = url(cluster.members());
    init(&all);
    let store = open(&all);
    let number = 9_000_001;
    let one = claim(&store, number);
    let history = load(&store, |count| {
        await_more(count);
        let leader = cluster.await_leader();
        cluster.isolate(leader);
        await_more(count);
        // By the others a record is replaced; the one that is cut off still has the old one.
        let two = answered(&one, number + 1, "order");
        let swap =
            || RUNTIME.block_on(store.swap(id(number), Some(one.revision), Some(two.clone())));
        let done = until("it is replaced", || swap().ok());
        assert!(matches!(done, Swap::Done | Swap::Conflict(Some(_))), "{done:?}");
        let alone = cluster.members()[leader].address();
        // What was on its way to the others when they were cut off may still have got there.
        until("it knows no majority", || common::try_open(&format!("etcd://{alone}")).err());
        assert_eq!(common::get(&store, number), Some(two));
        cluster.mend();
        await_more(count);
    });
    is_kept(&store, &history);
}

/// A member that stands still gets what was sent meanwhile when it goes on, however long the
/// caller has been gone: it must not take place then.
#[test]
fn a_claim_that_was_given_up_does_not_take_place_later() {
    let mut cluster = EtcdCluster::start();
    let leader = cluster.await_leader();
    let first = (leader + 1) % 3;
    let members = cluster.members();
    let order = [first, leader, (leader + 2) % 3].map(|at| members[at].address().to_string());
    let url = format!("etcd://{}", order.join(","));
    init(&url);
    let store = open(&url);
    claim(&store, 1);
    members[first].server().freeze();
    let error = try_claim(&store, 65).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    // The next one goes to another member, under a number that was raised before.
    claim(&store, 2);
    members[first].server().thaw();
    let frozen = format!("etcd://{}", members[first].address());
    let through = until("it goes on", || common::try_open(&frozen).ok());
    claim(&through, 3);
    assert_eq!(get(&store, 65), None);
    assert_eq!(try_claim(&store, 65).unwrap(), claimed(65));
}

#[test]
fn an_answer_that_is_lost_is_unknown_and_the_claim_is_there() {
    let etcd = onlyonce_testbed::Etcd::start();
    let relay = Relay::to(etcd.address());
    let url = format!("etcd://{}?accept=single", relay.address());
    init(&url);
    let store = open(&url);
    claim(&store, 1);
    let direct = open(&single(&etcd));
    assert_eq!(numbers(&etcd), [1, 1]);
    relay.lose(Way::ToClient);
    let lost = thread::scope(|scope| {
        let claiming = scope.spawn(|| try_claim(&store, 65));
        until("it has taken place", || get(&direct, 65));
        relay.cut();
        claiming.join().unwrap()
    });
    let error = lost.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    let error = try_claim(&store, 66).unwrap_err();
    assert!(!error.may_have_happened() || get(&direct, 66).is_none(), "{error}");
    relay.mend();
    until("it is reached again", || RUNTIME.block_on(store.get(id(65))).ok());
    until("what was sent before finds another number", || {
        numbers(&etcd).iter().any(|number| 1 < *number).then_some(())
    });
    let again = RUNTIME.block_on(store.swap(id(65), None, Some(claimed(65)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(65))));
}

/// What this process remembers of a record may be old: then it looks again.
#[test]
fn what_another_process_has_changed_is_seen() {
    let etcd = onlyonce_testbed::Etcd::start();
    init(&single(&etcd));
    let (one, other) = (open(&single(&etcd)), open(&single(&etcd)));
    let record = claim(&one, 1);
    let next = answered(&record, 2, "order");
    let swap =
        |store: &Etcd, next| RUNTIME.block_on(store.swap(id(1), Some(record.revision), next));
    assert_eq!(swap(&other, Some(next.clone())), Ok(Swap::Done));
    let late = answered(&record, 3, "another");
    assert_eq!(swap(&one, Some(late)), Ok(Swap::Conflict(Some(next.clone()))));
    let swap = |store: &Etcd| RUNTIME.block_on(store.swap(id(1), Some(next.revision), None));
    assert_eq!(swap(&one), Ok(Swap::Done));
    assert_eq!(swap(&other), Ok(Swap::Conflict(None)));
}

/// Old revisions of keys are forgotten, records are not.
#[test]
fn what_was_replaced_gives_its_room_back() {
    let etcd = onlyonce_testbed::Etcd::start();
    init(&single(&etcd));
    let store = open(&single(&etcd));
    let record = claim(&store, 1);
    for _ in 0..2 {
        RUNTIME.block_on(store.reclaim()).unwrap();
    }
    // Keys as they were when the store was made: "AQ==" is the number one.
    let old = etcd.post("/v3/kv/range", r#"{"key":"b25seW9uY2Uvc3RvcmU=","revision":"2"}"#);
    assert!(old.as_ref().is_some_and(|old| old.contains("compacted")), "{old:?}");
    assert_eq!(get(&store, 1), Some(record));
    let keeping = open(&format!("{}&compact=no", single(&etcd)));
    claim(&keeping, 2);
    for _ in 0..2 {
        RUNTIME.block_on(keeping.reclaim()).unwrap();
    }
}
