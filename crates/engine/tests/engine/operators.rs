//! Operators: verdicts on unknown outcomes, and seals.

use std::sync::Arc;

use onlyonce::core::{Cause, Outcome, Phase, Reply, Verdict};
use onlyonce::{Acted, Answer, EngineEvent, Ran};

use crate::support::*;

fn sealed_reply() -> Reply {
    Reply::kept(409, "cancelled by the shop")
}

async fn seal(shop: &Shop) -> Acted {
    let (id, policy) = (request().id, policy());
    shop.engine.seal(id, &policy, sealed_reply(), None, "ops", "cancelled").await.unwrap()
}

/// Leaves the key's outcome unknown and says under which claim.
async fn doubt(shop: &Shop) -> onlyonce::core::Fence {
    let ticket = shop.claim(Phase::Committing).await;
    let fence = ticket.fence();
    ticket.abandon(Cause::TimedOut, None).await.unwrap();
    fence
}

#[tokio::test(start_paused = true)]
async fn a_sealed_key_never_runs_and_whoever_looks_is_told_that_it_never_did() {
    let shop = Shop::open().await;
    assert_eq!(seal(&shop).await.outcome, Outcome::Done);
    for _again in 0..2 {
        assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(sealed_reply())));
        let told = shop.look().await;
        assert!(matches!(told, Outcome::Replay { sealed: true, .. }), "{told:?}");
    }
    assert_eq!(shop.charges(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_seal_of_what_runs_or_was_answered_changes_nothing_and_says_so() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(2), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    let refused = seal(&shop).await.outcome;
    assert!(matches!(refused, Outcome::InFlight { .. }), "{refused:?}");
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    let refused = seal(&shop).await.outcome;
    let stands =
        matches!(&refused, Outcome::Replay { reply, sealed: false, .. } if *reply == confirmed());
    assert!(stands, "{refused:?}");
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_ran_although_the_key_was_sealed_meanwhile_is_not_told_the_refusal_as_its_reply() {
    let shop = Shop::open().await;
    let (engine, charges) = (shop.engine.clone(), Arc::clone(&shop.charges));
    let first = tokio::spawn(async move {
        let charge = Listening { charges, takes: seconds(50) };
        engine.once(&request(), &policy(), seconds(5), charge).await.unwrap()
    });
    pass(seconds(1)).await;
    let record = shop.engine.get(request().id).await.unwrap().unwrap();
    // The line is cut; somebody decides, wrongly, that it never ran, and seals it.
    shop.store.down.store(true, std::sync::atomic::Ordering::SeqCst);
    pass(seconds(35)).await;
    shop.store.down.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(shop.resolve(record.fence, Verdict::NotExecuted).await, Outcome::Done);
    assert_eq!(seal(&shop).await.outcome, Outcome::Done);
    assert_eq!(first.await.unwrap(), Answer::Refused(Outcome::SecondReply));
    let alarm = |event: &EngineEvent| matches!(event, EngineEvent::SecondReply { .. });
    assert_eq!((shop.charges(), shop.log.count(alarm)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_with_another_answer_than_the_recorded_one_is_an_alarm_and_stays_in_the_record() {
    let shop = Shop::open().await;
    let fence = doubt(&shop).await;
    assert_eq!(shop.resolve(fence, Verdict::Happened(confirmed())).await, Outcome::Done);
    let another = Verdict::Happened(Reply::kept(201, "order confirmed, 7830"));
    for _again in 0..2 {
        assert_eq!(shop.resolve(fence, another.clone()).await, Outcome::SecondReply);
    }
    let alarm = |event: &EngineEvent| matches!(event, EngineEvent::SecondReply { .. });
    assert_eq!(shop.log.count(alarm), 2);
    let record = shop.engine.get(request().id).await.unwrap().unwrap();
    assert!(record.has_alarm() && record.history.entries().len() == 2, "{:?}", record.history);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_it_never_happened_lets_it_run_again() {
    let shop = Shop::open().await;
    let fence = doubt(&shop).await;
    assert_eq!(shop.resolve(fence, Verdict::NotExecuted).await, Outcome::Done);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
    // The verdict was about that claim and no later one.
    assert_eq!(shop.resolve(fence, Verdict::NotExecuted).await, Outcome::Fenced);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_it_happened_is_replayed_from_then_on() {
    let shop = Shop::open().await;
    let fence = doubt(&shop).await;
    assert_eq!(shop.resolve(fence, Verdict::Happened(confirmed())).await, Outcome::Done);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_after_a_verdict_to_run_again_that_fails_is_not_called_certain() {
    let shop = Shop::open().await;
    let fence = doubt(&shop).await;
    assert_eq!(shop.resolve(fence, Verdict::RunAgain).await, Outcome::Done);
    let charge = shop.charge(seconds(1), Ran::NotExecuted(Reply::kept(503, "later")));
    let asked = shop.engine.once(&request(), &policy(), seconds(5), charge).await;
    // This attempt did nothing, but the one before it may have.
    assert!(matches!(asked, Ok(Answer::Refused(_))), "{asked:?}");
}
