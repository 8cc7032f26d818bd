//! Who is let in as a set, how a map changes, and what a node does whose map is old.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bench::{map, seated, steady};
use onlyonce_conformance::{answered, block_on, claimed, id};
use onlyonce_core::{Fence, Floor, KeyId, Secret, Timestamp};
use onlyonce_spread::{Given, MAP_AGE_MAX, Map, Number, Seat, Spread, Steady};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{MemoryStore, OpenErrorKind, Store as _, StoreErrorKind, Swap};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// Stores with seats of a set under this map.
pub(crate) fn stores(map: &Map, numbers: &[Number]) -> Vec<Arc<MemoryStore>> {
    let make = |own: &Number| {
        let store = Arc::new(MemoryStore::new());
        block_on(store.swap(MARK, None, Some(seated(*own, map)))).unwrap();
        store
    };
    numbers.iter().map(make).collect()
}

fn given(store: &Arc<MemoryStore>, secret: u8) -> Given {
    let store = Arc::clone(store) as Arc<_>;
    Given { name: "db".to_owned(), store, secret: Secret::from_bytes([secret; 32]) }
}

pub(crate) fn open(stores: &[Arc<MemoryStore>], steady: Steady) -> Spread {
    let given = stores.iter().map(|store| given(store, 7)).collect();
    block_on(Spread::open(given, steady)).unwrap()
}

fn refusal(given: Vec<Given>) -> (OpenErrorKind, String) {
    let error = block_on(Spread::open(given, steady(0))).err().unwrap();
    (error.kind(), error.text().to_owned())
}

pub(crate) fn put(spread: &Spread, key: KeyId) {
    assert_eq!(block_on(spread.swap(key, None, Some(claimed(1)))).unwrap(), Swap::Done);
}

#[test]
fn only_all_members_of_one_set_are_opened() {
    let one = map("1 1,2 -");
    let set = stores(&one, &[1, 2]);
    let other = {
        let store = Arc::new(MemoryStore::new());
        let taken = Seat::take(&*store, 2, &one, Fence::new(8), NOW);
        block_on(taken).unwrap().unwrap();
        store
    };
    let plain = Arc::new(MemoryStore::new());
    let (missing, refused) = (OpenErrorKind::Missing, OpenErrorKind::Refused);
    let cases = [
        (vec![], missing, "no store is named"),
        (vec![given(&set[0], 7)], missing, "member 2 of the set is not named"),
        (vec![given(&set[0], 7), given(&plain, 7)], missing, "it belongs to no set"),
        (vec![given(&set[0], 7), given(&other, 7)], refused, "not of the same set"),
        (vec![given(&set[0], 7), given(&set[1], 8)], refused, "not of the same set"),
        (vec![given(&set[0], 7), given(&set[0], 7)], refused, "it is member 1, and so is"),
        ((0..17).map(|_| given(&set[0], 7)).collect(), refused, "at most 16 members"),
    ];
    for (given, kind, text) in cases {
        let (found, said) = refusal(given);
        assert_eq!(found, kind, "{said}");
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn keys_are_found_in_whatever_order_members_are_named() {
    let set = stores(&map("1 1,2,3 -"), &[1, 2, 3]);
    let spread = open(&set, steady(0));
    (0..40).for_each(|key| put(&spread, id(key)));
    let turned: Vec<_> = set.iter().rev().cloned().collect();
    let again = open(&turned, steady(0));
    for key in 0..40 {
        assert_eq!(block_on(again.get(id(key))).unwrap(), Some(claimed(1)));
    }
    let revisions = set.iter().map(|store| block_on(store.revision_max()).unwrap());
    assert!(revisions.into_iter().all(|it| it == claimed(1).revision.get()), "each has a share");
}

#[test]
fn the_floor_is_the_highest_of_any_and_is_raised_in_all() {
    let set = stores(&map("1 1,2 -"), &[1, 2]);
    let spread = open(&set, steady(0));
    let at = |millis| Floor::at(Timestamp::from_millis(millis));
    block_on(set[1].raise_floor(at(9))).unwrap();
    assert_eq!(block_on(spread.floor()).unwrap(), at(9));
    block_on(spread.raise_floor(at(20))).unwrap();
    for store in &set {
        assert_eq!(block_on(store.floor()).unwrap(), at(20));
    }
}

/// Moves all keys of a set, or goes on with a move, and says how many.
pub(crate) fn moved(spread: &Spread, members: &[Number]) -> u64 {
    block_on(async {
        let map = spread.begin(spread.map().version(), members, NOW).await.unwrap();
        let first = spread.pass(map.version(), &|_| ()).await.unwrap();
        let left = spread.settle(&first, NOW).await;
        assert_eq!(left.is_err(), 0 < first.moved, "a move ends with a pass that finds nothing");
        let last = spread.pass(map.version(), &|_| ()).await.unwrap();
        spread.settle(&last, NOW).await.unwrap();
        spread.clean(&|_| ()).await.unwrap();
        first.moved
    })
}

#[test]
fn a_member_that_joins_inherits_the_floor_and_one_that_leaves_is_empty() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let spread = open(&set, steady(0));
    let floor = Floor::at(NOW);
    block_on(spread.raise_floor(floor)).unwrap();
    (0..60).for_each(|key| put(&spread, id(key)));
    assert_eq!(block_on(set[2].floor()).unwrap(), Floor::NONE);
    block_on(spread.begin(1, &[1, 2, 3], NOW)).unwrap();
    assert_eq!(block_on(set[2].floor()).unwrap(), floor, "before any key is asked for there");
    let share = moved(&spread, &[1, 2, 3]);
    assert!((10..30).contains(&share), "{share}");
    assert_eq!(spread.map(), map("3 1,2,3 -"));
    let largest = block_on(spread.revision_max()).unwrap();
    // There and back: what the first move left behind is in nobody's way.
    for members in [&[2, 3][..], &[1, 2, 3], &[2, 3]] {
        moved(&spread, members);
        for key in 0..60 {
            assert_eq!(block_on(spread.get(id(key))).unwrap(), Some(claimed(1)), "{members:?}");
        }
    }
    let left = block_on(set[0].list(Default::default(), None)).unwrap();
    assert_eq!(left.records.len(), 1, "its seat alone");
    assert!(largest <= block_on(set[2].revision_max()).unwrap());
    let stayed = open(&set[1..], steady(0));
    assert_eq!(block_on(stayed.get(id(1))).unwrap(), Some(claimed(1)));
}

#[test]
fn one_move_at_a_time_and_only_to_members_that_are_named_and_empty() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let spread = open(&set, steady(0));
    let refused = |members: &[Number], text: &str| {
        let error = block_on(spread.begin(1, members, NOW)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    };
    refused(&[1, 2], "these are its members");
    refused(&[1, 2, 4], "member 4 is not named here");
    block_on(set[2].swap(id(1), None, Some(claimed(1)))).unwrap();
    refused(&[1, 2, 3], "member 3 has records");
    block_on(set[2].swap(id(1), Some(claimed(1).revision), None)).unwrap();
    block_on(spread.begin(1, &[1, 2, 3], NOW)).unwrap();
    refused(&[1, 3], "keys move to other members");
    // Whoever goes on with a move does the same again.
    assert_eq!(block_on(spread.begin(1, &[3, 2, 1], NOW)).unwrap(), map("2 1,2,3 1,2"));
    let error = block_on(spread.clean(&|_| ())).unwrap_err();
    assert!(error.to_string().contains("keys move"), "{error}");
}

#[test]
fn of_two_that_change_the_map_one_is_refused_and_has_changed_nothing() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3, 4]);
    let (one, other) = (open(&set[..3], steady(0)), open(&set, steady(0)));
    block_on(one.begin(1, &[1, 2, 3], NOW)).unwrap();
    let error = block_on(other.begin(1, &[1, 2, 4], NOW)).unwrap_err();
    assert!(error.to_string().contains("other members"), "{error}");
    assert_eq!(block_on(Seat::read(&*set[3])).unwrap().unwrap().map, map("1 1,2 -"));
}

/// A clock that the test moves on.
pub(crate) fn hand() -> (Arc<AtomicU64>, Steady) {
    let seconds = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&seconds);
    (seconds, Arc::new(move || Duration::from_secs(read.load(Ordering::Relaxed))))
}

#[test]
fn a_node_follows_a_new_map() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let (seconds, clock) = hand();
    let follows = open(&set, clock);
    block_on(open(&set, steady(0)).begin(1, &[1, 2, 3], NOW)).unwrap();
    assert_eq!(follows.map(), map("1 1,2 -"));
    seconds.store(4, Ordering::Relaxed);
    put(&follows, id(1));
    assert_eq!(follows.map(), map("2 1,2,3 1,2"));
}

/// Its last reading is good for a while, and then counts for nothing.
#[test]
fn by_a_map_that_cannot_be_read_again_nothing_is_done() {
    let set = stores(&map("1 1 -"), &[1]);
    let (seconds, clock) = hand();
    let node = open(&set, clock);
    let seat = block_on(Seat::read(&*set[0])).unwrap().unwrap();
    assert_eq!(block_on(set[0].swap(MARK, Some(seat.revision), None)).unwrap(), Swap::Done);
    seconds.store(MAP_AGE_MAX.as_secs(), Ordering::Relaxed);
    put(&node, id(1));
    seconds.store(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
    let error = block_on(node.swap(id(2), None, Some(claimed(1)))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotApplied, "{error}");
    assert_eq!(block_on(set[0].get(id(2))).unwrap(), None);
}

#[test]
fn a_claim_that_was_made_while_its_process_stood_still_past_a_move_is_not_told_as_granted() {
    let set = stores(&map("1 1 -"), &[1, 2]);
    let key = (0..).map(id).find(|it| map("2 1,2 1").old_home(*it).is_some()).unwrap();
    // The clock is read before the call and after it: in between a whole move takes place.
    let turns = Arc::new(AtomicU64::new(0));
    let stopped = Arc::clone(&turns);
    let clock: Steady = Arc::new(move || {
        let is_after = 2 < stopped.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(if is_after { 100 } else { 0 })
    });
    let node = open(&set, clock);
    turns.store(2, Ordering::Relaxed);
    let mut call = Box::pin(node.swap(key, None, Some(claimed(1))));
    moved(&open(&set, steady(0)), &[1, 2]);
    let error = block_on(&mut call).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    assert_eq!(block_on(open(&set, steady(0)).get(key)).unwrap(), None, "nobody was let in");
}

#[test]
fn a_copy_of_a_mover_that_died_does_not_hide_what_came_after_it() {
    let set = stores(&map("2 1,2 1"), &[1, 2]);
    let key = (0..).map(id).find(|it| map("2 1,2 1").old_home(*it).is_some()).unwrap();
    let done = answered(&claimed(1), 5, "done");
    block_on(set[0].swap(key, None, Some(done.clone()))).unwrap();
    block_on(set[1].swap(key, None, Some(claimed(1)))).unwrap();
    let spread = open(&set, steady(0));
    assert_eq!(block_on(spread.get(key)).unwrap(), Some(done.clone()));
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = block_on(spread.list(Default::default(), after)).unwrap();
        listed.extend(page.records);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, [(key, done.clone())]);
    assert_eq!(block_on(spread.pass(2, &|_| ())).unwrap().moved, 1);
    assert_eq!(block_on(spread.get(key)).unwrap(), Some(done));
}

#[test]
fn a_new_key_is_claimed_where_an_earlier_move_has_left_a_forward() {
    let set = stores(&map("1 1 -"), &[1, 2]);
    let key = (0..).map(id).find(|it| map("2 1,2 1").old_home(*it).is_some()).unwrap();
    let spread = open(&set, steady(0));
    block_on(async {
        spread.begin(1, &[1, 2], NOW).await.unwrap();
        // Nothing becomes nothing: that leaves a forward and no record.
        assert_eq!(spread.swap(key, None, None).await.unwrap(), Swap::Done);
        assert!(set[0].get(key).await.unwrap().is_some());
        for members in [&[1, 2][..], &[1]] {
            let map = spread.begin(spread.map().version(), members, NOW).await.unwrap();
            let pass = spread.pass(map.version(), &|_| ()).await.unwrap();
            spread.settle(&pass, NOW).await.unwrap();
        }
    });
    assert_eq!(block_on(spread.get(key)).unwrap(), None);
    put(&spread, key);
    assert_eq!(block_on(spread.get(key)).unwrap(), Some(claimed(1)));
}

#[test]
fn a_map_that_does_not_stand_in_all_members_yet_is_found_by_who_meets_its_forward() {
    let set = stores(&map("1 1,2 -"), &[1, 2]);
    let next = map("2 1 1,2");
    let key = (0..).map(id).find(|it| next.old_home(*it) == Some(2)).unwrap();
    let node = open(&set, steady(0));
    let before = block_on(Seat::read(&*set[1])).unwrap().unwrap().revision;
    block_on(set[1].swap(MARK, Some(before), None)).unwrap();
    block_on(set[1].swap(MARK, None, Some(seated(2, &next)))).unwrap();
    let other = open(&set, steady(0));
    assert_eq!(other.map(), next);
    put(&other, key);
    assert_eq!(block_on(node.get(key)).unwrap(), Some(claimed(1)));
    assert_eq!(node.map(), next);
}

#[test]
fn a_set_has_a_mark_of_its_own_which_moves_as_a_key_does_and_its_members_keep_their_seats() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let spread = open(&set, steady(0));
    assert_eq!(block_on(spread.get(MARK)).unwrap(), None);
    put(&spread, MARK);
    for members in [&[1][..], &[2], &[3]] {
        moved(&spread, members);
        assert_eq!(block_on(spread.get(MARK)).unwrap(), Some(claimed(1)), "{members:?}");
        let listed = block_on(spread.list(Default::default(), None)).unwrap();
        assert!(listed.records.is_empty(), "it is no key");
    }
    for (own, store) in (1..).zip(&set) {
        assert_eq!(block_on(Seat::read(&**store)).unwrap().unwrap().own, own);
    }
}
