//! Several who move keys at once, and nodes that have slept past what they did: no move is ended
//! that nobody has passed over, none follows a map that nobody has waited for, and nobody goes by
//! the word of a member that has left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crate::bench::{map, seated, steady};
use crate::door::{hand, moved, open, put, stores};
use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_core::{KeyId, Timestamp};
use onlyonce_spread::{MAP_AGE_MAX, Pass, Seat};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{MemoryStore, Store as _, StoreError, Swap};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

/// The first key that moves from one member to another under this map.
fn key_of(text: &str, (from, to): (u32, u32)) -> KeyId {
    let map = map(text);
    (0..).map(id).find(|key| map.old_home(*key) == Some(from) && map.home(*key) == to).unwrap()
}

/// That it was refused, and that this map stands in all of them as before.
fn refused<T>(done: Result<T, StoreError>, text: &str, set: &[Arc<MemoryStore>], stands: &str) {
    let Err(error) = done else { panic!("it was not refused") };
    assert!(error.to_string().contains(text), "{error}");
    for store in set {
        assert_eq!(block_on(Seat::read(&**store)).unwrap().unwrap().map, map(stands));
    }
}

#[test]
fn a_move_that_somebody_else_has_begun_is_not_ended_by_who_has_passed_over_nothing_of_it() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let moving = "2 1,2,3 1,2";
    let key = key_of(moving, (1, 3));
    let (one, other) = (open(&set, steady(0)), open(&set, steady(0)));
    put(&one, key);
    block_on(one.begin(1, &[1, 2, 3], NOW)).unwrap();
    refused(block_on(other.republish(NOW)), "begun to move keys", &set, moving);
    for version in [0, 1, 3] {
        let last = Pass { version, ..Pass::default() };
        refused(block_on(other.settle(&last, NOW)), "changed the map", &set, moving);
    }
    assert_eq!(block_on(open(&set, steady(0)).get(key)).unwrap(), Some(claimed(1)));
    assert_eq!(moved(&one, &[1, 2, 3]), 1);
    assert_eq!(block_on(other.get(key)).unwrap(), Some(claimed(1)));
}

#[test]
fn who_has_passed_over_one_move_ends_no_later_one_and_may_say_again_that_it_has_ended() {
    let set = stores(&map("1 1,2 -"), &[1, 2]);
    let one = open(&set, steady(0));
    block_on(one.begin(1, &[1], NOW)).unwrap();
    let last = block_on(one.pass(2, &|_| ())).unwrap();
    moved(&open(&set, steady(0)), &[1]);
    // Somebody else has ended it: so it has, and nothing is left to carry.
    assert_eq!(block_on(one.settle(&last, NOW)).unwrap(), map("3 1 -"));
    assert_eq!(block_on(one.pass(2, &|_| ())).unwrap(), last);
    let other = open(&set, steady(0));
    block_on(other.begin(3, &[1, 2], NOW)).unwrap();
    refused(block_on(one.settle(&last, NOW)), "changed the map", &set, "4 1,2 1");
    refused(block_on(one.pass(2, &|_| ())), "changed the map", &set, "4 1,2 1");
    moved(&other, &[1, 2]);
    refused(block_on(one.settle(&last, NOW)), "changed the map", &set, "5 1,2 -");
    refused(block_on(one.pass(2, &|_| ())), "changed the map", &set, "5 1,2 -");
}

#[test]
fn a_move_follows_no_map_that_nobody_has_waited_for() {
    let set = stores(&map("1 1,2 -"), &[1, 2]);
    let one = open(&set, steady(0));
    block_on(one.begin(1, &[1], NOW)).unwrap();
    // It has seen the move, and nothing to wait for before one of its own.
    let other = open(&set, steady(0));
    moved(&one, &[1]);
    let begun = block_on(other.begin(2, &[1, 2], NOW));
    refused(begun, "changed the map", &set, "3 1 -");
}

/// A pass that lasts longer than its move, and than the one after it, which goes the other way.
#[test]
fn a_pass_carries_nothing_once_its_move_has_ended() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let key = key_of("2 3 1,2", (2, 3));
    let (seconds, clock) = hand();
    let slow = open(&set, clock);
    put(&slow, key);
    block_on(slow.begin(1, &[3], NOW)).unwrap();
    let meanwhile = || {
        let other = open(&set, steady(0));
        if other.map() == map("2 3 1,2") {
            moved(&other, &[3]);
            moved(&other, &[1, 2]);
            seconds.store(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
        }
    };
    // After the first member.
    let passed = block_on(slow.pass(2, &|_| on_the_side(&meanwhile)));
    refused(passed, "changed the map", &set, "5 1,2 -");
    assert_eq!(block_on(open(&set, steady(0)).get(key)).unwrap(), Some(claimed(1)));
}

#[test]
fn what_a_later_move_leaves_behind_is_not_cleaned_away_with_what_an_earlier_one_did() {
    let set = stores(&map("3 1,2 -"), &[1, 2]);
    let key = key_of("4 1 1,2", (2, 1));
    let (slow, follows) = (open(&set, steady(0)), open(&set, steady(0)));
    let meanwhile = || {
        let other = open(&set, steady(0));
        if !other.map().is_moving() {
            block_on(other.begin(3, &[1], NOW)).unwrap();
            put(&other, key);
        }
    };
    let cleaned = block_on(slow.clean(&|_| on_the_side(&meanwhile)));
    refused(cleaned, "changed the map", &set, "4 1 1,2");
    let claim = block_on(follows.swap(key, None, Some(claimed(1)))).unwrap();
    assert_eq!(claim, Swap::Conflict(Some(claimed(1))), "it ran already");
}

/// What somebody else does while a step goes on.
fn on_the_side(work: &(dyn Fn() + Sync)) {
    thread::scope(|scope| scope.spawn(work).join().unwrap());
}

/// The member that left has heard of its leaving, or no more than that it is to leave; it answers
/// first, and knows nothing of the move after that.
#[test]
fn a_member_that_has_left_is_not_believed_about_the_map() {
    for heard in ["2 2 1,2", "3 2 -"] {
        let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
        let (seconds, clock) = hand();
        let sleeps = open(&set, clock);
        let mover = open(&set, steady(0));
        moved(&mover, &[2]);
        reseat(&set[0], 1, heard);
        let rest = open(&set[1..], steady(0));
        moved(&rest, &[2, 3]);
        let key = key_of("4 2,3 2", (2, 3));
        put(&rest, key);
        seconds.store(MAP_AGE_MAX.as_secs() + 1, Ordering::Relaxed);
        assert_eq!(block_on(sleeps.get(key)).unwrap(), Some(claimed(1)), "{heard}");
        assert_eq!(sleeps.map(), map("5 2,3 -"));
    }
}

/// Gives a member this seat in the place of its own.
fn reseat(store: &MemoryStore, own: u32, text: &str) {
    let before = block_on(store.get(MARK)).unwrap().unwrap().revision;
    block_on(store.swap(MARK, Some(before), None)).unwrap();
    block_on(store.swap(MARK, None, Some(seated(own, &map(text))))).unwrap();
}
