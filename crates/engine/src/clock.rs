//! The engine's time: its machine's, or the clock of the store that all its users share; above
//! every number that the store held at the start, and never running backwards. How long something
//! takes is measured by another clock, which is never set: see [`Moment`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onlyonce_core::Timestamp;
use onlyonce_store::Store;

use crate::error::EngineError;
use crate::observe::{EngineEvent, Observer};
use crate::runtime::Runtime;

/// How often the store is asked for its time before the best answer counts.
const TRIES: usize = 3;
/// How old a reading is when it is made again.
const AGE_MAX: Duration = Duration::from_secs(60);
/// By how much a clock that is never set may go wrong: one part in so many.
const DRIFT: u32 = 2_000;
/// By how much a store's clock is followed forward while a process runs, in milliseconds: more is
/// no mended clock but a wrong one. Under it replies end and the floor rises, for good.
const FORWARD_MAX: i64 = 60 * 60 * 1_000;

/// A moment by the runtime's clock that is never set: for waits, deadlines and ages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn of(runtime: &dyn Runtime) -> Self {
        Self(runtime.steady())
    }

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// So much later.
    pub(crate) const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A clock that does not run backwards.
pub(crate) struct Clock {
    runtime: Arc<dyn Runtime>,
    state: Mutex<State>,
    /// Whether somebody reads the store's clock now.
    reading: AtomicBool,
}

struct State {
    source: Source,
    /// The time is never below this, from then on at half its pace: so it nears a store's clock
    /// that was found to be behind, and does not stand still meanwhile.
    least: (Moment, Timestamp),
}

/// Where the time comes from.
#[derive(Clone, Copy)]
enum Source {
    /// The runtime, and so much is added for good.
    Machine(Duration),
    Store(Reading),
}

/// A store's clock, as it was read.
#[derive(Clone, Copy)]
struct Reading {
    at: Moment,
    /// By how much it is ahead of the clock that is never set, in milliseconds.
    offset: i64,
    /// The same, when it was read first.
    first: i64,
    uncertainty: Duration,
}

impl Reading {
    fn time(&self, now: Moment) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add_signed(self.offset))
    }
}

impl Clock {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        let least = (Moment::default(), Timestamp::default());
        let state = State { source: Source::Machine(Duration::ZERO), least };
        Self { runtime, state: Mutex::new(state), reading: AtomicBool::new(false) }
    }

    /// The present time.
    pub(crate) fn now(&self) -> Timestamp {
        self.time(&self.state())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self, state: &State) -> Timestamp {
        match state.source {
            Source::Machine(lift) => self.runtime.now().plus(lift),
            Source::Store(reading) => {
                let now = Moment::of(&*self.runtime);
                let (from, least) = state.least;
                reading.time(now).max(least.plus(now.since(from) / 2))
            }
        }
    }

    /// Puts it above `last`.
    pub(crate) fn lift_above(&self, last: Timestamp) {
        let mut state = self.state();
        let (now, least) = (self.time(&state), last.plus_millis(1));
        match state.source {
            Source::Machine(_) => state.source = Source::Machine(least.since(now)),
            Source::Store(_) => state.least = (Moment::of(&*self.runtime), least.max(now)),
        }
    }

    /// That the store's clock is known well enough to claim by it, if the store has one: what was
    /// read is `skew_max / 2` wrong at most, so that two machines differ by no more than
    /// `skew_max`.
    pub(crate) fn check(&self, skew_max: Duration) -> Result<(), EngineError> {
        let Source::Store(reading) = self.state().source else { return Ok(()) };
        let age = Moment::of(&*self.runtime).since(reading.at);
        let uncertainty = reading.uncertainty.saturating_add(age / DRIFT);
        if uncertainty <= skew_max / 2 {
            return Ok(());
        }
        Err(EngineError::ClockUncertain { uncertainty })
    }

    /// Whether the store's clock is to be read again. Who found none at the start does not ask.
    pub(crate) fn is_due(&self) -> bool {
        match self.state().source {
            Source::Machine(_) => false,
            Source::Store(reading) => AGE_MAX < Moment::of(&*self.runtime).since(reading.at),
        }
    }

    /// Reads the store's clock, if it has one. One does so at a time; the others go by what was
    /// read before. A clock that was put far forward since the first
    /// reading is an alarm and is not followed.
    ///
    /// # Errors
    /// The store cannot say.
    pub(crate) async fn read(
        &self,
        store: &dyn Store,
        skew_max: Duration,
        observer: &dyn Observer,
    ) -> Result<(), EngineError> {
        let earlier = match self.state().source {
            Source::Machine(_) => None,
            Source::Store(reading) => Some(reading),
        };
        if self.reading.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let _reading = Cleared(&self.reading);
        let Some(mut reading) = self.ask(store, skew_max).await? else { return Ok(()) };
        reading.first = earlier.map_or(reading.offset, |earlier| earlier.first);
        let forward = reading.offset.saturating_sub(reading.first);
        if FORWARD_MAX < forward {
            let by = Duration::from_millis(forward.unsigned_abs());
            observer.on(&EngineEvent::ClockStepped { by });
            return Ok(());
        }
        let now = Moment::of(&*self.runtime);
        let ahead = reading.time(now).as_millis().wrapping_sub(self.runtime.now().as_millis());
        let (offset, uncertainty) = (ahead.cast_signed(), reading.uncertainty);
        observer.on(&EngineEvent::ClockMeasured { offset, uncertainty });
        let mut state = self.state();
        if earlier.is_some() {
            // What was told was told.
            state.least = (now, self.time(&state));
        }
        state.source = Source::Store(reading);
        Ok(())
    }

    /// The answer that came quickest: the store read its clock at some moment of that time.
    async fn ask(
        &self,
        store: &dyn Store,
        skew_max: Duration,
    ) -> Result<Option<Reading>, EngineError> {
        let mut best: Option<Reading> = None;
        for _ in 0..TRIES {
            let begun = Moment::of(&*self.runtime);
            let Some(told) = store.clock().await? else { return Ok(None) };
            let at = Moment::of(&*self.runtime);
            let took = at.since(begun);
            let middle = begun.plus(took / 2);
            let offset = told.as_millis().wrapping_sub(middle.as_millis()).cast_signed();
            // Both are told in whole milliseconds.
            let uncertainty = took / 2 + Duration::from_millis(1);
            if best.is_none_or(|best| uncertainty < best.uncertainty) {
                best = Some(Reading { at, offset, first: offset, uncertainty });
            }
            if uncertainty <= skew_max / 8 {
                break;
            }
        }
        Ok(best)
    }
}

/// Says that nobody reads any more, also if whoever did has given up.
struct Cleared<'a>(&'a AtomicBool);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
