//! Processes that are provably gone: their claims end at once, and those of all others by their
//! leases alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onlyonce::core::{Cause, ClaimId, Holder, Outcome, Phase, State, Timestamp, Verdict};
use onlyonce::store::{BoxFuture, Store};
use onlyonce::{Answer, Claimed, Engine, EngineEvent, Observer, Runtime, Settings, Waited};
use onlyonce_tokio::TokioRuntime;

use crate::common::{Events, Rigged, World, id, order, request, seconds};

/// A process by its number; all others are gone once it is told so.
struct Numbered {
    inner: TokioRuntime,
    pid: u32,
    others_are_gone: Arc<AtomicBool>,
}

impl Runtime for Numbered {
    fn now(&self) -> Timestamp {
        self.inner.now()
    }

    fn steady(&self) -> Duration {
        self.inner.steady()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.inner.spawn(task);
    }

    fn claim_id(&self) -> ClaimId {
        self.inner.claim_id()
    }

    fn holder(&self) -> Holder {
        Holder { pid: self.pid, ..self.inner.holder() }
    }

    fn is_gone(&self, holder: &Holder) -> bool {
        assert_ne!(holder.pid, self.pid, "nobody asks whether he lives himself");
        self.others_are_gone.load(Ordering::SeqCst)
    }
}

/// Two processes on one store, the first of which has claimed the key and can be ended.
struct Pair {
    world: World,
    ended: Arc<AtomicBool>,
}

impl Pair {
    async fn with_a_claim(phase: Phase) -> Self {
        let store = Arc::new(Rigged::shared());
        let ended = Arc::new(AtomicBool::new(false));
        let start = async |pid| {
            let (inner, events) = (TokioRuntime::new(), Arc::new(Events::default()));
            let runtime = Numbered { inner, pid, others_are_gone: Arc::clone(&ended) };
            let as_store: Arc<dyn Store> = Arc::<Rigged>::clone(&store);
            let observer: Arc<dyn Observer> = Arc::<Events>::clone(&events);
            let (settings, runtime) = (Settings::default(), Arc::new(runtime));
            (Engine::start(as_store, runtime, settings, Some(observer)).await.unwrap(), events)
        };
        let (first, _) = start(1).await;
        let policy = onlyonce::core::Policy::default();
        let claimed = first.claim(&request(), &policy, phase).await.unwrap();
        let Claimed::Granted(ticket) = claimed else { panic!("refused") };
        std::mem::forget(ticket);
        let (engine, events) = start(2).await;
        let world = World { engine, events, ..World::on(store, Settings::default()).await };
        Self { world, ended }
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn buried(&self) -> usize {
        self.world.events.count(|event| matches!(event, EngineEvent::HolderBuried { .. }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_process_that_is_gone_is_unknown_at_once_and_runs_nothing() {
    let pair = Pair::with_a_claim(Phase::Committing).await;
    assert!(pair.world.look().await.is_running());
    pair.end();
    let claimed = pair.world.engine.claim(&request(), &pair.world.policy, Phase::Committing).await;
    let Claimed::Refused(acted) = claimed.unwrap() else { panic!("granted") };
    let died = |outcome: &Outcome| {
        matches!(outcome, Outcome::OutcomeUnknown { cause: Cause::HolderDied, .. })
    };
    assert!(died(&acted.outcome), "{acted:?}");
    let record = pair.world.engine.get(id()).await.unwrap().unwrap();
    assert!(matches!(record.state, State::Unknown(_)), "{record:?}");
    assert_eq!(pair.buried(), 1);
    assert!(died(&pair.world.look().await.outcome));
    assert_eq!((pair.buried(), pair.world.outside.runs()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_process_that_is_gone_had_only_prepared_runs_at_once() {
    let pair = Pair::with_a_claim(Phase::Prepared).await;
    pair.end();
    assert_eq!(pair.world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
    assert_eq!((pair.buried(), pair.world.outside.runs()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_process_that_may_live_ends_by_its_lease_alone() {
    let pair = Pair::with_a_claim(Phase::Committing).await;
    let begun = pair.world.engine.now();
    while pair.world.look().await.is_running() {
        tokio::time::sleep(seconds(1)).await;
    }
    assert!(pair.world.policy.lease <= pair.world.engine.now().since(begun));
    assert_eq!(pair.buried(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_is_told_as_soon_as_the_process_is_gone() {
    let pair = Pair::with_a_claim(Phase::Committing).await;
    let (engine, policy) = (pair.world.engine.clone(), pair.world.policy);
    let waiting =
        tokio::spawn(async move { engine.wait(&request(), &policy, seconds(20)).await.unwrap() });
    tokio::time::sleep(seconds(1)).await;
    let begun = pair.world.engine.now();
    pair.end();
    let Waited::Ended { acted, .. } = waiting.await.unwrap() else { panic!("still running") };
    assert!(matches!(acted.outcome, Outcome::OutcomeUnknown { .. }), "{acted:?}");
    assert!(pair.world.engine.now().since(begun) <= Settings::default().poll_every);
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_settle_what_a_process_that_is_gone_has_left() {
    let pair = Pair::with_a_claim(Phase::Committing).await;
    let fence = pair.world.engine.get(id()).await.unwrap().unwrap().fence;
    let resolve = || {
        let (engine, policy) = (&pair.world.engine, &pair.world.policy);
        engine.resolve(id(), policy, fence, Verdict::NotExecuted, "olga", "looked")
    };
    assert!(resolve().await.unwrap().is_running());
    pair.end();
    assert_eq!(resolve().await.unwrap().outcome, Outcome::Done);
    assert_eq!(pair.world.order(seconds(0)).await.unwrap(), Answer::Reply(order(1)));
}
