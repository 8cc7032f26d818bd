//! What an engine makes of what earlier processes left, and of a clock that went back.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use onlyonce::core::{
    Cause, ClaimId, Fingerprint, Floor, Holder, KeyId, Outcome, Phase, StateKind, Timestamp,
};
use onlyonce::store::{BoxFuture, Store};
use onlyonce::{
    Answer, Claimed, Engine, EngineEvent, FLOOR_AGE_MAX, Ran, Request, Runtime, Settings,
};
use onlyonce_tokio::TokioRuntime;

use crate::support::*;

fn second_request() -> Request {
    Request::new(KeyId::from_bytes([8; 16]), Fingerprint::new(1, [1; 32]))
}

/// A process that dies with two claims: one prepared, one that may have sent.
async fn died_holding(store: &Arc<FaultyStore>) {
    let shop = Shop::open_on(store.clone(), Settings::default()).await;
    let prepared = shop.claim(Phase::Prepared).await;
    let committing =
        shop.engine.claim(&second_request(), &policy(), Phase::Committing).await.unwrap();
    assert!(matches!(committing, Claimed::Granted(_)), "{committing:?}");
    // A dead process says nothing more.
    std::mem::forget((prepared, committing));
}

#[tokio::test(start_paused = true)]
async fn the_claims_of_the_dead_end_at_once_if_the_store_is_ours_alone() {
    let store = Arc::new(FaultyStore::default());
    died_holding(&store).await;
    let shop = Shop::open_on(store, Settings::default()).await;
    let buried = |event: &EngineEvent| matches!(event, EngineEvent::HolderBuried { .. });
    assert_eq!(shop.log.count(buried), 2);
    // Nothing was sent under the one ...
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    // ... and nobody can know about the other.
    let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
    let asked = shop.engine.once(&second_request(), &policy(), seconds(5), charge).await;
    let died = matches!(
        asked,
        Ok(Answer::Refused(Outcome::OutcomeUnknown { cause: Cause::HolderDied, .. }))
    );
    assert!(died, "{asked:?}");
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn on_a_shared_store_nobody_is_taken_for_dead() {
    let store = Arc::new(FaultyStore::default());
    store.shared.store(true, SeqCst);
    died_holding(&store).await;
    let shop = Shop::open_on(store, Settings::default()).await;
    let asked = shop.ask(seconds(1)).await;
    assert!(matches!(asked, Ok(Answer::Refused(Outcome::InFlight { .. }))), "{asked:?}");
    assert_eq!(shop.charges(), 0);
    // They lapse like all others.
    pass(seconds(31)).await;
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 1);
}

/// A runtime whose clock is an hour slow.
struct Behind(TokioRuntime);

impl Runtime for Behind {
    fn now(&self) -> Timestamp {
        self.0.now().minus(seconds(3_600))
    }

    fn steady(&self) -> Duration {
        self.0.steady()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn claim_id(&self) -> ClaimId {
        self.0.claim_id()
    }

    fn holder(&self) -> Holder {
        self.0.holder()
    }
}

/// Case B58.
#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_never_runs_below_what_was_written() {
    let store = Arc::new(FaultyStore::default());
    let before = Shop::open_on(store.clone(), Settings::default()).await;
    let lapsing = before.claim(Phase::Committing).await;
    let newest = store.revision_max().await.unwrap();
    std::mem::forget(lapsing);
    pass(seconds(60)).await;

    store.shared.store(true, SeqCst);
    let runtime = Arc::new(Behind(TokioRuntime::new()));
    let engine = Engine::start(store.clone(), runtime, Settings::default(), None).await.unwrap();
    assert!(newest <= engine.now().as_millis());
    // A new claim is above everything that was ever granted.
    let claimed = engine.claim(&second_request(), &policy(), Phase::Committing).await.unwrap();
    let Claimed::Granted(ticket) = claimed else { panic!("{claimed:?}") };
    assert!(newest < ticket.fence().get());
    // A lease ends after its time even so, and not before.
    let look = || async { engine.look(&request(), &policy()).await.unwrap().outcome };
    let outcome = look().await;
    assert!(matches!(outcome, Outcome::InFlight { .. }), "{outcome:?}");
    pass(seconds(31)).await;
    let outcome = look().await;
    assert!(matches!(outcome, Outcome::OutcomeUnknown { .. }), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_forgotten_is_never_claimed_again_under_a_number_it_had() {
    let store = Arc::new(FaultyStore::default());
    let before = Shop::open_on(store.clone(), Settings::default()).await;
    assert_eq!(before.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    let last = before.engine.get(request().id).await.unwrap().unwrap().revision;
    // As a sweeper does, much later; then the clock goes back.
    store.swap(request().id, Some(last), None).await.unwrap();
    let runtime = Arc::new(Behind(TokioRuntime::new()));
    let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
    let claimed = engine.claim(&request(), &policy(), Phase::Committing).await.unwrap();
    let Claimed::Granted(ticket) = claimed else { panic!("{claimed:?}") };
    assert!(last.get() < ticket.fence().get());
}

#[tokio::test(start_paused = true)]
async fn a_key_from_before_the_floor_never_runs_also_when_the_floor_rises_later() {
    let shop = Shop::open().await;
    let mut old = request();
    old.key_time = Some(shop.engine.now());
    let floor = Floor::at(shop.engine.now().plus(seconds(1)));
    shop.store.raise_floor(floor).await.unwrap();
    // A sweeper deletes nothing before everyone must have read the new floor.
    pass(FLOOR_AGE_MAX + seconds(1)).await;
    let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
    let asked = shop.engine.once(&old, &policy(), seconds(5), charge).await;
    assert_eq!(asked, Ok(Answer::Refused(Outcome::Expired)));
    assert_eq!((shop.charges(), shop.state().await), (0, None));
    // A key without time is not concerned.
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.state().await, Some(StateKind::Completed));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_granted_while_the_floor_cannot_be_read() {
    let shop = Shop::open().await;
    pass(FLOOR_AGE_MAX + seconds(1)).await;
    shop.store.down.store(true, SeqCst);
    assert!(shop.ask(seconds(1)).await.is_err());
    assert_eq!(shop.charges(), 0);
}
