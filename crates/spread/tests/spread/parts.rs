//! What needs one member alone: a key's floor, the map, and notices.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use crate::bench::{map, steady};
use crate::cut::{Ends, NEVER};
use crate::door::{hand, moved, open, stores};
use onlyonce_conformance::{answered, block_on, claimed, id};
use onlyonce_core::{Floor, KeyId, Secret, Timestamp};
use onlyonce_spread::{Given, MAP_AGE_MAX, Spread};
use onlyonce_store::{Notice, Store as _, Swap, notices};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// The first key that lives here under this map.
fn key_of(member: u32, text: &str) -> KeyId {
    (0..).map(id).find(|key| map(text).home(*key) == member).unwrap()
}

#[test]
fn a_member_that_is_away_holds_up_no_key_of_the_others_while_nothing_moves() {
    let set = stores(&map("1 1,2 -"), &[1, 2]);
    let left: [Arc<AtomicUsize>; 2] = [NEVER, NEVER].map(|left| Arc::new(AtomicUsize::new(left)));
    let given = set.iter().zip(&left).map(|(inner, left)| Given {
        name: "db".to_owned(),
        store: Arc::new(Ends { inner: inner.clone(), left: left.clone(), is_written: false }),
        secret: Secret::from_bytes([7; 32]),
    });
    let (seconds, clock) = hand();
    let spread = block_on(Spread::open(given.collect(), clock)).unwrap();
    let floor = Floor::at(NOW);
    block_on(spread.raise_floor(floor)).unwrap();
    let own = Floor::at(NOW.plus_millis(5));
    block_on(set[1].raise_floor(own)).unwrap();
    for (away, there) in [(1, 2), (2, 1)] {
        let keys = [away, there].map(|member| key_of(member, "1 1,2 -"));
        let parts = keys.map(|key| spread.part(key).unwrap());
        left[away as usize - 1].store(0, Ordering::Relaxed);
        seconds.fetch_add(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
        let read = block_on(spread.floor_in(parts[1])).unwrap();
        assert_eq!(read, if there == 2 { own } else { floor });
        let claim = spread.swap(keys[1], None, Some(claimed(1)));
        assert_eq!(block_on(claim).unwrap(), Swap::Done);
        block_on(spread.floor_in(parts[0])).unwrap_err();
        block_on(spread.swap(keys[0], None, Some(claimed(1)))).unwrap_err();
        block_on(spread.raise_floor(own)).unwrap_err();
        left[away as usize - 1].store(NEVER, Ordering::Relaxed);
    }
    let part = spread.part(key_of(1, "1 1,2 -")).unwrap();
    block_on(open(&set, steady(0)).begin(1, &[1], NOW)).unwrap();
    block_on(set[1].raise_floor(Floor::at(NOW.plus_millis(9)))).unwrap();
    seconds.fetch_add(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
    // It was forgotten by its old home, if at all.
    assert_eq!(block_on(spread.floor_in(part)).unwrap(), Floor::at(NOW.plus_millis(9)));
    assert_eq!(spread.part(key_of(2, "1 1,2 -")), None);
    left[1].store(0, Ordering::Relaxed);
    block_on(spread.floor_in(part)).unwrap_err();
    // A key that stays was forgotten nowhere else.
    let stays = spread.part(key_of(1, "1 1,2 -")).unwrap();
    assert_eq!(block_on(spread.floor_in(stays)).unwrap(), own);
}

/// A node that has slept past a move asks about a key that lived in the member that left.
#[test]
fn a_key_that_has_moved_since_its_part_was_asked_for_is_below_the_floor_of_its_new_home() {
    let set = stores(&map("1 1,2 -"), &[1, 2]);
    let (seconds, clock) = hand();
    let node = open(&set, clock);
    let part = node.part(key_of(2, "1 1,2 -")).unwrap();
    moved(&open(&set, steady(0)), &[1]);
    let floor = Floor::at(NOW);
    block_on(open(&set[..1], steady(0)).raise_floor(floor)).unwrap();
    seconds.store(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
    assert_eq!(block_on(node.floor_in(part)).unwrap(), floor);
    assert_eq!(block_on(set[1].floor()).unwrap(), Floor::NONE);
}

/// What is there without waiting.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn who_waits_is_told_by_the_home_of_the_key_and_follows_it_when_it_moves() {
    let set = stores(&map("1 1 -"), &[1, 2]);
    let key = key_of(2, "2 1,2 1");
    let (seconds, clock) = hand();
    let (here, elsewhere) = (open(&set, clock), open(&set, steady(0)));
    let (waits, teller) = notices();
    here.notices(teller);
    assert!(waits.flow());
    assert_eq!(now(waits.next()), Some(Some(Notice::Flow)));
    waits.want(key);
    let told = || now(waits.next()) == Some(Some(Notice::Changed(key)));
    // Where it does not live nobody listens.
    block_on(set[1].swap(key, None, None)).unwrap();
    assert!(!told());
    block_on(elsewhere.swap(key, None, Some(claimed(1)))).unwrap();
    assert!(!told(), "it has not ended");

    block_on(elsewhere.begin(1, &[1, 2], NOW)).unwrap();
    seconds.store(4, Ordering::Relaxed);
    block_on(here.get(key)).unwrap();
    assert!(told(), "it may have ended at its new home already");
    let done = answered(&claimed(1), 5, "done");
    block_on(elsewhere.swap(key, Some(claimed(1).revision), Some(done.clone()))).unwrap();
    assert!(told());
    assert!(set.iter().all(|store| block_on(store.get(key)).unwrap().is_some()));
    while told() {}
    block_on(set[1].swap(key, Some(done.revision), None)).unwrap();
    assert!(told(), "while it moves both are listened to");

    let pass = block_on(elsewhere.pass(2, &|_| ())).unwrap();
    block_on(elsewhere.settle(&pass, NOW)).unwrap();
    seconds.store(8, Ordering::Relaxed);
    block_on(here.get(key)).unwrap();
    while told() {}
    let forward = block_on(set[0].get(key)).unwrap().unwrap();
    block_on(set[0].swap(key, Some(forward.revision), None)).unwrap();
    assert!(!told(), "it left");
    block_on(set[1].swap(key, None, None)).unwrap();
    assert!(told());
}
