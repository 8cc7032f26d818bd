//! Duplicates: one runs, the others wait for it and share what it was answered.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use onlyonce::core::{Always, Cause, OnUnknown, Outcome, Phase, Receiver, Reply, Verdict};
use onlyonce::{Answer, Engine, Ran, Settings, Waited, direct};

use crate::common::{Mail, Rigged, World, id, order, other_request, request, seconds, unreachable};

fn reply(answer: Answer) -> Reply {
    let (Answer::Reply(reply) | Answer::Replayed(reply)) = answer else { panic!("{answer:?}") };
    reply
}

#[tokio::test(start_paused = true)]
async fn a_thousand_duplicates_at_once_are_one_run_and_one_reply() {
    let world = World::new().await;
    let answers = join_all((0..1000).map(|_| world.order(seconds(1)))).await;
    assert_eq!(world.outside.runs(), 1);
    assert_eq!(answers.len(), 1000);
    for answer in answers {
        assert_eq!(reply(answer.unwrap()), order(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_duplicates_on_four_threads_are_one_run_and_one_reply() {
    let world = World::new().await;
    let tasks = (0..100).map(|_| {
        let world = world.clone();
        tokio::spawn(async move { world.order(Duration::ZERO).await })
    });
    for answer in join_all(tasks.collect::<Vec<_>>()).await {
        assert_eq!(reply(answer.unwrap().unwrap()), order(1));
    }
    assert_eq!(world.outside.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_and_do_not_poll() {
    let world = World::new().await;
    let first = world.ordering(seconds(4)).await;
    let before = world.store.calls();
    let asking = world.clone();
    let others =
        tokio::spawn(async move { join_all((0..50).map(|_| asking.order(seconds(4)))).await });
    tokio::time::sleep(seconds(1)).await;
    // Each has tried to claim and has looked once; then it sleeps.
    let waiting = world.store.calls();
    assert_eq!(waiting - before, 2 * 50);
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(world.store.calls(), waiting);
    let answers = others.await.unwrap();
    first.await.unwrap().unwrap();
    // Only the completion was written.
    assert_eq!(world.store.calls(), waiting + 1);
    assert!(answers.into_iter().all(|answer| reply(answer.unwrap()) == order(1)));
    assert_eq!(world.outside.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_in_another_process_reaches_those_who_wait_here() {
    let store = Arc::new(Rigged::shared());
    let here = World::on(Arc::clone(&store), Settings::default()).await;
    let there = World::on(store, Settings::default()).await;
    let first = there.ordering(seconds(2)).await;
    assert_eq!(here.order(seconds(2)).await.unwrap(), Answer::Replayed(order(1)));
    first.await.unwrap().unwrap();
    assert_eq!((here.outside.runs(), there.outside.runs()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_with_fifty_waiters_is_one_run_and_all_hear_of_it() {
    let world = World::new().await;
    let mail = || {
        let outside = Arc::clone(&world.outside);
        Mail { outside, prepare: seconds(1), refused: true }
    };
    let answers = join_all((0..51).map(|_| world.once(mail()))).await;
    assert_eq!(world.outside.runs(), 0);
    for answer in answers {
        assert_eq!(answer.unwrap(), Answer::NotExecuted(unreachable()));
    }
    // One claim was granted, and the key is free again.
    let granted = |event: &_| matches!(event, onlyonce::EngineEvent::Granted { .. });
    assert_eq!(world.events.count(granted), 1);
    assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)));
    assert_eq!(world.outside.attempts()[0].number, 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_an_attempt_in_doubt_is_told_so_and_never_runs() {
    let world = World::new().await;
    let lost = direct(|_| async {
        tokio::time::sleep(seconds(1)).await;
        Ran::CannotTell(onlyonce::core::Cause::ConnectionLost)
    });
    let (first, second) = tokio::join!(world.once(lost), world.order(seconds(0)));
    for answer in [first, second] {
        let told = answer.unwrap();
        assert!(matches!(told, Answer::Refused(Outcome::OutcomeUnknown { .. })), "{told:?}");
    }
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_shared_while_an_earlier_attempt_is_in_doubt() {
    let mut world = World::new().await;
    world.policy.on_unknown = OnUnknown::Retry;
    world.policy.receiver = Receiver::always(Always::UniqueName);
    let lost = world.claimed(Phase::Committing).await;
    lost.abandon(Cause::TimedOut, None).await.unwrap();
    let outside = Arc::clone(&world.outside);
    let mail = Mail { outside, prepare: seconds(1), refused: true };
    let (first, second) = tokio::join!(world.once(mail), world.order(seconds(0)));
    for answer in [first, second] {
        let told = answer.unwrap();
        assert!(matches!(told, Answer::Refused(Outcome::OutcomeUnknown { .. })), "{told:?}");
    }
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_that_it_still_runs() {
    let world = World::new().await;
    let first = world.ordering(seconds(20)).await;
    let second = world.order(seconds(1)).await.unwrap();
    assert!(matches!(second, Answer::Refused(Outcome::InFlight { .. })), "{second:?}");
    assert_eq!(first.await.unwrap().unwrap(), Answer::Reply(order(1)));
    assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Replayed(order(1)));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_may_wait() {
    let settings = Settings { waiters_max: 2, ..Settings::default() };
    let world = World::with(Rigged::new(), settings).await;
    let first = world.ordering(seconds(3)).await;
    let answers = join_all((0..10).map(|_| world.order(seconds(1)))).await;
    let answers: Vec<Answer> = answers.into_iter().map(Result::unwrap).collect();
    let waited = |it: &&Answer| matches!(it, Answer::Replayed(reply) if *reply == order(1));
    let sent_away = |it: &&Answer| matches!(it, Answer::Refused(Outcome::InFlight { .. }));
    assert_eq!(answers.iter().filter(waited).count(), 2);
    assert_eq!(answers.iter().filter(sent_away).count(), 8);
    first.await.unwrap().unwrap();
    assert_eq!(world.outside.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_key_neither_waits_nor_sees_the_reply() {
    let world = World::new().await;
    let first = world.ordering(seconds(1)).await;
    let asks = |engine: Engine| async move {
        let run = direct(|_| async { Ran::Happened(order(99)) });
        let policy = onlyonce::core::Policy::default();
        engine.once(&other_request(), &policy, seconds(5), run).await.unwrap()
    };
    let mismatch = Answer::Refused(Outcome::Mismatch);
    assert_eq!(asks(world.engine.clone()).await, mismatch);
    first.await.unwrap().unwrap();
    assert_eq!(asks(world.engine.clone()).await, mismatch);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_wakes_those_who_wait() {
    let world = World::new().await;
    let ticket = world.claimed(Phase::Committing).await;
    let fence = ticket.fence();
    let waiter = world.clone();
    let waiting = tokio::spawn(async move {
        waiter.engine.wait(&request(), &waiter.policy, seconds(300)).await.unwrap()
    });
    // The holder is silent until its lease has lapsed; then somebody finds out what happened.
    tokio::time::sleep(seconds(60)).await;
    let verdict = Verdict::Happened(order(7));
    let by = ("ann", "it is in the list of orders");
    let policy = world.policy;
    world.engine.resolve(id(), &policy, fence, verdict, by.0, by.1).await.unwrap();
    let calls = world.store.calls();
    let Waited::Ended { acted, shared: None } = waiting.await.unwrap() else { panic!() };
    assert!(matches!(acted.outcome, Outcome::Replay { reply, .. } if reply == order(7)));
    assert_eq!(world.store.calls(), calls, "a waiter is told, it does not ask");
    std::mem::forget(ticket);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_refused_disturbs_nobody_who_waits() {
    let world = World::new().await;
    let first = world.ordering(seconds(3)).await;
    let waiter = world.clone();
    let waiting = tokio::spawn(async move { waiter.order(seconds(1)).await });
    tokio::time::sleep(seconds(1)).await;
    // It still runs, so there is nothing to be settled or sealed.
    let fence = world.outside.attempts()[0].fence;
    let (engine, policy) = (&world.engine, world.policy);
    let told = engine.resolve(id(), &policy, fence, Verdict::NotExecuted, "ann", "").await;
    assert!(told.unwrap().is_running());
    let told = engine.seal(id(), &policy, unreachable(), None, "ann", "").await;
    assert!(told.unwrap().is_running());
    assert_eq!(waiting.await.unwrap().unwrap(), Answer::Replayed(order(1)));
    assert_eq!(first.await.unwrap().unwrap(), Answer::Reply(order(1)));
}
