//! What waits to be written, and for how long it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_channel::oneshot;
use onlyonce_core::{KeyId, StateKind};
use onlyonce_store::{Row, StoreError, Swap};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::error::not_applied;

/// Bytes that may wait to be written; more are refused.
const BYTES_MAX: u64 = 256 << 20;
/// What one of them takes beside its record, in bytes.
const OVERHEAD: u64 = 256;
/// A swap that has waited longer is not sent any more. With the time that a batch may take and
/// that of the kernel, every call is over within 25 s; the sweeper counts on it.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// One swap of a batch.
pub(crate) struct Ask {
    pub(crate) id: KeyId,
    pub(crate) expected: Option<i64>,
    pub(crate) next: Option<Row>,
}

impl Ask {
    /// Whether nobody is at work on the key after it.
    pub(crate) fn ends(&self) -> bool {
        self.next.as_ref().is_none_or(|row| row.state != StateKind::InFlight as i16)
    }
}

pub(crate) type Told = Result<Swap, StoreError>;

/// A swap that waits to be written.
pub(crate) struct Op {
    pub(crate) ask: Ask,
    pub(crate) size: u64,
    tell: oneshot::Sender<Told>,
    asked: Instant,
}

impl Op {
    /// Whether it may not be sent any more.
    pub(crate) fn is_late(&self) -> bool {
        WAIT_MAX < self.asked.elapsed()
    }

    /// Says what became of it. Whoever has stopped waiting has lost the answer.
    pub(crate) fn tell(self, told: Told) {
        let _ = self.tell.send(told);
    }
}

/// The callers' end.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) ops: UnboundedSender<Op>,
    pub(crate) bytes: Arc<AtomicU64>,
}

impl Queue {
    /// Puts it at the end.
    #[allow(clippy::disallowed_methods, reason = "how long a call has waited, for no record")]
    pub(crate) fn ask(&self, place: &str, ask: Ask) -> Result<oneshot::Receiver<Told>, StoreError> {
        let size = OVERHEAD + ask.next.as_ref().map_or(0, |row| row.bytes.len() as u64);
        if BYTES_MAX < self.bytes.fetch_add(size, Ordering::Relaxed) + size {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(not_applied(place, "too much waits to be written"));
        }
        let (tell, told) = oneshot::channel();
        let op = Op { ask, size, tell, asked: Instant::now() };
        let sent = self.ops.send(op);
        sent.map(|()| told).map_err(|_| not_applied(place, "the store is closed"))
    }
}
