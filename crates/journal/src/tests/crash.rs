//! A crash after any call: what was confirmed is there, and nothing is there by half.

use std::collections::BTreeMap;

use futures_executor::block_on;
use futures_util::future::join_all;
use onlyonce_core::{Floor, Record, Revision, StateKind, Timestamp};
use onlyonce_store::{Store, Swap};

use super::shelves::{AT_ONCE, tombstone};
use super::sim_disk::{Random, SimDisk};
use super::{SMALL, claimed, completed, get, id, new_disk, open, open_with, pair, put};
use crate::journal::{Journal, Settings};
use crate::segment;

/// What was written to a key and, once it was confirmed, how many calls had been made by then.
type History = BTreeMap<u64, Vec<(Option<Record>, usize)>>;

fn note(disk: &SimDisk, history: &mut History, number: u64, record: Option<Record>) {
    history.entry(number).or_default().push((record, disk.calls()));
}

/// Many callers at once, over several segments, with deletions among them, and room given back.
fn workload(disk: &SimDisk, seed: u64, reclaims: bool) -> History {
    let mut random = Random(seed);
    let mut history = History::new();
    let journal = open(disk).unwrap();
    for round in 0..24 {
        let numbers: Vec<u64> = (0..1 + random.below(4)).map(|it| round * 8 + it).collect();
        let claims: Vec<Record> = numbers.iter().map(|number| claimed(*number)).collect();
        let swaps = numbers.iter().zip(&claims);
        let swaps =
            swaps.map(|(number, claim)| journal.swap(id(*number), None, Some(claim.clone())));
        for (swapped, number) in block_on(join_all(swaps)).into_iter().zip(&numbers) {
            assert_eq!(swapped.unwrap(), Swap::Done);
            note(disk, &mut history, *number, Some(claims[(number % 8) as usize].clone()));
        }
        for (number, claim) in numbers.iter().zip(&claims) {
            let reply = vec![*number as u8; random.below(12_000) as usize];
            let next = completed(claim, *number + 5, reply);
            put(&journal, *number, Some(claim), &next).unwrap();
            note(disk, &mut history, *number, Some(next.clone()));
            if random.below(4) == 0 {
                let gone = block_on(journal.swap(id(*number), Some(next.revision), None));
                assert_eq!(gone.unwrap(), Swap::Done);
                note(disk, &mut history, *number, None);
            }
        }
        if reclaims && round % 3 == 2 {
            // What is two rounds old has been answered and fetched: it goes.
            for number in round.saturating_sub(4) * 8..(round - 1) * 8 {
                let Some(found) = get(&journal, number) else { continue };
                // One of them stays, and is carried from segment to segment.
                if number % 24 != 1 {
                    let gone = block_on(journal.swap(id(number), Some(found.revision), None));
                    assert_eq!(gone.unwrap(), Swap::Done);
                    note(disk, &mut history, number, None);
                }
            }
            block_on(journal.reclaim()).unwrap();
        }
    }
    let first = segment::numbers(disk).unwrap()[0];
    assert_eq!(reclaims, 1 < first, "{first} is the oldest segment");
    assert!(reclaims || 2 < journal.stats().segments);
    journal.close();
    history
}

/// Case B61.
#[test]
fn what_was_confirmed_before_a_crash_is_there_after_it() {
    for (seed, reclaims) in [(1, false), (2, false), (3, true), (4, true), (5, true)] {
        let disk = new_disk();
        let begun = disk.calls();
        let history = workload(&disk, seed, reclaims);
        let mut random = Random(seed + 100);
        for calls in begun..=disk.calls() {
            let crashed = disk.after_crash(calls, &mut random);
            check(&crashed, &history, calls);
        }
    }
}

/// Opens what a crash has left behind, and again after a second crash at once.
fn check(crashed: &SimDisk, history: &History, calls: usize) {
    check_with(crashed, history, calls, SMALL);
}

fn check_with(crashed: &SimDisk, history: &History, calls: usize, settings: Settings) {
    let open = |when: &str| {
        open_with(crashed, settings)
            .unwrap_or_else(|error| panic!("{when} a crash behind {calls} calls: {error}"))
    };
    let journal = open("after");
    let found = is_kept(&journal, history, calls);
    // It goes on from there.
    pair(&journal, 1_000_000, 100);
    block_on(journal.reclaim()).unwrap();
    assert_eq!(is_kept(&journal, history, calls), found, "when room was given back");
    journal.close();
    let journal = open("when it is opened again after");
    assert_eq!(is_kept(&journal, history, calls), found, "when it is opened again");
    journal.close();
}

/// What is there of each key, if it may be that.
fn is_kept(journal: &Journal, history: &History, calls: usize) -> Vec<Option<Record>> {
    let mut all = Vec::new();
    for (number, writes) in history {
        let found = get(journal, *number);
        let confirmed = writes.iter().rposition(|(_, by)| *by <= calls);
        let at = writes.iter().rposition(|(record, _)| *record == found);
        match (confirmed, at, &found) {
            // Something later than what was confirmed may be there, but only as it was written.
            (Some(confirmed), Some(at), _) => assert!(confirmed <= at, "{number} after {calls}"),
            (None, Some(_), _) | (None, None, None) => {}
            (_, None, _) => panic!("{number} after {calls} calls is {found:?}"),
        }
        all.push(found);
    }
    all
}

#[test]
fn what_is_served_after_a_kill_survives_a_power_cut() {
    // A killed process leaves the page cache behind, so writes that were never synced can be
    // read. What the next process has shown of them must not be lost by a crash.
    let disk = new_disk();
    let begun = disk.calls();
    let history = workload(&disk, 4, true);
    let mut random = Random(5);
    for calls in begun..=disk.calls() {
        let killed = disk.after_kill(calls);
        let served = all(&killed, &history);
        let crashed = killed.after_crash(killed.calls(), &mut random);
        assert_eq!(all(&crashed, &history), served, "after {calls} calls");
    }
}

fn all(disk: &SimDisk, history: &History) -> Vec<Option<Record>> {
    let journal = open(disk).unwrap();
    history.keys().map(|number| get(&journal, *number)).collect()
}

#[test]
fn floor_and_revisions_survive_deletions_and_segments() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let floor = Floor::at(Timestamp::from_millis(77));
    block_on(journal.raise_floor(floor)).unwrap();
    block_on(journal.raise_floor(Floor::NONE)).unwrap();
    let last = pair(&journal, 1, 10);
    block_on(journal.swap(id(1), Some(last.revision), None)).unwrap();
    let filler: Vec<Record> = (2..40).map(|number| pair(&journal, number, 8_000)).collect();
    let revision_max = filler.iter().map(|record| record.revision.get()).max().unwrap();
    journal.close();
    let mut random = Random(9);
    let journal = open(&disk.after_crash(disk.calls(), &mut random)).unwrap();
    assert_eq!(block_on(journal.floor()).unwrap(), floor);
    assert_eq!(block_on(journal.revision_max()).unwrap(), revision_max.max(last.revision.get()));
    assert_eq!(get(&journal, 1), None);
}

#[test]
fn a_failed_sync_poisons_for_good() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let kept = pair(&journal, 1, 10);
    let (tell, told) = std::sync::mpsc::channel();
    journal.on_poison(move |why| tell.send(why.to_owned()).unwrap());
    // The keeper's sync of the next segment has been made by now or counts as well.
    disk.fail_syncs_after(0);
    let error = put(&journal, 2, None, &claimed(2)).unwrap_err();
    assert_eq!(error.kind(), onlyonce_store::StoreErrorKind::Poisoned);
    assert!(told.recv().unwrap().contains("could not be synced"));
    // Also once the disk is well again: nobody knows what is on it.
    disk.fail_syncs_after(1_000);
    let error = put(&journal, 3, None, &claimed(3)).unwrap_err();
    assert_eq!(error.kind(), onlyonce_store::StoreErrorKind::Poisoned);
    assert!(block_on(journal.raise_floor(Floor::at(Timestamp::from_millis(9)))).is_err());
    // What had been confirmed can still be read.
    assert_eq!(get(&journal, 1), Some(kept));
    assert_eq!(get(&journal, 2), None);
    // Whoever asks to be told afterwards is told at once.
    let (tell, told) = std::sync::mpsc::channel();
    journal.on_poison(move |why| tell.send(why.to_owned()).unwrap());
    assert!(told.recv().is_ok());
}

#[test]
fn what_a_failed_sync_has_dropped_is_on_the_medium_before_it_is_served() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    disk.fail_syncs_after(0);
    let claim = claimed(1);
    put(&journal, 1, None, &claim).unwrap_err();
    journal.close();
    // The next process reads it from the page cache. A sync alone would not bring it to disk.
    let killed = disk.after_kill(disk.calls());
    assert_eq!(get(&open(&killed).unwrap(), 1), Some(claim.clone()));
    let crashed = killed.after_crash(killed.calls(), &mut Random(6));
    assert_eq!(get(&open(&crashed).unwrap(), 1), Some(claim));
}

#[test]
fn a_second_writer_of_a_key_waits_and_then_sees_the_first() {
    let disk = new_disk();
    let journal = open(&disk).unwrap();
    let (one, two) = (claimed(1), claimed(2));
    let swaps = [journal.swap(id(1), None, Some(one)), journal.swap(id(1), None, Some(two))];
    let swapped: Vec<Swap> =
        block_on(join_all(swaps)).into_iter().collect::<Result<_, _>>().unwrap();
    let winners = swapped.iter().filter(|it| **it == Swap::Done).count();
    assert_eq!(winners, 1);
    assert!(swapped.contains(&Swap::Conflict(get(&journal, 1))));
}

/// Keys that live and die on shelves: moved, merged, replaced and deleted.
fn shelving(disk: &SimDisk, seed: u64) -> History {
    let mut random = Random(seed);
    let mut history = History::new();
    let journal = open_with(disk, AT_ONCE).unwrap();
    // A new life of a key has revisions above all earlier ones.
    let mut at = 0;
    for _ in 0..40 {
        for _ in 0..4 {
            at += 200_000_000;
            let number = random.below(24);
            let known = get(&journal, number);
            let next = match &known {
                None => Some(claimed(at)),
                Some(record) if record.state.kind() == StateKind::InFlight => {
                    Some(completed(record, at, vec![number as u8; random.below(9_000) as usize]))
                }
                Some(record) if record.state.kind() == StateKind::Completed => {
                    Some(tombstone(record))
                }
                Some(record) if random.below(3) == 0 => {
                    let revision = Revision::new(record.revision.get() + 1).unwrap();
                    Some(Record { revision, ..record.clone() })
                }
                Some(_) => None,
            };
            let expected = known.as_ref().map(|record| record.revision);
            let swapped = block_on(journal.swap(id(number), expected, next.clone()));
            assert_eq!(swapped.unwrap(), Swap::Done);
            note(disk, &mut history, number, next);
        }
        block_on(journal.reclaim()).unwrap();
    }
    let made = disk.created(".old");
    assert!(10 < made, "{made} shelves were made");
    assert!(1 < segment::numbers(disk).unwrap()[0]);
    journal.close();
    history
}

#[test]
fn no_crash_while_tombstones_move_loses_one_or_brings_one_back() {
    for seed in [1, 2] {
        let disk = new_disk();
        let begun = disk.calls();
        let history = shelving(&disk, seed);
        let mut random = Random(seed + 100);
        for calls in begun..=disk.calls() {
            check_with(&disk.after_crash(calls, &mut random), &history, calls, AT_ONCE);
            if calls % 4 == 0 {
                check_with(&disk.after_kill(calls), &history, calls, AT_ONCE);
            }
        }
    }
}
