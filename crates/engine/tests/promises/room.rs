//! Room: replies that are too large, stores that are full, and keys that must never run.

use std::time::Duration;

use onlyonce::core::{Outcome, Reply};
use onlyonce::store::StoreErrorKind;
use onlyonce::{Answer, EngineError, EngineEvent, Settings};

use crate::common::{Rigged, World, id, order, seconds};

fn not_kept(event: &EngineEvent) -> bool {
    matches!(event, EngineEvent::ReplyNotKept { .. })
}

fn gone(answer: &Answer) -> Option<u16> {
    if let Answer::Refused(Outcome::Gone { status, sealed: false, .. }) = answer {
        Some(*status)
    } else {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_large_is_given_once_and_then_only_remembered() {
    let store = Rigged::with_reply_max(6);
    let world = World::with(store, Settings::default()).await;
    assert_eq!(world.engine.reply_max(), 6);
    assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)));
    assert_eq!(gone(&world.order(seconds(1)).await.unwrap()), Some(201));
    assert_eq!((world.outside.runs(), world.events.count(not_kept)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_store_takes_no_claims_but_records_what_already_runs() {
    let world = World::new().await;
    let running = world.ordering(seconds(1)).await;
    world.store.set_full(true);
    assert_eq!(running.await.unwrap().unwrap(), Answer::Reply(order(1)));
    assert_eq!(gone(&world.order(seconds(1)).await.unwrap()), Some(201));
    assert_eq!(world.events.count(not_kept), 1);

    let other = World::new().await;
    other.store.set_full(true);
    let error = other.order(seconds(1)).await.unwrap_err();
    let EngineError::Store(error) = error else { panic!("{error:?}") };
    assert_eq!((error.kind(), other.outside.runs()), (StoreErrorKind::Full, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sealed_key_never_runs_and_answers_with_the_refusal() {
    let world = World::new().await;
    let refusal = Reply::kept(409, "cancelled");
    let (engine, policy) = (&world.engine, world.policy);
    let seal = || engine.seal(id(), &policy, refusal.clone(), None, "ann", "cancelled");
    assert_eq!(seal().await.unwrap().outcome, Outcome::Done);
    assert_eq!(seal().await.unwrap().outcome, Outcome::Done);
    let answer = world.order(Duration::ZERO).await.unwrap();
    assert_eq!(answer, Answer::Replayed(refusal.clone()));
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_answered_cannot_be_sealed() {
    let world = World::new().await;
    assert_eq!(world.order(Duration::ZERO).await.unwrap(), Answer::Reply(order(1)));
    let (refusal, policy) = (Reply::kept(409, "cancelled"), world.policy);
    let told = world.engine.seal(id(), &policy, refusal, None, "ann", "").await.unwrap();
    assert!(matches!(told.outcome, Outcome::Replay { sealed: false, .. }), "{told:?}");
    assert_eq!(world.order(Duration::ZERO).await.unwrap(), Answer::Replayed(order(1)));
}

/// Case B60.
#[tokio::test(start_paused = true)]
async fn a_reply_is_replayed_for_its_retention_and_the_key_refused_for_longer() {
    let world = World::new().await;
    assert_eq!(world.order(Duration::ZERO).await.unwrap(), Answer::Reply(order(1)));
    tokio::time::sleep(world.policy.retention - seconds(1)).await;
    assert_eq!(world.order(Duration::ZERO).await.unwrap(), Answer::Replayed(order(1)));
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(gone(&world.order(Duration::ZERO).await.unwrap()), Some(201));
    tokio::time::sleep(world.policy.remember * 2).await;
    // Nobody has swept: that it is due changes nothing by itself.
    assert_eq!(gone(&world.order(Duration::ZERO).await.unwrap()), Some(201));
    assert_eq!(world.outside.runs(), 1);
}
