//! A store that loses calls, answers late, is down or full.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use onlyonce::core::{Outcome, Phase, StateKind};
use onlyonce::store::StoreErrorKind;
use onlyonce::{Answer, EngineError, EngineEvent, Ran};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_lost_either_way_is_repeated_and_granted_once() {
    for fault in [Fault::LostThere, Fault::LostBack] {
        let shop = Shop::open().await;
        shop.store.fail_next(StateKind::InFlight, fault);
        assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())), "{fault:?}");
        assert_eq!(shop.store.faults_left(), 0);
        let record = shop.engine.get(request().id).await.unwrap().unwrap();
        assert_eq!(record.attempt, 1, "the repeated claim is the same one");
        assert_eq!(shop.charges(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_never_comes_runs_nothing_and_frees_the_key_later() {
    let shop = Shop::open().await;
    // It is granted, and then the store is gone before anybody hears of it.
    shop.store.fail_next(StateKind::InFlight, Fault::LateBack(seconds(3)));
    let asked = shop.ask(seconds(1)).await;
    assert_eq!(asked, Err(EngineError::StoreTimeout));
    assert_eq!((shop.charges(), shop.state().await), (0, Some(StateKind::InFlight)));
    pass(seconds(1)).await;
    assert_eq!(shop.state().await, Some(StateKind::Released));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_takes_place_after_everyone_gave_up_frees_the_key_later() {
    let shop = Shop::open().await;
    shop.store.fail_next(StateKind::InFlight, Fault::LateThere(seconds(6)));
    assert_eq!(shop.ask(seconds(1)).await, Err(EngineError::StoreTimeout));
    assert_eq!(shop.state().await, None);
    pass(seconds(5)).await;
    assert_eq!(shop.state().await, Some(StateKind::InFlight));
    // Long before its lease would be over.
    pass(seconds(8)).await;
    assert_eq!(shop.state().await, Some(StateKind::Released));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_caller_goes_away_before_the_answer_frees_the_key() {
    let shop = Shop::open().await;
    shop.store.fail_next(StateKind::InFlight, Fault::LateBack(seconds(1)));
    let caller = shop.ask_aside(seconds(1), seconds(5), Ran::Happened(confirmed()));
    pass(Duration::from_millis(100)).await;
    caller.abort();
    assert_eq!(shop.state().await, Some(StateKind::InFlight));
    pass(seconds(1)).await;
    assert_eq!((shop.charges(), shop.state().await), (0, Some(StateKind::Released)));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_is_lost_either_way_is_recorded_all_the_same() {
    for fault in [Fault::LostThere, Fault::LostBack, Fault::LateBack(seconds(40))] {
        let shop = Shop::open().await;
        shop.store.fail_next(StateKind::Completed, fault);
        shop.store.fail_next(StateKind::Completed, fault);
        assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())), "{fault:?}");
        assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())), "{fault:?}");
        assert_eq!(shop.charges(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_recorded_is_told_and_the_key_becomes_unknown() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(1), seconds(5), Ran::Happened(confirmed()));
    pass(Duration::from_millis(500)).await;
    shop.store.down.store(true, SeqCst);
    assert_eq!(first.await.unwrap(), Answer::Unrecorded(confirmed()));
    let unrecorded = |event: &EngineEvent| matches!(event, EngineEvent::Unrecorded { .. });
    assert_eq!(shop.log.count(unrecorded), 1);
    // While the store is away nothing runs, and who asks hears why.
    let asked = shop.ask(seconds(1)).await;
    assert!(matches!(asked, Err(EngineError::Store(_))), "{asked:?}");
    shop.store.down.store(false, SeqCst);
    pass(seconds(31)).await;
    let asked = shop.ask(seconds(1)).await;
    assert!(matches!(asked, Ok(Answer::Refused(Outcome::OutcomeUnknown { .. }))), "{asked:?}");
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_before_the_lease_is_over_gets_the_reply() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(1), seconds(5), Ran::Happened(confirmed()));
    pass(Duration::from_millis(500)).await;
    shop.store.down.store(true, SeqCst);
    pass(seconds(20)).await;
    shop.store.down.store(false, SeqCst);
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_once_does_not_lose_the_key() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(60), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    shop.store.down.store(true, SeqCst);
    pass(seconds(15)).await;
    shop.store.down.store(false, SeqCst);
    pass(seconds(25)).await;
    let asked = shop.ask(seconds(1)).await;
    assert!(matches!(asked, Ok(Answer::Refused(Outcome::InFlight { .. }))), "{asked:?}");
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_new_keys_and_lets_what_runs_be_recorded() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(2), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    shop.store.full.store(true, SeqCst);
    let mut fresh = request();
    fresh.id = onlyonce::core::KeyId::from_bytes([8; 16]);
    let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
    let refused = shop.engine.once(&fresh, &policy(), seconds(5), charge).await;
    let full = matches!(&refused, Err(EngineError::Store(it)) if it.kind() == StoreErrorKind::Full);
    assert!(full, "{refused:?}");
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.charges(), 1, "the refused one never ran");
    assert_eq!(shop.state().await, Some(StateKind::Completed));
}

#[tokio::test(start_paused = true)]
async fn a_store_without_room_for_the_reply_still_records_that_it_was_answered() {
    let shop = Shop::open().await;
    shop.store.brimming.store(true, SeqCst);
    answered_but_not_kept(&shop).await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_above_the_stores_bound_is_told_once_and_not_kept() {
    let shop = Shop::open().await;
    shop.store.reply_max.store(4, SeqCst);
    answered_but_not_kept(&shop).await;
}

async fn answered_but_not_kept(shop: &Shop) {
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    let again = shop.ask(seconds(1)).await;
    let gone =
        matches!(again, Ok(Answer::Refused(Outcome::Gone { status: 201, sealed: false, .. })));
    assert!(gone, "{again:?}");
    let not_kept = |event: &EngineEvent| matches!(event, EngineEvent::ReplyNotKept { .. });
    assert_eq!((shop.charges(), shop.log.count(not_kept)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_is_lost_frees_the_key_all_the_same() {
    let shop = Shop::open().await;
    let ticket = shop.claim(Phase::Committing).await;
    shop.store.fail_next(StateKind::Released, Fault::LostBack);
    let released = ticket.release(false, None).await.unwrap();
    assert_eq!((released.outcome, shop.store.faults_left()), (Outcome::Done, 0));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}
