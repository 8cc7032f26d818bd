//! What operators and the sweeper ask for.

use std::collections::BTreeMap;

use futures_executor::block_on;
use onlyonce_core::{KeyId, Record, StateKind, Timestamp};
use onlyonce_store::{Due, Filter, Store};

use super::put;
use crate::{StoreBuilder, answered, claimed, id, in_doubt, released, tombstone};

/// Sixty records in all states.
fn fill(store: &impl Store) -> BTreeMap<KeyId, Record> {
    let mut all = BTreeMap::new();
    for number in 0..60 {
        let one = claimed(number);
        put(store, number, None, Some(&one));
        let next = match number % 5 {
            0 => one,
            kind => {
                let next = match kind {
                    1 => answered(&one, number + 1, "order"),
                    2 => released(&one, number + 1),
                    3 => in_doubt(&one, number + 1),
                    _ => tombstone(&one),
                };
                put(store, number, Some(&one), Some(&next));
                next
            }
        };
        all.insert(id(number), next);
    }
    all
}

/// All pages of a listing, and how many there were.
fn pages(store: &impl Store, filter: &Filter) -> (BTreeMap<KeyId, Record>, usize) {
    let (mut all, mut after, mut count) = (BTreeMap::new(), None, 0);
    loop {
        let page = block_on(store.list(filter.clone(), after)).unwrap();
        assert!(page.damaged.is_empty());
        assert!(filter.limit == 0 || page.records.len() <= filter.limit);
        count += 1;
        for (id, record) in page.records {
            assert_eq!(all.insert(id, record), None, "listed twice");
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return (all, count),
        }
        assert!(count < 1_000, "it does not end");
    }
}

/// Pages hold every record once.
pub fn pages_hold_every_record_once<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let all = fill(&store);
    for limit in [0, 1, 7, 59, 60, 61] {
        let (listed, count) = pages(&store, &Filter { state: None, limit });
        assert_eq!(listed, all, "limit {limit}");
        assert!(limit == 0 || 60 / limit <= count);
    }
}

/// A listing can be of one state.
pub fn a_listing_can_be_of_one_state<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let all = fill(&store);
    for state in StateKind::ALL {
        let expect: BTreeMap<_, _> = all
            .iter()
            .filter(|(_, record)| record.state.kind() == state)
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        assert_eq!(expect.len(), 12);
        for limit in [0, 5] {
            assert_eq!(pages(&store, &Filter { state: Some(state), limit }).0, expect);
        }
    }
}

/// An empty listing has no next page.
pub fn an_empty_listing_has_no_next_page<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    assert_eq!(pages(&store, &Filter::default()), (BTreeMap::new(), 1));
    let state = Some(StateKind::Unknown);
    assert_eq!(pages(&store, &Filter { state, limit: 3 }), (BTreeMap::new(), 1));
}

const EARLY: Timestamp = Timestamp::from_millis(1);
/// When all that time can end is over.
pub(super) const LATE: Due = Due {
    over_at: Timestamp::from_millis(u64::MAX / 2),
    forget_until: Timestamp::from_millis(u64::MAX / 2),
    released_until: Timestamp::from_millis(u64::MAX / 2),
};

/// `due` names what time may have ended. It may name more, but never less.
pub fn due_names_what_time_may_have_ended<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let all = fill(&store);
    let due = block_on(store.due(LATE, 1_000)).unwrap();
    for (id, record) in &all {
        let may_end = record.state.kind() != StateKind::Unknown;
        assert!(!may_end || due.contains(id), "{record:?}");
    }
    let early = Due { over_at: EARLY, forget_until: EARLY, ..LATE };
    let early = block_on(store.due(early, 1_000)).unwrap();
    for (id, record) in &all {
        let released = record.state.kind() == StateKind::Released;
        assert_eq!(early.contains(id), released, "{record:?} before it was made");
    }
    let late = block_on(store.due(Due { released_until: EARLY, ..LATE }, 1_000)).unwrap();
    for (id, record) in &all {
        let released = record.state.kind() == StateKind::Released;
        assert!(!(released && late.contains(id)), "{record:?} was released later");
    }
    let kept = block_on(store.due(Due { forget_until: EARLY, ..LATE }, 1_000)).unwrap();
    for (id, record) in &all {
        let tombstone = record.state.kind() == StateKind::Tombstone;
        assert!(!(tombstone && kept.contains(id)), "{record:?} is not to be forgotten yet");
    }
}

/// `due` names at most so many.
pub fn due_names_at_most_so_many<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    fill(&store);
    for limit in [0, 1, 13] {
        let due = block_on(store.due(LATE, limit)).unwrap();
        assert_eq!(due.len(), limit);
    }
}
