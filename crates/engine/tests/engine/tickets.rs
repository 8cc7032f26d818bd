//! Holders that vanish, panic, sleep past their lease or come back late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use onlyonce::core::{Cause, Outcome, Phase, Reply, StateKind, Verdict};
use onlyonce::{Answer, Attempt, Effect, EngineError, EngineEvent, Ran, direct};

use crate::support::*;

fn is_unknown(outcome: &Outcome, because: Cause) -> bool {
    matches!(outcome, Outcome::OutcomeUnknown { cause, .. } if *cause == because)
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_leaves_an_unknown_outcome_and_never_a_free_key() {
    let shop = Shop::open().await;
    drop(shop.claim(Phase::Committing).await);
    pass(seconds(1)).await;
    let outcome = shop.look().await;
    assert!(is_unknown(&outcome, Cause::Abandoned), "{outcome:?}");
    let asked = shop.ask(seconds(1)).await;
    assert!(matches!(asked, Ok(Answer::Refused(Outcome::OutcomeUnknown { .. }))), "{asked:?}");
    assert_eq!(shop.charges(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_that_is_dropped_before_its_commit_frees_the_key() {
    let shop = Shop::open().await;
    drop(shop.claim(Phase::Prepared).await);
    pass(seconds(1)).await;
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_the_effect_is_an_unknown_outcome_for_all() {
    let shop = Shop::open().await;
    let panics = direct(|_attempt| async {
        tokio::time::sleep(seconds(1)).await;
        assert_ne!(confirmed(), confirmed(), "a planted panic");
        Ran::Happened(confirmed())
    });
    let (id, policy) = (request(), policy());
    let (first, second) =
        tokio::join!(shop.engine.once(&id, &policy, seconds(5), panics), shop.ask(seconds(1)));
    for answer in [first, second, shop.ask(seconds(1)).await] {
        let Ok(Answer::Refused(outcome)) = &answer else { panic!("{answer:?}") };
        assert!(is_unknown(outcome, Cause::Abandoned), "{outcome:?}");
    }
    assert_eq!(shop.charges(), 0, "the second never ran its own");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_cancels_nothing() {
    let shop = Shop::open().await;
    let caller = shop.ask_aside(seconds(3), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    caller.abort();
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_outlasts_its_lease_keeps_the_key_by_renewing() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(100), seconds(5), Ran::Happened(confirmed()));
    for _duplicate in 0..6 {
        pass(seconds(10)).await;
        let asked = shop.ask(seconds(1)).await;
        assert!(matches!(asked, Ok(Answer::Refused(Outcome::InFlight { .. }))), "{asked:?}");
    }
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_ends_while_its_renewal_is_under_way_is_recorded() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(11), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    // The renewal at 10 s takes place, but its answer comes after the run has ended.
    shop.store.fail_next(StateKind::InFlight, Fault::LateBack(seconds(5)));
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.store.faults_left(), 0);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_settles_what_had_become_unknown() {
    let shop = Shop::open().await;
    let ticket = shop.claim(Phase::Committing).await;
    pass(seconds(40)).await;
    let outcome = shop.look().await;
    assert!(is_unknown(&outcome, Cause::Lapsed), "{outcome:?}");
    assert_eq!(ticket.complete(confirmed()).await.unwrap().outcome, Outcome::Done);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_success_stops_the_newer_holder_before_it_sends() {
    let shop = Shop::open().await;
    let late = shop.claim(Phase::Committing).await;
    pass(seconds(40)).await;
    assert_eq!(shop.resolve(late.fence(), Verdict::RunAgain).await, Outcome::Done);
    let mut newer = shop.claim(Phase::Prepared).await;
    assert!(late.fence() < newer.fence());
    assert_eq!(late.complete(confirmed()).await.unwrap().outcome, Outcome::Done);
    assert_eq!(newer.commit().await, Err(EngineError::ClaimLost));
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_reply_changes_nothing_and_raises_the_alarm() {
    let shop = Shop::open().await;
    let late = shop.claim(Phase::Committing).await;
    pass(seconds(40)).await;
    let happened = Verdict::Happened(confirmed());
    assert_eq!(shop.resolve(late.fence(), happened).await, Outcome::Done);
    let fence = late.fence();
    let other = Reply::kept(201, "order confirmed, 7830");
    assert_eq!(late.complete(other).await.unwrap().outcome, Outcome::SecondReply);
    let alarm = EngineEvent::SecondReply { id: request().id, fence };
    assert_eq!(shop.log.count(|event| *event == alarm), 1);
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
}

/// The store has no room, or loses every write; what stands can be read.
#[tokio::test(start_paused = true)]
async fn a_second_reply_is_told_and_an_alarm_also_where_no_note_of_it_can_be_written() {
    for (has_room, is_ticket) in [(false, true), (false, false), (true, false)] {
        let shop = Shop::open().await;
        let late = shop.claim(Phase::Committing).await;
        pass(seconds(40)).await;
        let fence = late.fence();
        let happened = Verdict::Happened(confirmed());
        assert_eq!(shop.resolve(fence, happened).await, Outcome::Done);
        shop.store.stuffed.store(!has_room, SeqCst);
        for _lost in 0..if has_room { 100 } else { 0 } {
            shop.store.fail_next(StateKind::Completed, Fault::LostThere);
        }
        let other = Reply::kept(201, "order confirmed, 7830");
        let acted = if is_ticket {
            late.complete(other).await.unwrap()
        } else {
            let held = shop.engine.held(request().id, policy(), fence);
            held.complete(other.clone()).await.unwrap()
        };
        assert_eq!(acted.outcome, Outcome::SecondReply);
        assert!(!acted.record.unwrap().has_alarm(), "it was not written");
        let alarm = EngineEvent::SecondReply { id: request().id, fence };
        let unrecorded = |event: &EngineEvent| matches!(event, EngineEvent::Unrecorded { .. });
        assert_eq!(shop.log.count(|event| *event == alarm), 1);
        assert_eq!(shop.log.count(unrecorded), 0);
        shop.store.stuffed.store(false, SeqCst);
        assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    }
}

/// Connects first and charges then: an effect with a moment before which nothing can happen.
struct TwoSteps {
    connecting_takes: Duration,
    connected: Result<(), Reply>,
    charges: Arc<AtomicUsize>,
}

impl Effect for TwoSteps {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        tokio::time::sleep(self.connecting_takes).await;
        self.connected.clone()
    }

    async fn commit(&mut self, _connection: (), _attempt: Attempt) -> Ran {
        self.charges.fetch_add(1, SeqCst);
        Ran::Happened(confirmed())
    }
}

impl TwoSteps {
    fn of(shop: &Shop) -> Self {
        let (connecting_takes, connected) = (seconds(1), Ok(()));
        Self { connecting_takes, connected, charges: Arc::clone(&shop.charges) }
    }

    async fn ask(self, shop: &Shop) -> Result<Answer, EngineError> {
        shop.engine.once(&request(), &policy(), seconds(5), self).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_of_two_steps_runs_once_and_is_replayed() {
    let shop = Shop::open().await;
    assert_eq!(TwoSteps::of(&shop).ask(&shop).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(TwoSteps::of(&shop).ask(&shop).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_cannot_even_connect_has_not_happened() {
    let shop = Shop::open().await;
    let refused = Reply::kept(502, "no connection");
    let effect = TwoSteps { connected: Err(refused.clone()), ..TwoSteps::of(&shop) };
    assert_eq!(effect.ask(&shop).await, Ok(Answer::NotExecuted(refused)));
    assert_eq!(TwoSteps::of(&shop).ask(&shop).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_whose_mark_could_not_be_made_durable() {
    let shop = Shop::open().await;
    let asked = TwoSteps::of(&shop);
    let going_down = async {
        pass(Duration::from_millis(500)).await;
        shop.store.down.store(true, SeqCst);
        pass(seconds(10)).await;
        shop.store.down.store(false, SeqCst);
    };
    let (answer, ()) = tokio::join!(asked.ask(&shop), going_down);
    assert!(matches!(answer, Err(EngineError::Store(_))), "{answer:?}");
    assert_eq!(shop.charges(), 0);
    // It is certain that nothing happened, so the key is free.
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}
