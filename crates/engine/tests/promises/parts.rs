//! A store of several parts: one that is away holds up no key of the others, and each key goes by
//! the floor of its own part.

use std::sync::Arc;

use onlyonce::core::{Floor, KeyId, Outcome, Policy, Record, Revision};
use onlyonce::store::{BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, Swap};
use onlyonce::{Answer, Engine, FLOOR_AGE_MAX, Ran, Request, Settings, direct};
use onlyonce_conformance::FaultyStore;
use onlyonce_tokio::TokioRuntime;

use crate::common::{Rigged, order, request, seconds};

/// Two parts; the first byte of a key says which it is in.
struct Parts([Rigged; 2]);

impl Parts {
    fn of(&self, id: KeyId) -> &Rigged {
        &self.0[usize::from(id.as_bytes()[0] % 2)]
    }

    fn faults(&self, part: u32) -> &FaultyStore<MemoryStore> {
        &self.0[part as usize].faults
    }
}

impl Store for Parts {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.of(id).get(id)
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        self.of(id).swap(id, expected, next)
    }

    fn part(&self, id: KeyId) -> Option<u32> {
        Some(u32::from(id.as_bytes()[0] % 2))
    }

    fn floor_in(&self, part: u32) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async move {
            // As any call: it fails while the part is away.
            self.0[part as usize].get(KeyId::from_bytes([0; 16])).await?;
            self.faults(part).floor().await
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async { Ok(self.floor_in(0).await?.max(self.floor_in(1).await?)) })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.faults(0).raise_floor(to).await?;
            self.faults(1).raise_floor(to).await
        })
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.faults(0).revision_max()
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.faults(0).due(due, limit)
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.faults(0).list(filter, after)
    }

    fn reply_max(&self) -> usize {
        self.0[0].reply_max()
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}

async fn ask(engine: &Engine, asked: &Request) -> Option<Answer> {
    let run = direct(|_| async { Ran::Happened(order(1)) });
    engine.once(asked, &Policy::default(), seconds(1), run).await.ok()
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_away_holds_up_no_key_of_the_others_and_each_has_its_own_floor() {
    let store = Arc::new(Parts([Rigged::shared(), Rigged::shared()]));
    let runtime = Arc::new(TokioRuntime::new());
    let engine = Engine::start(store.clone(), runtime, Settings::default(), None).await.unwrap();
    let now = engine.now();
    let at = |part: u8, more: u8| Request {
        id: KeyId::from_bytes([2 * more + part; 16]),
        key_time: Some(now),
        ..request()
    };
    store.0[1].set_away(true);
    tokio::time::sleep(FLOOR_AGE_MAX + seconds(1)).await;
    assert_eq!(ask(&engine, &at(0, 1)).await, Some(Answer::Reply(order(1))));
    assert_eq!(ask(&engine, &at(1, 1)).await, None, "its floor cannot be read");

    // What one part has raised by itself holds for its keys, also when it was read before.
    store.0[1].set_away(false);
    store.faults(1).raise_floor(Floor::at(now.plus(seconds(1)))).await.unwrap();
    tokio::time::sleep(FLOOR_AGE_MAX + seconds(1)).await;
    assert_eq!(ask(&engine, &at(1, 2)).await, Some(Answer::Refused(Outcome::Expired)));
    assert_eq!(ask(&engine, &at(0, 2)).await, Some(Answer::Reply(order(1))));
    store.faults(0).raise_floor(Floor::at(now.plus(seconds(1)))).await.unwrap();
    tokio::time::sleep(FLOOR_AGE_MAX + seconds(1)).await;
    assert_eq!(ask(&engine, &at(0, 3)).await, Some(Answer::Refused(Outcome::Expired)));
}
