//! Writing a shelf: tombstones in the order of their keys, block by block.

use std::io;
use std::sync::Arc;

use bytes::BufMut;
use onlyonce_core::KeyId;
use onlyonce_failpoint::failpoint;

use crate::disk::{Disk, Medium};
use crate::entry;
use crate::filter::Filter;
use crate::shelf::{END_MAGIC, FOOTER, FORMAT, HEADER, MAGIC, due_unit, name};

/// A block ends once it has this many bytes: a read of one costs little more than a smaller one,
/// and of each the first key is in memory.
const BLOCK: usize = 8 << 10;
/// So much is synced at once, in bytes: the journal's own syncs wait behind it on the same disk.
const PIECE: usize = 1 << 20;

pub(crate) struct Builder {
    number: u64,
    medium: Arc<dyn Medium>,
    /// What is not written yet, and where it will stand.
    piece: Vec<u8>,
    at: u64,
    block: Vec<u8>,
    first: KeyId,
    due_from: u64,
    fences: Vec<u8>,
    filter: Filter,
    entries: u32,
    /// Of the blocks before this one.
    before: u32,
    revision_min: u64,
    revision_max: u64,
}

impl Builder {
    /// A new file for at most so many tombstones.
    pub(crate) fn new(disk: &dyn Disk, number: u64, room: u64) -> io::Result<Self> {
        let mut piece = Vec::with_capacity(PIECE);
        piece.extend_from_slice(MAGIC);
        piece.put_u32_le(FORMAT);
        piece.put_u32_le(0);
        piece.put_u64_le(number);
        piece.resize(HEADER - 4, 0);
        piece.put_u32_le(crc32c::crc32c(&piece));
        failpoint!("shelf.create.before", number);
        Ok(Self {
            number,
            medium: disk.create(&name(number))?,
            piece,
            at: 0,
            block: Vec::new(),
            first: KeyId::from_bytes([0; 16]),
            due_from: u64::MAX,
            fences: Vec::new(),
            filter: Filter::with_room(room),
            entries: 0,
            before: 0,
            revision_min: u64::MAX,
            revision_max: 0,
        })
    }

    /// Adds one, whose key is above all before it.
    pub(crate) fn add(
        &mut self,
        id: KeyId,
        payload: &[u8],
        revision: u64,
        due: u64,
    ) -> io::Result<()> {
        if self.block.is_empty() {
            (self.first, self.due_from) = (id, u64::MAX);
        }
        let mut length = payload.len();
        while 0x80 <= length {
            self.block.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.block.push(length as u8);
        self.block.extend_from_slice(payload);
        self.filter.add(id);
        self.entries += 1;
        self.due_from = self.due_from.min(due);
        self.revision_min = self.revision_min.min(revision);
        self.revision_max = self.revision_max.max(revision);
        if BLOCK <= self.block.len() { self.end_block() } else { Ok(()) }
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entries
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.fences.extend_from_slice(self.first.as_bytes());
        self.fences.put_u64_le(self.at + self.piece.len() as u64);
        self.fences.put_u32_le(self.before);
        self.fences.put_u32_le(due_unit(self.due_from));
        entry::append(&mut self.piece, self.number, self.at, &self.block);
        self.block.clear();
        self.before = self.entries;
        if PIECE <= self.piece.len() { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        failpoint!("shelf.write.before", self.number);
        self.medium.write_at(&self.piece, self.at)?;
        failpoint!("shelf.sync.before", self.number);
        self.medium.sync()?;
        failpoint!("shelf.sync.after", self.number);
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Writes the rest. All of it is synced then, but not its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let fences = self.at + self.piece.len() as u64;
        let mut end = Vec::with_capacity(FOOTER);
        end.extend_from_slice(END_MAGIC);
        end.put_u64_le(self.number);
        end.put_u32_le(self.entries);
        end.put_u32_le((self.fences.len() / crate::shelf::FENCE) as u32);
        end.put_u64_le(fences);
        end.put_u64_le(fences + self.fences.len() as u64);
        end.put_u64_le(self.revision_min);
        end.put_u64_le(self.revision_max);
        end.put_u32_le(crc32c::crc32c(&self.fences));
        end.put_u32_le(crc32c::crc32c(self.filter.bytes()));
        end.resize(FOOTER - 4, 0);
        end.put_u32_le(crc32c::crc32c(&end));
        let (fences, filter) = (std::mem::take(&mut self.fences), self.filter.bytes().to_vec());
        for part in [fences, filter, end] {
            for piece in part.chunks(PIECE) {
                self.piece.extend_from_slice(piece);
                if PIECE <= self.piece.len() {
                    self.write()?;
                }
            }
        }
        self.write()
    }
}
