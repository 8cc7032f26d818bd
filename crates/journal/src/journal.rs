//! The journal as a store.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_channel::oneshot;
use onlyonce_core::{Floor, KeyId, Record, Revision, Secret};
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, Page, Store, StoreError, StoreErrorKind, Swap, codec,
};

use crate::dir::{self, Start};
use crate::disk::{Disk, Folder};
use crate::entry;
use crate::error::{JournalError, JournalErrorKind};
use crate::keeper::{self, Sizes};
use crate::label;
use crate::recover;
use crate::segment::{self, Fact, What};
use crate::shared::Shared;
use crate::writer::{Change, Op, Writer, Written};

/// The largest reply that is kept, in bytes: a quarter of a segment of the usual size.
const REPLY_MAX: usize = 16 << 20;
/// Bytes that may wait to be written; more are refused.
const QUEUE_MAX: u64 = 256 << 20;

/// The answer to a write that was asked for.
pub(crate) type Asked = oneshot::Receiver<Result<Written, StoreError>>;

/// How a journal behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Size of a segment in bytes, from 128 KiB to 1 GiB. Default 64 MiB. Counts for new ones.
    pub segment_bytes: u64,
    /// How much segments and shelves may take on disk, in bytes, before claims are refused.
    /// Default: what there is.
    pub disk_max: Option<u64>,
    /// Tombstones that are older leave the memory for a file, at the next [`Store::reclaim`].
    /// Default: a day. How old one is the newest revision tells, and [`Store::due`]: the journal
    /// reads no clock.
    pub shelve_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Settings {
    /// What holds unless it is said otherwise.
    pub const DEFAULT: Self =
        Self { segment_bytes: 64 << 20, disk_max: None, shelve_after: Duration::from_hours(24) };

    fn sizes(self) -> Sizes {
        Sizes { segment: self.segment_bytes.clamp(128 << 10, 1 << 30), disk_max: self.disk_max }
    }
}

/// What a journal is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that have a record.
    pub keys: usize,
    /// Memory that the index takes, in bytes.
    pub index_bytes: usize,
    /// How many of the keys have an old tombstone, which is in a file and not in the index.
    pub shelved: usize,
    /// Memory that is kept for those, in bytes.
    pub shelved_bytes: usize,
    /// Claims that are open.
    pub in_flight: usize,
    /// Outcomes that nobody knows.
    pub unknown: usize,
    /// Segments on disk.
    pub segments: usize,
    /// What segments and shelves take, in bytes.
    pub disk_bytes: u64,
    /// Batches that were written and synced since it was opened.
    pub syncs: u64,
    /// Entries in those batches.
    pub entries: u64,
}

/// A log of records on disk, for one process at a time. Cheap to clone; all clones are one.
///
/// It is a [`Store`]: a swap returns once it is synced. Reads and conflicts take no lock of the
/// writer and no sync; they read a record from the page cache or the disk on the caller's thread.
/// Listings and searches, which read many, are made by threads of the journal's own.
#[derive(Clone)]
pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handle: Arc<Handle>,
    secret: Secret,
}

pub(crate) struct Handle {
    queue: Mutex<Option<Sender<Op>>>,
    queued: Arc<AtomicU64>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<File>>,
    reply_max: usize,
    cut: u64,
    /// How old a tombstone is when it leaves the index, in milliseconds.
    shelve_after: u64,
    mover: Mutex<Option<Sender<Job>>>,
    /// Pages of listings. Who looks at one does not wait until a million tombstones have moved.
    lister: Mutex<Option<Sender<Job>>>,
    /// Somebody gives room back: one at a time does.
    pub(crate) reclaims: AtomicBool,
    shared: Arc<Shared>,
}

/// Long work on files, on a thread of its own.
type Job = Box<dyn FnOnce(&Shared) + Send>;

impl Journal {
    /// Makes a new journal in `dir`, with a new secret.
    ///
    /// # Errors
    /// There is one already, or the system refuses.
    pub fn init(dir: &Path, settings: Settings, start: Start) -> Result<(), JournalError> {
        Self::init_with(dir, settings, start, &dir::new_secret(dir)?)
    }

    /// The same with this secret, which is that of the store whose records are to be moved here:
    /// key ids are made with it.
    ///
    /// # Errors
    /// As [`Journal::init`].
    pub fn init_with(
        dir: &Path,
        settings: Settings,
        start: Start,
        secret: &Secret,
    ) -> Result<(), JournalError> {
        dir::init(dir, start, settings.sizes().segment, secret)
    }

    /// Whether there is a journal in `dir`.
    pub fn exists(dir: &Path) -> bool {
        dir::exists(dir)
    }

    /// The secret of the journal in `dir`, whether it is open or not.
    ///
    /// # Errors
    /// There is no journal, or its secret is missing or another one's.
    pub fn read_secret(dir: &Path) -> Result<Secret, JournalError> {
        dir::secret(dir)
    }

    /// Opens the journal in `dir` for this process alone.
    ///
    /// # Errors
    /// There is none, it is a backup, another process has it, its secret is missing, or it is
    /// damaged: then the error names file and offset, and nothing was changed.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, JournalError> {
        label::read(dir)?.refuse_backup(dir)?;
        let lock = dir::lock(dir)?;
        let secret = dir::secret(dir)?;
        Self::on(Arc::new(Folder::at(dir)), settings, secret, Some(lock))
    }

    /// Opens the journal in `dir`, or makes it first if there is none. The answer says whether
    /// it was made.
    ///
    /// # Errors
    /// As [`Journal::open`] and [`Journal::init`].
    pub fn open_or_create(
        dir: &Path,
        settings: Settings,
        start: Start,
    ) -> Result<(Self, bool), JournalError> {
        let create = !dir::exists(dir);
        if create {
            Self::init(dir, settings, start)?;
        }
        Ok((Self::open(dir, settings)?, create))
    }

    pub(crate) fn on(
        disk: Arc<dyn Disk>,
        settings: Settings,
        secret: Secret,
        lock: Option<File>,
    ) -> Result<Self, JournalError> {
        let sizes = settings.sizes();
        let recovered = recover::recover(&*disk)?;
        let (end, cut) = (recovered.end, recovered.cut);
        let number = u32::try_from(end.segment).unwrap_or_default();
        let active = recovered.segments.get(&number).cloned().ok_or_else(|| {
            let text = "the last segment is gone";
            JournalError::new(JournalErrorKind::Damaged, disk.place(""), text)
        })?;
        let shared = Arc::new(Shared::new(Arc::clone(&disk), recovered));
        let (queue, ops) = channel();
        let (chore, chores) = channel();
        let (prepared, spares) = channel();
        let queued = Arc::new(AtomicU64::new(0));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(format!("journal {name}")).spawn(work);
            spawned.map_err(|error| JournalError::io(disk.place(""), &error))
        };
        let waits = Arc::new(AtomicBool::new(false));
        let (keeper_disk, hands) = (Arc::clone(&disk), (chore, spares, Arc::clone(&waits)));
        let keeper = spawn(
            "keeper",
            Box::new(move || keeper::run(&*keeper_disk, sizes, (&chores, &waits), &prepared)),
        )?;
        let (writer_shared, waiting) = (Arc::clone(&shared), Arc::clone(&queued));
        let over = Arc::clone(&hands.2);
        let writer = spawn(
            "writer",
            Box::new(move || {
                Writer::new(writer_shared, end, active, ops, waiting, hands).run();
                // Whoever closes the journal waits for the keeper, and nobody else for the disk.
                over.store(true, Ordering::Relaxed);
            }),
        )?;
        let (mover, jobs) = channel::<Job>();
        let mover_shared = Arc::clone(&shared);
        let moving =
            spawn("mover", Box::new(move || jobs.iter().for_each(|job| job(&mover_shared))))?;
        let (lister, jobs) = channel::<Job>();
        let lister_shared = Arc::clone(&shared);
        let listing =
            spawn("lister", Box::new(move || jobs.iter().for_each(|job| job(&lister_shared))))?;
        let handle = Handle {
            queue: Mutex::new(Some(queue)),
            queued,
            threads: Mutex::new(vec![writer, keeper, moving, listing]),
            lock: Mutex::new(lock),
            reply_max: REPLY_MAX.min(sizes.segment as usize / 4),
            cut,
            shelve_after: settings.shelve_after.as_millis().try_into().unwrap_or(u64::MAX),
            mover: Mutex::new(Some(mover)),
            lister: Mutex::new(Some(lister)),
            reclaims: AtomicBool::new(false),
            shared: Arc::clone(&shared),
        };
        Ok(Self { shared, handle: Arc::new(handle), secret })
    }

    /// The journal's secret.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// What was cut from the end when it was opened, in bytes: written, but never confirmed.
    pub fn cut(&self) -> u64 {
        self.handle.cut
    }

    /// What it is doing.
    pub fn stats(&self) -> Stats {
        let (in_flight, unknown) = {
            let sides = self.shared.index.sides();
            (sides.in_flight.len(), sides.unknown.len())
        };
        let shelves = self.shared.shelves();
        let on_shelves: u64 = shelves.list.iter().map(|shelf| shelf.length).sum();
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        Stats {
            keys: self.shared.index.len() + shelves.living(),
            index_bytes: self.shared.index.bytes(),
            shelved: shelves.living(),
            shelved_bytes: shelves.bytes(),
            in_flight,
            unknown,
            segments: segments.len(),
            disk_bytes: segments.values().map(|segment| segment.length).sum::<u64>() + on_shelves,
            syncs: self.shared.syncs.load(Ordering::Relaxed),
            entries: self.shared.entries.load(Ordering::Relaxed),
        }
    }

    /// Calls `tell` once, with the reason, when a write or sync has failed: from then on nothing
    /// is written in this process, and it should end.
    pub fn on_poison(&self, tell: impl FnOnce(&str) + Send + 'static) {
        self.shared.on_poison(Box::new(tell));
    }

    /// Writes what was asked for so far, and lets the journal go. Blocks for as long as that
    /// takes; calls after it are refused. Dropping the last clone does the same.
    pub fn close(&self) {
        self.handle.close();
    }

    async fn write(&self, payload: Vec<u8>, change: Change) -> Result<Written, StoreError> {
        told(self.ask(payload, change)?).await
    }

    /// Asks for a write; [`told`] waits for it.
    pub(crate) fn ask(&self, payload: Vec<u8>, change: Change) -> Result<Asked, StoreError> {
        if let Some(error) = self.shared.poisoned() {
            return Err(error);
        }
        let (tell, told) = oneshot::channel();
        let size = payload.len() as u64;
        if QUEUE_MAX < self.handle.queued.fetch_add(size, Ordering::Relaxed) + size {
            self.handle.queued.fetch_sub(size, Ordering::Relaxed);
            let text = "too much waits to be written";
            return Err(StoreError::new(StoreErrorKind::NotApplied, text));
        }
        let sent = {
            let queue = self.handle.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.as_ref().is_some_and(|queue| queue.send(Op { payload, change, tell }).is_ok())
        };
        if !sent {
            return Err(StoreError::new(StoreErrorKind::NotApplied, "the journal is closed"));
        }
        Ok(told)
    }

    /// Has long work on files done by the thread for it. Not at all if the journal is closed.
    pub(crate) async fn on_mover<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.on_thread(&self.handle.mover, work).await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        jobs: &Mutex<Option<Sender<Job>>>,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        let job = Box::new(move |shared: &Shared| {
            // Whoever asked may have stopped waiting.
            let _ = tell.send(work(shared));
        });
        let closed = || StoreError::new(StoreErrorKind::NotApplied, "the journal is closed");
        {
            let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(closed)?;
        }
        told.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(crate) fn shelve_after(&self) -> u64 {
        self.handle.shelve_after
    }

    async fn swap_now(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        let expected = expected.map(Revision::get);
        loop {
            // What can be seen is synced, so a conflict with it is certain at once.
            let (stands, looked) = self.shared.look(id, next.is_none())?;
            if stands != expected {
                return self.shared.read(id).map(Swap::Conflict);
            }
            let Some((payload, fact)) = change(id, expected, next.as_ref()) else {
                return Ok(Swap::Done);
            };
            if entry::PAYLOAD_MAX < payload.len() {
                return Err(StoreError::new(StoreErrorKind::Full, "the record is too large"));
            }
            match self.write(payload, Change::Key { expected, fact, looked }).await? {
                Written::Done => return Ok(Swap::Done),
                // Perhaps it has only moved.
                Written::Raced => {}
            }
        }
    }
}

/// What is to be written; `None` for the deletion of what is absent.
pub(crate) fn change(
    id: KeyId,
    expected: Option<u64>,
    next: Option<&Record>,
) -> Option<(Vec<u8>, Fact)> {
    let Some(record) = next else {
        let revision = expected.and_then(Revision::new)?;
        let fact =
            Fact { id, revision: revision.get(), offset: 0, what: What::Deleted, due: u64::MAX };
        return Some((entry::deleted(id, revision), fact));
    };
    assert!(expected < Some(record.revision.get()), "a write must raise the revision");
    let mut payload = Vec::new();
    codec::encode(id, record, &mut payload);
    let (revision, what) = (record.revision.get(), What::of(record));
    Some((payload, Fact { id, revision, offset: 0, what, due: segment::due(record) }))
}

/// What became of a write that was asked for.
pub(crate) async fn told(asked: Asked) -> Result<Written, StoreError> {
    asked.await.unwrap_or_else(|_| {
        let text = "the journal was closed meanwhile";
        Err(StoreError::new(StoreErrorKind::Unknown, text))
    })
}

impl Store for Journal {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move { self.shared.read(id) })
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
        Box::pin(async move { Ok(self.shared.floor()) })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.shared.floor() < to {
                self.write(entry::floor(to), Change::Floor(to)).await?;
            }
            Ok(())
        })
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move { Ok(self.shared.revision_max()) })
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        // It reads thousands of records, and the thread it is called on has callers to serve.
        Box::pin(self.on_mover(move |shared| shared.due_now(due, limit)))
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.reclaim_now())
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let after = after.and_then(|cursor| cursor.0.try_into().ok()).map(KeyId::from_bytes);
            // It reads thousands of records too.
            let page = move |shared: &Shared| Ok(shared.page(&filter, after));
            // What is closed can still be read, and has no threads.
            if self.shared.is_closing.load(Ordering::Relaxed) {
                return page(&self.shared);
            }
            self.on_thread(&self.handle.lister, page).await
        })
    }

    fn reply_max(&self) -> usize {
        self.handle.reply_max
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

impl Handle {
    fn close(&self) {
        self.shared.is_closing.store(true, Ordering::Relaxed);
        // Without a sender the writer ends after what is queued, and then the keeper.
        drop(self.mover.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.lister.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            let _ = thread.join();
        }
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("disk", &self.shared.disk).finish_non_exhaustive()
    }
}
