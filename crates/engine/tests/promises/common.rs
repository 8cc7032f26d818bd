//! A world for tests: a store that can be away, slow or full, and an outside that counts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::core::{Fence, Fingerprint, KeyId, Policy, Record, Reply, Revision, State, limits};
use onlyonce::store::{BoxFuture, Filter, MemoryStore, Store, StoreError, StoreErrorKind, Swap};
use onlyonce::{
    Acted, Answer, Attempt, Claimed, Effect, Engine, EngineError, EngineEvent, Observer, Ran,
    Request, Run, Settings, Ticket, direct,
};
use onlyonce_conformance::FaultyStore;
use onlyonce_tokio::TokioRuntime;

/// Longer than any wait in a test but a minute.
pub(crate) const WAIT: Duration = Duration::from_secs(5);

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A store in memory that counts its calls and can be away, full or slow to answer.
pub(crate) struct Rigged {
    pub(crate) faults: FaultyStore<MemoryStore>,
    calls: AtomicUsize,
    away: AtomicBool,
    full: AtomicBool,
    /// The record that cannot be read.
    damaged: Mutex<Option<KeyId>>,
    /// How long the answers to the next swaps take, after they took place.
    slow: Mutex<VecDeque<Duration>>,
    exclusive: bool,
    reply_max: usize,
}

impl Rigged {
    pub(crate) fn new() -> Self {
        Self {
            faults: FaultyStore::new(MemoryStore::new()),
            calls: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            full: AtomicBool::new(false),
            damaged: Mutex::default(),
            slow: Mutex::default(),
            exclusive: true,
            reply_max: limits::REPLY_BYTES_MAX,
        }
    }

    /// One that other processes may use too.
    pub(crate) fn shared() -> Self {
        Self { exclusive: false, ..Self::new() }
    }

    /// One that keeps replies of at most so many bytes.
    pub(crate) fn with_reply_max(reply_max: usize) -> Self {
        Self { reply_max, ..Self::new() }
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    pub(crate) fn damage(&self, id: KeyId) {
        *self.damaged.lock().unwrap() = Some(id);
    }

    /// A copy of all that is in it, as a dump or a snapshot is, for processes on any machines.
    pub(crate) async fn copied(&self) -> Self {
        let (from, copy) = (self.faults.inner(), Self::shared());
        let to = copy.faults.inner();
        let all = Filter { state: None, limit: usize::MAX };
        for (id, record) in from.list(all, None).await.unwrap().records {
            assert_eq!(to.swap(id, None, Some(record)).await.unwrap(), Swap::Done);
        }
        to.raise_floor(from.floor().await.unwrap()).await.unwrap();
        copy
    }

    /// The next swap takes place at once, and its answer comes after `late`.
    pub(crate) fn answer_late(&self, late: Duration) {
        self.slow.lock().unwrap().push_back(late);
    }

    fn count(&self) -> Result<(), StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::NotApplied, "away on purpose"));
        }
        Ok(())
    }
}

/// Whether a full store still has room: for what makes a record no larger.
fn has_room(expected: Option<Revision>, next: Option<&Record>) -> bool {
    let kept = next.is_some_and(|record| match &record.state {
        State::Completed { reply, .. } => reply.content().is_some(),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => false,
    });
    expected.is_some() && !kept
}

impl Store for Rigged {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.count()?;
            if *self.damaged.lock().unwrap() == Some(id) {
                return Err(StoreError::new(StoreErrorKind::Damaged, "damaged on purpose"));
            }
            self.faults.get(id).await
        })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            self.count()?;
            let found = self.faults.inner().get(id).await?;
            // A conflict needs no room, so it is told first.
            let stands = found.map(|record| record.revision) == expected;
            let full = self.full.load(Ordering::SeqCst);
            if stands && full && !has_room(expected, next.as_ref()) {
                return Err(StoreError::new(StoreErrorKind::Full, "full on purpose"));
            }
            let swapped = self.faults.swap(id, expected, next).await;
            let late = self.slow.lock().unwrap().pop_front();
            if let Some(late) = late {
                tokio::time::sleep(late).await;
            }
            swapped
        })
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        // To give room back some room is needed first.
        if self.full.load(Ordering::SeqCst) {
            let full = StoreError::new(StoreErrorKind::Full, "full on purpose");
            return Box::pin(async move { Err(full) });
        }
        self.faults.reclaim()
    }

    fn reply_max(&self) -> usize {
        self.reply_max
    }

    fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    onlyonce_conformance::hands_on!(faults: floor, raise_floor, revision_max, due, list);
}

/// Everything the engine has told its observer.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<EngineEvent>>);

impl Events {
    pub(crate) fn count(&self, which: impl Fn(&EngineEvent) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| which(event)).count()
    }
}

impl Observer for Events {
    fn on(&self, event: &EngineEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// What happens outside: every run has a number, and is answered with it.
#[derive(Default)]
pub(crate) struct Outside {
    runs: AtomicUsize,
    attempts: Mutex<Vec<Attempt>>,
}

impl Outside {
    /// How often the operation was begun.
    pub(crate) fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// What each run was told about itself.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap().clone()
    }

    pub(crate) fn run(&self, attempt: Attempt) -> Reply {
        self.attempts.lock().unwrap().push(attempt);
        self.run_once()
    }

    /// It is begun by somebody who has no attempt of ours.
    pub(crate) fn run_once(&self) -> Reply {
        order(self.runs.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// What the `number`th run is answered.
pub(crate) fn order(number: usize) -> Reply {
    Reply::kept(201, format!("order {number}"))
}

/// What a run that was refused tells its caller.
pub(crate) fn unreachable() -> Reply {
    Reply::kept(502, "not reached")
}

/// An effect with a moment before which nothing can have happened.
pub(crate) struct Mail {
    pub(crate) outside: Arc<Outside>,
    /// How long the preparation takes.
    pub(crate) prepare: Duration,
    /// Whether it ends in a refusal.
    pub(crate) refused: bool,
}

impl Effect for Mail {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        tokio::time::sleep(self.prepare).await;
        if self.refused { Err(unreachable()) } else { Ok(()) }
    }

    async fn commit(&mut self, (): (), attempt: Attempt) -> Ran {
        Ran::Happened(self.outside.run(attempt))
    }
}

/// An engine, its store, its observer, and the outside.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Rigged>,
    pub(crate) events: Arc<Events>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) policy: Policy,
    pub(crate) wait: Duration,
    pub(crate) clock: Arc<TokioRuntime>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Rigged::new(), Settings::default()).await
    }

    pub(crate) async fn with(store: Rigged, settings: Settings) -> Self {
        Self::on(Arc::new(store), settings).await
    }

    /// Another process on the same store, with a clock of its own.
    pub(crate) async fn on(store: Arc<Rigged>, settings: Settings) -> Self {
        Self::at(store, settings, Arc::new(TokioRuntime::new())).await
    }

    /// Another store in the same world: its time is as late as here.
    pub(crate) async fn beside(&self, store: Rigged) -> Self {
        let settings = Settings { clock_is_right: true, ..Settings::default() };
        let other = Self::at(Arc::new(store), settings, Arc::clone(&self.clock)).await;
        Self { outside: Arc::clone(&self.outside), ..other }
    }

    async fn at(store: Arc<Rigged>, settings: Settings, clock: Arc<TokioRuntime>) -> Self {
        let events = Arc::new(Events::default());
        let runtime = Arc::<TokioRuntime>::clone(&clock);
        let as_store: Arc<dyn Store> = Arc::<Rigged>::clone(&store);
        let observer: Arc<dyn Observer> = Arc::<Events>::clone(&events);
        let engine = Engine::start(as_store, runtime, settings, Some(observer)).await.unwrap();
        let (outside, policy) = (Arc::default(), Policy::default());
        Self { engine, store, events, outside, policy, wait: WAIT, clock }
    }

    /// Asks once for the effect `run`.
    pub(crate) async fn once(&self, run: impl Run) -> Result<Answer, EngineError> {
        self.engine.once(&request(), &self.policy, self.wait, run).await
    }

    /// Asks once for an order that takes so long.
    pub(crate) async fn order(&self, takes: Duration) -> Result<Answer, EngineError> {
        let outside = Arc::clone(&self.outside);
        let run = direct(move |attempt| async move {
            let reply = outside.run(attempt);
            tokio::time::sleep(takes).await;
            Ran::Happened(reply)
        });
        self.once(run).await
    }

    /// As [`Self::order`], in a task of its own that has begun when this returns.
    pub(crate) async fn ordering(
        &self,
        takes: Duration,
    ) -> tokio::task::JoinHandle<Result<Answer, EngineError>> {
        let world = self.clone();
        let task = tokio::spawn(async move { world.order(takes).await });
        let begun = self.outside.runs();
        while self.outside.runs() == begun {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        task
    }

    /// Claims, and must be granted it.
    pub(crate) async fn claimed(&self, phase: onlyonce::core::Phase) -> Ticket {
        match self.engine.claim(&request(), &self.policy, phase).await.unwrap() {
            Claimed::Granted(ticket) => ticket,
            Claimed::Refused(acted) => panic!("refused: {acted:?}"),
        }
    }

    pub(crate) async fn look(&self) -> Acted {
        self.engine.look(&request(), &self.policy).await.unwrap()
    }
}

pub(crate) fn id() -> KeyId {
    KeyId::from_bytes([1; 16])
}

pub(crate) fn request() -> Request {
    Request::new(id(), Fingerprint::new(1, [1; 32]))
}

pub(crate) fn other_request() -> Request {
    Request::new(id(), Fingerprint::new(1, [2; 32]))
}

/// A fence that was never granted.
pub(crate) fn no_fence() -> Fence {
    Fence::new(1).unwrap()
}
