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
    // Whichever is broken first in the first seed that breaks any.
    for (bug, invariants) in [
        (Bug::LapseIsRelease, &["once", "truth"][..]),
        (Bug::CommitSkipped, &["once", "truth"]),
        (Bug::LostIsDone, &["once", "truth", "fences"]),
        (Bug::FloorNeverRead, &["once", "truth"]),
        (Bug::DeletesBeforeFloor, &["once", "truth"]),
        (Bug::TimeoutIsRelease, &["once", "truth"]),
        (Bug::FingerprintIgnored, &["mismatch"]),
        (Bug::StoreIgnoresRevision, &["revisions", "once", "fences"]),
        (Bug::OtherReplyShown, &["replay"]),
        (Bug::SweepsByNewerFloor, &["once", "truth"]),
        (Bug::NeverGivesUp, &["liveness"]),
    ] {
        let found = first(bug);
        let by = found.is_some_and(|(_, by)| invariants.contains(&by));
        assert!(by, "{bug:?} should be found by {invariants:?}: {found:?}");
    }
}

#[test]
fn a_seed_is_the_same_every_time() {
    let trace = |seed| run(Run { seed, steps: 400, bug: Bug::None, trace: true }).trace;
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
