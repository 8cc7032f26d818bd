//! The sweeper: writes down what time has done, and forgets what may be forgotten.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use onlyonce_core::{Command, Floor, KeyId, Policy, Record, State, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_store::{Due, StoreErrorKind};

use crate::act::{Act, Step};
use crate::clock::Moment;
use crate::engine::{Engine, FLOOR_AGE_MAX};
use crate::error::EngineError;
use crate::observe::EngineEvent;
use crate::word::Word;

/// Keys that the store is asked for at once: few, since an embedded store reads each record for it,
/// on a core that callers need too.
const FOUND_MAX: usize = 512;
/// Keys that may not go yet and that a pass finds before it ends: it is told of all of them anew
/// each time it asks. Those that cannot be read, or written, do not count: no later pass can do
/// more.
const STAY_MAX: usize = 8 * FOUND_MAX;
/// Keys that are on their way at once: they share syncs and round trips, and callers wait behind
/// so many at most.
const TOGETHER: usize = 32;

/// Forgets, pass by pass. One at a time is enough for all processes on a store; more do no harm.
///
/// A key that carries its time is deleted only once the store's floor has passed that time, and no
/// process can be using an older floor any more: so it is refused from then on and never runs
/// again. A key without a time of its own is deleted when `remember` is over, and then runs as new.
pub struct Sweeper {
    engine: Engine,
    policy: Policy,
    /// The floor that everyone uses by now.
    ready: Floor,
    /// What is to be forgotten by then is below that floor, as a rule.
    forget_until: Option<Timestamp>,
    /// A floor that was raised, what it is good for, and when.
    raised: Option<(Floor, Timestamp, Moment)>,
    /// Whether it hears what the last one has left, and leaves word for the next one.
    hands_on: bool,
    /// Whether it has heard it.
    has_heard: bool,
}

/// What a pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records whose end was written down: replies that became tombstones, claims that lapsed.
    pub ended: u64,
    /// Records that were deleted.
    pub deleted: u64,
    /// Records that may be due and cannot be read. They stay, and each pass counts them anew.
    pub damaged: u64,
}

/// What became of one key.
enum One {
    Stays,
    Ended(Box<Record>),
    Deleted,
    Damaged,
}

impl Swept {
    /// Counts what became of a key, and keeps it among those that stay.
    fn count(&mut self, id: KeyId, one: &One, stay: &mut HashSet<KeyId>) {
        match one {
            One::Stays => _ = stay.insert(id),
            One::Ended(_) => self.ended += 1,
            One::Deleted => self.deleted += 1,
            One::Damaged => {
                self.damaged += 1;
                stay.insert(id);
            }
        }
    }
}

/// What the store has said of keys that it did not write.
#[derive(Default)]
struct Refused {
    /// Of these keys alone, such as of ones that a person must choose for.
    of_keys: usize,
    /// Of what may be all keys.
    others: usize,
    last: Option<EngineError>,
}

impl Refused {
    /// Keeps what was said of a key that stays; gives it back if the pass must end.
    fn take(&mut self, error: EngineError) -> Result<(), EngineError> {
        match &error {
            EngineError::Store(said) if said.kind() != StoreErrorKind::NotApplied => {
                return Err(error);
            }
            EngineError::Store(said) if said.is_of_key() => self.of_keys += 1,
            // A transaction may have this key, and no other one: the next pass finds it again. A
            // store that refuses so many refuses all.
            EngineError::Store(_) if self.others < TOGETHER => self.others += 1,
            EngineError::Store(_)
            | EngineError::StoreTimeout
            | EngineError::Contended
            | EngineError::ClaimLost
            | EngineError::LeaseShort
            | EngineError::ClockDoubtful { .. }
            | EngineError::ClockUncertain { .. } => return Err(error),
        }
        self.last = Some(error);
        Ok(())
    }
}

impl Sweeper {
    /// A sweeper for records made under any of several policies: `policy` has the longest
    /// `remember` and `skew_max` among them, so that nothing is forgotten early.
    pub const fn new(engine: Engine, policy: Policy) -> Self {
        let (ready, forget_until, raised) = (Floor::NONE, None, None);
        Self { engine, policy, ready, forget_until, raised, hands_on: false, has_heard: false }
    }

    /// One in a process that may end before its wait is over: it leaves word in the store of the
    /// floor that it raises, and begins with what the last one has left. All that sweep the store
    /// like this are ones whose records are counted in one time, within the policy's `skew_max`;
    /// between two of one boot of a host ([`Runtime::uptime`](crate::Runtime::uptime)) a clock that
    /// was put forward counts for nothing. If the word in the store is damaged, the observer is
    /// told, and nothing is handed on there any more.
    pub const fn handing_on(mut self) -> Self {
        self.hands_on = true;
        self
    }

    /// How long to wait between passes: until everyone uses the floor that the last one raised.
    pub const fn pause(&self) -> Duration {
        FLOOR_AGE_MAX.saturating_mul(2).saturating_add(self.policy.skew_max)
    }

    /// Passes, with a pause after each, until it is dropped. Errors are told to the observer, and
    /// the next pass tries again.
    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.pass().await {
                self.engine.inner.observer.on(&EngineEvent::StoreFailed { error });
            }
            self.engine.inner.runtime.sleep(self.pause()).await;
        }
    }

    /// One pass: sweeps what is due under the floor that everyone uses by now, raises the floor
    /// for a later pass, and has the store give room back.
    ///
    /// # Errors
    /// The store failed; what was done so far is done. Where it has refused a few keys, or any
    /// number of them each for itself ([`StoreError::is_of_key`](onlyonce_store::StoreError)), all
    /// others were looked at.
    pub async fn pass(&mut self) -> Result<Swept, EngineError> {
        // A process that only sweeps claims nothing by which it would learn of it.
        self.engine.inner.read_clock().await?;
        let (now, moment) = (self.engine.now(), self.engine.inner.moment());
        let by = self.engine.inner.runtime.step_refused();
        if !by.is_zero() {
            self.engine.inner.observer.on(&EngineEvent::ClockStepped { by });
        }
        if self.hands_on && !self.has_heard {
            self.hear(now).await?;
        }
        let pause = self.pause();
        if let Some((floor, until, _)) = self.raised.take_if(|(.., at)| at.plus(pause) <= moment) {
            self.ready = self.ready.max(floor);
            self.forget_until = self.forget_until.max(Some(until));
        }
        if self.raised.is_none() {
            let to = Floor::at(now.minus(self.policy.remember));
            failpoint!("sweep.floor.before", to);
            self.engine.inner.store.raise_floor(to).await?;
            failpoint!("sweep.floor.after", to);
            // The wait counts from when it was durable.
            self.raised = Some((to, now, self.engine.inner.moment()));
            if self.hands_on {
                // Without it the next one has to wait anew, and nothing else.
                let _ = self.leave_word(to).await;
            }
        }
        let (swept, refused) = self.sweep(now).await?;
        let reclaimed = self.engine.inner.store.reclaim().await;
        // It is so, whether room was given back or not.
        self.engine.inner.observer.on(&EngineEvent::Swept { swept });
        reclaimed?;
        refused.map_or(Ok(swept), Err)
    }

    /// Begins where the last one has left off.
    async fn hear(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let store = &self.engine.inner.store;
        let word = match Word::read(&**store).await {
            Ok((word, _)) => word,
            Err(error) if error.kind() == StoreErrorKind::Damaged => {
                // Nobody can replace it, so nothing is handed on; all else goes on as it does where
                // a sweeper lives long.
                self.hands_on = false;
                let failed = EngineEvent::StoreFailed { error: error.into() };
                self.engine.inner.observer.on(&failed);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let uptime = self.engine.inner.runtime.uptime();
        if let Some((floor, at)) = word.at(now, uptime, &self.policy).ready {
            // What another store was told when this one was copied from it holds here too, once the
            // floor is here.
            let floor = floor.min(store.floor().await?);
            self.ready = self.ready.max(floor);
            self.forget_until = self.forget_until.max(Some(at));
        }
        self.has_heard = true;
        Ok(())
    }

    /// Leaves word of the floor that was raised, unless the next one has an older word to wait for:
    /// if each of many put it off, nobody would ever have waited for it.
    async fn leave_word(&self, raised: Floor) -> Result<(), EngineError> {
        let (store, now) = (&self.engine.inner.store, self.engine.now());
        let uptime = self.engine.inner.runtime.uptime();
        let (word, revision) = Word::read(&**store).await?;
        let word = word.at(now, uptime, &self.policy);
        if word.raised.is_some_and(|(floor, _)| self.ready < floor) {
            return Ok(());
        }
        let ours = self.forget_until.map(|until| (self.ready, until));
        let word = Word { ready: word.ready.max(ours), raised: Some((raised, now)), uptime };
        word.write(&**store, revision, now).await?;
        Ok(())
    }

    /// What it has done, and what the store has said of keys that it did not write.
    async fn sweep(&self, now: Timestamp) -> Result<(Swept, Option<EngineError>), EngineError> {
        // A tombstone whose key carries its time stays until a floor is above that. Those of the
        // last pauses are therefore not asked for: each pass would look at all of them in vain.
        let forget_until = self.forget_until.unwrap_or(now);
        let released_until = forget_until.minus(self.policy.remember);
        let due = Due { over_at: now, forget_until, released_until };
        let (mut swept, mut stay) = (Swept::default(), HashSet::new());
        let mut refused = Refused::default();
        loop {
            // Those that stay are found again, and are not looked at again.
            let limit = stay.len() + FOUND_MAX;
            let mut found = self.engine.inner.store.due(due, limit).await?;
            let is_all = found.len() < limit;
            found.retain(|id| !stay.contains(id));
            let is_done = is_all || found.is_empty();
            for some in found.chunks(TOGETHER) {
                let begun = self.engine.inner.moment();
                let ones = join_all(some.iter().map(|id| self.one(*id))).await;
                for (id, one) in some.iter().zip(ones) {
                    match one {
                        Err(error) => {
                            refused.take(error)?;
                            stay.insert(*id);
                        }
                        Ok(one) => swept.count(*id, &one, &mut stay),
                    }
                }
                // Half of the time belongs to the callers.
                let took = self.engine.inner.moment().since(begun);
                self.engine.inner.runtime.sleep(took.max(Duration::from_millis(1))).await;
            }
            // What lies behind so many that stay is for a pass under a higher floor.
            let hopeless = swept.damaged as usize + refused.of_keys;
            if is_done || STAY_MAX < stay.len() - hopeless {
                return Ok((swept, refused.last));
            }
        }
    }

    async fn one(&self, id: KeyId) -> Result<One, EngineError> {
        match self.advance(id).await {
            Ok(One::Ended(record)) => {
                if let State::Unknown(doubt) = &record.state {
                    let (fence, cause) = (record.fence, doubt.cause);
                    let unknown = EngineEvent::OutcomeUnknown { id, fence, cause };
                    self.engine.inner.observer.on(&unknown);
                }
                self.engine.inner.wake(id, &record, None);
                Ok(One::Ended(record))
            }
            Err(EngineError::Store(error)) if error.kind() == StoreErrorKind::Damaged => {
                Ok(One::Damaged)
            }
            // Somebody is busy with it: the next pass finds it again if it is still due.
            Err(EngineError::Contended) => Ok(One::Stays),
            done => done,
        }
    }

    async fn advance(&self, id: KeyId) -> Result<One, EngineError> {
        let (engine, mut act) = (&self.engine.inner, Act::new(Command::Sweep, self.policy));
        loop {
            match act.step(engine.now(), self.ready) {
                Step::Get => act.read(engine.store.get(id).await?),
                Step::Swap { expected, next } => {
                    failpoint!("sweep.swap.before", next);
                    let swap = engine.store.swap(id, expected, next).await?;
                    failpoint!("sweep.swap.after", swap);
                    if let Some(acted) = act.swapped(swap) {
                        let ended = |record| One::Ended(Box::new(record));
                        return Ok(acted.record.map_or(One::Deleted, ended));
                    }
                }
                Step::Done(_) => return Ok(One::Stays),
                Step::Contended => return Err(EngineError::Contended),
            }
        }
    }
}
