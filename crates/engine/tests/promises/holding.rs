//! Holders: they renew, they are fenced, they are late, and what they found out still counts.

use std::sync::Arc;
use std::time::Duration;

use onlyonce::core::{Cause, Evidence, Outcome, Phase, State, Verdict};
use onlyonce::store::Store;
use onlyonce::{Answer, EngineError, EngineEvent, Settings};

use crate::common::{Mail, Rigged, World, id, no_fence, order, seconds, unreachable};

#[tokio::test(start_paused = true)]
async fn a_run_longer_than_its_lease_keeps_the_claim() {
    let world = World::new().await;
    let running = world.ordering(seconds(300)).await;
    for _ in 0..29 {
        tokio::time::sleep(seconds(10)).await;
        assert!(world.look().await.is_running());
    }
    assert_eq!(running.await.unwrap().unwrap(), Answer::Reply(order(1)));
    assert_eq!(world.outside.runs(), 1);
}

/// Case B21: no time at all is a time too. A claim of that length ends at once, and the key is free
/// again.
#[tokio::test(start_paused = true)]
async fn a_lease_of_nothing_ends_at_once_and_never_blocks_its_key() {
    for lease in [Duration::ZERO, Duration::from_millis(1)] {
        let mut world = World::new().await;
        // No configuration can say so: `Policy::check` refuses both.
        world.policy.lease = lease;
        assert!(world.policy.check().is_err());
        let before = world.engine.now();
        std::mem::forget(world.claimed(Phase::Prepared).await);
        let record = world.engine.get(id()).await.unwrap().unwrap();
        let State::InFlight(flight) = record.state else { panic!("{record:?}") };
        assert!(
            before <= flight.lease_until && flight.lease_until <= world.engine.now().plus(lease)
        );
        tokio::time::sleep(world.policy.skew_max + lease).await;
        world.policy = onlyonce::core::Policy::default();
        assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_preparation_longer_than_the_lease_keeps_the_claim() {
    let world = World::new().await;
    let outside = Arc::clone(&world.outside);
    let mail = Mail { outside, prepare: seconds(100), refused: false };
    assert_eq!(world.once(mail).await.unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_now_and_then_loses_nothing() {
    let world = World::new().await;
    let running = world.ordering(seconds(100)).await;
    for _ in 0..4 {
        // A renewal is due every ten seconds; these come while the store is away.
        tokio::time::sleep(seconds(8)).await;
        world.store.set_away(true);
        tokio::time::sleep(seconds(12)).await;
        world.store.set_away(false);
        assert!(world.look().await.is_running());
    }
    assert_eq!(running.await.unwrap().unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_arrives_when_its_lease_is_nearly_over_runs_nothing() {
    let settings = Settings { store_wait: seconds(120), ..Settings::default() };
    for late in [25, 60] {
        let world = World::with(Rigged::new(), settings).await;
        world.store.answer_late(seconds(late));
        let error = world.order(seconds(1)).await.unwrap_err();
        assert_eq!(error, EngineError::LeaseShort);
        assert_eq!(world.outside.runs(), 0, "after {late} s");
        // It was released: the next may run at once.
        assert_eq!(world.look().await.outcome, Outcome::Absent);
        assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_mark_that_comes_too_late_runs_nothing() {
    let settings = Settings { store_wait: seconds(120), ..Settings::default() };
    let world = World::with(Rigged::new(), settings).await;
    let outside = Arc::clone(&world.outside);
    let mail = Mail { outside, prepare: Duration::ZERO, refused: false };
    world.store.answer_late(Duration::ZERO);
    world.store.answer_late(seconds(25));
    assert_eq!(world.once(mail).await.unwrap_err(), EngineError::LeaseShort);
    assert_eq!(world.outside.runs(), 0);
    assert_eq!(world.look().await.outcome, Outcome::Absent);
}

#[tokio::test(start_paused = true)]
async fn a_prepared_holder_that_lost_its_claim_does_not_commit() {
    let world = World::new().await;
    let mut sleeper = world.claimed(Phase::Prepared).await;
    tokio::time::sleep(seconds(40)).await;
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    assert_eq!(sleeper.commit().await, Err(EngineError::ClaimLost));
    drop(sleeper);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Replayed(order(1)));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_taken_for_dead_is_told_so_before_it_sends() {
    let store = Arc::new(Rigged::new());
    let before = World::on(Arc::clone(&store), Settings::default()).await;
    let mut holder = before.claimed(Phase::Committing).await;
    // A process that has the store for itself ends every claim that it finds.
    let _after = World::on(store, Settings::default()).await;
    // By what the holder knows the mark is made already; what it knows is not what stands.
    assert_eq!(holder.commit().await, Err(EngineError::ClaimLost));
    std::mem::forget(holder);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_turns_doubt_into_an_answer() {
    let world = World::new().await;
    let late = world.claimed(Phase::Committing).await;
    tokio::time::sleep(seconds(60)).await;
    let lapsed = world.look().await.outcome;
    assert!(matches!(lapsed, Outcome::OutcomeUnknown { cause: Cause::Lapsed, .. }), "{lapsed:?}");
    assert_eq!(late.complete(order(5)).await.unwrap().outcome, Outcome::Done);
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Replayed(order(5)));
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_fences_the_one_who_prepares_to_run_it_again() {
    let world = World::new().await;
    let late = world.claimed(Phase::Committing).await;
    tokio::time::sleep(seconds(60)).await;
    let (policy, fence) = (world.policy, late.fence());
    let (engine, verdict) = (&world.engine, Verdict::RunAgain);
    engine.resolve(id(), &policy, fence, verdict, "ann", "nobody knows").await.unwrap();
    let mut newer = world.claimed(Phase::Prepared).await;
    assert!(fence < newer.fence());
    assert_eq!(late.complete(order(5)).await.unwrap().outcome, Outcome::Done);
    assert_eq!(newer.commit().await, Err(EngineError::ClaimLost));
    std::mem::forget(newer);
}

#[tokio::test(start_paused = true)]
async fn a_second_and_different_reply_raises_the_alarm_and_changes_nothing() {
    let world = World::new().await;
    let late = world.claimed(Phase::Committing).await;
    tokio::time::sleep(seconds(60)).await;
    let (policy, fence, verdict) = (world.policy, late.fence(), Verdict::Happened(order(7)));
    world.engine.resolve(id(), &policy, fence, verdict, "ann", "seen").await.unwrap();
    assert_eq!(late.complete(order(8)).await.unwrap().outcome, Outcome::SecondReply);
    let alarm = |event: &_| matches!(event, EngineEvent::SecondReply { .. });
    assert_eq!(world.events.count(alarm), 1);
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Replayed(order(7)));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_holder_releases_nothing_and_wakes_nobody_who_waits_for_another() {
    let world = World::new().await;
    let sleeper = world.claimed(Phase::Prepared).await;
    tokio::time::sleep(seconds(40)).await;
    let running = world.ordering(seconds(3)).await;
    let waiter = world.clone();
    let waiting = tokio::spawn(async move { waiter.order(seconds(0)).await });
    tokio::time::sleep(seconds(1)).await;
    let told = sleeper.release(false, Some(unreachable())).await.unwrap();
    assert_eq!(told.outcome, Outcome::Fenced);
    assert_eq!(waiting.await.unwrap().unwrap(), Answer::Replayed(order(1)));
    assert_eq!(running.await.unwrap().unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn what_a_holder_noted_is_there_for_whoever_looks_into_the_doubt() {
    let world = World::new().await;
    let mut ticket = world.claimed(Phase::Committing).await;
    ticket.note(Evidence::new("ext-1").unwrap()).await.unwrap();
    drop(ticket);
    tokio::time::sleep(seconds(1)).await;
    let record = world.look().await.record.unwrap();
    assert_eq!(record.evidence.unwrap().as_bytes(), b"ext-1");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_a_claim_that_never_was_changes_nothing() {
    let world = World::new().await;
    drop(world.claimed(Phase::Committing).await);
    tokio::time::sleep(seconds(1)).await;
    let (engine, policy) = (&world.engine, world.policy);
    for verdict in [Verdict::NotExecuted, Verdict::RunAgain, Verdict::Happened(order(9))] {
        let told = engine.resolve(id(), &policy, no_fence(), verdict, "ann", "").await.unwrap();
        assert_eq!(told.outcome, Outcome::Fenced);
    }
    let told = world.look().await.outcome;
    assert!(matches!(told, Outcome::OutcomeUnknown { .. }), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_doubt_that_is_resolved_as_not_executed_lets_the_next_request_run() {
    let world = World::new().await;
    let ticket = world.claimed(Phase::Committing).await;
    let fence = ticket.fence();
    ticket.abandon(Cause::TimedOut, None).await.unwrap();
    let (engine, policy, verdict) = (&world.engine, world.policy, Verdict::NotExecuted);
    engine.resolve(id(), &policy, fence, verdict, "ann", "not in the list").await.unwrap();
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    let record = world.look().await.record.unwrap();
    assert_eq!((record.runs_authorised, record.attempt), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_release_that_says_nothing_happened_is_shared_only_if_it_is_true_of_the_key() {
    // The second attempt, allowed by a person, is refused; the first is still in doubt to them.
    let world = World::new().await;
    let ticket = world.claimed(Phase::Committing).await;
    let fence = ticket.fence();
    ticket.abandon(Cause::TimedOut, None).await.unwrap();
    let (engine, policy, verdict) = (&world.engine, world.policy, Verdict::RunAgain);
    engine.resolve(id(), &policy, fence, verdict, "ann", "").await.unwrap();
    let outside = Arc::clone(&world.outside);
    let mail = Mail { outside, prepare: seconds(1), refused: true };
    let (ran, waited) = tokio::join!(world.once(mail), world.order(seconds(0)));
    for answer in [ran.unwrap(), waited.unwrap()] {
        assert!(!matches!(answer, Answer::NotExecuted(_)), "{answer:?}");
    }
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_record_was_forgotten_does_not_speak_for_others() {
    let world = World::new().await;
    let outside = Arc::clone(&world.outside);
    let mail = Mail { outside, prepare: seconds(5), refused: true };
    let sleeper = world.clone();
    let sleeping = tokio::spawn(async move { sleeper.once(mail).await });
    tokio::time::sleep(seconds(1)).await;
    let forget = async || {
        let record = world.engine.get(id()).await.unwrap().unwrap();
        world.store.swap(id(), Some(record.revision), None).await.unwrap();
    };
    forget().await;
    // Another attempt has happened, and was forgotten too.
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    forget().await;
    let answer = sleeping.await.unwrap().unwrap();
    assert!(!matches!(answer, Answer::NotExecuted(_)), "{answer:?}");
}
