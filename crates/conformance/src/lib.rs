//! What every store of idempotency records must pass: one test per case, one case per sentence of
//! `docs/store-contract.md`.
//!
//! A store brings a [`StoreBuilder`] and calls [`conformance_suite!`] in a test file; one that
//! claims to survive its process also calls [`durable_suite!`], one whose bytes can be spoiled
//! behind its back [`damage_suite!`], and one that tells when records have changed
//! [`notice_suite!`]. No case is skipped: a store that
//! cannot do something does not pass. Claims in transactions of a caller's have a suite of their
//! own, [`transactions`]. [`FaultyStore`] loses and delays calls for tests of whoever
//! uses stores; one of a test's own says by [`hands_on!`] which calls it leaves as they are.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "cases fail by panicking")]

pub mod cases;
mod faulty;
mod hands_on;
mod records;
pub mod transactions;

use onlyonce_core::KeyId;
use onlyonce_store::Store;

pub use faulty::{Fault, FaultyStore};
pub use futures_executor::block_on;
#[doc(hidden)]
pub use onlyonce_core as core;
#[doc(hidden)]
pub use onlyonce_store as store;
pub use records::{answered, claimed, id, in_doubt, released, tombstone};

/// What a call of a store comes to.
#[doc(hidden)]
pub type Called<'a, T> = onlyonce_store::BoxFuture<'a, Result<T, onlyonce_store::StoreError>>;

/// Makes stores to be tested.
pub trait StoreBuilder {
    /// The store.
    type Store: Store;

    /// A new, empty store, as of a very first deployment.
    fn fresh(&self) -> Self::Store;

    /// The same store after its process has ended without a word to it and another has begun.
    /// Only called by [`durable_suite!`].
    fn after_crash(&self, store: Self::Store) -> Self::Store;

    /// Whether the store has a clock that all who use it go by. Default `false`.
    fn has_clock(&self) -> bool {
        false
    }
}

/// Makes stores whose bytes can be spoiled: all that keep bytes.
pub trait Damages: StoreBuilder {
    /// Spoils what the open store keeps for this key, behind its back, so that its record cannot
    /// be read any more. Only called by [`damage_suite!`].
    fn damage(&self, store: &Self::Store, id: KeyId);
}

/// Makes stores that tell when a record has changed.
pub trait Tells: StoreBuilder {
    /// The same store, as another process has it open.
    fn beside(&self, store: &Self::Store) -> Self::Store;
}

/// Calls `$then!` with the names of all cases of one suite.
#[doc(hidden)]
#[macro_export]
macro_rules! each_case {
    ($then:ident, $builder:expr) => {
        $crate::$then! { $builder;
            swap::an_absent_record_can_be_made,
            swap::a_record_can_be_replaced_by_its_revision,
            swap::a_record_can_be_deleted_by_its_revision,
            swap::a_conflict_changes_nothing_and_returns_what_is_there,
            swap::a_conflict_with_nothing_returns_nothing,
            swap::a_deletion_with_an_old_revision_changes_nothing,
            swap::of_many_writers_exactly_one_wins,
            swap::of_many_creators_exactly_one_wins,
            swap::keys_do_not_disturb_each_other,
            swap::a_read_that_starts_later_sees_what_was_confirmed,
            swap::a_swap_whose_answer_nobody_awaits_happens_whole_or_not_at_all,
            content::every_part_of_a_record_comes_back,
            content::a_reply_of_the_largest_size_comes_back,
            content::every_byte_value_comes_back,
            facts::a_new_store_has_no_floor_and_no_revision,
            facts::the_floor_only_rises,
            facts::the_largest_revision_is_never_forgotten,
            facts::a_clock_tells_milliseconds_and_goes_on,
            listing::pages_hold_every_record_once,
            listing::a_listing_can_be_of_one_state,
            listing::an_empty_listing_has_no_next_page,
            listing::due_names_what_time_may_have_ended,
            listing::due_names_at_most_so_many,
        }
    };
}

/// As [`each_case!`], for stores that survive their process.
#[doc(hidden)]
#[macro_export]
macro_rules! each_durable_case {
    ($then:ident, $builder:expr) => {
        $crate::$then! { $builder;
            durable::what_was_confirmed_survives_a_crash,
            durable::a_deletion_survives_a_crash,
            durable::floor_and_revisions_survive_a_crash,
            durable::what_was_never_confirmed_is_there_whole_or_not_at_all,
        }
    };
}

/// As [`each_case!`], for stores whose bytes can be spoiled.
#[doc(hidden)]
#[macro_export]
macro_rules! each_damage_case {
    ($then:ident, $builder:expr) => {
        $crate::$then! { $builder;
            damage::a_record_that_cannot_be_read_is_said_to_be_damaged,
            damage::a_listing_names_what_cannot_be_read,
            damage::due_names_what_cannot_be_read,
        }
    };
}

/// As [`each_case!`], for stores that tell when records have changed.
#[doc(hidden)]
#[macro_export]
macro_rules! each_notice_case {
    ($then:ident, $builder:expr) => {
        $crate::$then! { $builder;
            notices::who_waits_for_a_key_is_told_when_another_process_ends_it,
            notices::of_many_keys_each_is_told,
            notices::an_end_at_the_moment_of_asking_is_told,
            notices::all_processes_that_wait_are_told,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! as_tests {
    ($builder:expr; $($file:ident :: $case:ident),+ $(,)?) => {
        $(
            #[test]
            fn $case() {
                $crate::cases::$file::$case(&$builder);
            }
        )+
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! as_names {
    ($builder:expr; $($file:ident :: $case:ident),+ $(,)?) => {
        [$(stringify!($case)),+]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! as_cases {
    ($builder:expr; $($file:ident :: $case:ident),+ $(,)?) => {
        [$((stringify!($case), $crate::cases::$file::$case as fn(&_))),+]
    };
}

/// Makes a test of every case for stores that this builder makes.
#[macro_export]
macro_rules! conformance_suite {
    ($builder:expr) => {
        $crate::each_case!(as_tests, $builder);
    };
}

/// Makes a test of every case about surviving a crash.
#[macro_export]
macro_rules! durable_suite {
    ($builder:expr) => {
        $crate::each_durable_case!(as_tests, $builder);
    };
}

/// Makes a test of every case about bytes that were spoiled.
#[macro_export]
macro_rules! damage_suite {
    ($builder:expr) => {
        $crate::each_damage_case!(as_tests, $builder);
    };
}

/// Makes a test of every case about notices.
#[macro_export]
macro_rules! notice_suite {
    ($builder:expr) => {
        $crate::each_notice_case!(as_tests, $builder);
    };
}

/// The names of all cases.
pub fn case_names() -> Vec<&'static str> {
    let mut names = each_case!(as_names, ()).to_vec();
    names.extend(each_durable_case!(as_names, ()));
    names.extend(each_damage_case!(as_names, ()));
    names.extend(each_notice_case!(as_names, ()));
    names
}
