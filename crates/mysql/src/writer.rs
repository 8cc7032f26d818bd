//! The task that writes: all that has been asked for meanwhile in one transaction.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onlyonce_core::KeyId;
use onlyonce_store::{StoreError, StoreErrorKind, Swap};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::batch::{Carried, Found, carry_out, find};
use crate::error::{not_applied, unknown};
use crate::queue::{Ask, Op, batch_max};
use crate::session::{Known, Session, Way};

/// Swaps of one transaction, at most.
const BATCH_OPS: usize = 1_024;
/// Bytes of one transaction, about, if the server takes them at once.
const BATCH_BYTES: u64 = 16 << 20;
/// How long a batch may take; then its connection is closed, and nobody knows.
const BATCH_MAX: Duration = Duration::from_secs(12);
/// After a connection that could not be made. What comes meanwhile is told so afterwards.
const PAUSE: Duration = Duration::from_millis(100);
const HELD: &str = "another transaction has the key";

pub(crate) struct Writer {
    pub(crate) way: Way,
    pub(crate) known: Known,
    pub(crate) slot: u8,
    pub(crate) ops: UnboundedReceiver<Op>,
    pub(crate) waiting: Arc<AtomicU64>,
    pub(crate) session: Option<Session>,
    /// Swaps of keys that were in the last batch too, and one that did not fit it.
    pub(crate) later: VecDeque<Op>,
}

impl Writer {
    /// Until nothing more can be asked for.
    pub(crate) async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.write(batch).await;
        }
    }

    /// What waits, each key at most once and in the order in which it was asked for.
    async fn gather(&mut self) -> Option<Vec<Op>> {
        let first = match self.later.pop_front() {
            Some(op) => op,
            None => self.ops.recv().await?,
        };
        let bytes_max = BATCH_BYTES.min(batch_max(self.known.packet));
        let (mut batch, mut later) = (Vec::new(), VecDeque::new());
        let (mut keys, mut bytes) = (HashSet::new(), 0);
        let mut next = Some(first);
        while let Some(op) = next {
            if !batch.is_empty() && bytes_max < bytes + op.size {
                later.push_back(op);
                break;
            }
            if keys.insert(op.ask.id) {
                bytes += op.size;
                batch.push(op);
            } else {
                later.push_back(op);
            }
            let is_full = batch.len() == BATCH_OPS;
            let waits = |it: &mut Self| it.later.pop_front().or_else(|| it.ops.try_recv().ok());
            next = if is_full { None } else { waits(self) };
        }
        // What was left over when the batch was full comes after what was put off.
        later.append(&mut self.later);
        self.later = later;
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }

    async fn session(&mut self) -> Result<Session, StoreError> {
        if let Some(mut session) = self.session.take()
            && session.is_alive().await
        {
            return Ok(session);
        }
        let session = self.way.reopen(&self.known).await?.for_writing(self.slot).await;
        session.map_err(|error| not_applied(&self.way.place, &error.to_string()))
    }

    async fn write(&mut self, batch: Vec<Op>) {
        let mut session = match self.session().await {
            Ok(session) => session,
            Err(error) => {
                tokio::time::sleep(PAUSE).await;
                return refuse(batch, &error);
            }
        };
        let (late, batch): (Vec<Op>, Vec<Op>) = batch.into_iter().partition(Op::is_late);
        refuse(late, &not_applied(&self.way.place, "it has waited too long for the server"));
        if batch.is_empty() {
            self.session = Some(session);
            return;
        }
        let asks: Vec<&Ask> = batch.iter().map(|op| &op.ask).collect();
        let doing = carry_out(&mut session, self.slot, &asks);
        let Carried { done, held } = match timeout(BATCH_MAX, doing).await {
            Ok(Ok(carried)) => carried,
            Ok(Err(stopped)) => {
                self.session = stopped.goes_on.then_some(session);
                return self.refuse_batch(batch, &stopped.error).await;
            }
            Err(_) => return refuse(batch, &unknown(&self.way.place, "it does not answer")),
        };
        let (held, batch) = batch.into_iter().partition(|op| held.contains(&op.ask.id));
        refuse(held, &not_applied(&self.way.place, HELD));
        let (done, lost): (Vec<Op>, Vec<Op>) =
            batch.into_iter().partition(|op| done.contains(&op.ask.id));
        done.into_iter().for_each(|op| op.tell(Ok(Swap::Done)));
        if lost.is_empty() {
            self.session = Some(session);
            return;
        }
        let keys: Vec<KeyId> = lost.iter().map(|op| op.ask.id).collect();
        match timeout(BATCH_MAX, find(&mut session, self.slot, &keys)).await {
            Ok(Ok(found)) => {
                self.session = Some(session);
                tell(lost, found);
            }
            // They did not take place, and only what stands there is not known.
            Ok(Err(stopped)) => {
                self.session = stopped.goes_on.then_some(session);
                refuse(lost, &not_applied(&self.way.place, &stopped.error.to_string()));
            }
            Err(_) => refuse(lost, &not_applied(&self.way.place, "it does not answer")),
        }
    }

    /// One that does not fit must not take the others with it.
    async fn refuse_batch(&mut self, batch: Vec<Op>, error: &StoreError) {
        if error.kind() != StoreErrorKind::Full || batch.len() == 1 {
            return refuse(batch, error);
        }
        for op in batch {
            Box::pin(self.write(vec![op])).await;
        }
    }
}

/// Says what stands in the way of swaps that were not done. Deleting nothing is done.
fn tell(lost: Vec<Op>, mut found: Found) {
    for op in lost {
        let told = match found.remove(&op.ask.id) {
            Some(record) => record.map(|record| Swap::Conflict(Some(record))),
            None if op.ask.expected.is_none() && op.ask.next.is_none() => Ok(Swap::Done),
            None => Ok(Swap::Conflict(None)),
        };
        op.tell(told);
    }
}

fn refuse(batch: Vec<Op>, error: &StoreError) {
    batch.into_iter().for_each(|op| op.tell(Err(error.clone())));
}
