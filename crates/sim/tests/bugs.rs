//! The oracle finds every fault that is put in on purpose, and nothing where there is none.

use onlyonce_sim::bug::Bug;
use onlyonce_sim::{Run, run};

/// Seeds that are tried.
const SEEDS: u64 = 3_000;

fn first(bug: Bug) -> Option<(u64, &'static str)> {
    (1..=SEEDS).find_map(|seed| {
        let done = run(Run { seed, steps: 400, bug, trace: false });
        done.violation.map(|violation| (seed, violation.invariant))
    })
}

#[test]
fn without_a_fault_no_seed_breaks_a_promise_and_much_happens() {
    let mut effects = 0;
    for seed in 1..=SEEDS {
        let done = run(Run { seed, steps: 400, bug: Bug::None, trace: false });
        assert_eq!(done.violation, None, "seed {seed}");
        effects += done.effects;
    }
    assert!(SEEDS as usize <= effects, "only {effects} effects");
}

#[test]
fn every_fault_is_found_by_the_invariant_that_is_there_for_it() {
    for (bug, invariant) in [
        (Bug::LapseIsRelease, "once"),
        (Bug::CommitSkipped, "once"),
        (Bug::LostIsDone, "once"),
        (Bug::FloorNeverRead, "once"),
        (Bug::DeletesBeforeFloor, "once"),
        (Bug::TimeoutIsRelease, "once"),
        (Bug::FingerprintIgnored, "mismatch"),
        (Bug::StoreIgnoresRevision, "revisions"),
        (Bug::OtherReplyShown, "replay"),
    ] {
        let found = first(bug);
        let by = found.map(|(_, by)| by);
        assert!(by == Some(invariant), "{bug:?} should be found by {invariant}: {found:?}");
    }
}

#[test]
fn a_seed_is_the_same_every_time() {
    let trace = |seed| run(Run { seed, steps: 400, bug: Bug::None, trace: true }).trace;
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
