//! Giving room back: the oldest segment goes once no key's newest entry is in it.
//!
//! Only ever the oldest: an entry in it can be the newest of its key, but never hides an older one
//! in the log, and the list of shelves knows what it deletes there. What still lives in it is
//! copied to the end first, but for old tombstones: those go to shelves. Whatever reads much or
//! waits for the folder is done by a thread of its own, so that callers' threads go on.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use onlyonce_failpoint::failpoint;
use onlyonce_store::{StoreError, StoreErrorKind};

use crate::error::JournalError;
use crate::index::Slot;
use crate::journal::{Handle, Journal, told};
use crate::pace::{Pace, Pause};
use crate::recover::{self, Segment};
use crate::segment::{self, Fact, HEADER, Header};
use crate::shared::{self, KEYS_AT_ONCE, RECORDS_AT_ONCE, Shared};
use crate::snapshot::{self, Snapshot};
use crate::writer::{Change, Written};

/// So many copies are on their way at once: enough to share syncs, few enough that callers find
/// room between them. As long as they take, the next ones wait.
const COPIES: usize = 256;
/// Or so many bytes of them and one more: a caller's claim waits behind no more than that.
pub(crate) const COPY_BYTES: usize = 256 << 10;
/// So much of a file is given back at once, in bytes: a few hundred microseconds' work.
const PIECE: u64 = 4 << 20;

/// A segment and what lives in it.
type Oldest = (Arc<Snapshot>, Arc<[Fact]>);
/// An entry and its bytes.
type Copied = (Fact, Vec<u8>);

impl Journal {
    pub(crate) async fn reclaim_now(&self) -> Result<(), StoreError> {
        let Some(_alone) = Alone::new(&self.handle) else { return Ok(()) };
        // Without room for a shelf the oldest segment may still give some.
        let shelved = self.shelve().await;
        let unlinked = self.unlink_oldest().await;
        let shrunk = self.on_mover(|shared| {
            shared.index.shrink();
            shared.keep_rest(None);
            Ok(())
        });
        // The rest goes on, and each time it is said what does not.
        let damage = self.shared.shelves().damage();
        let whole = damage.map_or(Ok(()), |error| Err(shared::on_shelf(&error)));
        shelved.and(unlinked).and(shrunk.await).and(whole)
    }

    pub(crate) async fn unlink_oldest(&self) -> Result<(), StoreError> {
        while let Some((oldest, living)) = self.on_mover(Shared::to_unlink).await? {
            failpoint!("reclaim.carry.before", living);
            if !self.carry(&oldest, &living).await? {
                break;
            }
            failpoint!("reclaim.carry.after", living);
            // What it deletes on shelves must not come back without it.
            self.write_list().await?;
            self.on_mover(move |shared| shared.unlink(oldest.number)).await?;
        }
        Ok(())
    }

    /// Copies entries to the end of the journal. `false` if one of them still stands where it was.
    async fn carry(
        &self,
        oldest: &Arc<Snapshot>,
        living: &Arc<[Fact]>,
    ) -> Result<bool, StoreError> {
        let (mut next, mut pause) = (0, Pause::default());
        while next < living.len() {
            let (of, all) = (Arc::clone(oldest), Arc::clone(living));
            let copies = self.on_mover(move |shared| {
                pause.pause();
                shared.to_copy(&of, &all, next)
            });
            let (copies, until) = copies.await?;
            next = until;
            let pace = Pace::begin();
            let ask = |(fact, payload)| {
                self.ask(payload, Change::Copy { from: slot(oldest, &fact), fact })
            };
            let asked = copies.into_iter().map(ask).collect::<Result<Vec<_>, _>>()?;
            for one in asked {
                // One that was changed meanwhile stands somewhere else anyway.
                let (Written::Done | Written::Raced) = told(one).await?;
            }
            pause = pace.end();
        }
        let (of, all) = (Arc::clone(oldest), Arc::clone(living));
        self.on_mover(move |shared| Ok(!all.iter().any(|fact| shared.stands(&of, fact)))).await
    }
}

impl Shared {
    /// Of what lives in the oldest segment some that still stands there, with its bytes, from this
    /// one on; and where the next are.
    pub(crate) fn to_copy(
        &self,
        oldest: &Snapshot,
        living: &[Fact],
        mut next: usize,
    ) -> Result<(Vec<Copied>, usize), StoreError> {
        // Who came while the last ones were written has the core first.
        shared::give_way(0, 1);
        let (mut copies, mut bytes) = (Vec::new(), 0);
        while copies.len() < COPIES && bytes < COPY_BYTES {
            let Some(fact) = living.get(next) else { break };
            next += 1;
            shared::give_way(next, RECORDS_AT_ONCE);
            if !self.stands(oldest, fact) {
                continue;
            }
            match self.payload(slot(oldest, fact)) {
                Ok(payload) => {
                    bytes += payload.len();
                    copies.push((*fact, payload.to_vec()));
                }
                Err(_) if !self.stands(oldest, fact) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((copies, next))
    }

    fn stands(&self, oldest: &Snapshot, fact: &Fact) -> bool {
        self.index.get(fact.id) == Some(slot(oldest, fact))
    }

    /// The oldest segment and what lives in it, if it should go.
    pub(crate) fn to_unlink(&self) -> Result<Option<Oldest>, StoreError> {
        let Some(oldest) = self.oldest()? else { return Ok(None) };
        let living = self.living(&oldest);
        let is_mostly_dead = living.len() * 2 <= oldest.facts.len();
        let should_go = is_mostly_dead || self.is_mostly_garbage();
        Ok(should_go.then(|| (Arc::new(oldest), living.into())))
    }

    /// The oldest segment, unless it is the one that is written to.
    fn oldest(&self) -> Result<Option<Snapshot>, StoreError> {
        let (number, next) = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            let mut numbers = segments.keys().copied();
            let (Some(number), Some(next)) = (numbers.next(), numbers.next()) else {
                return Ok(None);
            };
            (u64::from(number), u64::from(next))
        };
        let disk = &*self.disk;
        let mut bytes = [0; HEADER];
        let place = disk.place(&segment::name(next));
        let read = disk.open(&segment::name(next)).and_then(|it| it.read_at(&mut bytes, 0));
        read.map_err(|error| refused(&JournalError::io(&place, &error)))?;
        let header = Header::parse(&bytes)
            .map_err(|text| refused(&JournalError::damaged(&place, 0, text)))?;
        recover::sealed_snapshot(disk, number, header.previous.offset)
            .map(Some)
            .map_err(|error| refused(&error))
    }

    /// The entries of a segment that are the newest of their keys.
    fn living(&self, oldest: &Snapshot) -> Vec<Fact> {
        let lives = |(done, fact): &(usize, &Fact)| {
            shared::give_way(*done, KEYS_AT_ONCE);
            self.stands(oldest, fact)
        };
        (1..).zip(&oldest.facts).filter(lives).map(|(_, fact)| *fact).collect()
    }

    /// Whether sealed segments hold at least as many dead keys as living ones, so that copying
    /// the living ones once more is paid for.
    fn is_mostly_garbage(&self) -> bool {
        let sealed: Vec<u32> = {
            let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
            segments.keys().copied().collect()
        };
        let keys = |number: &u32| snapshot::keys(&*self.disk, (*number).into());
        let written: u64 = sealed.iter().filter_map(keys).map(u64::from).sum();
        self.index.len() as u64 * 2 <= written
    }

    fn unlink(&self, number: u64) -> Result<(), StoreError> {
        let disk = &self.disk;
        // A snapshot without its segment would be left for ever; the other way round it is made
        // again.
        let _ = disk.remove(&snapshot::name(number));
        let name = segment::name(number);
        failpoint!("reclaim.unlink.before", name);
        let removed = disk.remove(&name).and_then(|()| disk.sync_names());
        failpoint!("reclaim.unlink.after", name);
        removed.map_err(|error| refused(&JournalError::io(disk.place(&name), &error)))?;
        let gone = {
            let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
            segments.remove(&(number as u32))
        };
        // Not while others wait for the segments: the disk takes its time with a large file.
        gone.into_iter().for_each(let_go);
        Ok(())
    }
}

/// Closes a file that has no name any more: a piece at a time, unless a backup still reads it. A
/// copy of the folder by hard links has a name for it.
fn let_go(Segment { medium, mut length, .. }: Segment) {
    if medium.names().ok() != Some(0) {
        return;
    }
    while Arc::strong_count(&medium) == 1 && 0 < length {
        length = length.saturating_sub(PIECE);
        if medium.shorten(length).is_err() {
            return;
        }
        shared::give_way(0, 1);
    }
}

/// The one who gives room back now.
struct Alone<'a>(&'a Handle);

impl<'a> Alone<'a> {
    /// `None` if somebody else does.
    fn new(handle: &'a Handle) -> Option<Self> {
        (!handle.reclaims.swap(true, Ordering::AcqRel)).then_some(Self(handle))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.reclaims.store(false, Ordering::Release);
    }
}

fn slot(oldest: &Snapshot, fact: &Fact) -> Slot {
    // Segments are counted in 32 bits.
    Slot { segment: oldest.number as u32, offset: fact.offset, revision: fact.revision }
}

fn refused(error: &JournalError) -> StoreError {
    StoreError::new(StoreErrorKind::NotApplied, error.to_string())
}
