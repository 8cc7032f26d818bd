//! The task that writes: all that has been asked for meanwhile in one transaction.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use onlyonce_core::{KeyId, Secret};
use onlyonce_store::{Row, StoreError, StoreErrorKind, Swap};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::batch::carry_out;
use crate::error::{not_applied, of_read, unknown};
use crate::queue::{Ask, Op};
use crate::schema;
use crate::session::{Session, Way};

/// Swaps of one transaction, at most.
const BATCH_OPS: usize = 1_024;
/// Bytes of one transaction, about.
const BATCH_BYTES: u64 = 16 << 20;
/// How long a batch may take; then its connection is closed, and nobody knows.
const BATCH_MAX: Duration = Duration::from_secs(14);
/// After a connection that could not be made. What comes meanwhile is told so afterwards.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Writer {
    pub(crate) way: Way,
    pub(crate) secret: Secret,
    pub(crate) slot: i16,
    pub(crate) ops: UnboundedReceiver<Op>,
    pub(crate) waiting: Arc<AtomicU64>,
    pub(crate) session: Option<Session>,
    /// Swaps of keys that were in the last batch too.
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
        let (mut batch, mut later) = (Vec::new(), VecDeque::new());
        let (mut keys, mut bytes) = (HashSet::new(), 0);
        let mut next = Some(first);
        while let Some(op) = next {
            if keys.insert(op.ask.id) {
                bytes += op.size;
                batch.push(op);
            } else {
                later.push_back(op);
            }
            let is_full = batch.len() == BATCH_OPS || BATCH_BYTES <= bytes;
            next = match self.later.pop_front() {
                _ if is_full => None,
                Some(op) => Some(op),
                None => self.ops.try_recv().ok(),
            };
        }
        // What was left over when the batch was full comes after what was put off.
        later.append(&mut self.later);
        self.later = later;
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Some(batch)
    }

    async fn write(&mut self, batch: Vec<Op>) {
        let session = match self.session.take().filter(|it| !it.client.is_closed()) {
            Some(session) => session,
            None => match self.way.reopen(&self.secret).await {
                Ok(session) => session,
                Err(error) => {
                    tokio::time::sleep(PAUSE).await;
                    return refuse(batch, &error);
                }
            },
        };
        let (late, batch): (Vec<Op>, Vec<Op>) = batch.into_iter().partition(Op::is_late);
        refuse(late, &not_applied(&self.way.place, "it has waited too long for the server"));
        if batch.is_empty() {
            self.session = Some(session);
            return;
        }
        let asks: Vec<&Ask> = batch.iter().map(|op| &op.ask).collect();
        let place = Arc::clone(&self.way.place);
        let doing = carry_out(&session, &place, self.slot, &asks);
        let done = match timeout(BATCH_MAX, doing).await {
            Ok(Ok(done)) => done,
            Ok(Err((error, goes_on))) => {
                self.session = goes_on.then_some(session);
                return self.refuse_batch(batch, &error).await;
            }
            Err(_) => return refuse(batch, &unknown(&place, "it does not answer")),
        };
        let (done, lost): (Vec<Op>, Vec<Op>) =
            batch.into_iter().partition(|op| done.contains(&op.ask.id));
        done.into_iter().for_each(|op| op.tell(Ok(Swap::Done)));
        if lost.is_empty() {
            self.session = Some(session);
            return;
        }
        match timeout(BATCH_MAX, found(&session, &place, &lost)).await {
            Ok(Ok(mut found)) => {
                self.session = Some(session);
                for op in lost {
                    let told = match found.remove(&op.ask.id) {
                        Some(record) => record.map(|record| Swap::Conflict(Some(record))),
                        None => Ok(without_a_record(&op.ask)),
                    };
                    op.tell(told);
                }
            }
            // They did not take place, and only what stands there is not known.
            Ok(Err(error)) => refuse(lost, &error),
            Err(_) => refuse(lost, &not_applied(&place, "it does not answer")),
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

/// What a swap of a key without a record that was not done comes to. Deleting nothing is done.
fn without_a_record(ask: &Ask) -> Swap {
    if ask.expected.is_none() && ask.next.is_none() { Swap::Done } else { Swap::Conflict(None) }
}

fn refuse(batch: Vec<Op>, error: &StoreError) {
    batch.into_iter().for_each(|op| op.tell(Err(error.clone())));
}

type Found = HashMap<KeyId, Result<onlyonce_core::Record, StoreError>>;

/// The records that stand in the way, as of after the swaps.
async fn found(session: &Session, place: &str, lost: &[Op]) -> Result<Found, StoreError> {
    let ids: Vec<&[u8]> = lost.iter().map(|op| &op.ask.id.as_bytes()[..]).collect();
    let asked = session.client.query_typed(schema::GET, &[(&ids, Type::BYTEA_ARRAY)]).await;
    let rows = asked.map_err(|error| of_read(place, &error))?;
    let read = |row: &tokio_postgres::Row| {
        let id = KeyId::from_bytes(row.get::<_, &[u8]>(0).try_into().ok()?);
        let bytes = Bytes::copy_from_slice(row.get(2));
        Some((id, Row::read(place, id, row.get(1), bytes)))
    };
    Ok(rows.iter().filter_map(read).collect())
}
