//! A sweeper among records that it can do nothing about.

use std::sync::atomic::Ordering::SeqCst;

use onlyonce::core::{KeyId, Policy};
use onlyonce::store::StoreErrorKind;
use onlyonce::{EngineError, Ran, Request, Sweeper, Swept, direct};

use crate::support::*;

/// Answers so many keys whose ids begin with `first`.
async fn answer(shop: &Shop, first: u8, keys: u32, policy: &Policy) {
    for number in 0..keys {
        let mut id = [first; 16];
        id[12..].copy_from_slice(&number.to_be_bytes());
        let request = Request { id: KeyId::from_bytes(id), ..request() };
        let run = direct(|_attempt| async { Ran::Happened(confirmed()) });
        shop.engine.once(&request, policy, seconds(1), run).await.unwrap();
    }
}

/// Such as keys that have two records each: a person must choose for each of them.
#[tokio::test(start_paused = true)]
async fn so_many_keys_that_are_refused_each_for_itself_hide_no_other_and_are_told() {
    for many in [33, 5_000] {
        let shop = Shop::open().await;
        let policy = Policy { retention: seconds(60), remember: seconds(60), ..policy() };
        answer(&shop, 0, many, &policy).await;
        answer(&shop, 9, 3, &policy).await;
        pass(seconds(600)).await;
        shop.store.doubled.store(true, SeqCst);
        let swaps = shop.store.swaps.load(SeqCst);
        let mut sweeper = Sweeper::new(shop.engine.clone(), policy);
        let told = sweeper.pass().await;
        let Err(EngineError::Store(error)) = told else { panic!("{told:?}") };
        assert!(error.is_of_key(), "{error}");
        assert_eq!(shop.store.swaps.load(SeqCst) - swaps, many as usize + 3, "each once");
        let swept = |deleted| Ok(Swept { ended: 0, deleted, damaged: 0 });
        shop.store.doubled.store(false, SeqCst);
        // The others have gone already.
        assert_eq!(sweeper.pass().await, swept(u64::from(many)));
    }
}

/// A store that refuses all is not asked for each of them.
#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_many_keys_is_left_alone_until_the_next_pass() {
    let shop = Shop::open().await;
    let policy = Policy { retention: seconds(60), remember: seconds(60), ..policy() };
    answer(&shop, 0, 500, &policy).await;
    pass(seconds(600)).await;
    let mut sweeper = Sweeper::new(shop.engine.clone(), policy);
    for many in [32, 500] {
        shop.store.refusals.store(many, SeqCst);
        let swaps = shop.store.swaps.load(SeqCst);
        sweeper.pass().await.unwrap_err();
        let tried = shop.store.swaps.load(SeqCst) - swaps;
        assert!(if many == 32 { tried == 500 } else { tried < 100 }, "{tried}");
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_unreadable_records_hide_no_other_and_each_is_read_once_a_pass() {
    const UNREADABLE: u32 = 5_000;
    let shop = Shop::open().await;
    let policy = Policy { retention: seconds(60), remember: seconds(60), ..policy() };
    // The store names them in the order of their ids.
    answer(&shop, 0, UNREADABLE, &policy).await;
    answer(&shop, 9, 3, &policy).await;
    pass(seconds(600)).await;
    shop.store.unreadable.store(true, SeqCst);
    let gets = shop.store.gets.load(SeqCst);
    let swept = Sweeper::new(shop.engine.clone(), policy).pass().await.unwrap();
    assert_eq!(swept, Swept { ended: 0, deleted: 3, damaged: u64::from(UNREADABLE) });
    assert_eq!(shop.store.gets.load(SeqCst) - gets, UNREADABLE as usize + 3);
    let request = Request { id: KeyId::from_bytes([0; 16]), ..request() };
    let look = shop.engine.look(&request, &policy).await;
    let Err(EngineError::Store(error)) = look else { panic!("{look:?}") };
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
}
