//! Within the bound no order of events breaks a promise, whatever the receiver offers.

#![allow(clippy::print_stdout, reason = "tells how much was tried")]

use onlyonce_model::class::Class;
use onlyonce_model::mutant::Mutant;
use onlyonce_model::{Setup, check};

/// Tries everything for keys with and without a time of their own; `never` is what cannot come
/// about with this receiver.
fn holds(class: Class, (claims_max, losses_max): (u8, u8), never: &[&str]) {
    for timed in [true, false] {
        let mutant = Mutant::None;
        let setup = Setup { class, timed, mutant, claims_max, losses_max, watched: None };
        let report = check(setup, 1);
        println!("{class:?}, timed: {timed}: {} states, {} deep", report.states, report.depth);
        if let Some(broken) = report.broken {
            panic!("breaks `{}`:\n{}", broken.invariant, broken.trace.join("\n"));
        }
        assert_eq!(report.never, never, "came about, or did not, against what was expected");
    }
}

#[test]
fn a_transaction_leaves_nothing_in_doubt() {
    holds(Class::Transactional, (3, 1), &["unknown"]);
}

#[test]
fn a_fenced_receiver_is_never_set_back() {
    holds(Class::Fenced, (2, 0), &[]);
}

#[test]
fn a_name_is_made_once() {
    holds(Class::UniqueName, (2, 0), &[]);
}

#[test]
fn a_seal_at_the_receiver_makes_it_certain() {
    holds(Class::Sealable, (2, 0), &[]);
}

#[test]
fn a_keyed_receiver_is_asked_again_only_within_its_window() {
    holds(Class::Keyed, (2, 0), &[]);
}

#[test]
fn a_queryable_receiver_is_believed_only_after_its_bounds() {
    holds(Class::Queryable, (2, 0), &[]);
}

#[test]
fn a_bare_receiver_acts_once_and_never_silently() {
    holds(Class::Bare, (3, 0), &[]);
}

#[test]
fn a_lost_answer_of_the_store_changes_nothing() {
    holds(Class::Bare, (2, 1), &[]);
}
