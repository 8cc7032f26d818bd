//! What waits to be written, and for how long it may.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use onlyonce_core::KeyId;
use onlyonce_store::{Row, StoreError, StoreErrorKind, Swap};

/// Bytes that may wait to be written; more are refused.
const BYTES_MAX: u64 = 256 << 20;
/// What one of them takes beside its record, in bytes.
const OVERHEAD: u64 = 256;
/// A swap that has waited longer is not done any more: the sweeper counts on every call being
/// over within 25 s, and what is left is for the sync.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Something to write.
pub(crate) enum Change {
    Swap { id: KeyId, expected: Option<i64>, next: Option<Row> },
    Floor(i64),
}

/// The answer to it.
pub(crate) type Told = Result<Swap, StoreError>;

/// Something that waits to be written.
pub(crate) struct Op {
    pub(crate) change: Change,
    pub(crate) size: u64,
    pub(crate) tell: oneshot::Sender<Told>,
    asked: Instant,
}

impl Op {
    /// Whether it may not be done any more.
    #[allow(clippy::disallowed_methods, reason = "how long a call has waited, for no record")]
    pub(crate) fn is_late(&self) -> bool {
        WAIT_MAX < Instant::now().duration_since(self.asked)
    }

    /// Says what became of it. Whoever has stopped waiting has lost the answer.
    pub(crate) fn tell(self, told: Told) {
        let _ = self.tell.send(told);
    }
}

/// The callers' end.
pub(crate) struct Queue {
    ops: Mutex<Option<Sender<Op>>>,
    bytes: std::sync::Arc<AtomicU64>,
}

impl Queue {
    pub(crate) fn new(ops: Sender<Op>, bytes: std::sync::Arc<AtomicU64>) -> Self {
        Self { ops: Mutex::new(Some(ops)), bytes }
    }

    /// Puts it at the end.
    #[allow(clippy::disallowed_methods, reason = "how long a call has waited, for no record")]
    pub(crate) fn ask(&self, change: Change) -> Result<oneshot::Receiver<Told>, StoreError> {
        let refuse = |text: &str| Err(StoreError::new(StoreErrorKind::NotApplied, text));
        let record = match &change {
            Change::Swap { next: Some(row), .. } => row.bytes.len() as u64,
            Change::Swap { next: None, .. } | Change::Floor(_) => 0,
        };
        let size = OVERHEAD + record;
        if BYTES_MAX < self.bytes.fetch_add(size, Ordering::Relaxed) + size {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return refuse("too much waits to be written");
        }
        let (tell, told) = oneshot::channel();
        let op = Op { change, size, tell, asked: Instant::now() };
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        match &*ops {
            Some(ops) if ops.send(op).is_ok() => Ok(told),
            Some(_) | None => refuse("the store is closed"),
        }
    }

    /// Nothing more can be asked for.
    pub(crate) fn close(&self) {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
