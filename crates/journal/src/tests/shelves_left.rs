//! Whoever gives room back may stop waiting at any time, and another one begins.

use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Waker};

use futures_executor::block_on;
use onlyonce_core::Record;
use onlyonce_store::Store;

use super::shelves::{AT_ONCE, again, bury, delete, reclaim, shelved};
use super::sim_disk::SimDisk;
use super::{get, new_disk, open_with};
use crate::journal::Journal;
use crate::merge;
use crate::shelf::{self, Shelf};
use crate::shelve::{self, Install};
use crate::writer::{Change, Written};

fn buried(disk: &SimDisk) -> (Journal, Vec<Record>) {
    let journal = open_with(disk, AT_ONCE).unwrap();
    let records = (0..40).map(|number| bury(&journal, number)).collect();
    (journal, records)
}

/// A shelf of all tombstones in the log, as it is before the writer is asked to show it.
fn made(journal: &Journal) -> Arc<Shelf> {
    shelve::make(&journal.shared, &[(1, 0)], u64::MAX - 1).unwrap().unwrap().shelf
}

fn show(journal: &Journal, new: Option<Arc<Shelf>>, without: &[Arc<Shelf>]) -> Written {
    let without = without.iter().map(|shelf| shelf.number).collect();
    let asked = journal.ask(Vec::new(), Change::Shelves(Install { new, without }));
    block_on(asked.unwrap()).unwrap().unwrap()
}

#[test]
fn a_shelf_that_is_shown_when_nobody_waits_for_it_any_more_keeps_its_file() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 5);
    let more: Vec<Record> = (5..40).map(|number| bury(&journal, number)).collect();
    let new = made(&journal);
    // Another one writes the list before the writer comes to it.
    delete(&journal, 0, &records[0]);
    block_on(journal.write_list()).unwrap();
    assert_eq!(show(&journal, Some(new), &[]), Written::Done);
    reclaim(&journal);
    assert_eq!(journal.shared.index.len(), 0, "what was moved has left the memory");
    for journal in [journal.clone(), again(journal, &disk)] {
        assert_eq!((journal.stats().keys, get(&journal, 0)), (39, None));
        for (number, record) in (1..).zip(records[1..].iter().chain(&more)) {
            assert_eq!(get(&journal, number).as_ref(), Some(record));
        }
    }
}

#[test]
fn a_shelf_that_nobody_shows_goes_with_a_later_list() {
    let disk = new_disk();
    let (journal, _) = buried(&disk);
    let left = shelf::name(made(&journal).number);
    reclaim(&journal);
    assert!(!disk.names().contains(&left), "{:?}", disk.names());
    assert_eq!(journal.stats().shelved, 40);
}

#[test]
fn a_shelf_is_not_shown_once_another_is_begun_that_knows_fewer_deletions() {
    let disk = new_disk();
    let (journal, records) = buried(&disk);
    let first = made(&journal);
    delete(&journal, 3, &records[3]);
    let second = made(&journal);
    assert_eq!(show(&journal, Some(first), &[]), Written::Raced);
    assert_eq!(show(&journal, Some(second), &[]), Written::Done);
    reclaim(&journal);
    assert_eq!(get(&journal, 3), None);
    assert_eq!(get(&again(journal, &disk), 3), None);
}

#[test]
fn what_has_taken_the_place_of_shelves_is_not_joined_by_what_was_made_of_them() {
    let disk = new_disk();
    let (journal, records) = shelved(&disk, 40);
    let inputs = journal.shared.shelves().list.clone();
    let first = merge::merged(&journal.shared, &inputs).unwrap();
    assert_eq!(show(&journal, first, &inputs), Written::Done);
    delete(&journal, 3, &records[3]);
    let second = merge::merged(&journal.shared, &inputs).unwrap();
    assert_eq!(show(&journal, second, &inputs), Written::Raced);
    assert_eq!((get(&journal, 3), journal.stats().keys), (None, 39));
    reclaim(&journal);
    assert_eq!(get(&again(journal, &disk), 3), None);
}

#[test]
fn what_nobody_waits_for_any_more_is_moved_the_next_time() {
    let disk = new_disk();
    let (journal, _) = buried(&disk);
    let mut context = Context::from_waker(Waker::noop());
    let (go_on, may) = channel::<()>();
    let mut held = pin!(journal.on_mover(move |_| Ok(may.recv())));
    assert!(held.as_mut().poll(&mut context).is_pending());
    let mut left = journal.reclaim();
    assert!(left.as_mut().poll(&mut context).is_pending());
    drop(left);
    go_on.send(()).unwrap();
    reclaim(&journal);
    assert_eq!((journal.stats().shelved, journal.shared.index.len()), (40, 0));
}
