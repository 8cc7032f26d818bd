//! What was confirmed survives the end of the process.

use futures_executor::block_on;
use onlyonce_core::{Floor, Timestamp};
use onlyonce_store::Store as _;

use super::{get, put};
use crate::{StoreBuilder, answered, claimed, id};

/// What was confirmed survives a crash.
pub fn what_was_confirmed_survives_a_crash<B: StoreBuilder>(builder: &B) {
    let mut store = builder.fresh();
    for round in 0..3 {
        for number in round * 20..(round + 1) * 20 {
            let one = claimed(number);
            put(&store, number, None, Some(&one));
            if number % 2 == 0 {
                put(&store, number, Some(&one), Some(&answered(&one, number + 1, "order")));
            }
        }
        store = builder.after_crash(store);
        for number in 0..(round + 1) * 20 {
            let one = claimed(number);
            let expect = if number % 2 == 0 { answered(&one, number + 1, "order") } else { one };
            assert_eq!(get(&store, number), Some(expect));
        }
    }
}

/// A deletion survives a crash.
pub fn a_deletion_survives_a_crash<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let one = claimed(1);
    put(&store, 1, None, Some(&one));
    put(&store, 1, Some(&one), None);
    let store = builder.after_crash(store);
    assert_eq!(get(&store, 1), None);
}

/// Floor and revisions survive a crash.
pub fn floor_and_revisions_survive_a_crash<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let floor = Floor::at(Timestamp::from_millis(77));
    block_on(store.raise_floor(floor)).unwrap();
    let late = claimed(5_000);
    put(&store, 1, None, Some(&late));
    put(&store, 1, Some(&late), None);
    let store = builder.after_crash(store);
    assert_eq!(block_on(store.floor()).unwrap(), floor);
    assert_eq!(block_on(store.revision_max()).unwrap(), late.revision.get());
}

/// Case B61: what was never confirmed is there whole or not at all.
pub fn what_was_never_confirmed_is_there_whole_or_not_at_all<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let content = vec![7; 100_000.min(store.reply_max())];
    for number in 0..20 {
        let one = answered(&claimed(number), number, content.clone());
        let mut swap = store.swap(id(number), None, Some(one));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = swap.as_mut().poll(&mut context);
    }
    let store = builder.after_crash(store);
    for number in 0..20 {
        let found = get(&store, number);
        let whole = answered(&claimed(number), number, content.clone());
        assert!(found.is_none() || found == Some(whole));
    }
}
