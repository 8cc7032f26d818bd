//! A store that loses calls, answers late, is down or full.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use onlyonce::core::{ClaimId, Outcome, Phase, Policy, StateKind};
use onlyonce::store::StoreErrorKind;
use onlyonce::{Answer, EngineError, EngineEvent, Ran, Request, Settings, Sweeper};

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

/// Two processes on one store, and a claim of the first that decides that the key is new. It is
/// then on its way for 200 s: the second process runs the key meanwhile, and its sweeper deletes
/// what it recorded.
async fn outlived<T>(
    timed: bool,
    claim: impl AsyncFnOnce(&Shop, &Request, &Policy) -> T,
) -> (T, usize) {
    let patient = Settings { store_wait: seconds(500), ..Settings::default() };
    let first = Shop::open_on(Arc::default(), patient).await;
    let line = Arc::new(first.store.another_line());
    let second = Shop::open_on(line, Settings::default()).await;
    let (lease, retention, remember) = (seconds(400), seconds(1), seconds(2));
    let policy = Policy { lease, retention, remember, ..policy() }.check().unwrap();
    let request = Request { key_time: timed.then(|| first.engine.now()), ..request() };
    first.store.fail_next(StateKind::InFlight, Fault::LateThere(seconds(200)));
    let meanwhile = async {
        pass(seconds(1)).await;
        let charge = second.charge(seconds(1), Ran::Happened(confirmed()));
        let answer = second.engine.once(&request, &policy, seconds(5), charge).await;
        assert_eq!(answer, Ok(Answer::Reply(confirmed())));
        let mut sweeper = Sweeper::new(second.engine.clone(), policy);
        for _ in 0..3 {
            pass(sweeper.pause()).await;
            sweeper.pass().await.unwrap();
        }
        assert_eq!(second.engine.get(request.id).await, Ok(None));
    };
    let (told, ()) = tokio::join!(claim(&first, &request, &policy), meanwhile);
    pass(seconds(1)).await;
    (told, first.charges() + second.charges())
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_has_outlived_its_key_runs_nothing() {
    for (timed, again) in [
        (true, Answer::Refused(Outcome::Expired)),
        // A key without a time runs as new once it is forgotten, but under a fence of its own.
        (false, Answer::Reply(confirmed())),
    ] {
        let twice = async |shop: &Shop, request: &Request, policy: &Policy| {
            let charge = || shop.charge(seconds(1), Ran::Happened(confirmed()));
            let late = shop.engine.once(request, policy, seconds(5), charge()).await;
            let charges = shop.charges();
            pass(seconds(5)).await;
            assert_eq!(shop.state().await, Some(StateKind::Released));
            let again = shop.engine.once(request, policy, seconds(5), charge()).await;
            (late, charges, again)
        };
        let ((late, charges, then), all) = outlived(timed, twice).await;
        assert_eq!((late, charges, then), (Err(EngineError::StoreTimeout), 0, Ok(again)));
        assert_eq!(all, if timed { 1 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_for_another_process_that_has_outlived_its_key_is_not_granted_however_often_asked()
{
    let twice = async |shop: &Shop, request: &Request, policy: &Policy| {
        let id = ClaimId::from_bytes([9; 16]);
        let claim = || shop.engine.claim_for(request, policy, Phase::Committing, id);
        [claim().await.map(|acted| acted.outcome), claim().await.map(|acted| acted.outcome)]
    };
    let (told, charges) = outlived(true, twice).await;
    let no = Err(EngineError::StoreTimeout);
    assert_eq!((told, charges), ([no.clone(), no], 1));
}
