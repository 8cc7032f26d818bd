//! The database as a store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, StateKind, Timestamp};
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, OpenError, OpenErrorKind, Page, Row, Store, StoreError,
    StoreErrorKind, Swap, Warning, row,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;

use crate::address::Address;
use crate::door;
use crate::error::{not_applied, unknown};
use crate::procedures;
use crate::queue::{Ask, Queue, batch_max, size};
use crate::reader::Reader;
use crate::schema;
use crate::script::Script;
use crate::session::Way;
use crate::transaction::Transactions;
use crate::writer::Writer;

/// The largest reply that is kept, in bytes, if the server takes it.
const REPLY_MAX: u64 = 16 << 20;
/// What a record has beside its reply, in bytes, at most.
const REST_MAX: u64 = 128 << 10;
/// How long raising the floor may take.
const FLOOR_MAX: Duration = Duration::from_secs(20);

/// Records in a database, for all processes that can reach it. Cheap to clone; all clones are one.
///
/// It is a [`Store`]: a swap returns once the server has confirmed it. Its work is done on the
/// tokio runtime that it was opened on; it may be awaited anywhere.
#[derive(Clone)]
pub struct Mysql {
    runtime: Handle,
    way: Way,
    queue: Queue,
    reader: Arc<Reader>,
    warnings: Arc<[Warning]>,
}

impl Mysql {
    /// Makes a new store with a new secret: three tables `onlyonce_*` in the database. Keys with a
    /// time below `floor` are refused; [`Floor::NONE`] if there was never a store before.
    ///
    /// # Errors
    /// There is one already, a setting would break what a store promises, or the server refuses.
    pub async fn init(address: Address, floor: Floor) -> Result<(), OpenError> {
        let mut secret = [0; 32];
        random(&mut secret, &address.to_string())?;
        Self::init_with(address, floor, &Secret::from_bytes(secret)).await
    }

    /// The same with this secret, which is that of the store whose records are to be moved here:
    /// key ids are made with it.
    ///
    /// # Errors
    /// As [`Mysql::init`].
    pub async fn init_with(
        address: Address,
        floor: Floor,
        secret: &Secret,
    ) -> Result<(), OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let accepts = way.address.accepts();
        let made = door::init(&mut conn, &way.place, accepts, secret.as_bytes(), floor).await;
        // Without this word the server would log that a connection was lost.
        let _ = conn.disconnect().await;
        made
    }

    /// Opens the store in the database, also while other processes have it.
    ///
    /// # Errors
    /// There is none, it is a newer program's, the server cannot be reached, or a setting would
    /// break what a store promises: the error names it.
    pub async fn open(address: Address) -> Result<Self, OpenError> {
        let (way, runtime) = (Way::to(address), Handle::current());
        let mut session = way.open().await?;
        let warnings = std::mem::take(&mut session.warnings).into();
        let known = session.known.clone();
        let mut slot = [0; 1];
        random(&mut slot, &way.place)?;
        let slot = slot[0] % schema::SLOTS;
        let session = session.for_writing(slot).await?;
        let (sender, ops) = unbounded_channel();
        let waiting = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            way: way.clone(),
            known: known.clone(),
            slot,
            ops,
            waiting: Arc::clone(&waiting),
            session: Some(session),
            later: VecDeque::new(),
        };
        drop(runtime.spawn(writer.run()));
        let queue = Queue { ops: sender, bytes: waiting };
        let reader = Arc::new(Reader::new(way.clone(), known));
        Ok(Self { runtime, way, queue, reader, warnings })
    }

    /// The store's secret.
    pub fn secret(&self) -> &Secret {
        &self.reader.known.secret
    }

    /// What claims in transactions of the caller's, in the database of this store.
    pub fn transactions(&self) -> Transactions {
        Transactions::new(&self.way.place, self.secret(), self.reply_max())
    }

    /// Makes, or makes anew, the procedures `onlyonce_claim` and `onlyonce_complete`, by which a
    /// program of any language claims in its own transaction. A new store has them, if the server
    /// is MariaDB 10.10 or newer and they may be made.
    ///
    /// # Errors
    /// There is no store, the server is another one, it refuses, or it cannot be reached.
    pub async fn install_procedures(address: Address) -> Result<(), OpenError> {
        let way = Way::to(address);
        let mut conn = way.connect().await?;
        let made = procedures::install(&mut conn, &way).await;
        // Without this word the server would log that a connection was lost.
        let _ = conn.disconnect().await;
        made
    }

    /// What the operator should know: risks that the address takes.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// How many keys have a record in this state. Reads the index of all that it counts.
    ///
    /// # Errors
    /// The server does not say.
    pub async fn count(&self, state: StateKind) -> Result<u64, StoreError> {
        let reader = Arc::clone(&self.reader);
        let state = state as i16;
        let sql = format!("SELECT COUNT(*) FROM onlyonce_records WHERE state = {state}");
        let count = self.there(async move { reader.number(&sql).await });
        Ok(u64::try_from(count.await?).unwrap_or_default())
    }

    /// Does a read on the runtime, whoever waits for it.
    async fn there<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.runtime.spawn(work).await.unwrap_or_else(|error| {
            let place = &self.way.place;
            Err(not_applied(place, &format!("the runtime has ended: {error}")))
        })
    }

    async fn swap_now(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        if let Some(next) = &next {
            assert!(expected < Some(next.revision), "a write must raise the revision");
        }
        // No row has a revision above what can be counted, so such a swap is in conflict.
        let expected = expected.map(|revision| i64::try_from(revision.get()).unwrap_or(i64::MAX));
        let next = next.map(|record| Row::of(id, &record)).transpose()?;
        let ask = Ask { id, expected, next };
        if batch_max(self.reader.known.packet) < size(&ask) {
            let text = format!(
                "{}: max_allowed_packet, {} bytes, is too small for this record",
                self.way.place, self.reader.known.packet
            );
            return Err(StoreError::new(StoreErrorKind::Full, text));
        }
        let told = self.queue.ask(&self.way.place, ask)?;
        let lost = |_| Err(unknown(&self.way.place, "the store was closed meanwhile"));
        told.await.unwrap_or_else(lost)
    }
}

fn random(bytes: &mut [u8], place: &str) -> Result<(), OpenError> {
    getrandom::fill(bytes).map_err(|error| {
        let text = format!("no random numbers: {error}");
        OpenError::new(OpenErrorKind::Unavailable, place, text)
    })
}

/// In a transaction of its own.
async fn raise_floor(reader: &Reader, to: Floor) -> Result<(), StoreError> {
    let mut session = reader.way.reopen(&reader.known).await?;
    let to = row::millis(to.time());
    let mut script = Script::begin();
    script.add(&format!("UPDATE onlyonce_store SET floor = {to} WHERE floor < {to}"));
    // Also if it is there already: another process may have raised it, and its sync goes on.
    script.add("UPDATE onlyonce_revisions SET syncs = syncs + 1 WHERE slot = 0");
    script.commit(&mut session).await.map_err(|stopped| stopped.error)?;
    let _ = session.conn.disconnect().await;
    Ok(())
}

impl Store for Mysql {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move { reader.get(id).await }))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(self.swap_now(id, expected, next))
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let floor = reader.number(schema::FLOOR).await?;
            Ok(Floor::at(row::timestamp(floor)))
        }))
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let now = reader.number(schema::CLOCK).await?;
            Ok(Some(row::timestamp(now)))
        }))
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let raising = tokio::time::timeout(FLOOR_MAX, raise_floor(&reader, to));
            let late = |_| unknown(&reader.way.place, "it does not answer");
            raising.await.map_err(late)?
        }))
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move {
            let revision = reader.number(schema::REVISION_MAX).await?;
            Ok(u64::try_from(revision).unwrap_or_default())
        }))
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move { reader.due(due, limit).await }))
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(self.there(async move { reader.page(filter, after).await }))
    }

    fn reply_max(&self) -> usize {
        let max = REPLY_MAX.min(batch_max(self.reader.known.packet).saturating_sub(REST_MAX));
        usize::try_from(max).unwrap_or_default()
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
