//! A key that has a record at both of its homes, such as one that had moved before a member was put
//! back. Nobody can know which counts, so nothing is done with it until somebody has chosen.

use std::sync::Arc;

use crate::bench::{map, steady};
use crate::cut;
use crate::door::{open, put, stores};
use onlyonce_conformance::{answered, block_on, claimed, id, in_doubt};
use onlyonce_core::{KeyId, Record, Revision, Timestamp};
use onlyonce_spread::{Pass, Spread};
use onlyonce_store::{MemoryStore, Store as _, StoreErrorKind, Swap};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const MOVING: &str = "2 1,2,3 1,2";

/// A key that moves from the first member to the third.
fn key() -> KeyId {
    let map = map(MOVING);
    (0..).map(id).find(|key| map.old_home(*key) == Some(1) && map.home(*key) == 3).unwrap()
}

/// What stands there, whatever it is.
fn at(store: &MemoryStore) -> Option<Record> {
    block_on(store.get(key())).unwrap()
}

fn write(store: &MemoryStore, record: &Record) {
    let swap = |before: Option<Revision>, next| block_on(store.swap(key(), before, next)).unwrap();
    if let Some(stands) = at(store) {
        assert_eq!(swap(Some(stands.revision), None), Swap::Done);
    }
    assert_eq!(swap(None, Some(record.clone())), Swap::Done);
}

/// The key has moved and was answered; then the first member is put back to where it was claimed.
fn put_back() -> (Vec<Arc<MemoryStore>>, Spread) {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let spread = open(&set, steady(0));
    put(&spread, key());
    block_on(spread.begin(1, &[1, 2, 3], NOW)).unwrap();
    assert_eq!(pass(&spread).moved, 1);
    let done = answered(&claimed(1), 2, "sold");
    let swap = block_on(spread.swap(key(), Some(claimed(1).revision), Some(done))).unwrap();
    assert_eq!(swap, Swap::Done);
    write(&set[0], &claimed(1));
    (set, spread)
}

fn pass(spread: &Spread) -> Pass {
    block_on(spread.pass(2, &|_| ())).unwrap()
}

/// What is kept of one of them, above both.
fn kept(record: &Record) -> Record {
    in_doubt(record, 9)
}

#[test]
fn a_key_with_two_records_is_named_and_neither_is_changed_before_somebody_has_chosen() {
    let (set, spread) = put_back();
    let both = [at(&set[0]), at(&set[2])];
    for _ in 0..2 {
        let found = pass(&spread);
        assert_eq!((found.moved, &found.twice[..]), (0, &[key()][..]));
        let error = block_on(spread.settle(&found, NOW)).unwrap_err();
        assert!(error.to_string().contains("onlyonce store choose"), "{error}");
        let again = block_on(spread.swap(key(), both[0].as_ref().map(|it| it.revision), None));
        let again = again.unwrap_err();
        assert!(again.to_string().contains("a record at its old home"), "{again}");
        assert!(again.is_of_key(), "it says nothing of other keys");
        assert_eq!([at(&set[0]), at(&set[2])], both);
    }
    let told = block_on(spread.both(key())).unwrap().unwrap();
    assert_eq!(told.map(|(number, record)| (number, Some(record))), {
        let [old, new] = both;
        [(1, old), (3, new)]
    });
}

#[test]
fn what_was_chosen_counts_and_the_move_ends() {
    let (_, spread) = put_back();
    let both = block_on(spread.both(key())).unwrap().unwrap();
    let low = block_on(spread.choose(key(), &both, both[0].1.clone())).unwrap_err();
    assert!(low.to_string().contains("newer than both"), "{low}");
    let kept = kept(&both[0].1);
    block_on(spread.choose(key(), &both, kept.clone())).unwrap();
    assert_eq!(block_on(spread.get(key())).unwrap(), Some(kept.clone()));
    assert_eq!(block_on(spread.both(key())).unwrap(), None);
    let last = pass(&spread);
    assert_eq!((last.moved, last.twice.len()), (0, 0));
    block_on(spread.settle(&last, NOW)).unwrap();
    assert_eq!(block_on(spread.get(key())).unwrap(), Some(kept));
}

#[test]
fn a_choice_is_about_the_two_that_were_shown() {
    for changed in [0, 2] {
        let (set, spread) = put_back();
        let both = block_on(spread.both(key())).unwrap().unwrap();
        let (other, kept) = (in_doubt(&claimed(1), 4), kept(&both[0].1));
        write(&set[changed], &other);
        let error = block_on(spread.choose(key(), &both, kept)).unwrap_err();
        assert!(error.to_string().contains("changed meanwhile") && error.is_of_key(), "{error}");
        // Neither is replaced.
        assert_eq!(at(&set[changed]), Some(other));
        let unchanged = if changed == 0 { 1 } else { 0 };
        assert_eq!(at(&set[[0, 2][unchanged]]).as_ref(), Some(&both[unchanged].1));
    }
}

/// Cut off after its first swap, the same choice is made again.
#[test]
fn a_choice_that_was_cut_off_leaves_two_records_and_is_made_again() {
    let (set, spread) = put_back();
    let both = block_on(spread.both(key())).unwrap().unwrap();
    let first = kept(&both[0].1);
    write(&set[2], &first);
    let again = block_on(spread.both(key())).unwrap().unwrap();
    assert_eq!(again.each_ref().map(|(_, record)| record), [&both[0].1, &first]);
    let revision = Revision::new(first.revision.get() + 1).unwrap();
    let next = Record { revision, ..answered(&claimed(1), 12, "sold") };
    block_on(spread.choose(key(), &again, next.clone())).unwrap();
    assert_eq!(block_on(spread.get(key())).unwrap(), Some(next));
    assert_eq!(pass(&spread), Pass { version: 2, ..Pass::default() });
}

/// Whoever chooses is told which of the two members has what was chosen, wherever it is cut off.
#[test]
fn a_choice_that_was_made_in_one_member_alone_is_told_as_that() {
    let mut halves = 0;
    for calls in 0.. {
        let (set, spread) = put_back();
        let both = block_on(spread.both(key())).unwrap().unwrap();
        let kept = kept(&both[0].1);
        let Some(ends) = cut::open(&set, calls, false) else { continue };
        let said = block_on(ends.choose(key(), &both, kept.clone()));
        let is_replaced = at(&set[2]).as_ref() == Some(&kept);
        let stands = at(&set[0]).as_ref() == Some(&both[0].1);
        match said {
            Ok(()) => {
                assert_eq!((is_replaced, stands), (true, false));
                break;
            }
            Err(error) => {
                assert!(stands, "{error}");
                assert_eq!(error.to_string().contains("member 3 was replaced"), is_replaced);
                assert!(!is_replaced || error.kind() == StoreErrorKind::Unknown, "{error:?}");
                halves += usize::from(is_replaced);
            }
        }
    }
    assert_eq!(halves, 1);
}

/// Whoever moved it was cut off between the copy and the forward: that is one record.
#[test]
fn a_copy_on_its_way_is_no_second_record() {
    let set = stores(&map("1 1,2 -"), &[1, 2, 3]);
    let spread = open(&set, steady(0));
    put(&spread, key());
    block_on(spread.begin(1, &[1, 2, 3], NOW)).unwrap();
    write(&set[2], &claimed(1));
    assert_eq!(block_on(spread.both(key())).unwrap(), None);
    assert_eq!(pass(&spread), Pass { version: 2, moved: 1, ..Pass::default() });
}
