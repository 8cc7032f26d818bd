//! The engine's time: its machine's, as the clock of the store has it that all its users share, and
//! above every number that the store held at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use onlyonce_core::Timestamp;
use onlyonce_store::Store;

use crate::error::EngineError;
use crate::observe::{EngineEvent, Observer};
use crate::runtime::Runtime;

/// How often the store is asked for its time before the best answer counts.
const TRIES: usize = 5;
/// An answer as quick as this needs no other.
const QUICK: Duration = Duration::from_millis(4);
/// By how much a store's clock is followed forward while a process runs, in milliseconds: more is
/// no mended clock but a wrong one. Under it replies end and the floor rises, for good.
const FORWARD_MAX: i64 = 60 * 60 * 1_000;

/// A clock that does not run backwards.
pub(crate) struct Clock {
    runtime: Arc<dyn Runtime>,
    /// By how much the store's clock is ahead of the runtime's, in milliseconds.
    offset: AtomicI64,
    /// The same, as it was found first.
    first: AtomicI64,
    /// Added for good, so that no new number is one that the store has had.
    lift: AtomicU64,
    /// The last time that was told.
    told: AtomicU64,
}

/// What one question for the store's time has brought.
#[derive(Clone, Copy)]
struct Measured {
    offset: i64,
    uncertainty: Duration,
}

impl Clock {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        let (offset, first) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { runtime, offset, first, lift: AtomicU64::new(0), told: AtomicU64::new(0) }
    }

    /// The present time. It stands still where a store's clock was found to be behind.
    pub(crate) fn now(&self) -> Timestamp {
        let offset = self.offset.load(Ordering::Acquire);
        let lift = self.lift.load(Ordering::Acquire);
        let now = self.runtime.now().as_millis().saturating_add_signed(offset).saturating_add(lift);
        Timestamp::from_millis(self.told.fetch_max(now, Ordering::AcqRel).max(now))
    }

    /// Puts it above `last` for good.
    pub(crate) fn lift_above(&self, last: Timestamp) {
        let lift = last.plus_millis(1).since(self.now());
        let millis = u64::try_from(lift.as_millis()).unwrap_or(u64::MAX);
        self.lift.store(millis, Ordering::Release);
    }

    /// Asks the store for its time. `start` says that whatever it tells is believed; later a clock
    /// that was put far forward is an alarm and is not followed.
    ///
    /// # Errors
    /// The store cannot say, or took so long that its answer is wrong by more than `skew_max`.
    pub(crate) async fn measure(
        &self,
        store: &dyn Store,
        skew_max: Duration,
        start: bool,
        observer: &dyn Observer,
    ) -> Result<(), EngineError> {
        let Some(Measured { offset, uncertainty }) = self.ask(store).await? else { return Ok(()) };
        if skew_max < uncertainty {
            return Err(EngineError::ClockUncertain { uncertainty });
        }
        if start {
            self.first.store(offset, Ordering::Release);
        }
        let forward = offset.saturating_sub(self.first.load(Ordering::Acquire));
        if FORWARD_MAX < forward {
            let by = Duration::from_millis(forward.unsigned_abs());
            observer.on(&EngineEvent::ClockStepped { by });
            return Ok(());
        }
        self.offset.store(offset, Ordering::Release);
        observer.on(&EngineEvent::ClockMeasured { offset, uncertainty });
        Ok(())
    }

    /// The answer that came quickest: the store read its clock at some moment of that time.
    async fn ask(&self, store: &dyn Store) -> Result<Option<Measured>, EngineError> {
        let mut best: Option<Measured> = None;
        for _ in 0..TRIES {
            let begun = self.runtime.now();
            let Some(told) = store.clock().await? else { return Ok(None) };
            let took = self.runtime.now().since(begun);
            let middle = begun.plus(took / 2);
            let offset = told.as_millis().wrapping_sub(middle.as_millis()).cast_signed();
            // Both are told in whole milliseconds.
            let uncertainty = took / 2 + Duration::from_millis(1);
            if best.is_none_or(|best| uncertainty < best.uncertainty) {
                best = Some(Measured { offset, uncertainty });
            }
            if took <= QUICK {
                break;
            }
        }
        Ok(best)
    }
}
