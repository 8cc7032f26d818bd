//! The task that writes: all that has been asked for meanwhile in one transaction.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use onlyonce_core::{KeyId, Secret};
use onlyonce_store::{Row, StoreError, StoreErrorKind, Swap};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;
use tokio_postgres::types::Type;

use crate::batch::{Failed, carry_out};
use crate::error::{not_applied, of_read, unknown};
use crate::others::Others;
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

/// How long a batch waits for a transaction that has one of its keys, in milliseconds: all that is
/// written waits with it.
const LOCK_MAX_MS: u32 = 200;
/// The same for each part of such a batch.
const LOCK_AGAIN_MAX_MS: u32 = 20;
/// Swaps that may wait aside, each on a connection of its own. More are refused.
const ASIDE_MAX: usize = 4;
const HELD: &str = "another transaction has the key";

pub(crate) struct Writer {
    pub(crate) way: Way,
    pub(crate) secret: Secret,
    pub(crate) slot: i16,
    pub(crate) ops: UnboundedReceiver<Op>,
    pub(crate) waiting: Arc<AtomicU64>,
    pub(crate) session: Option<Session>,
    /// Swaps of keys that were in the last batch too.
    pub(crate) later: VecDeque<Op>,
    /// Keys that other transactions have, and whose swaps wait for the end of those.
    pub(crate) aside: Arc<Mutex<HashSet<KeyId>>>,
    /// What is heard of what has ended.
    pub(crate) others: Arc<Others>,
}

impl Writer {
    /// Until nothing more can be asked for.
    pub(crate) async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.write(batch, LOCK_MAX_MS).await;
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

    async fn write(&mut self, batch: Vec<Op>, lock_max: u32) {
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
        let batch = self.refuse_held(batch);
        if batch.is_empty() {
            self.session = Some(session);
            return;
        }
        let asks: Vec<&Ask> = batch.iter().map(|op| &op.ask).collect();
        let place = Arc::clone(&self.way.place);
        let doing = carry_out(&session, &place, self.slot, &asks, lock_max);
        let done = match timeout(BATCH_MAX, doing).await {
            Ok(Ok(done)) => done,
            Ok(Err(failed)) => {
                self.session = failed.goes_on.then_some(session);
                return self.refuse_batch(batch, &failed).await;
            }
            Err(_) => return refuse(batch, &unknown(&place, "it does not answer")),
        };
        if tell(&session, &place, batch, (&done, &self.others)).await {
            self.session = Some(session);
        }
    }

    /// Keys of which is known that another transaction has them are not waited for once more.
    fn refuse_held(&self, batch: Vec<Op>) -> Vec<Op> {
        let held = lock(&self.aside);
        let (held, batch) = batch.into_iter().partition(|op| held.contains(&op.ask.id));
        refuse(held, &not_applied(&self.way.place, HELD));
        batch
    }

    /// One that does not fit, or whose key another transaction has, must not take the others with
    /// it.
    async fn refuse_batch(&mut self, mut batch: Vec<Op>, failed: &Failed) {
        if failed.is_held && batch.len() == 1 {
            return batch.into_iter().for_each(|op| self.set_aside(op, &failed.error));
        }
        if failed.is_held {
            let rest = batch.split_off(batch.len() / 2);
            for half in [batch, rest] {
                Box::pin(self.write(half, LOCK_AGAIN_MAX_MS)).await;
            }
            return;
        }
        if failed.error.kind() != StoreErrorKind::Full || batch.len() == 1 {
            return refuse(batch, &failed.error);
        }
        for op in batch {
            Box::pin(self.write(vec![op], LOCK_MAX_MS)).await;
        }
    }

    /// Waits for the other transaction on a connection of its own, so that nobody else has to.
    fn set_aside(&self, op: Op, error: &StoreError) {
        let (id, mut aside) = (op.ask.id, lock(&self.aside));
        if op.is_late() || ASIDE_MAX <= aside.len() || !aside.insert(id) {
            return op.tell(Err(error.clone()));
        }
        drop(aside);
        let (way, secret, slot) = (self.way.clone(), self.secret.clone(), self.slot);
        let (aside, ended) = (Arc::clone(&self.aside), Arc::clone(&self.aside));
        let others = Arc::clone(&self.others);
        let waiting = async move {
            let session = match way.reopen(&secret).await {
                Ok(session) => session,
                Err(error) => return op.tell(Err(error)),
            };
            let waited = carry_out(&session, &way.place, slot, &[&op.ask], 0).await;
            // Before it is told, since its caller may come again at once.
            lock(&ended).remove(&id);
            match waited {
                Ok(done) => _ = tell(&session, &way.place, vec![op], (&done, &others)).await,
                Err(failed) => op.tell(Err(failed.error)),
            }
        };
        drop(tokio::spawn(async move {
            // Whoever is dropped in the middle is told that nobody knows.
            let _ = timeout(BATCH_MAX, waiting).await;
            lock(&aside).remove(&id);
        }));
    }
}

fn lock(aside: &Mutex<HashSet<KeyId>>) -> MutexGuard<'_, HashSet<KeyId>> {
    aside.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells what became of a batch that was committed; whether the session can be used further.
async fn tell(
    session: &Session,
    place: &str,
    batch: Vec<Op>,
    (done, others): (&HashSet<KeyId>, &Others),
) -> bool {
    let (done, lost): (Vec<Op>, Vec<Op>) =
        batch.into_iter().partition(|op| done.contains(&op.ask.id));
    others.ended(done.iter().filter(|op| op.ask.ends()).map(|op| op.ask.id));
    done.into_iter().for_each(|op| op.tell(Ok(Swap::Done)));
    if lost.is_empty() {
        return true;
    }
    match timeout(BATCH_MAX, found(session, place, &lost)).await {
        Ok(Ok(mut found)) => {
            for op in lost {
                let told = match found.remove(&op.ask.id) {
                    Some(record) => record.map(|record| Swap::Conflict(Some(record))),
                    None => Ok(without_a_record(&op.ask)),
                };
                op.tell(told);
            }
            return true;
        }
        // They did not take place, and only what stands there is not known.
        Ok(Err(error)) => refuse(lost, &error),
        Err(_) => refuse(lost, &not_applied(place, "it does not answer")),
    }
    false
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
