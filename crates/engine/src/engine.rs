//! The engine: carries commands to the store, wakes waiters, ends the claims of the dead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Credential, Fingerprint, KeyId, Look, Outcome, Phase, Policy,
    Record, Reply, State, StateKind, Timestamp,
};
use onlyonce_failpoint::failpoint;
use onlyonce_store::{Cursor, Filter, Page, Store, StoreError, notices};

use crate::act::{Act, Acted, Refingerprint};
use crate::clock::{Clock, Moment};
use crate::error::{CLOCK_GAP_MAX, EngineError};
use crate::inner::{Floors, Inner};
use crate::observe::{EngineEvent, NoObserver, Observer};
use crate::remote::{is_held_elsewhere, word_due_in};
use crate::runtime::Runtime;
use crate::ticket::Ticket;
use crate::wait::{Ended, Waiters};

/// A grant of an absent timed key relies on a floor read at most this long ago. Sweepers wait
/// twice as long after raising it, so that a grant may be as long on its way; one that was longer
/// is good only if the floor is still below its key.
pub const FLOOR_AGE_MAX: Duration = Duration::from_secs(30);

/// How the engine behaves, beyond the policy of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a claim may wait for the store. Default 2 s.
    pub store_wait: Duration,
    /// How many callers may wait for others' outcomes at once. Default 10,000.
    pub waiters_max: usize,
    /// How often a waiter looks again if other processes use the store too and it gives no
    /// notices; seldomer while it does. Default 200 ms.
    pub poll_every: Duration,
    /// How far the clocks of those who use the store may differ. Nothing is claimed while the clock
    /// of a store that has one is known to no better than half of it. Default 1 s, as
    /// [`Policy::skew_max`] is; the smallest of all policies.
    pub skew_max: Duration,
    /// Whether the clock is known to be right, however long ago the store was last written.
    /// Default `false`: more than [`CLOCK_GAP_MAX`](crate::CLOCK_GAP_MAX) is an error.
    pub clock_is_right: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store_wait: Duration::from_secs(2),
            waiters_max: 10_000,
            poll_every: Duration::from_millis(200),
            skew_max: Duration::from_secs(1),
            clock_is_right: false,
        }
    }
}

/// A request to run an operation once.
#[derive(Clone)]
pub struct Request {
    /// The key and its scope, from [`onlyonce_core::Secret::key_id`].
    pub id: KeyId,
    /// What the request looks like.
    pub fingerprint: Fingerprint,
    /// Computes the fingerprint by older rules, for records made with them.
    pub refingerprint: Option<Refingerprint>,
    /// The time the key carries.
    pub key_time: Option<Timestamp>,
    /// The caller's credential, if nobody has verified it.
    pub credential: Option<Credential>,
    /// Whether the caller runs the operation even if nothing can be learnt from the store. A claim
    /// that was made all the same, and is found later, is then in doubt and not released.
    pub runs_anyway: bool,
}

impl Request {
    /// A request with a fingerprint and nothing else.
    pub fn new(id: KeyId, fingerprint: Fingerprint) -> Self {
        let (refingerprint, key_time, credential) = (None, None, None);
        Self { id, fingerprint, refingerprint, key_time, credential, runs_anyway: false }
    }
}

/// What a claim was answered.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub enum Claimed {
    /// The operation is ours to run.
    Granted(Ticket),
    /// It is not; this is why, with the record behind it.
    Refused(Acted),
}

/// What waiting for another attempt has brought.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub enum Waited {
    /// That attempt ended while we waited.
    Ended {
        /// What the record answers now.
        acted: Acted,
        /// What its caller is answered although it is not recorded.
        shared: Option<Reply>,
    },
    /// It is still running, or too many wait already.
    StillRunning(Acted),
}

/// Runs each key once. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

impl Engine {
    /// Opens an engine on a store and, if no other process can be using it, ends the claims
    /// that earlier processes left: prepared ones are released, the others become unknown.
    ///
    /// # Errors
    /// What the store says, or that the clock is in doubt. Nothing can be claimed then.
    pub async fn start(
        store: Arc<dyn Store>,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, EngineError> {
        // Above it, not at it: a deleted record's last number must not be given out again.
        let last = Timestamp::from_millis(store.revision_max().await?);
        let observer = observer.unwrap_or_else(|| Arc::new(NoObserver));
        let clock = Clock::new(Arc::clone(&runtime));
        clock.read(&*store, settings.skew_max, &*observer).await?;
        clock.check(settings.skew_max)?;
        let gap = clock.now().since(last);
        if last != Timestamp::default() && CLOCK_GAP_MAX < gap && !settings.clock_is_right {
            return Err(EngineError::ClockDoubtful { gap });
        }
        clock.lift_above(last);
        // The age counts from before the read.
        let now = Moment::of(&*runtime);
        let floors = Floors::default();
        floors.keep(None, store.floor().await?, now);
        let (notices, teller) = notices();
        // Where there is nobody else, whoever ends an attempt wakes those who wait.
        if !store.is_exclusive() {
            store.notices(teller);
        }
        let engine = Self {
            inner: Arc::new(Inner {
                store,
                runtime,
                settings,
                observer,
                waiters: Arc::new(Waiters::new(notices)),
                clock,
                floors,
            }),
        };
        if engine.inner.store.is_exclusive() {
            engine.bury_the_dead().await?;
        }
        let listening = Inner::listen(Arc::downgrade(&engine.inner));
        engine.inner.runtime.spawn(Box::pin(listening));
        Ok(engine)
    }

    /// The engine's time: as the store's clock has it, if the store has one, else the runtime's;
    /// and above every revision that the store held at the start.
    pub fn now(&self) -> Timestamp {
        self.inner.now()
    }

    /// The largest reply in bytes that the store keeps.
    pub fn reply_max(&self) -> usize {
        self.inner.store.reply_max()
    }

    /// Asks to be the only one who runs the operation. One round trip to the store.
    ///
    /// `phase` is [`Phase::Prepared`] if the effect has a moment before which nothing can happen
    /// and calls [`Ticket::commit`] there, else [`Phase::Committing`].
    ///
    /// # Errors
    /// The store could not say within [`Settings::store_wait`]. Nothing was run; a claim that was
    /// made without our knowing is released in the background, as it is if this future is dropped,
    /// and as is one that was so long on its way that its key may have run and be deleted again.
    pub async fn claim(
        &self,
        request: &Request,
        policy: &Policy,
        phase: Phase,
    ) -> Result<Claimed, EngineError> {
        let claim_id = self.inner.runtime.claim_id();
        let command = Command::Claim(Claim {
            fingerprint: request.fingerprint,
            claim_id,
            holder: self.inner.runtime.holder(),
            key_time: request.key_time,
            credential: request.credential,
            phase,
        });
        let act = Act::new(command, *policy).with_refingerprint(request.refingerprint.clone());
        self.inner.check_clock().await?;
        let begun = self.inner.moment();
        let deadline = self.inner.soon();
        let mut asked = Asked { engine: self, request, claim_id, policy, open: true };
        let answered = self.inner.drive(request.id, act, deadline).await;
        let acted = answered?;
        self.inner.check_age(request, policy, &acted, begun).await?;
        asked.open = false;
        match acted {
            Acted { outcome: Outcome::Granted(fence), record: Some(record) } => {
                let (id, attempt) = (request.id, record.attempt);
                self.inner.observer.on(&EngineEvent::Granted { id, fence, attempt });
                let inner = Arc::clone(&self.inner);
                Ok(Claimed::Granted(Ticket::new(inner, id, *policy, fence, record)))
            }
            acted => Ok(Claimed::Refused(acted)),
        }
    }

    /// What a claim would be answered, without ever being granted one.
    ///
    /// # Errors
    /// The store could not say within [`Settings::store_wait`].
    pub async fn look(&self, request: &Request, policy: &Policy) -> Result<Acted, EngineError> {
        let command = Command::Look(Look {
            fingerprint: request.fingerprint,
            key_time: request.key_time,
            credential: request.credential,
        });
        let act = Act::new(command, *policy).with_refingerprint(request.refingerprint.clone());
        self.inner.drive(request.id, act, self.inner.soon()).await
    }

    /// Waits, at most for `wait`, until the attempt that holds the key has ended.
    ///
    /// It never claims: an attempt that ends released or unknown ends so for its waiters too,
    /// so that many duplicates of a refused request make one call.
    ///
    /// # Errors
    /// The store could not say.
    pub async fn wait(
        &self,
        request: &Request,
        policy: &Policy,
        wait: Duration,
    ) -> Result<Waited, EngineError> {
        let until = self.inner.moment().plus(wait);
        // Join first, read second: an end between the two is then seen by one or the other.
        let place = self.inner.waiters.join(request.id, self.inner.settings.waiters_max);
        let mut acted = self.look(request, policy).await?;
        if !acted.is_running() {
            return Ok(Waited::Ended { acted, shared: None });
        }
        let Some(mut place) = place else { return Ok(Waited::StillRunning(acted)) };
        failpoint!("wait.joined", acted);
        for looks in 0.. {
            let left = until.since(self.inner.moment());
            if left.is_zero() {
                break;
            }
            let pause = left.min(self.inner.quiet(looks));
            let sleep =
                self.inner.runtime.sleep(pause.min(word_due_in(&acted, self.now(), policy)));
            match select(&mut place.ended, sleep).await {
                Either::Left((Ok(Ended { record, shared }), _)) => {
                    failpoint!("wait.woken", record);
                    let acted = self.looked(request, policy, record);
                    return Ok(Waited::Ended { acted, shared });
                }
                // Nobody is left who could wake us.
                Either::Left((Err(_), _)) => break,
                Either::Right(((), _)) => {}
            }
            acted = self.look(request, policy).await?;
            if !acted.is_running() {
                return Ok(Waited::Ended { acted, shared: None });
            }
        }
        Ok(Waited::StillRunning(acted))
    }

    /// The record of a key as it is stored, for operators.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get(&self, id: KeyId) -> Result<Option<Record>, StoreError> {
        self.inner.store.get(id).await
    }

    /// A page of records, for operators.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(&self, filter: Filter, after: Option<Cursor>) -> Result<Page, StoreError> {
        self.inner.store.list(filter, after).await
    }

    /// Says that this key must never run. Granted for keys that are absent or released.
    ///
    /// # Errors
    /// The store could not say; the seal may be repeated.
    pub async fn seal(
        &self,
        id: KeyId,
        policy: &Policy,
        reply: Reply,
        key_time: Option<Timestamp>,
        by: &str,
        why: &str,
    ) -> Result<Acted, EngineError> {
        let (by, why) = (by.to_owned(), why.to_owned());
        let command = Command::Seal { reply, key_time, by, why };
        self.command(id, policy, command).await
    }

    pub(crate) async fn command(
        &self,
        id: KeyId,
        policy: &Policy,
        command: Command,
    ) -> Result<Acted, EngineError> {
        let act = Act::new(command, *policy);
        let acted = self.inner.drive(id, act, self.inner.soon()).await?;
        if let Some(record) = &acted.record {
            self.inner.wake(id, record, None);
        }
        Ok(acted)
    }

    /// What `record` answers to `request`, decided without asking the store again.
    fn looked(&self, request: &Request, policy: &Policy, record: Record) -> Acted {
        let command = Command::Look(Look {
            fingerprint: request.fingerprint,
            key_time: request.key_time,
            credential: request.credential,
        });
        let mut act = Act::new(command, *policy).with_refingerprint(request.refingerprint.clone());
        act.read(Some(record.clone()));
        let outcome = act.peek(self.now(), self.inner.floor_read(request.id));
        Acted { outcome, record: Some(record) }
    }

    /// Ends the claims of processes that cannot be alive, since this one has the store alone.
    async fn bury_the_dead(&self) -> Result<(), EngineError> {
        let mut after = None;
        loop {
            let filter = Filter { state: Some(StateKind::InFlight), limit: 0 };
            let page = self.list(filter, after).await?;
            for (id, record) in page.records {
                if is_held_elsewhere(&record) {
                    continue;
                }
                let command = Command::CertifyDeath { fence: record.fence };
                let act = Act::from_record(command, Policy::default(), record);
                self.inner.drive(id, act, self.inner.soon()).await?;
                self.inner.observer.on(&EngineEvent::HolderBuried { id });
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Takes back a claim whose answer we did not wait for, if it was granted.
    fn disown(&self, request: &Request, claim_id: ClaimId, policy: Policy) {
        let (inner, id, runs_anyway) = (Arc::clone(&self.inner), request.id, request.runs_anyway);
        self.inner.runtime.spawn(Box::pin(async move {
            let soon = [Duration::ZERO, Duration::from_millis(500)];
            for pause in soon.into_iter().chain([policy.lease / 3; 2]) {
                inner.runtime.sleep(pause).await;
                let Ok(found) = inner.store.get(id).await else { continue };
                let ours = found.filter(|record| match &record.state {
                    State::InFlight(flight) => flight.claim_id == claim_id,
                    State::Released { .. }
                    | State::Completed { .. }
                    | State::Unknown(_)
                    | State::Tombstone { .. } => false,
                });
                if let Some(record) = ours {
                    let fence = record.fence;
                    let command = if runs_anyway {
                        Command::Abandon { fence, cause: Cause::Abandoned }
                    } else {
                        Command::Release { fence, stranger: false }
                    };
                    let act = Act::from_record(command, policy, record);
                    if let Ok(Acted { record: Some(record), .. }) =
                        inner.drive(id, act, inner.soon()).await
                    {
                        return inner.wake(id, &record, None);
                    }
                }
            }
        }));
    }
}

/// A claim on its way to the store. If it is dropped before the answer is known, as when the
/// caller goes away, a grant that nobody will use is taken back.
struct Asked<'a> {
    engine: &'a Engine,
    request: &'a Request,
    claim_id: ClaimId,
    policy: &'a Policy,
    open: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.open {
            self.engine.disown(self.request, self.claim_id, *self.policy);
        }
    }
}
