//! Listings of many small pages: each key once, and looked at about once.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};

use futures_executor::block_on;
use onlyonce_core::{KeyId, StateKind, Timestamp};
use onlyonce_store::{Cursor, Due, Filter, Store};

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

/// All that is due, ever.
const DUE: Due = Due {
    over_at: Timestamp::from_millis(u64::MAX),
    forget_until: Timestamp::from_millis(u64::MAX),
    released_until: Timestamp::from_millis(0),
};

fn due(journal: &Journal, limit: usize) -> Vec<KeyId> {
    block_on(journal.due(DUE, limit)).unwrap()
}

#[test]
fn a_search_for_what_is_due_looks_at_each_key_about_once() {
    let journal = filled();
    let mut found = BTreeSet::new();
    loop {
        let some = due(&journal, 10);
        for id in &some {
            let revision = block_on(journal.get(*id)).unwrap().unwrap().revision;
            block_on(journal.swap(*id, Some(revision), None)).unwrap();
            assert!(found.insert(*id), "{id} was deleted before");
        }
        if some.len() < 10 {
            break;
        }
    }
    assert_eq!(found.into_iter().collect::<Vec<_>>(), sorted());
    let looked_at = journal.shared.index.selected.load(Ordering::Relaxed);
    assert!(looked_at <= 2 * KEYS as usize, "{looked_at} for {KEYS}");
}

#[test]
fn a_search_that_ends_early_misses_nothing_in_the_next_and_names_nothing_twice() {
    let journal = filled();
    for limit in [1, 7, 500, 20] {
        let some = due(&journal, limit);
        assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), limit);
        // Those that stay are named again, and those that have come meanwhile too.
        let all = due(&journal, usize::MAX);
        assert_eq!(all.len(), KEYS as usize);
        assert_eq!(
            all.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            sorted()
        );
    }
    due(&journal, 40);
    pair(&journal, KEYS + 1, 10);
    assert_eq!(due(&journal, usize::MAX).len(), KEYS as usize + 1);
}

#[test]
fn a_listing_is_read_by_a_thread_for_it_whatever_else_is_done_with_the_files() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    (0..KEYS).for_each(|number| drop(pair(&journal, number, 10)));
    // As if a million tombstones were being moved.
    let (go_on, may) = channel::<()>();
    let mut held = pin!(journal.on_mover(move |_| Ok(may.recv())));
    assert!(held.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    disk.readers();
    for state in [None, Some(StateKind::Completed), Some(StateKind::Tombstone)] {
        let page = block_on(journal.list(Filter { state, limit: 0 }, None)).unwrap();
        assert_eq!(page.records.is_empty(), state == Some(StateKind::Tombstone));
    }
    assert!(disk.readers().iter().all(|name| name == "journal lister"));
    go_on.send(()).unwrap();
}
