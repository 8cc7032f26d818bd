//! What a store knows beside its records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_executor::block_on;
use onlyonce_core::{Floor, Timestamp};
use onlyonce_store::{Store as _, Swap};

use super::put;
use crate::{StoreBuilder, claimed, id, released};

/// A new store has no floor and no revision.
pub fn a_new_store_has_no_floor_and_no_revision<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    assert_eq!(block_on(store.floor()).unwrap(), Floor::NONE);
    assert_eq!(block_on(store.revision_max()).unwrap(), 0);
}

/// The floor only rises.
pub fn the_floor_only_rises<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let at = |millis| Floor::at(Timestamp::from_millis(millis));
    for (raise, expect) in [(5, 5), (9, 9), (3, 9), (9, 9), (10, 10)] {
        block_on(store.raise_floor(at(raise))).unwrap();
        assert_eq!(block_on(store.floor()).unwrap(), at(expect));
    }
}

/// The largest revision is never forgotten.
pub fn the_largest_revision_is_never_forgotten<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let (one, late) = (claimed(1), claimed(1_000));
    let two = released(&late, 2_000);
    put(&store, 1, None, Some(&late));
    put(&store, 2, None, Some(&one));
    assert_eq!(block_on(store.revision_max()).unwrap(), late.revision.get());
    put(&store, 1, Some(&late), Some(&two));
    put(&store, 1, Some(&two), None);
    // What does not take place is written nowhere.
    let lost = block_on(store.swap(id(2), None, Some(claimed(9_000)))).unwrap();
    assert_eq!(lost, Swap::Conflict(Some(one)));
    assert_eq!(block_on(store.revision_max()).unwrap(), two.revision.get());
}

/// A clock tells milliseconds and goes on.
#[allow(clippy::disallowed_methods, reason = "it is compared with the machine's clock")]
pub fn a_clock_tells_milliseconds_and_goes_on<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let tell = || block_on(store.clock()).unwrap();
    let Some(first) = tell() else { return assert!(!builder.has_clock(), "it tells no time") };
    assert!(builder.has_clock());
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let here = Timestamp::from_millis(u64::try_from(here).unwrap());
    // The server is on this machine.
    let apart = first.since(here).max(here.since(first));
    assert!(apart < Duration::from_secs(60), "{apart:?} apart");
    let goes_on = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        first < tell().unwrap()
    });
    assert!(goes_on, "it stands still");
}
