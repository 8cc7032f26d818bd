//! A node that was started without a line for a member that has joined since: the keys of the
//! members that it names go on, those of the other one are refused before anything is done with
//! them, and so is whatever needs every member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bench::{map, steady};
use crate::door::{hand, moved, open, put, stores};
use onlyonce_conformance::{answered, block_on, claimed, id};
use onlyonce_core::{Fence, Floor, KeyId, Timestamp};
use onlyonce_spread::{MAP_AGE_MAX, Pass, Seat, Spread};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{Due, MemoryStore, Store as _, StoreError, StoreErrorKind, Swap};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const MOVING: &str = "2 1,2,3 1,2";
const JOINED: &str = "member 3 has joined the set and is not named here: start again with a line";

/// Keys that stay where they are, or go to the third member.
fn keys(moves: bool) -> impl Iterator<Item = KeyId> {
    let map = map(MOVING);
    (0..).map(id).filter(move |key| map.old_home(*key).is_some() == moves)
}

/// That it was refused, with what is to be done, and certainly did not happen.
fn refused<T>(done: Result<T, StoreError>) {
    let Err(error) = done else { panic!("it was not refused") };
    assert_eq!(error.kind(), StoreErrorKind::NotApplied);
    assert!(error.to_string().contains(JOINED), "{error}");
}

/// A node that names the first two, and the clock by which it reads the map.
struct Node {
    set: Vec<Arc<MemoryStore>>,
    seconds: Arc<AtomicU64>,
    spread: Spread,
}

impl Node {
    fn new() -> Self {
        let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
        let (seconds, clock) = hand();
        let spread = open(&set[..2], clock);
        Self { set, seconds, spread }
    }

    /// Another process, which names all of them.
    fn whole(&self) -> Spread {
        open(&self.set, steady(0))
    }

    /// From here on the map that it has read counts for nothing.
    fn later(&self) {
        self.seconds.fetch_add(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
    }

    /// Claims a key and answers it.
    fn runs(&self, key: KeyId) {
        put(&self.spread, key);
        let done = answered(&claimed(1), 5, "done");
        let swap = self.spread.swap(key, Some(claimed(1).revision), Some(done.clone()));
        assert_eq!(block_on(swap).unwrap(), Swap::Done);
        assert_eq!(block_on(self.spread.get(key)).unwrap(), Some(done));
    }

    fn refuses(&self, key: KeyId) {
        let stands = || self.set.iter().map(|it| block_on(it.get(key)).unwrap()).collect();
        let before: Vec<_> = stands();
        refused(block_on(self.spread.get(key)));
        refused(block_on(self.spread.swap(key, None, Some(claimed(1)))));
        refused(block_on(self.spread.swap(key, Some(claimed(1).revision), None)));
        assert_eq!(stands(), before, "it was touched");
    }
}

#[test]
fn a_node_that_does_not_name_a_member_that_joined_goes_on_with_the_keys_of_the_others() {
    let node = Node::new();
    let (mut stay, mut go) = (keys(false), keys(true));
    let (begun, lost) = (stay.next().unwrap(), go.next().unwrap());
    [begun, lost].into_iter().for_each(|key| put(&node.spread, key));
    let whole = node.whole();
    block_on(whole.begin(1, &[1, 2, 3], NOW)).unwrap();
    node.later();
    // What it runs at that moment is recorded, if its key stays.
    let done = answered(&claimed(1), 5, "done");
    let complete = |key| node.spread.swap(key, Some(claimed(1).revision), Some(done.clone()));
    assert_eq!(block_on(complete(begun)).unwrap(), Swap::Done);
    refused(block_on(complete(lost)));
    node.runs(stay.next().unwrap());
    node.refuses(lost);
    node.refuses(go.next().unwrap());
    assert_eq!(node.spread.map(), map(MOVING));
    assert_eq!(moved(&whole, &[1, 2, 3]), 1);
    node.later();
    node.runs(stay.next().unwrap());
    node.refuses(lost);
    node.refuses(go.next().unwrap());
    for key in [begun, lost] {
        let found = if key == begun { done.clone() } else { claimed(1) };
        assert_eq!(block_on(whole.get(key)).unwrap(), Some(found));
    }
}

/// The floor of a key that stays is known without the member that is not named.
#[test]
fn a_key_is_held_to_the_floor_of_its_home_by_who_names_that_alone() {
    let node = Node::new();
    let whole = node.whole();
    let map = block_on(whole.begin(1, &[1, 2, 3], NOW)).unwrap();
    node.later();
    let (stays, goes) = (keys(false).next().unwrap(), keys(true).next().unwrap());
    block_on(node.spread.get(stays)).unwrap();
    let floor = Floor::at(NOW);
    block_on(whole.raise_floor(floor)).unwrap();
    let part = node.spread.part(stays).unwrap();
    assert_eq!(block_on(node.spread.floor_in(part)).unwrap(), floor);
    assert_eq!(node.spread.part(goes), None);
    let last = block_on(whole.pass(map.version(), &|_| ())).unwrap();
    block_on(whole.settle(&last, NOW)).unwrap();
    node.later();
    block_on(node.spread.get(stays)).unwrap();
    let part = node.spread.part(stays).unwrap();
    assert_eq!(block_on(node.spread.floor_in(part)).unwrap(), floor);
    refused(block_on(node.spread.floor_in(node.spread.part(goes).unwrap())));
}

#[test]
fn what_needs_every_member_is_refused_by_who_does_not_name_one() {
    let node = Node::new();
    let (whole, spread) = (node.whole(), &node.spread);
    let moving = block_on(whole.begin(1, &[1, 2, 3], NOW)).unwrap();
    let key = keys(true).next().unwrap();
    let due = Due { over_at: NOW, forget_until: NOW, released_until: NOW };
    for map in [moving.clone(), moving.settled()] {
        node.later();
        refused(block_on(spread.floor()));
        refused(block_on(spread.raise_floor(Floor::at(NOW))));
        refused(block_on(spread.revision_max()));
        refused(block_on(spread.due(due, 9)));
        refused(block_on(spread.reclaim()));
        refused(block_on(spread.list(Default::default(), None)));
        refused(block_on(spread.begin(map.version(), &[1, 2], NOW)));
        refused(block_on(spread.begin(map.version(), &[1, 2, 3], NOW)));
        refused(block_on(spread.pass(moving.version(), &|_| ())));
        refused(block_on(spread.settle(&Pass { version: 2, ..Pass::default() }, NOW)));
        refused(block_on(spread.republish(NOW)));
        refused(block_on(spread.clean(&|_| ())));
        refused(block_on(spread.both(key)));
        let both = [(1, claimed(1)), (3, claimed(1))];
        refused(block_on(spread.choose(key, &both, claimed(1))));
        for store in &node.set {
            assert_eq!(block_on(Seat::read(&**store)).unwrap().unwrap().map, map);
            assert_eq!(block_on(store.floor()).unwrap(), Floor::NONE);
        }
        let last = block_on(whole.pass(moving.version(), &|_| ())).unwrap();
        block_on(whole.settle(&last, NOW)).unwrap();
    }
}

/// One that has left may be emptied and used anew: what it says then is not about this set.
#[test]
fn a_member_that_left_and_has_joined_another_set_is_not_believed() {
    let set = stores(&map("1 2 -"), &[2]);
    let (seconds, clock) = hand();
    let (node, other) = (open(&set, clock), map("4 2,7 -"));
    for (own, of) in [(2, 8), (7, 7)] {
        let seat = block_on(Seat::read(&*set[0])).unwrap().unwrap();
        assert_eq!(block_on(set[0].swap(MARK, Some(seat.revision), None)).unwrap(), Swap::Done);
        block_on(Seat::take(&*set[0], own, &other, Fence::new(of), NOW)).unwrap().unwrap();
        seconds.fetch_add(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
        let error = block_on(node.get(id(1))).unwrap_err();
        assert!(error.to_string().contains("member 2 of the set was emptied"), "{error}");
        assert_eq!(node.map(), map("1 2 -"));
    }
}
