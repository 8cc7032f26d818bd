//! The file as a store.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, StateKind};
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, OpenError, OpenErrorKind, Page, Row, Store, StoreError,
    StoreErrorKind, Swap, row,
};

use crate::door::{self, Inode};
use crate::error::{at, of_open};
use crate::keeper;
use crate::queue::{Change, Queue};
use crate::readers::Readers;
use crate::schema;
use crate::shared::Shared;
use crate::transaction::Transactions;
use crate::writer::Writer;

/// The largest reply that is kept, in bytes.
pub(crate) const REPLY_MAX: usize = 16 << 20;

/// Records in an SQLite file, for all processes of one machine. Cheap to clone; all clones are one.
///
/// It is a [`Store`]: a swap returns once it is synced. Reads block the caller's thread for as long
/// as the disk takes.
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    handle: Arc<Handle>,
    secret: Secret,
}

struct Handle {
    queue: Queue,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Sqlite {
    /// Makes a new store in `file`, with a new secret. Keys with a time below `floor` are refused;
    /// [`Floor::NONE`] if there was never a store before.
    ///
    /// # Errors
    /// There is one already, the file is another program's, it lies on a network file system, or
    /// the system refuses.
    pub fn init(file: &Path, floor: Floor) -> Result<(), OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| {
            at(file, OpenErrorKind::Unavailable, format!("no random numbers: {error}"))
        })?;
        Self::init_with(file, floor, &Secret::from_bytes(secret))
    }

    /// The same with this secret, which is that of the store whose records are to be moved here:
    /// key ids are made with it.
    ///
    /// # Errors
    /// As [`Sqlite::init`].
    pub fn init_with(file: &Path, floor: Floor, secret: &Secret) -> Result<(), OpenError> {
        door::init(file, secret.as_bytes(), floor)
    }

    /// Opens the store in `file`, also while other processes have it.
    ///
    /// # Errors
    /// There is none, the file is another or a newer program's, or a setting would break what a
    /// store promises: the error names it.
    pub fn open(file: &Path) -> Result<Self, OpenError> {
        let connection = door::open(file)?;
        let io = |error: std::io::Error| at(file, OpenErrorKind::Unavailable, error.to_string());
        let inode = Inode::at(file).map_err(io)?;
        let secret: Vec<u8> = connection
            .query_row(schema::SECRET, (), |row| row.get(0))
            .map_err(|error| of_open(file, &error))?;
        let secret = <[u8; 32]>::try_from(secret.as_slice()).map(Secret::from_bytes);
        let secret = secret.map_err(|_| at(file, OpenErrorKind::Foreign, "its secret is none"))?;
        let readers = Arc::new(Readers::open(file)?);
        let shared = Arc::new(Shared::new(file));
        let (queue, ops) = channel();
        let (keeper, wake) = sync_channel(1);
        let waiting = Arc::new(AtomicU64::new(0));
        let keeping = door::open_for_checkpoints(file)?;
        let queue = Queue::new(queue, Arc::clone(&waiting));
        let writer = Writer {
            shared: Arc::clone(&shared),
            connection,
            inode,
            ops,
            waiting,
            keeper,
            unkept: 0,
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(format!("sqlite {name}")).spawn(work).map_err(io)
        };
        let threads = vec![
            spawn("keeper", Box::new(move || keeper::run(&keeping, &wake)))?,
            spawn("writer", Box::new(move || writer.run()))?,
        ];
        let handle = Arc::new(Handle { queue, threads: Mutex::new(threads) });
        Ok(Self { shared, readers, handle, secret })
    }

    /// The store's secret.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What claims and completes in transactions of the caller's own, on the same file.
    pub fn transactions(&self) -> Transactions {
        Transactions::new(self.shared.path(), &self.secret)
    }

    /// How many keys have a record, in all or in one state. Reads the index of all that it counts.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn count(&self, state: Option<StateKind>) -> Result<u64, StoreError> {
        let sql = if state.is_some() { schema::COUNT_STATE } else { schema::COUNT };
        self.readers.number(sql, state).map(|count| u64::try_from(count).unwrap_or_default())
    }

    /// Calls `tell` once, with the reason, when a write or sync has failed or the file was moved:
    /// from then on nothing is written by this process, and it should end.
    pub fn on_poison(&self, tell: impl FnOnce(&str) + Send + 'static) {
        self.shared.on_poison(Box::new(tell));
    }

    /// Writes what was asked for so far, and lets the file go. Blocks for as long as that takes;
    /// writes after it are refused. Dropping the last clone does the same.
    pub fn close(&self) {
        self.handle.close();
    }

    async fn ask(&self, change: Change) -> Result<Swap, StoreError> {
        if let Some(error) = self.shared.poisoned() {
            return Err(error);
        }
        self.handle.queue.ask(change)?.await.unwrap_or_else(|_| {
            let text = "the store was closed meanwhile";
            Err(StoreError::new(StoreErrorKind::Unknown, text))
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
        // No row has a revision above what can be counted, so this one is in conflict.
        let expected = expected.map(|revision| i64::try_from(revision.get()).unwrap_or(i64::MAX));
        // What can be seen is synced, so a conflict with it is certain without the write lock.
        let found = self.readers.get(id)?;
        if found.as_ref().map(|(revision, _)| *revision) != expected {
            return self.record(id, found).map(Swap::Conflict);
        }
        let next = next.map(|record| Row::of(id, &record)).transpose()?;
        self.ask(Change::Swap { id, expected, next }).await
    }

    fn record(
        &self,
        id: KeyId,
        found: Option<(i64, bytes::Bytes)>,
    ) -> Result<Option<Record>, StoreError> {
        let Some((revision, bytes)) = found else { return Ok(None) };
        let place = self.shared.path().display().to_string();
        Row::read(&place, id, revision, bytes).map(Some)
    }
}

impl Handle {
    fn close(&self) {
        self.queue.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..).rev() {
            // One that has panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store for Sqlite {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { self.record(id, self.readers.get(id)?) })
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
        Box::pin(async move {
            let floor = self.readers.number(schema::FLOOR, None)?;
            Ok(Floor::at(row::timestamp(floor)))
        })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.ask(Change::Floor(row::millis(to.time()))).await.map(drop) })
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let revision = self.readers.number(schema::REVISION_MAX, None)?;
            Ok(u64::try_from(revision).unwrap_or_default())
        })
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        Box::pin(async move { self.readers.due(due, limit) })
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { self.readers.page(&filter, after.as_ref()) })
    }

    fn reply_max(&self) -> usize {
        REPLY_MAX
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
