//! The oracle finds every fault that is put in on purpose, and nothing where there is none.

use std::collections::BTreeMap;

use onlyonce_sim::bug::Bug;
use onlyonce_sim::{Run, run};

/// Seeds that are tried without a fault.
const SEEDS: u64 = 3_000;
/// Seeds in which a fault must be found: most are in the first hundred, the rarest once in 2,500.
const SEEDS_MAX: u64 = 40_000;

/// How many seeds each promise was first broken in, until `invariant` was.
fn found(bug: Bug, invariant: &str) -> BTreeMap<&'static str, u32> {
    let mut found = BTreeMap::new();
    for seed in 1..=SEEDS_MAX {
        if let Some(violation) = run(Run { seed, steps: 400, bug, trace: false }).violation {
            *found.entry(violation.invariant).or_default() += 1;
            if violation.invariant == invariant {
                break;
            }
        }
    }
    found
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
fn every_fault_is_found_by_the_promise_that_it_breaks() {
    for (bug, invariant) in [
        (Bug::LapseIsRelease, "once"),
        (Bug::CommitSkipped, "marked"),
        (Bug::FencedGoesOn, "marked"),
        (Bug::LostIsDone, "marked"),
        (Bug::LostIsAbsent, "truth"),
        (Bug::FloorNeverRead, "floor"),
        (Bug::LateGrantTaken, "once"),
        (Bug::DeletesBeforeFloor, "kept"),
        (Bug::SweepsByNewerFloor, "kept"),
        (Bug::WordTakenAtOnce, "kept"),
        (Bug::SweepsDoubt, "kept"),
        (Bug::TimeoutIsRelease, "not_executed"),
        (Bug::ReleaseForgetsDoubt, "not_executed"),
        (Bug::FingerprintIgnored, "mismatch"),
        (Bug::CredentialIgnored, "mismatch"),
        (Bug::SealIgnored, "sealed"),
        (Bug::ErasedRunsAgain, "erased"),
        (Bug::AlarmNotKept, "alarm"),
        (Bug::WaiterClaims, "waiters"),
        (Bug::StoreIgnoresRevision, "revisions"),
        (Bug::OldFenceTold, "fences"),
        (Bug::OtherReplyKept, "replay"),
        (Bug::NeverGivesUp, "liveness"),
        (Bug::WindowIgnored, "once"),
        (Bug::BareRunsAgain, "once"),
        (Bug::AbsentAtOnce, "once"),
        (Bug::SealNotKept, "once"),
    ] {
        let found = found(bug, invariant);
        assert!(found.contains_key(invariant), "{bug:?} breaks `{invariant}`, found: {found:?}");
    }
}

#[test]
fn a_seed_is_the_same_every_time() {
    let trace = |seed| run(Run { seed, steps: 400, bug: Bug::None, trace: true }).trace;
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
