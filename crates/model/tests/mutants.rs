//! Each rule is taken out once; then the promises that it holds up are seen to break.

use onlyonce_model::class::Class;
use onlyonce_model::mutant::Mutant;
use onlyonce_model::{INVARIANTS, Setup, check};

/// A rule, the receiver that it is taken out with, and the promises that break then.
type Breaks = (Mutant, Class, &'static [&'static str]);

const BREAKS: [Breaks; 41] = [
    (Mutant::LapseIsRelease, Class::Bare, &["once", "not-executed", "authorised"]),
    (Mutant::AbandonIsRelease, Class::Bare, &["once", "not-executed", "authorised"]),
    (Mutant::ReleaseForgetsDoubt, Class::UniqueName, &["not-executed"]),
    (Mutant::ReleaseForgetsDoubt, Class::Keyed, &["once", "not-executed"]),
    (Mutant::RetryForgetsDoubt, Class::UniqueName, &["not-executed"]),
    (Mutant::RetryUncounted, Class::Fenced, &["counted"]),
    (Mutant::OldReleaseCounts, Class::Bare, &["once", "not-executed"]),
    (Mutant::VerdictHitsLatest, Class::Bare, &["not-executed"]),
    (Mutant::LateCompleteDropped, Class::Bare, &["evidence"]),
    (Mutant::EarlierLifeCounts, Class::Bare, &["answer"]),
    (Mutant::SecondReplyReplaces, Class::Bare, &["answer"]),
    (Mutant::SecondReplyUnnoticed, Class::Bare, &["evidence"]),
    (Mutant::SecondReplyNotKept, Class::Bare, &["evidence"]),
    (Mutant::ErasedRunsAgain, Class::Bare, &["once", "answer"]),
    (Mutant::ErasedIsAlarm, Class::Bare, &["evidence"]),
    (Mutant::UnknownRunsAgain, Class::Bare, &["once", "authorised"]),
    (Mutant::UnknownRunsAgain, Class::Sealable, &["once", "authorised"]),
    (Mutant::UnknownRunsAgain, Class::Queryable, &["once", "authorised"]),
    (Mutant::TombstoneRunsAgain, Class::Bare, &["once", "answer"]),
    (Mutant::SealIgnored, Class::Bare, &["sealed"]),
    (Mutant::SealEnds, Class::Bare, &["not-executed"]),
    (Mutant::ClaimIdIgnored, Class::Bare, &["once", "fences"]),
    (Mutant::MismatchIgnored, Class::Bare, &["mismatch"]),
    (Mutant::RevisionsRestart, Class::Bare, &["fences"]),
    (Mutant::FloorIgnored, Class::Bare, &["once", "floor"]),
    (Mutant::SweepsWithoutFloor, Class::Bare, &["once", "kept"]),
    (Mutant::SweepsAtOnce, Class::Bare, &["once", "kept"]),
    (Mutant::SweepsDoubt, Class::Bare, &["once", "kept"]),
    (Mutant::CommitSkipped, Class::Bare, &["once", "marked"]),
    (Mutant::FencedGoesOn, Class::Bare, &["once", "marked"]),
    (Mutant::TransactionUnchecked, Class::Transactional, &["not-executed"]),
    (Mutant::TransactionSplit, Class::Transactional, &["once", "not-executed"]),
    (Mutant::TransactionMarkedApart, Class::Transactional, &["no-doubt"]),
    (Mutant::FenceUnchecked, Class::Fenced, &["once"]),
    (Mutant::NameReused, Class::UniqueName, &["once"]),
    (Mutant::SealNotKept, Class::Sealable, &["once", "not-executed"]),
    (Mutant::WindowIgnored, Class::Keyed, &["once", "authorised"]),
    (Mutant::MarginIgnored, Class::Keyed, &["once", "authorised"]),
    (Mutant::AbsentAtOnce, Class::Queryable, &["once", "not-executed"]),
    (Mutant::LateBoundBroken, Class::Keyed, &["once"]),
    (Mutant::LateBoundBroken, Class::Queryable, &["once", "not-executed"]),
];

/// Whether the rule only counts for keys without a time of their own, which run as new one day.
fn is_untimed(mutant: Mutant) -> bool {
    matches!(mutant, Mutant::EarlierLifeCounts | Mutant::RevisionsRestart)
}

#[test]
fn every_rule_that_is_taken_out_breaks_the_promises_it_holds_up() {
    let mut survived = Vec::new();
    for (mutant, class, invariants) in BREAKS {
        for invariant in invariants {
            let (timed, watched) = (!is_untimed(mutant), Some(*invariant));
            let setup = Setup { class, timed, mutant, claims_max: 3, losses_max: 0, watched };
            match check(setup, 1).broken {
                Some(broken) => {
                    let steps = broken.trace.len() - 1;
                    println!("{mutant:?} breaks `{invariant}` in {steps} steps");
                }
                None => survived.push((mutant, class, invariant)),
            }
        }
    }
    assert!(survived.is_empty(), "not found: {survived:?}");
}

#[test]
fn every_rule_is_taken_out_and_every_promise_breaks_once() {
    for mutant in Mutant::ALL {
        assert!(BREAKS.iter().any(|(it, ..)| *it == mutant), "{mutant:?} is not tried");
    }
    for invariant in INVARIANTS {
        let broken = BREAKS.iter().any(|(.., broken)| broken.contains(&invariant));
        assert!(broken, "nothing is known to break `{invariant}`");
    }
}
