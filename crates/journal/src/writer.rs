//! The one thread that writes: it takes what has been asked for, writes it with one call, syncs
//! once, and only then tells everyone (group commit).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use futures_channel::oneshot;
use onlyonce_core::Floor;
use onlyonce_failpoint::failpoint;
use onlyonce_store::{StoreError, StoreErrorKind};

use crate::disk::Medium;
use crate::entry::{self, FRAME, MARK_PAYLOAD, Position};
use crate::index::{Keys, Slot};
use crate::keeper::{Chore, Prepared};
use crate::recover::Segment;
use crate::segment::{self, DueFrom, Fact, HEADER, Header, What};
use crate::shared::{Looked, Shared};
use crate::shelve::Install;

/// A batch is written once it has this many bytes; one entry may be larger.
const BATCH: usize = 4 << 20;
/// Kept free for each operation that runs, in bytes: enough to record that it was answered, or
/// released, or is in doubt, on a disk that is full.
pub(crate) const COMPLETION_MIN: u64 = 1 << 10;
const MARK: u64 = (FRAME + MARK_PAYLOAD) as u64;

/// Something to be written.
pub(crate) struct Op {
    pub(crate) payload: Vec<u8>,
    pub(crate) change: Change,
    pub(crate) tell: oneshot::Sender<Result<Written, StoreError>>,
}

/// What it changes.
#[derive(Debug)]
pub(crate) enum Change {
    /// A key, if its revision is still this one. The fact's offset is not known yet.
    Key { expected: Option<u64>, fact: Fact, looked: Looked },
    /// Nothing but where an entry stands, if it still stands there.
    Copy { from: Slot, fact: Fact },
    /// The floor.
    Floor(Floor),
    /// Which shelves there are. Nothing is written.
    Shelves(Install),
}

impl Change {
    /// What is written about a key.
    fn fact(&self) -> Option<&Fact> {
        match self {
            Self::Key { fact, .. } | Self::Copy { fact, .. } => Some(fact),
            Self::Floor(_) | Self::Shelves(_) => None,
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is durable.
    Done,
    /// The key's revision was another one; nothing was written.
    Raced,
}

/// The segment that comes next.
enum Spare {
    /// It is being made.
    Coming,
    /// It is there, full of zeros.
    Ready(Prepared),
    /// There is no room for it; asked for again after this many refusals.
    Failed { why: String, refusals: u32 },
}

/// Refusals until the disk is asked again whether it has room.
const ASK_AGAIN: u32 = 64;

/// How the writer asks the keeper and hears from it.
type Keeper = (Sender<Chore>, Receiver<Result<Prepared, String>>, Arc<AtomicBool>);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Op>,
    queued: Arc<AtomicU64>,
    keeper: Sender<Chore>,
    prepared: Receiver<Result<Prepared, String>>,
    /// That it waits for what is prepared.
    waits: Arc<AtomicBool>,
    spare: Spare,
    number: u64,
    medium: Arc<dyn Medium>,
    offset: u64,
    capacity: u64,
    batch: Vec<u8>,
    pending: Vec<(Change, oneshot::Sender<Result<Written, StoreError>>)>,
    keys: Keys,
    /// Operations that run, as they will be once the batch is written.
    running: u64,
    waiting: VecDeque<Op>,
}

/// Where an op goes.
enum Admit {
    Here,
    NextSegment,
    Refused(StoreError),
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        end: Position,
        active: Segment,
        queue: Receiver<Op>,
        queued: Arc<AtomicU64>,
        (keeper, prepared, waits): Keeper,
    ) -> Self {
        let running = shared.index.sides().in_flight.len() as u64;
        Self {
            shared,
            queue,
            queued,
            keeper,
            prepared,
            waits,
            spare: Spare::Coming,
            number: end.segment,
            medium: active.medium,
            offset: end.offset,
            capacity: active.length,
            batch: Vec::new(),
            pending: Vec::new(),
            keys: Keys::default(),
            running,
            waiting: VecDeque::new(),
        }
    }

    /// Until nobody can ask any more.
    pub(crate) fn run(mut self) {
        let mut next = self.next();
        if next.is_some() {
            // Not before: a journal that is only looked at needs no next segment.
            self.prepare();
        }
        while let Some(op) = next {
            self.take(op);
            while self.batch.len() < BATCH {
                let Some(op) = self.next_at_once() else { break };
                self.take(op);
            }
            self.write();
            next = self.next();
        }
    }

    fn next(&mut self) -> Option<Op> {
        self.waiting.pop_front().or_else(|| self.queue.recv().ok())
    }

    /// What is there without waiting. What waits for this batch stays where it is.
    fn next_at_once(&mut self) -> Option<Op> {
        let waits = |op: &Op| op.change.fact().is_some_and(|fact| self.keys.contains(&fact.id));
        if let Some(at) = self.waiting.iter().position(|op| !waits(op)) {
            return self.waiting.remove(at);
        }
        self.queue.try_recv().ok()
    }

    fn take(&mut self, op: Op) {
        if let Some(error) = self.shared.poisoned() {
            return self.tell(op, Err(error));
        }
        if let Change::Shelves(install) = &op.change {
            // Between batches: a change that was admitted knows the shelves until it is shown.
            self.write();
            let written = install.put(&self.shared);
            return self.tell(op, Ok(written));
        }
        if let Some(fact) = op.change.fact() {
            // Its turn comes once the entry before it is synced, and can be seen.
            if self.keys.contains(&fact.id) {
                return self.waiting.push_back(op);
            }
            let stands = self.shared.index.get(fact.id);
            let raced = match &op.change {
                Change::Key { expected, looked, .. } => {
                    self.has_raced(stands.map(|slot| slot.revision), *expected, looked)
                }
                Change::Copy { from, .. } => stands != Some(*from),
                Change::Floor(_) | Change::Shelves(_) => false,
            };
            if raced {
                return self.tell(op, Ok(Written::Raced));
            }
        }
        match self.admit(&op) {
            Admit::Here => self.add(op),
            Admit::NextSegment => {
                self.write();
                match self.shared.poisoned().map_or_else(|| self.roll(), Err) {
                    Ok(()) => self.add(op),
                    Err(error) => self.tell(op, Err(error)),
                }
            }
            Admit::Refused(error) => self.tell(op, Err(error)),
        }
    }

    /// Whether a key is not any more what it was when the change was asked for.
    fn has_raced(&self, stands: Option<u64>, expected: Option<u64>, looked: &Looked) -> bool {
        let Some(generation) = looked.generation else { return stands != expected };
        let shelves = self.shared.shelves();
        let shelved = looked.shelved.filter(|(place, _)| shelves.counts(*place));
        shelves.generation != generation
            || stands.or(shelved.map(|(_, revision)| revision)) != expected
    }

    fn tell(&self, op: Op, result: Result<Written, StoreError>) {
        self.queued.fetch_sub(op.payload.len() as u64, Ordering::Relaxed);
        // Whoever asked may have stopped waiting.
        let _ = op.tell.send(result);
    }

    /// Whether there is room: for this, and for the end of every operation that runs.
    fn admit(&mut self, op: &Op) -> Admit {
        let running = self.running_with(op);
        let size = (FRAME + op.payload.len()) as u64;
        loop {
            let mark = if self.batch.is_empty() { MARK } else { 0 };
            let here = self.capacity - self.offset - self.batch.len() as u64;
            let fits_here = size + mark <= here;
            let spare = match &self.spare {
                Spare::Ready(prepared) => prepared.length - HEADER as u64,
                Spare::Coming | Spare::Failed { .. } => 0,
            };
            let left = if fits_here { here - size - mark + spare } else { spare };
            let reserved = running * COMPLETION_MIN;
            match &self.spare {
                _ if fits_here && reserved <= left => return Admit::Here,
                Spare::Ready(_) if size + MARK + reserved <= spare => return Admit::NextSegment,
                Spare::Coming => self.spare_came(),
                Spare::Ready(_) => {
                    return refuse(format!("an entry of {size} bytes fits in no segment"));
                }
                Spare::Failed { why, .. } => {
                    let text = format!("there is no room for another segment: {why}");
                    self.ask_again();
                    return refuse(text);
                }
            }
        }
    }

    /// How many operations run once `op` is written.
    fn running_with(&self, op: &Op) -> u64 {
        let Some(fact) = op.change.fact() else { return self.running };
        let was = self.shared.index.sides().in_flight.contains(&fact.id);
        let is = fact.what == What::InFlight;
        self.running + u64::from(is) - u64::from(was)
    }

    fn add(&mut self, op: Op) {
        self.running = self.running_with(&op);
        if self.batch.is_empty() {
            let synced = Position { segment: self.number, offset: self.offset };
            entry::append(&mut self.batch, self.number, self.offset, &entry::mark(synced));
        }
        let at = self.offset + self.batch.len() as u64;
        entry::append(&mut self.batch, self.number, self.offset, &op.payload);
        self.queued.fetch_sub(op.payload.len() as u64, Ordering::Relaxed);
        let mut change = op.change;
        if let Change::Key { fact, .. } | Change::Copy { fact, .. } = &mut change {
            self.keys.insert(fact.id);
            // Segments are shorter than 4 GiB.
            fact.offset = at as u32;
        }
        self.pending.push((change, op.tell));
    }

    /// Writes and syncs the batch, shows it, and tells everyone.
    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        failpoint!("journal.write.before", self.pending);
        let written = self.medium.write_at(&self.batch, self.offset);
        failpoint!("journal.sync.before", self.pending);
        let synced = written.and_then(|()| self.medium.sync());
        failpoint!("journal.sync.after", self.pending);
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.entries.fetch_add(self.pending.len() as u64, Ordering::Relaxed);
        self.offset += self.batch.len() as u64;
        self.batch.clear();
        if self.batch.capacity() > 4 * BATCH {
            self.batch = Vec::new();
        }
        self.keys.clear();
        if let Err(error) = synced {
            let place = self.shared.disk.place(&segment::name(self.number));
            self.shared.poison(format!("{} could not be synced: {error}", place.display()));
            let error = self.shared.poisoned();
            for (_, tell) in self.pending.drain(..) {
                let _ = tell.send(error.clone().map_or(Ok(Written::Raced), Err));
            }
            return;
        }
        self.shared.synced_to(self.offset);
        self.show();
        failpoint!("journal.tell.before", self.pending);
        for (_, tell) in self.pending.drain(..) {
            let _ = tell.send(Ok(Written::Done));
        }
    }

    /// What is synced can be seen from now on.
    fn show(&self) {
        let mut due_from = DueFrom::NEVER;
        for (change, _) in &self.pending {
            due_from = change.fact().map_or(due_from, |fact| due_from.and(fact));
            match change {
                Change::Key { fact, looked, expected } => {
                    self.shared.raise_revision(fact.revision);
                    self.show_key(fact, *expected, looked);
                }
                Change::Copy { fact, .. } => self.shared.index.moved(self.number as u32, fact),
                Change::Floor(floor) => self.shared.raise_floor(*floor),
                Change::Shelves(_) => {}
            }
        }
        self.shared.due_from(self.number as u32, due_from);
    }

    /// Nobody ever sees an older tombstone of the key: a deletion takes what is on shelves first,
    /// what is new is in the index first.
    fn show_key(&self, fact: &Fact, expected: Option<u64>, looked: &Looked) {
        let is_deletion = fact.what == What::Deleted;
        if !is_deletion {
            self.shared.index.take(self.number as u32, fact);
        }
        if is_deletion || !looked.gone.is_empty() {
            self.shared.is_gone(fact.id, expected.unwrap_or_default(), &looked.gone);
        }
        if is_deletion {
            self.shared.index.take(self.number as u32, fact);
        }
    }

    /// Goes on in the next segment.
    fn roll(&mut self) -> Result<(), StoreError> {
        let Spare::Ready(prepared) = std::mem::replace(&mut self.spare, Spare::Coming) else {
            return Err(StoreError::new(StoreErrorKind::Full, "the next segment is not there"));
        };
        let header = Header {
            number: self.number + 1,
            previous: Position { segment: self.number, offset: self.offset },
            floor: self.shared.floor(),
            revision_max: self.shared.revision_max(),
        };
        let (disk, name) = (&self.shared.disk, segment::name(header.number));
        failpoint!("journal.roll.before", name);
        let begun = prepared
            .medium
            .write_at(&header.bytes(), 0)
            .and_then(|()| prepared.medium.sync())
            .and_then(|()| disk.rename(&prepared.name, &name))
            .and_then(|()| disk.sync_names());
        failpoint!("journal.roll.after", name);
        if let Err(error) = begun {
            let place = disk.place(&name);
            self.shared.poison(format!("{} could not be begun: {error}", place.display()));
            return self.shared.poisoned().map_or(Ok(()), Err);
        }
        let sealed = self.number;
        self.number = header.number;
        self.medium = Arc::clone(&prepared.medium);
        (self.offset, self.capacity) = (HEADER as u64, prepared.length);
        self.shared.begin_segment(self.number as u32, prepared);
        // They fail only if the keeper is gone, and then the next segment never comes. It comes
        // first: a snapshot takes its time, and nobody waits for it.
        self.prepare();
        let _ = self.keeper.send(Chore::Snapshot { number: sealed, end: header.previous.offset });
        Ok(())
    }

    fn prepare(&mut self) {
        self.spare = Spare::Coming;
        let _ = self.keeper.send(Chore::Prepare { number: self.number + 1 });
    }

    fn spare_came(&mut self) {
        self.waits.store(true, Ordering::Relaxed);
        self.spare = match self.prepared.recv() {
            Ok(Ok(prepared)) => Spare::Ready(prepared),
            Ok(Err(why)) => Spare::Failed { why, refusals: 0 },
            Err(_) => Spare::Failed { why: "the journal is closing".into(), refusals: 0 },
        };
        self.waits.store(false, Ordering::Relaxed);
    }

    /// Now and then, so that a disk that has room again is noticed, without filling it up each
    /// time that it has none.
    fn ask_again(&mut self) {
        if let Spare::Failed { refusals, .. } = &mut self.spare {
            *refusals += 1;
            if ASK_AGAIN <= *refusals {
                self.prepare();
            }
        }
    }
}

fn refuse(text: String) -> Admit {
    Admit::Refused(StoreError::new(StoreErrorKind::Full, text))
}
