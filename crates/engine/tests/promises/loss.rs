//! What gets lost: callers, holders, answers of the store, and the store itself.

use std::time::Duration;

use onlyonce::core::{Cause, Outcome, Phase};
use onlyonce::{Answer, EngineError, EngineEvent, Ran, direct};
use onlyonce_conformance::Fault;

use crate::common::{World, order, request, seconds};

fn cause(outcome: &Outcome) -> Cause {
    let Outcome::OutcomeUnknown { cause, .. } = outcome else { panic!("{outcome:?}") };
    *cause
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_cancels_nothing() {
    let world = World::new().await;
    let gone = tokio::time::timeout(seconds(1), world.order(seconds(3))).await;
    assert!(gone.is_err());
    assert_eq!(world.order(seconds(3)).await.unwrap(), Answer::Replayed(order(1)));
    assert_eq!(world.outside.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_is_abandoned_and_never_released() {
    let world = World::new().await;
    drop(world.claimed(Phase::Committing).await);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(cause(&world.look().await.outcome), Cause::Abandoned);
    let refused = world.order(seconds(0)).await.unwrap();
    assert!(matches!(refused, Answer::Refused(Outcome::OutcomeUnknown { .. })));
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_dropped_before_its_commit_frees_the_key() {
    let world = World::new().await;
    drop(world.claimed(Phase::Prepared).await);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.look().await.outcome, Outcome::Absent);
    assert_eq!(world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_effect_is_doubt_for_its_caller_and_for_all_who_wait() {
    let world = World::new().await;
    let panics = direct(|_| async {
        tokio::time::sleep(seconds(1)).await;
        if true {
            panic!("on purpose");
        }
        Ran::CannotTell(Cause::TimedOut)
    });
    let (first, second) = tokio::join!(world.once(panics), world.order(seconds(0)));
    for answer in [first, second] {
        let Answer::Refused(outcome) = answer.unwrap() else { panic!("it must be refused") };
        assert_eq!(cause(&outcome), Cause::Abandoned);
    }
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_the_same_claim_again() {
    for fault in [Fault::LostBack, Fault::LostThere, Fault::Refused] {
        let world = World::new().await;
        world.store.faults.plan_swaps([fault]);
        assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)), "{fault:?}");
        assert_eq!(world.outside.attempts()[0].number, 1, "{fault:?}");
        assert_eq!(world.outside.runs(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_nobody_knows_of_is_taken_back() {
    // The claim is made; its answer is lost, and then nothing gets through until the caller was
    // told that nothing was run.
    let world = World::new().await;
    world.store.faults.plan_swaps([Fault::Silent]);
    let error = world.order(seconds(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::StoreTimeout), "{error:?}");
    assert!(world.look().await.is_running());
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(world.look().await.outcome, Outcome::Absent);
    assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)));
    assert_eq!(world.outside.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_taken_back_if_its_caller_goes_away_while_it_is_made() {
    let world = World::new().await;
    world.store.answer_late(seconds(1));
    let request = request();
    let asked = world.engine.claim(&request, &world.policy, Phase::Committing);
    assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
    assert!(world.look().await.is_running());
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(world.look().await.outcome, Outcome::Absent);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_claim_that_is_taken_back_is_told_at_once() {
    let world = World::new().await;
    world.store.answer_late(seconds(1));
    let request = request();
    let asked = world.engine.claim(&request, &world.policy, Phase::Committing);
    assert!(tokio::time::timeout(Duration::from_millis(100), asked).await.is_err());
    let before = tokio::time::Instant::now();
    let waited = world.engine.wait(&request, &world.policy, seconds(60)).await.unwrap();
    assert!(matches!(waited, onlyonce::Waited::Ended { .. }), "{waited:?}");
    assert!(before.elapsed() < seconds(3), "of virtual time");
}

#[tokio::test(start_paused = true)]
async fn a_claim_found_later_is_in_doubt_if_its_caller_ran_anyway() {
    let world = World::new().await;
    world.store.answer_late(seconds(3));
    let request = onlyonce::Request { runs_anyway: true, ..request() };
    let asked = world.engine.claim(&request, &world.policy, Phase::Committing).await;
    assert!(matches!(asked, Err(EngineError::StoreTimeout)), "{asked:?}");
    tokio::time::sleep(seconds(5)).await;
    let told = world.look().await.outcome;
    assert!(matches!(told, Outcome::OutcomeUnknown { .. }), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_refused_while_the_store_is_away_and_nothing_runs() {
    let world = World::new().await;
    world.store.set_away(true);
    let error = world.order(seconds(1)).await.unwrap_err();
    assert!(matches!(error, EngineError::Store(_)) && error.is_transient(), "{error:?}");
    assert_eq!(world.outside.runs(), 0);
    world.store.set_away(false);
    assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)));
}

#[tokio::test(start_paused = true)]
async fn a_completion_whose_answer_was_lost_is_said_again_and_stands() {
    for faults in [[Fault::LostBack; 3], [Fault::LostThere; 3], [Fault::Refused; 3]] {
        let world = World::new().await;
        // The claim gets through; what follows does not, three times.
        world.store.faults.plan_swaps([Fault::None].into_iter().chain(faults));
        assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Reply(order(1)));
        assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Replayed(order(1)));
        let completed = |event: &_| matches!(event, EngineEvent::Completed { .. });
        assert_eq!(world.events.count(completed), 1);
        let alarm = |event: &_| matches!(event, EngineEvent::SecondReply { .. });
        assert_eq!(world.events.count(alarm), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_recorded_is_told_as_such_and_the_key_is_in_doubt() {
    let world = World::new().await;
    let running = world.ordering(seconds(1)).await;
    world.store.set_away(true);
    assert_eq!(running.await.unwrap().unwrap(), Answer::Unrecorded(order(1)));
    let unrecorded = |event: &_| matches!(event, EngineEvent::Unrecorded { .. });
    assert_eq!(world.events.count(unrecorded), 1);
    world.store.set_away(false);
    tokio::time::sleep(world.policy.lease + world.policy.skew_max).await;
    let Answer::Refused(outcome) = world.order(seconds(1)).await.unwrap() else { panic!() };
    assert_eq!(cause(&outcome), Cause::Lapsed);
    assert_eq!(world.outside.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_within_the_lease_gets_the_reply_after_all() {
    let world = World::new().await;
    let running = world.ordering(seconds(1)).await;
    world.store.set_away(true);
    tokio::time::sleep(seconds(10)).await;
    world.store.set_away(false);
    assert_eq!(running.await.unwrap().unwrap(), Answer::Reply(order(1)));
    assert_eq!(world.order(seconds(1)).await.unwrap(), Answer::Replayed(order(1)));
}
