//! A swap is atomic per key, and what was confirmed is seen.

use std::thread;

use futures_executor::block_on;
use onlyonce_core::Record;
use onlyonce_store::{Store, Swap};

use super::{get, put};
use crate::{StoreBuilder, answered, claimed, id, released};

/// An absent record can be made.
pub fn an_absent_record_can_be_made<B: StoreBuilder>(builder: &B) {
    let (store, record) = (builder.fresh(), claimed(1));
    assert_eq!(get(&store, 1), None);
    assert_eq!(put(&store, 1, None, Some(&record)), Swap::Done);
    assert_eq!(get(&store, 1), Some(record));
}

/// A record can be replaced by its revision.
pub fn a_record_can_be_replaced_by_its_revision<B: StoreBuilder>(builder: &B) {
    let (store, one) = (builder.fresh(), claimed(1));
    let two = answered(&one, 2, "order 1");
    put(&store, 1, None, Some(&one));
    assert_eq!(put(&store, 1, Some(&one), Some(&two)), Swap::Done);
    assert_eq!(get(&store, 1), Some(two));
}

/// A record can be deleted by its revision.
pub fn a_record_can_be_deleted_by_its_revision<B: StoreBuilder>(builder: &B) {
    let (store, one) = (builder.fresh(), claimed(1));
    put(&store, 1, None, Some(&one));
    assert_eq!(put(&store, 1, Some(&one), None), Swap::Done);
    assert_eq!(get(&store, 1), None);
    let again = claimed(2);
    assert_eq!(put(&store, 1, None, Some(&again)), Swap::Done);
    assert_eq!(get(&store, 1), Some(again));
}

/// A conflict changes nothing and returns what is there.
pub fn a_conflict_changes_nothing_and_returns_what_is_there<B: StoreBuilder>(builder: &B) {
    let (store, one) = (builder.fresh(), claimed(1));
    let two = answered(&one, 2, "order 1");
    put(&store, 1, None, Some(&one));
    assert_eq!(put(&store, 1, None, Some(&claimed(5))), Swap::Conflict(Some(one.clone())));
    put(&store, 1, Some(&one), Some(&two));
    let late = released(&one, 9);
    assert_eq!(put(&store, 1, Some(&one), Some(&late)), Swap::Conflict(Some(two.clone())));
    assert_eq!(get(&store, 1), Some(two));
}

/// A conflict with nothing returns nothing.
pub fn a_conflict_with_nothing_returns_nothing<B: StoreBuilder>(builder: &B) {
    let (store, one) = (builder.fresh(), claimed(1));
    let two = released(&one, 2);
    assert_eq!(put(&store, 1, Some(&one), Some(&two)), Swap::Conflict(None));
    assert_eq!(put(&store, 1, Some(&one), None), Swap::Conflict(None));
    assert_eq!(get(&store, 1), None);
}

/// A deletion with an old revision changes nothing.
pub fn a_deletion_with_an_old_revision_changes_nothing<B: StoreBuilder>(builder: &B) {
    let (store, one) = (builder.fresh(), claimed(1));
    let two = released(&one, 2);
    put(&store, 1, None, Some(&one));
    put(&store, 1, Some(&one), Some(&two));
    assert_eq!(put(&store, 1, Some(&one), None), Swap::Conflict(Some(two.clone())));
    assert_eq!(get(&store, 1), Some(two));
}

/// How many threads write at once.
const WRITERS: u64 = 8;
/// How often they do.
const ROUNDS: u64 = 20;

/// All write at once; exactly one may win, and every loser is shown the winner.
fn race(store: &impl Store, number: u64, expected: Option<&Record>, nexts: &[Option<Record>]) {
    let swaps: Vec<Swap> = thread::scope(|scope| {
        let writers: Vec<_> = nexts
            .iter()
            .map(|next| scope.spawn(move || put(store, number, expected, next.as_ref())))
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let stands = get(store, number);
    let mut winners = 0;
    for (swap, next) in swaps.into_iter().zip(nexts) {
        match swap {
            Swap::Done => {
                winners += 1;
                assert_eq!(stands, *next);
            }
            Swap::Conflict(found) => assert_eq!(found, stands),
        }
    }
    assert_eq!(winners, 1);
}

/// Case B04. Of many writers exactly one wins, also of those that delete.
pub fn of_many_writers_exactly_one_wins<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    for round in 0..ROUNDS {
        let first = claimed(round);
        put(&store, round, None, Some(&first));
        // The sweeper deletes what somebody claims at the same moment.
        let next = |writer: u64| {
            let writes = writer.is_multiple_of(2);
            writes.then(|| answered(&first, 100 + writer, writer.to_string()))
        };
        let nexts: Vec<Option<Record>> = (0..WRITERS).map(next).collect();
        race(&store, round, Some(&first), &nexts);
    }
}

/// Cases B03 and B06. Of many creators exactly one wins.
pub fn of_many_creators_exactly_one_wins<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    for round in 0..ROUNDS {
        let nexts: Vec<Option<Record>> =
            (0..WRITERS).map(|writer| Some(claimed(100 + writer))).collect();
        race(&store, round, None, &nexts);
    }
}

/// Keys do not disturb each other.
pub fn keys_do_not_disturb_each_other<B: StoreBuilder>(builder: &B) {
    let store = &builder.fresh();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = writer * ROUNDS + round;
                    let one = claimed(number);
                    assert_eq!(put(store, number, None, Some(&one)), Swap::Done);
                    let two = answered(&one, number + 1, number.to_string());
                    assert_eq!(put(store, number, Some(&one), Some(&two)), Swap::Done);
                }
            });
        }
    });
    for number in 0..WRITERS * ROUNDS {
        let two = answered(&claimed(number), number + 1, number.to_string());
        assert_eq!(get(store, number), Some(two));
    }
}

/// A read that starts later sees what was confirmed.
pub fn a_read_that_starts_later_sees_what_was_confirmed<B: StoreBuilder>(builder: &B) {
    let store = &builder.fresh();
    for number in 0..WRITERS {
        let record = claimed(number);
        put(store, number, None, Some(&record));
        let seen = thread::scope(|scope| scope.spawn(move || get(store, number)).join().unwrap());
        assert_eq!(seen, Some(record));
    }
}

/// A swap whose answer nobody awaits happens whole or not at all.
pub fn a_swap_whose_answer_nobody_awaits_happens_whole_or_not_at_all<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    for number in 0..ROUNDS {
        let one = claimed(number);
        let mut swap = store.swap(id(number), None, Some(one.clone()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = swap.as_mut().poll(&mut context);
        drop(swap);
        // A later swap is ordered behind it, so whatever became of it shows in the answer.
        let two = claimed(number + 50);
        match block_on(store.swap(id(number), None, Some(two.clone()))).unwrap() {
            Swap::Done => assert_eq!(get(&store, number), Some(two)),
            Swap::Conflict(found) => assert_eq!(found, Some(one)),
        }
    }
}
