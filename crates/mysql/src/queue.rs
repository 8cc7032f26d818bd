//! What waits to be written, and for how long it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_channel::oneshot;
use onlyonce_core::KeyId;
use onlyonce_store::{Row, StoreError, Swap};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use crate::error::not_applied;

/// Bytes that may wait to be written; more are refused.
const BYTES_MAX: u64 = 256 << 20;
/// What one of them takes beside its record, in bytes.
const OVERHEAD: u64 = 256;
/// What a text has beside the records of its statements, in bytes.
const REST: u64 = 64 << 10;
/// A swap that has waited longer is not sent any more. With the time after which the server leaves
/// it, every call is over within 25 s; the sweeper counts on it.
const WAIT_MAX: Duration = Duration::from_secs(4);

/// One swap of a batch.
pub(crate) struct Ask {
    pub(crate) id: KeyId,
    pub(crate) expected: Option<i64>,
    pub(crate) next: Option<Row>,
}

/// What a swap takes in the queue, in bytes. In a text it takes at most twice as much: a byte is
/// two digits there.
pub(crate) fn size(ask: &Ask) -> u64 {
    OVERHEAD + ask.next.as_ref().map_or(0, |row| row.bytes.len() as u64)
}

/// How much of the queue fits one text, if the server takes `packet` bytes at once.
pub(crate) const fn batch_max(packet: u64) -> u64 {
    packet.saturating_sub(REST) / 2
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
        let size = size(&ask);
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
