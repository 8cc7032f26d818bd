//! A disk without room: claims are refused, the end of what runs is still recorded.

use onlyonce_core::Record;
use onlyonce_store::StoreErrorKind;

use super::{SMALL, claimed, completed, get, id, new_disk, open, open_with, put};
use crate::journal::{Journal, Settings};

/// Claims until the journal is full.
fn fill(journal: &Journal) -> Vec<(u64, Record)> {
    let mut running = Vec::new();
    for number in 0.. {
        let claim = claimed(number);
        match put(journal, number, None, &claim) {
            Ok(_) => running.push((number, claim)),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Full, "{error}");
                return running;
            }
        }
        assert!(number < 100_000);
    }
    running
}

fn everything_that_runs_can_end(journal: &Journal, running: &[(u64, Record)]) {
    assert!(50 < running.len());
    for (number, claim) in running {
        // A reply that has no room is refused, and recorded without its content.
        let large = completed(claim, number + 5, vec![1; 30_000]);
        let small = completed(claim, number + 5, Vec::new());
        if let Err(error) = put(journal, *number, Some(claim), &large) {
            assert_eq!(error.kind(), StoreErrorKind::Full);
            put(journal, *number, Some(claim), &small).unwrap();
        }
    }
    for (number, claim) in running {
        assert!(get(journal, *number).is_some_and(|it| claim.revision < it.revision));
    }
}

#[test]
fn a_full_disk_refuses_claims_and_records_what_runs() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    disk.limit_room(Some(300 << 10));
    let running = fill(&journal);
    everything_that_runs_can_end(&journal, &running);
    // It is noticed when there is room again.
    disk.limit_room(None);
    let number = 1_000_000;
    let taken = (0..200).any(|at| put(&journal, number + at, None, &claimed(at)).is_ok());
    assert!(taken);
}

#[test]
fn a_limit_of_our_own_is_a_full_disk() {
    let disk = new_disk();
    let settings = Settings { disk_max: Some(256 << 10), ..SMALL };
    let journal = open_with(&disk, settings).unwrap();
    let running = fill(&journal);
    everything_that_runs_can_end(&journal, &running);
    assert!(journal.stats().disk_bytes <= 256 << 10);
    journal.close();
    // Also in the next process, which has to count what is open anew.
    let journal = open_with(&disk, settings).unwrap();
    assert_eq!(journal.stats().in_flight, 0);
    let error = put(&journal, 999_999, None, &claimed(1)).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Full);
    assert_eq!(get(&journal, 999_999), None);
    assert_ne!(id(1), id(2));
}

#[test]
fn what_ran_before_a_restart_is_recorded_on_a_full_disk_too() {
    let disk = new_disk();
    let settings = Settings { disk_max: Some(256 << 10), ..SMALL };
    let journal = open_with(&disk, settings).unwrap();
    let running = fill(&journal);
    journal.close();
    let journal = open_with(&disk, settings).unwrap();
    // The room that is left is theirs.
    for number in 1_000_000..1_000_200 {
        let error = put(&journal, number, None, &claimed(number)).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Full);
    }
    everything_that_runs_can_end(&journal, &running);
}
