//! What the tests of the engine share: a store with faults, a shop that counts its charges, and
//! a log of what the engine tells its observer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use onlyonce::core::{
    Fence, Fingerprint, Floor, KeyId, Outcome, Phase, Policy, Record, Reply, Revision, State,
    StateKind, Timestamp, Verdict, limits,
};
use onlyonce::store::{
    BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, StoreErrorKind, Swap,
    Teller,
};
use onlyonce::{
    Answer, AtLeaseEnd, Attempt, Claimed, Effect, Engine, EngineError, EngineEvent, Lease,
    Observer, Ran, Request, Run, Runtime, Settings, Ticket, direct,
};
use onlyonce_tokio::TokioRuntime;

/// What happens to one swap.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It never arrives.
    LostThere,
    /// It takes place, but nobody is told.
    LostBack,
    /// It takes place only after this long, whether or not anybody still waits for it.
    LateThere(Duration),
    /// It takes place at once, but the answer takes this long.
    LateBack(Duration),
}

/// The store in memory behind a bad line. It counts what it is asked.
#[derive(Default)]
pub(crate) struct FaultyStore {
    inner: Arc<MemoryStore>,
    faults: Mutex<Vec<(StateKind, Fault)>>,
    /// Whether every call fails.
    pub(crate) down: AtomicBool,
    /// Whether there is no room for new keys.
    pub(crate) full: AtomicBool,
    /// Whether there is no room for the content of replies either.
    pub(crate) brimming: AtomicBool,
    /// Whether there is no room for anything.
    pub(crate) stuffed: AtomicBool,
    /// Whether records cannot be read whose key's id begins with a zero.
    pub(crate) unreadable: AtomicBool,
    /// Whether these are read and not written, each for itself.
    pub(crate) doubled: AtomicBool,
    /// How many more swaps it refuses.
    pub(crate) refusals: AtomicUsize,
    /// The store's clock, if it has one.
    clock: Option<Arc<dyn Runtime>>,
    /// How far that was put forward, and how long it takes to say.
    pub(crate) stepped: Mutex<(Duration, Duration)>,
    /// Whether other processes use the store too.
    pub(crate) shared: AtomicBool,
    /// What tells that somebody else has ended an attempt, which tests do.
    teller: Mutex<Option<Teller>>,
    /// The largest reply it keeps, in bytes; zero for the most there may be.
    pub(crate) reply_max: AtomicUsize,
    /// Readings of its clock.
    pub(crate) clocks: AtomicUsize,
    /// Reads of a record.
    pub(crate) gets: AtomicUsize,
    /// Swaps that were tried.
    pub(crate) swaps: AtomicUsize,
}

impl FaultyStore {
    /// Another process's line to the same store.
    pub(crate) fn another_line(&self) -> Self {
        let (inner, clock) = (Arc::clone(&self.inner), self.clock.clone());
        Self { inner, clock, shared: true.into(), ..Self::default() }
    }

    /// A store that others use too, with a clock of its own.
    pub(crate) fn with_clock() -> Self {
        Self { clock: Some(Arc::new(TokioRuntime::new())), shared: true.into(), ..Self::default() }
    }

    /// What the store's clock says, which is right.
    pub(crate) fn time(&self) -> Timestamp {
        self.clock.as_ref().unwrap().now().plus(self.stepped.lock().unwrap().0)
    }

    /// What tells those who wait.
    pub(crate) fn teller(&self) -> MutexGuard<'_, Option<Teller>> {
        self.teller.lock().unwrap()
    }

    /// The next swap that would make a record `kind` meets `fault`; several are met in order.
    pub(crate) fn fail_next(&self, kind: StateKind, fault: Fault) {
        self.faults.lock().unwrap().push((kind, fault));
    }

    /// Faults that were planned and not met yet.
    pub(crate) fn faults_left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }

    /// Calls about records so far.
    pub(crate) fn calls(&self) -> usize {
        self.gets.load(SeqCst) + self.swaps.load(SeqCst)
    }

    fn reach(&self) -> Result<(), StoreError> {
        if self.down.load(SeqCst) { Err(lost(StoreErrorKind::NotApplied)) } else { Ok(()) }
    }

    fn fault_of(&self, next: Option<&Record>) -> Option<Fault> {
        let kind = next?.state.kind();
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|(of, _)| *of == kind)?;
        Some(faults.remove(at).1)
    }

    fn make_room(&self, new: bool, next: Option<&Record>) -> Result<(), StoreError> {
        let content = next.is_some_and(|next| match &next.state {
            State::Completed { reply, .. } => reply.content().is_some(),
            State::InFlight(_)
            | State::Released { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => false,
        });
        let full = (new && self.full.load(SeqCst)) || (content && self.brimming.load(SeqCst));
        let full = full || self.stuffed.load(SeqCst);
        if full { Err(lost(StoreErrorKind::Full)) } else { Ok(()) }
    }
}

fn lost(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, "a planted fault")
}

impl Store for FaultyStore {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.gets.fetch_add(1, SeqCst);
            self.reach()?;
            if id.as_bytes()[0] == 0 && self.unreadable.load(SeqCst) {
                return Err(lost(StoreErrorKind::Damaged));
            }
            self.inner.get(id).await
        })
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            self.swaps.fetch_add(1, SeqCst);
            self.reach()?;
            self.make_room(expected.is_none(), next.as_ref())?;
            if id.as_bytes()[0] == 0 && self.doubled.load(SeqCst) {
                return Err(lost(StoreErrorKind::NotApplied).of_key());
            }
            if self.refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(lost(StoreErrorKind::NotApplied));
            }
            match self.fault_of(next.as_ref()) {
                None => self.inner.swap(id, expected, next).await,
                Some(Fault::LostThere) => Err(lost(StoreErrorKind::NotApplied)),
                Some(Fault::LostBack) => {
                    self.inner.swap(id, expected, next).await?;
                    Err(lost(StoreErrorKind::Unknown))
                }
                Some(Fault::LateThere(late)) => {
                    let inner = Arc::clone(&self.inner);
                    let arrival = tokio::spawn(async move {
                        tokio::time::sleep(late).await;
                        inner.swap(id, expected, next).await
                    });
                    arrival.await.unwrap()
                }
                Some(Fault::LateBack(late)) => {
                    let swapped = self.inner.swap(id, expected, next).await;
                    tokio::time::sleep(late).await;
                    swapped
                }
            }
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async move {
            self.reach()?;
            self.inner.floor().await
        })
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(async move {
            self.clocks.fetch_add(1, SeqCst);
            let takes = self.stepped.lock().unwrap().1;
            tokio::time::sleep(takes).await;
            Ok(self.clock.as_ref().map(|_| self.time()))
        })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.raise_floor(to)
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.revision_max()
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.inner.due(due, limit)
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.reclaim()
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.inner.list(filter, after)
    }

    fn notices(&self, teller: Teller) {
        *self.teller() = Some(teller);
    }

    fn reply_max(&self) -> usize {
        match self.reply_max.load(SeqCst) {
            0 => limits::REPLY_BYTES_MAX,
            max => max,
        }
    }

    fn is_exclusive(&self) -> bool {
        !self.shared.load(SeqCst)
    }
}

/// Keeps what the engine tells.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<EngineEvent>>);

impl Log {
    /// How many events `is` holds for.
    pub(crate) fn count(&self, is: impl Fn(&EngineEvent) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| is(event)).count()
    }
}

impl Observer for Log {
    fn on(&self, event: &EngineEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// An engine on a faulty store, and the world outside that it charges in.
pub(crate) struct Shop {
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) engine: Engine,
    pub(crate) log: Arc<Log>,
    /// What happened in the world outside; [`Shop::charges`] reads it.
    pub(crate) charges: Arc<AtomicUsize>,
}

impl Shop {
    /// A new shop.
    pub(crate) async fn open() -> Self {
        Self::open_on(Arc::default(), Settings::default()).await
    }

    /// A shop on a store that may have been used before.
    pub(crate) async fn open_on(store: Arc<FaultyStore>, settings: Settings) -> Self {
        Self::try_open(store, settings, Arc::new(TokioRuntime::new())).await.unwrap()
    }

    /// A shop of whatever runtime, if it may open.
    pub(crate) async fn try_open(
        store: Arc<FaultyStore>,
        settings: Settings,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self, EngineError> {
        let log = Arc::new(Log::default());
        let observer: Arc<dyn Observer> = log.clone();
        let engine = Engine::start(store.clone(), runtime, settings, Some(observer)).await?;
        Ok(Self { store, engine, log, charges: Arc::default() })
    }

    /// Charges that really happened, in the world outside.
    pub(crate) fn charges(&self) -> usize {
        self.charges.load(SeqCst)
    }

    /// A charge that takes so long and then ends so. It counts when it begins.
    pub(crate) fn charge(&self, takes: Duration, ran: Ran) -> impl Run + use<> {
        let charges = Arc::clone(&self.charges);
        direct(move |_attempt| async move {
            charges.fetch_add(1, SeqCst);
            tokio::time::sleep(takes).await;
            ran
        })
    }

    /// Asks for a charge that is answered with `confirmed()` after `takes`.
    pub(crate) async fn ask(&self, takes: Duration) -> Result<Answer, EngineError> {
        let charge = self.charge(takes, Ran::Happened(confirmed()));
        self.engine.once(&request(), &policy(), seconds(5), charge).await
    }

    /// Asks in a task of its own.
    pub(crate) fn ask_aside(
        &self,
        takes: Duration,
        wait: Duration,
        ran: Ran,
    ) -> tokio::task::JoinHandle<Answer> {
        let (engine, charge) = (self.engine.clone(), self.charge(takes, ran));
        tokio::spawn(async move { engine.once(&request(), &policy(), wait, charge).await.unwrap() })
    }

    /// Claims the key, which must be free.
    pub(crate) async fn claim(&self, phase: Phase) -> Ticket {
        match self.engine.claim(&request(), &policy(), phase).await.unwrap() {
            Claimed::Granted(ticket) => ticket,
            Claimed::Refused(acted) => panic!("{acted:?}"),
        }
    }

    /// What an operator's verdict on a claim is answered.
    pub(crate) async fn resolve(&self, fence: Fence, verdict: Verdict) -> Outcome {
        let (id, policy) = (request().id, policy());
        let resolved = self.engine.resolve(id, &policy, fence, verdict, "ops", "in the ledger");
        resolved.await.unwrap().outcome
    }

    /// What somebody is told who only asks.
    pub(crate) async fn look(&self) -> Outcome {
        self.engine.look(&request(), &policy()).await.unwrap().outcome
    }

    /// The state of the key's record, by name.
    pub(crate) async fn state(&self) -> Option<StateKind> {
        self.engine.get(request().id).await.unwrap().map(|record| record.state.kind())
    }
}

/// A charge that is sent at once and only listens then, for as long as its answer takes.
pub(crate) struct Listening {
    pub(crate) charges: Arc<AtomicUsize>,
    pub(crate) takes: Duration,
}

impl Effect for Listening {
    type Prepared = ();

    fn lease(&mut self, _lease: Lease) -> AtLeaseEnd {
        AtLeaseEnd::Listens
    }

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), _attempt: Attempt) -> Ran {
        self.charges.fetch_add(1, SeqCst);
        tokio::time::sleep(self.takes).await;
        Ran::Happened(confirmed())
    }
}

/// The request that all tests make.
pub(crate) fn request() -> Request {
    Request::new(KeyId::from_bytes([7; 16]), Fingerprint::new(1, [1; 32]))
}

/// Another request with the same key.
pub(crate) fn other_request() -> Request {
    Request::new(KeyId::from_bytes([7; 16]), Fingerprint::new(1, [2; 32]))
}

/// The policy of all tests: the defaults (a lease of 30 s, 1 s of skew).
pub(crate) fn policy() -> Policy {
    Policy::default()
}

/// The usual reply.
pub(crate) fn confirmed() -> Reply {
    Reply::kept(201, "order confirmed, 7829")
}

/// Seconds of the paused clock.
pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets so much of the paused clock pass, and all that is due in it happen.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
