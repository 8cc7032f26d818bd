//! What becomes of bytes that no longer say what was written.

use futures_executor::block_on;
use onlyonce_store::{Filter, Store, StoreErrorKind};

use super::listing::LATE;
use super::{get, put};
use crate::{Damages, answered, claimed, id};

/// The key whose record is spoiled, among others that are not.
const SPOILED: u64 = 3;

fn spoiled<B: Damages>(builder: &B) -> B::Store {
    let store = builder.fresh();
    for number in 0..6 {
        let one = claimed(number);
        put(&store, number, None, Some(&one));
        put(&store, number, Some(&one), Some(&answered(&one, number + 1, "order")));
    }
    builder.damage(&store, id(SPOILED));
    store
}

/// Case B25: a record that cannot be read is said to be damaged, and is neither taken for absent
/// nor for another.
pub fn a_record_that_cannot_be_read_is_said_to_be_damaged<B: Damages>(builder: &B) {
    let store = spoiled(builder);
    let error = block_on(store.get(id(SPOILED))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged, "{error}");
    // The first claim guesses that there is nothing.
    let error = block_on(store.swap(id(SPOILED), None, Some(claimed(100)))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged, "{error}");
    assert!(!error.may_have_happened(), "{error}");
    assert!(block_on(store.get(id(SPOILED))).is_err(), "it was written over");
    assert!((0..6).filter(|number| *number != SPOILED).all(|it| get(&store, it).is_some()));
}

/// Case B25: a listing names what cannot be read beside what can.
pub fn a_listing_names_what_cannot_be_read<B: Damages>(builder: &B) {
    let store = spoiled(builder);
    let page = block_on(store.list(Filter::default(), None)).unwrap();
    let damaged: Vec<_> = page.damaged.iter().map(|(id, error)| (*id, error.kind())).collect();
    assert_eq!(damaged, [(id(SPOILED), StoreErrorKind::Damaged)]);
    assert_eq!((page.records.len(), page.next), (5, None));
}

/// `due` names what cannot be read, so that the sweeper can tell of it.
pub fn due_names_what_cannot_be_read<B: Damages>(builder: &B) {
    let store = spoiled(builder);
    let mut due = block_on(store.due(LATE, 1_000)).unwrap();
    due.sort_unstable();
    let mut all: Vec<_> = (0..6).map(id).collect();
    all.sort_unstable();
    assert_eq!(due, all);
}
