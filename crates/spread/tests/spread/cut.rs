//! A move that is cut off after any of its calls, and said again: it ends as if it had never been
//! cut off, and every key is where it is looked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bench::{map, seated, steady};
use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, Timestamp};
use onlyonce_spread::{Given, Number, Seat, Spread};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, StoreErrorKind, Swap,
};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const KEYS: u64 = 12;
/// Nothing is cut off.
pub(crate) const NEVER: usize = usize::MAX;

/// A member of a process that ends after so many calls of any of them.
pub(crate) struct Ends {
    pub(crate) inner: Arc<MemoryStore>,
    pub(crate) left: Arc<AtomicUsize>,
    /// Whether the last write takes place, and only its answer does not come.
    pub(crate) is_written: bool,
}

impl Ends {
    fn goes_on(&self) -> Result<(), StoreError> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(StoreError::new(StoreErrorKind::Unknown, "the process has ended"));
        }
        self.left.store(left - 1, Ordering::Relaxed);
        Ok(())
    }
}

impl Store for Ends {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.goes_on()?;
            self.inner.get(id).await
        })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            let goes_on = self.goes_on();
            if goes_on.is_ok() || self.is_written {
                let swap = self.inner.swap(id, expected, next).await;
                goes_on?;
                return swap;
            }
            goes_on.map(|()| Swap::Done)
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async {
            self.goes_on()?;
            self.inner.floor().await
        })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.goes_on()?;
            self.inner.raise_floor(to).await
        })
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async {
            self.goes_on()?;
            self.inner.revision_max().await
        })
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.inner.due(due, limit)
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            self.goes_on()?;
            self.inner.list(filter, after).await
        })
    }

    fn reply_max(&self) -> usize {
        self.inner.reply_max()
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}

/// The stores of a set of two, and one that is to join.
fn stores() -> [Arc<MemoryStore>; 3] {
    let stores = [1, 2, 3].map(|own: Number| {
        let store = Arc::new(MemoryStore::new());
        block_on(store.swap(MARK, None, Some(seated(own, &map("1 1,2 -"))))).unwrap();
        store
    });
    let spread = open(&stores, NEVER, false).unwrap();
    for key in 0..KEYS {
        assert_eq!(block_on(spread.swap(id(key), None, Some(claimed(1)))).unwrap(), Swap::Done);
    }
    stores
}

/// A process that ends after so many calls; `None` if that is while it begins.
pub(crate) fn open(stores: &[Arc<MemoryStore>], calls: usize, is_written: bool) -> Option<Spread> {
    let left = Arc::new(AtomicUsize::new(calls));
    let given = stores.iter().map(|inner| Given {
        name: "db".to_owned(),
        store: Arc::new(Ends { inner: Arc::clone(inner), left: Arc::clone(&left), is_written }),
        secret: Secret::from_bytes([7; 32]),
    });
    block_on(Spread::open(given.collect(), steady(0))).ok()
}

/// What `onlyonce store rebalance` does.
async fn rebalance(
    spread: &Spread,
    members: &[Number],
    stores: &[Arc<MemoryStore>; 3],
) -> Result<(), StoreError> {
    let mut map = spread.map();
    if !map.is_moving() {
        map = spread.republish(NOW).await?;
    }
    if map.is_moving() || map.members() != members {
        let moving = spread.begin(map.version(), members, NOW).await?;
        // Before anybody waits it stands in all of them.
        for store in stores {
            assert_eq!(Seat::read(&**store).await.unwrap().unwrap().map, moving);
        }
        loop {
            let pass = spread.pass(moving.version(), &|_| ()).await?;
            if pass.moved == 0 {
                spread.settle(&pass, NOW).await?;
                break;
            }
        }
    }
    spread.clean(&|_| ()).await.map(drop)
}

#[test]
fn a_move_that_is_cut_off_after_any_call_is_ended_by_the_same_command() {
    for is_written in [false, true] {
        for calls in 0.. {
            let stores = stores();
            let Some(cut) = open(&stores, calls, is_written) else { continue };
            let is_done = block_on(rebalance(&cut, &[1, 2, 3], &stores)).is_ok();
            // By whatever stands now, each key is found: nothing was lost on the way.
            let spread = open(&stores, NEVER, false).unwrap();
            let is_found = |spread: &Spread, key| {
                assert_eq!(block_on(spread.get(id(key))).unwrap(), Some(claimed(1)), "{calls}");
            };
            (0..KEYS).for_each(|key| is_found(&spread, key));
            let maps = || stores.each_ref().map(|it| block_on(Seat::read(&**it)).unwrap().unwrap());
            block_on(rebalance(&spread, &[1, 2, 3], &stores)).unwrap();
            assert!(maps().iter().all(|seat| seat.map == map("3 1,2,3 -")), "{calls}");
            (0..KEYS).for_each(|key| is_found(&spread, key));
            let count = |store: &Arc<MemoryStore>| {
                block_on(store.list(Filter::default(), None)).unwrap().records.len()
            };
            let seats_and_keys = 3 + usize::try_from(KEYS).unwrap();
            assert_eq!(stores.iter().map(count).sum::<usize>(), seats_and_keys, "{calls}");
            if is_done {
                assert!(40 < calls, "{calls} calls");
                break;
            }
        }
    }
}
