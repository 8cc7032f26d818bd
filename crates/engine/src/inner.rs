//! What all clones of an engine share, and how a command gets to the store: repeated after
//! failures, bounded in time, under a floor and a clock that are not too old.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use onlyonce_core::{Floor, KeyId, Outcome, Policy, Record, Reply, StateKind, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_store::{Store, StoreError};

use crate::act::{Act, Acted, Step};
use crate::clock::{Clock, Moment};
use crate::engine::{FLOOR_AGE_MAX, Request, Settings};
use crate::error::EngineError;
use crate::observe::{EngineEvent, Observer};
use crate::runtime::Runtime;
use crate::wait::{Ended, Waiters};

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) settings: Settings,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) clock: Clock,
    pub(crate) floors: Floors,
}

/// The floors of the store, and of each of its parts that was asked for, and when each was read.
#[derive(Default)]
pub(crate) struct Floors(Mutex<BTreeMap<Option<u32>, (Floor, Moment)>>);

impl Floors {
    fn of(&self, part: Option<u32>) -> Option<(Floor, Moment)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&part).copied()
    }

    pub(crate) fn keep(&self, part: Option<u32>, floor: Floor, read_at: Moment) {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        floors.insert(part, (floor, read_at));
    }

    /// That of the store, which was raised: what was read before it is asked for again.
    fn raised(&self, floor: Floor, read_at: Moment) {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *floors = BTreeMap::from([(None, (floor, read_at))]);
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The present moment, for whatever takes time.
    pub(crate) fn moment(&self) -> Moment {
        Moment::of(&*self.runtime)
    }

    /// Until when a command may wait for the store.
    pub(crate) fn soon(&self) -> Moment {
        self.moment().plus(self.settings.store_wait)
    }

    /// Reads the clock of a store that has one, if that was not done lately, at most for as long as
    /// a command may wait for it.
    pub(crate) async fn read_clock(&self) -> Result<(), EngineError> {
        // Asked by each claim: most cost no timer and no call of the store.
        if !self.clock.is_due() {
            return Ok(());
        }
        let read = pin!(self.clock.read(&*self.store, self.settings.skew_max, &*self.observer));
        match select(read, self.runtime.sleep(self.settings.store_wait)).await {
            Either::Left((read, _)) => read,
            Either::Right(((), _)) => Err(EngineError::StoreTimeout),
        }
    }

    /// That the clock of a store that has one is known well enough to claim by it. A reading that
    /// fails costs nothing while an earlier one is good enough.
    pub(crate) async fn check_clock(&self) -> Result<(), EngineError> {
        let read = self.read_clock().await;
        self.clock.check(self.settings.skew_max).map_err(|error| read.err().unwrap_or(error))
    }

    /// Tells those who wait for `id` how its attempt ended; nothing, if another one still runs.
    pub(crate) fn wake(&self, id: KeyId, record: &Record, shared: Option<Reply>) {
        if record.state.kind() != StateKind::InFlight {
            self.waiters.wake(id, || Ended { record: record.clone(), shared });
        }
    }

    /// The floor that holds for a key, as it was last read.
    pub(crate) fn floor_read(&self, id: KeyId) -> Floor {
        let read = self.floors.of(self.store.part(id)).or_else(|| self.floors.of(None));
        read.map_or(Floor::NONE, |(floor, _)| floor)
    }

    /// Raises the floor, for whatever this engine grants from then on too.
    pub(crate) async fn raise_floor(&self, to: Floor) -> Result<Floor, StoreError> {
        self.store.raise_floor(to).await?;
        let now = self.moment();
        let floor = self.store.floor().await?;
        self.floors.raised(floor, now);
        Ok(floor)
    }

    /// The floor that holds for a key, read again if it is older than [`FLOOR_AGE_MAX`].
    pub(crate) async fn floor(&self, id: KeyId) -> Result<Floor, EngineError> {
        let part = self.store.part(id);
        // The age counts from before the read.
        let now = self.moment();
        if let Some((floor, read_at)) = self.floors.of(part)
            && now.since(read_at) <= FLOOR_AGE_MAX
        {
            return Ok(floor);
        }
        let floor = self.read_floor(part).await?;
        self.floors.keep(part, floor, now);
        Ok(floor)
    }

    async fn read_floor(&self, part: Option<u32>) -> Result<Floor, StoreError> {
        match part {
            None => self.store.floor().await,
            Some(part) => self.store.floor_in(part).await,
        }
    }

    /// That a grant was not so long on its way, as when this process was stopped after it had
    /// decided, that its key may have run, by somebody else, and have been deleted meanwhile.
    pub(crate) async fn check_age(
        &self,
        request: &Request,
        policy: &Policy,
        acted: &Acted,
        begun: Moment,
    ) -> Result<(), EngineError> {
        let Outcome::Granted(fence) = acted.outcome else { return Ok(()) };
        // A claim's fence tells when it was decided, which may be another process's doing.
        let age = self.now().since(Timestamp::from_millis(fence.get()));
        let age = age.max(self.moment().since(begun));
        if age <= FLOOR_AGE_MAX.min(policy.remember) {
            return Ok(());
        }
        let is_outlived = match request.key_time {
            Some(_) => {
                let floor = pin!(self.read_floor(self.store.part(request.id)));
                match select(floor, self.runtime.sleep(self.settings.store_wait)).await {
                    Either::Left((floor, _)) => floor?.is_above(request.key_time),
                    Either::Right(((), _)) => true,
                }
            }
            None => policy.remember < age,
        };
        if is_outlived { Err(EngineError::StoreTimeout) } else { Ok(()) }
    }

    /// Carries one command to its end, repeating it after store errors until `deadline`. A second
    /// reply is an alarm as soon as it is found, and told also if no note of it can be written.
    pub(crate) async fn drive(
        &self,
        id: KeyId,
        mut act: Act,
        deadline: Moment,
    ) -> Result<Acted, EngineError> {
        let mut pause = Duration::from_millis(10);
        let mut is_alarmed = false;
        loop {
            // One that hangs is asked again, since it may have lost the question. A zero wait would
            // lose against a store that answers at once.
            let left = deadline.since(self.moment()).min(self.settings.store_wait);
            let left = left.max(Duration::from_millis(1));
            let result = {
                let attempt = pin!(self.advance(id, &mut act));
                match select(attempt, self.runtime.sleep(left)).await {
                    Either::Left((result, _)) => result,
                    Either::Right(((), _)) => Err(EngineError::StoreTimeout),
                }
            };
            let second = act.second_reply();
            if let Some((fence, _)) = second.as_ref().filter(|_| !is_alarmed) {
                self.observer.on(&EngineEvent::SecondReply { id, fence: *fence });
                is_alarmed = true;
            }
            let error = match result {
                Ok(acted) => return Ok(acted),
                Err(error) => error,
            };
            self.observer.on(&EngineEvent::StoreFailed { error: error.clone() });
            if !error.is_transient() || deadline <= self.moment().plus(pause) {
                // Only the note of it is missing.
                return second.map(|(_, acted)| acted).ok_or(error);
            }
            self.runtime.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn advance(&self, id: KeyId, act: &mut Act) -> Result<Acted, EngineError> {
        loop {
            let floor = self.floor(id).await?;
            match act.step(self.now(), floor) {
                Step::Get => {
                    let found = self.store.get(id).await?;
                    act.read(found);
                }
                Step::Swap { expected, next } => {
                    failpoint!("engine.swap.before", act);
                    let swap = self.store.swap(id, expected, next).await?;
                    failpoint!("engine.swap.after", (&*act, &swap));
                    if let Some(acted) = act.swapped(swap) {
                        return Ok(acted);
                    }
                }
                // Whoever is in the way may be dead: then the answer is another.
                Step::Done(acted) => match self.after_death(id, &acted, act.policy()).await? {
                    Some(stands) => act.read(stands),
                    None => return Ok(acted),
                },
                Step::Contended => return Err(EngineError::Contended),
            }
        }
    }
}
