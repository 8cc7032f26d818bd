//! A shelf: a file of tombstones that have left the log, sorted by key, never changed.
//!
//! Of each block of them only the first key is in memory, and a filter that knows most keys that
//! are not there. Which of them count no more stands in the list of shelves, and in memory one bit
//! for each tells it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use onlyonce_core::{KeyId, Record};
use onlyonce_store::{CodecError, codec};

use crate::disk::{Disk, Medium};
use crate::entry::{self, Framed};
use crate::error::{JournalError, JournalErrorKind};
use crate::filter::Filter;
use crate::segment;
use crate::shelf_ends::Ends;

pub(crate) const HEADER: usize = 64;
pub(crate) const FOOTER: usize = 96;
pub(crate) const MAGIC: &[u8; 8] = b"onlytomb";
pub(crate) const END_MAGIC: &[u8; 8] = b"onlyends";
/// The format of shelves that this program writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// Bytes of a fence on disk.
pub(crate) const FENCE: usize = 32;
/// Due times in fences are counted in units of 2 to this power milliseconds.
const DUE_SHIFT: u32 = 16;

/// The file's name.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}.old")
}

/// The number in a shelf's file name.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".old").filter(|digits| digits.len() == 10)?.parse().ok()
}

/// A due time in the unit of fences, rounded down.
pub(crate) fn due_unit(millis: u64) -> u32 {
    u32::try_from(millis >> DUE_SHIFT).unwrap_or(u32::MAX)
}

/// Where a block begins, with which key and which tombstone.
#[derive(Debug)]
struct Fence {
    first: KeyId,
    offset: u64,
    ordinal: u32,
    /// No tombstone in it that still counts is due before.
    due_from: AtomicU32,
}

/// A tombstone on a shelf.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// How many keys stand before it.
    pub(crate) ordinal: u32,
    pub(crate) id: KeyId,
    pub(crate) payload: Bytes,
    pub(crate) record: Record,
}

/// A shelf that is open for reading.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) number: u64,
    pub(crate) length: u64,
    pub(crate) entries: u32,
    pub(crate) revision_min: u64,
    pub(crate) revision_max: u64,
    pub(crate) medium: Arc<dyn Medium>,
    place: PathBuf,
    fences: Vec<Fence>,
    blocks_end: u64,
    filter: Filter,
    gone: Vec<AtomicU64>,
    gone_count: AtomicU32,
    /// Blocks that could not be read when that mattered, and why. They are not read again before
    /// the journal is opened anew: what the log has deleted in one is not known of it.
    given_up: Mutex<BTreeMap<usize, String>>,
}

impl Shelf {
    /// Opens a shelf without reading its blocks. `gone` has a bit for each tombstone that counts
    /// no more; none if it is empty.
    ///
    /// # Errors
    /// What stands around the blocks is not as it was written.
    pub(crate) fn open(disk: &dyn Disk, number: u64, gone: &[u64]) -> Result<Self, JournalError> {
        let (name, place) = (name(number), disk.place(&name(number)));
        let io = |error: std::io::Error| JournalError::io(&place, &error);
        let medium = disk.open(&name).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                return JournalError::damaged(&place, 0, "it is missing");
            }
            io(error)
        })?;
        let length = medium.len().map_err(io)?;
        let ends = Ends::read(&*medium, &place, number, length)?;
        let read = |from: u64, until: u64, check: u32, what: &str| {
            let mut bytes = vec![0; until.saturating_sub(from) as usize];
            medium.read_at(&mut bytes, from).map_err(io)?;
            if crc32c::crc32c(&bytes) != check {
                let text = format!("the checksum of its {what} is wrong");
                return Err(JournalError::damaged(&place, from, text));
            }
            Ok(bytes)
        };
        let fences = read(ends.fences, ends.filter, ends.fences_check, "fences")?;
        let until = length - FOOTER as u64;
        let filter = Filter::read(read(ends.filter, until, ends.filter_check, "filter")?)
            .ok_or_else(|| JournalError::damaged(&place, ends.filter, "it has no filter"))?;
        let words = (ends.entries as usize).div_ceil(64);
        let word = |at: usize| gone.get(at).copied().unwrap_or_default();
        let gone_count = gone.iter().map(|word| word.count_ones()).sum();
        Ok(Self {
            number,
            length,
            entries: ends.entries,
            revision_min: ends.revision_min,
            revision_max: ends.revision_max,
            place: place.clone(),
            fences: fences.chunks_exact(FENCE).map(Fence::read).collect(),
            blocks_end: ends.fences,
            filter,
            gone: (0..words).map(|at| AtomicU64::new(word(at))).collect(),
            gone_count: AtomicU32::new(gone_count),
            given_up: Mutex::default(),
            medium,
        })
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.fences.len() * size_of::<Fence>() + self.filter.bytes().len() + self.gone.len() * 8
    }

    /// How many of its tombstones count.
    pub(crate) fn living(&self) -> u32 {
        self.entries - self.gone_count.load(Ordering::Acquire).min(self.entries)
    }

    pub(crate) fn is_gone(&self, ordinal: u32) -> bool {
        let word = self.gone.get(ordinal as usize / 64);
        word.is_none_or(|word| word.load(Ordering::Acquire) & 1 << (ordinal % 64) != 0)
    }

    /// From now on this tombstone counts no more. `false` if it did not before.
    pub(crate) fn set_gone(&self, ordinal: u32) -> bool {
        let bit = 1 << (ordinal % 64);
        let Some(word) = self.gone.get(ordinal as usize / 64) else { return false };
        let is_new = word.fetch_or(bit, Ordering::AcqRel) & bit == 0;
        self.gone_count.fetch_add(u32::from(is_new), Ordering::AcqRel);
        is_new
    }

    /// The bits of those that count no more; none if all do.
    pub(crate) fn gone(&self) -> Vec<u64> {
        if self.gone_count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        self.gone.iter().map(|word| word.load(Ordering::Acquire)).collect()
    }

    /// What the shelf has of a key, whether it counts or not.
    ///
    /// # Errors
    /// Damage.
    pub(crate) fn find(&self, id: KeyId) -> Result<Option<Found>, JournalError> {
        if !self.filter.may_have(id) {
            return Ok(None);
        }
        let after = self.fences.partition_point(|fence| fence.first <= id);
        let Some(block) = after.checked_sub(1) else { return Ok(None) };
        let mut entries = self.block(block)?;
        while let Some((ordinal, payload)) = entries.next()? {
            if codec_id(&payload) == Some(id) {
                return entries.found(ordinal, payload).map(Some);
            }
        }
        Ok(None)
    }

    /// What the shelf has of these keys, whether it counts or not, with each key's number. They
    /// are in order, each once. A damaged block is given up: whoever asks for a key that may be in
    /// it hears why.
    ///
    /// # Errors
    /// A newer onlyonce has written it.
    pub(crate) fn find_all(
        &self,
        mut sorted: &[(KeyId, u64)],
        mut take: impl FnMut(Found, u64),
    ) -> Result<(), JournalError> {
        for (at, fence) in self.fences.iter().enumerate() {
            sorted = &sorted[sorted.partition_point(|(id, _)| *id < fence.first)..];
            let until = self
                .fences
                .get(at + 1)
                .map_or(sorted.len(), |next| sorted.partition_point(|(id, _)| *id < next.first));
            let (here, rest) = sorted.split_at(until);
            sorted = rest;
            if here.is_empty() {
                continue;
            }
            match self.find_in(at, here, &mut take) {
                Err(error) if error.kind() == JournalErrorKind::Damaged => self.give_up(at, &error),
                found => found?,
            }
        }
        Ok(())
    }

    fn find_in(
        &self,
        block: usize,
        sorted: &[(KeyId, u64)],
        take: &mut impl FnMut(Found, u64),
    ) -> Result<(), JournalError> {
        let mut entries = self.block(block)?;
        while let Some((ordinal, payload)) = entries.next()? {
            let Some(id) = codec_id(&payload) else { continue };
            if let Ok(at) = sorted.binary_search_by_key(&id, |(id, _)| *id) {
                take(entries.found(ordinal, payload)?, sorted[at].1);
            }
        }
        Ok(())
    }

    fn given_up(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does not read a block again.
    pub(crate) fn give_up(&self, block: usize, why: &JournalError) {
        self.given_up().entry(block).or_insert_with(|| why.text().to_owned());
    }

    /// The damage that is known, if any is: one of the blocks that were given up.
    pub(crate) fn damage(&self) -> Option<JournalError> {
        let first = self.given_up().first_key_value().map(|(block, why)| (*block, why.clone()));
        first.map(|(block, why)| self.damaged(self.block_at(block), why))
    }

    /// Whether a block that was given up may have this key.
    pub(crate) fn may_have_lost(&self, id: KeyId) -> bool {
        let given_up = self.given_up();
        !given_up.is_empty() && given_up.contains_key(&self.block_after(id)) && self.may_have(id)
    }

    /// Whether the filter knows the key for one that is not here.
    pub(crate) fn may_have(&self, id: KeyId) -> bool {
        self.filter.may_have(id)
    }

    pub(crate) fn blocks(&self) -> usize {
        self.fences.len()
    }

    /// The first block that may hold a key after this one.
    pub(crate) fn block_after(&self, id: KeyId) -> usize {
        self.fences.partition_point(|fence| fence.first <= id).saturating_sub(1)
    }

    /// The first key of a block: whoever asks for it hears of damage there.
    pub(crate) fn first(&self, block: usize) -> Option<KeyId> {
        self.fences.get(block).map(|fence| fence.first)
    }

    /// Where a block begins.
    pub(crate) fn block_at(&self, block: usize) -> u64 {
        self.fences.get(block).map_or(self.blocks_end, |fence| fence.offset)
    }

    /// Whether a block may hold something that counts and is due then, in the unit of fences.
    pub(crate) fn may_be_due(&self, block: usize, over: u32) -> bool {
        let Some(fence) = self.fences.get(block) else { return false };
        let until = self.ordinal(block + 1);
        fence.due_from.load(Ordering::Relaxed) <= over
            && (fence.ordinal..until).any(|ordinal| !self.is_gone(ordinal))
    }

    /// Nothing in a block that counts is due before.
    pub(crate) fn is_due_from(&self, block: usize, due_from: u32) {
        if let Some(fence) = self.fences.get(block) {
            fence.due_from.store(due_from, Ordering::Relaxed);
        }
    }

    /// The tombstones of a block.
    ///
    /// # Errors
    /// Damage.
    pub(crate) fn block(&self, block: usize) -> Result<Entries<'_>, JournalError> {
        let (offset, end) = (self.block_at(block), self.block_at(block + 1));
        if let Some(why) = self.given_up().get(&block) {
            return Err(self.damaged(offset, why.clone()));
        }
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        self.medium
            .read_at(&mut bytes, offset)
            .map_err(|error| JournalError::damaged(&self.place, offset, error.to_string()))?;
        let ordinal = self.fences.get(block).map_or(0, |fence| fence.ordinal);
        match entry::framed(&Bytes::from(bytes), self.number, offset) {
            Framed::Whole(rest) => Ok(Entries { rest, ordinal, offset, place: &self.place }),
            Framed::Empty => Err(self.damaged(offset, "nothing stands there")),
            Framed::Broken(why) => Err(self.damaged(offset, why)),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// A block is damaged, or not where its keys belong.
    pub(crate) fn check(&self) -> Result<(), JournalError> {
        (0..self.blocks()).try_for_each(|block| self.check_block(block).map(|_| ()))
    }

    /// Reads a block and holds it to the order of keys, the filter and the number of tombstones.
    pub(crate) fn check_block(&self, block: usize) -> Result<Vec<Found>, JournalError> {
        let offset = self.block_at(block);
        let mut entries = self.block(block)?;
        let mut all: Vec<Found> = Vec::new();
        while let Some(found) = entries.next_found()? {
            let is_first = all.is_empty();
            let is_in_order = match all.last() {
                Some(last) => last.id < found.id,
                None => self.first(block) == Some(found.id),
            };
            if !is_in_order || (is_first && found.ordinal != self.ordinal(block)) {
                return Err(self.damaged(offset, "a key is not in its place"));
            }
            if !self.filter.may_have(found.id) {
                return Err(self.damaged(offset, "the filter denies a key that is here"));
            }
            all.push(found);
        }
        let last = self.first(block + 1);
        if last.is_some_and(|next| all.last().is_none_or(|last| next <= last.id))
            || self.ordinal(block) + all.len() as u32 != self.ordinal(block + 1)
        {
            return Err(self.damaged(offset, "the next block is not where this one ends"));
        }
        Ok(all)
    }

    /// How many tombstones stand before a block.
    pub(crate) fn ordinal(&self, block: usize) -> u32 {
        self.fences.get(block).map_or(self.entries, |fence| fence.ordinal)
    }

    pub(crate) fn damaged(&self, offset: u64, why: impl Into<String>) -> JournalError {
        JournalError::damaged(&self.place, offset, why)
    }
}

impl Fence {
    fn read(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let mut first = [0; 16];
        rest.copy_to_slice(&mut first);
        let (first, offset) = (KeyId::from_bytes(first), rest.get_u64_le());
        let (ordinal, due) = (rest.get_u32_le(), rest.get_u32_le());
        Self { first, offset, ordinal, due_from: AtomicU32::new(due) }
    }
}

/// The key id of a record's bytes.
fn codec_id(payload: &Bytes) -> Option<KeyId> {
    payload.get(3..19)?.try_into().ok().map(KeyId::from_bytes)
}

/// The tombstones of a block, one after the other.
pub(crate) struct Entries<'a> {
    rest: Bytes,
    ordinal: u32,
    offset: u64,
    place: &'a PathBuf,
}

impl Entries<'_> {
    /// The bytes of the next one, and its number on the shelf.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Bytes)>, JournalError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.rest.first().copied().unwrap_or_default();
            self.rest.advance(self.rest.len().min(1));
            length |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        if self.rest.len() < length {
            return Err(self.damaged("a tombstone's length cannot be"));
        }
        let (ordinal, payload) = (self.ordinal, self.rest.split_to(length));
        self.ordinal += 1;
        // Where its key stands in a newer format is not known: it may be the one that is wanted.
        match payload.first().map(|first| first >> 4) {
            Some(format) if codec::VERSION < format => {
                let newer = CodecError::Version(format).to_string();
                let error = JournalError::new(JournalErrorKind::Format, self.place, newer);
                Err(error.at(self.offset))
            }
            Some(_) | None => Ok(Some((ordinal, payload))),
        }
    }

    /// The same, read.
    pub(crate) fn next_found(&mut self) -> Result<Option<Found>, JournalError> {
        self.next()?.map(|(ordinal, payload)| self.found(ordinal, payload)).transpose()
    }

    fn found(&self, ordinal: u32, payload: Bytes) -> Result<Found, JournalError> {
        let (id, record) =
            codec::decode(payload.clone()).map_err(|error| self.damaged(error.to_string()))?;
        Ok(Found { ordinal, id, payload, record })
    }

    fn damaged(&self, why: impl Into<String>) -> JournalError {
        JournalError::damaged(self.place, self.offset, why)
    }
}

impl Found {
    /// When time has something to do with it.
    pub(crate) fn due(&self) -> u64 {
        segment::due(&self.record)
    }
}

/// What can be read of a shelf whose ends are lost: blocks are found by their checksums.
///
/// # Errors
/// A newer onlyonce has written some of it.
pub(crate) fn bare(place: &PathBuf, number: u64, all: &Bytes) -> Result<Vec<Found>, JournalError> {
    let (mut found, mut at) = (Vec::new(), HEADER);
    while at < all.len() {
        match entry::framed(&all.slice(at..), number, at as u64) {
            Framed::Whole(rest) => {
                let mut entries = Entries { rest, ordinal: 0, offset: at as u64, place };
                at += entry::FRAME + entries.rest.len();
                loop {
                    match entries.next_found() {
                        Ok(Some(one)) => found.push(one),
                        Err(error) if error.kind() == JournalErrorKind::Format => {
                            return Err(error);
                        }
                        Ok(None) | Err(_) => break,
                    }
                }
            }
            Framed::Empty | Framed::Broken(_) => at += 1,
        }
    }
    Ok(found)
}
