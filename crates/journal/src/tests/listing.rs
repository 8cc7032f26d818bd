//! Listings of many small pages: each key once, and looked at about once.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_executor::block_on;
use onlyonce_core::{KeyId, StateKind};
use onlyonce_store::{Cursor, Filter, Store};

use super::{id, new_disk, open, pair};
use crate::journal::Journal;

const KEYS: u64 = 3_000;

fn filled() -> Journal {
    let journal = open(&new_disk()).unwrap();
    (0..KEYS).for_each(|number| drop(pair(&journal, number, 10)));
    journal
}

fn page(journal: &Journal, after: Option<Cursor>) -> (Vec<KeyId>, Option<Cursor>) {
    let filter = Filter { state: Some(StateKind::Completed), limit: 32 };
    let page = block_on(journal.list(filter, after)).unwrap();
    assert_eq!(page.damaged, []);
    (page.records.into_iter().map(|(id, _)| id).collect(), page.next)
}

/// The rest of a listing.
fn all(journal: &Journal, mut after: Option<Cursor>) -> Vec<KeyId> {
    let mut all = Vec::new();
    loop {
        let (some, next) = page(journal, after);
        all.extend(some);
        after = next;
        if after.is_none() {
            return all;
        }
    }
}

fn sorted() -> Vec<KeyId> {
    (0..KEYS).map(id).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_listing_of_small_pages_puts_each_key_in_order_about_once() {
    let journal = filled();
    for _ in 0..2 {
        assert_eq!(all(&journal, None), sorted());
    }
    let looked_at = journal.shared.index.sorted.load(Ordering::Relaxed);
    assert!(looked_at <= 3 * KEYS as usize, "{looked_at} for two listings of {KEYS}");
    assert!(journal.shared.listing.lock().unwrap().is_none(), "nothing is kept of one that ended");
}

#[test]
fn listings_at_the_same_time_hinder_each_other_in_nothing() {
    let journal = filled();
    let (mut one, mut after) = page(&journal, None);
    // What is there before a listing begins is in it, whatever another one remembers.
    let later = KEYS + 1;
    pair(&journal, later, 10);
    let mut expected = sorted();
    expected.push(id(later));
    expected.sort_unstable();
    assert_eq!(all(&journal, None), expected);
    while let Some(cursor) = after {
        let (some, next) = page(&journal, Some(cursor.clone()));
        // The same page again.
        assert_eq!(page(&journal, Some(cursor)).0, some);
        one.extend(some);
        after = next.filter(|_| one.len() < 500);
    }
    assert_eq!(one, expected[..one.len()]);
}

#[test]
fn a_listing_that_is_left_keeps_nothing_in_memory_for_ever() {
    let journal = filled();
    let (first, after) = page(&journal, None);
    assert!(journal.shared.listing.lock().unwrap().is_some());
    block_on(journal.reclaim()).unwrap();
    assert!(journal.shared.listing.lock().unwrap().is_none());
    assert_eq!([first, all(&journal, after)].concat(), sorted());
}
