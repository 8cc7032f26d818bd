//! A copy of a journal that is open and goes on, as it stood when the copy was begun.
//!
//! What is sealed or synced never changes again, so nothing has to stop: the open files of all
//! segments and shelves, what the list says of shelves, and the place up to which the last segment
//! is synced are the whole state. A file that is given back meanwhile has lost its name only.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use onlyonce_core::Timestamp;
use onlyonce_failpoint::failpoint;

use crate::dir::{self, Names};
use crate::disk::{Disk, Folder, Medium};
use crate::error::JournalError;
use crate::journal::Journal;
use crate::label::{self, Extent};
use crate::segment::{self, HEADER, Header};
use crate::shared::Standing;
use crate::shelf::{self, Shelf};
use crate::shelves;
use crate::staging;

/// So much is synced at once, in bytes: the journal's own syncs wait behind it on the same disk.
const PIECE: usize = 4 << 20;

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// Segments that were copied.
    pub segments: usize,
    /// Shelves of old tombstones that were copied.
    pub shelves: usize,
    /// What both take, in bytes.
    pub bytes: u64,
}

impl Journal {
    /// Copies all that has been confirmed by now, the floor and the secret to a new folder `to`.
    /// Blocks until it is durable there; callers of the journal need not wait for it.
    ///
    /// The folder is marked as a backup: [`crate::restore`] makes a journal of it.
    ///
    /// # Errors
    /// `to` exists or lies in the journal's folder, a segment is damaged, or the system refuses.
    /// Nothing is left at `to` then.
    pub fn backup(&self, to: &Path, now: Timestamp) -> Result<Backup, JournalError> {
        staging::refuse_within(&self.shared.disk.place(""), to)?;
        staging::make(to, |new| self.copy_to(&Folder::at(new), now))
    }

    /// Makes the backup on an empty disk. Without its label, which comes last, it is none.
    pub(crate) fn copy_to(
        &self,
        target: &dyn Disk,
        now: Timestamp,
    ) -> Result<Backup, JournalError> {
        // Read first: a key is struck from it once nothing needs it any more, and what is copied
        // below may be older than what is struck meanwhile.
        let names = Names::read(&*self.shared.disk)?;
        let Standing { segments, until, shelves, listed } = self.shared.standing();
        let segments: Vec<(u64, _)> =
            segments.into_iter().map(|(number, it)| (number.into(), it.medium)).collect();
        let mut backup = Backup::default();
        for (at, (number, medium)) in segments.iter().enumerate() {
            let place = self.shared.disk.place(&segment::name(*number));
            let end = match segments.get(at + 1) {
                Some((next, medium)) => header(&**medium, &place, *next)?.previous.offset,
                None => until.offset,
            };
            let all = whole(&**medium, &place, *number, end)?;
            copy(target, *number, &all)?;
            backup.segments += 1;
            backup.bytes += end;
        }
        for shelf in &shelves.list {
            shelf.check()?;
            copy_shelf(target, shelf)?;
            backup.shelves += 1;
            backup.bytes += shelf.length;
        }
        let has_shelves = !listed.is_empty();
        let from = segments.first().map_or(until.segment, |(number, _)| *number);
        let extent = Some(Extent { taken: now, from, until });
        let listed = if has_shelves { shelves::write(target, &listed) } else { Ok(()) };
        let labelled = listed
            .and_then(|()| dir::write_secret(target, self.secret()))
            .and_then(|()| names.write(target))
            .and_then(|()| {
                failpoint!("copy.names.before", extent);
                target.sync_names()
            })
            .and_then(|()| label::write(target, self.secret(), extent, has_shelves));
        labelled.map_err(|error| JournalError::io(target.place(""), &error))?;
        Ok(backup)
    }
}

fn header(medium: &dyn Medium, before: &Path, number: u64) -> Result<Header, JournalError> {
    let place: PathBuf = before.with_file_name(segment::name(number));
    let mut bytes = [0; HEADER];
    medium.read_at(&mut bytes, 0).map_err(|error| JournalError::io(&place, &error))?;
    Header::parse(&bytes).map_err(|text| JournalError::damaged(&place, 0, text))
}

/// A segment up to its end, if it is as it was written: a copy of damage would hide it.
fn whole(medium: &dyn Medium, place: &Path, number: u64, end: u64) -> Result<Bytes, JournalError> {
    // Segments are shorter than 4 GiB.
    let mut all = vec![0; end as usize];
    medium.read_at(&mut all, 0).map_err(|error| JournalError::io(place, &error))?;
    let scan = segment::scan_bytes(place, number, Bytes::from(all))?;
    if scan.end < end {
        let why = scan.broken.unwrap_or("an entry is missing");
        let text = format!("{why}, in a place that was synced before");
        return Err(JournalError::damaged(place, scan.end, text));
    }
    Ok(scan.all)
}

fn copy(target: &dyn Disk, number: u64, all: &[u8]) -> Result<(), JournalError> {
    let name = segment::name(number);
    failpoint!("copy.create.before", name);
    let copied = target.create(&name).and_then(|medium| {
        for (at, piece) in all.chunks(PIECE).enumerate() {
            failpoint!("copy.write.before", name);
            medium.write_at(piece, (at * PIECE) as u64)?;
            failpoint!("copy.sync.before", name);
            medium.sync()?;
            failpoint!("copy.sync.after", name);
        }
        Ok(())
    });
    copied.map_err(|error| JournalError::io(target.place(&name), &error))
}

fn copy_shelf(target: &dyn Disk, shelf: &Shelf) -> Result<(), JournalError> {
    let name = shelf::name(shelf.number);
    failpoint!("copy.create.before", name);
    let copied = target.create(&name).and_then(|medium| {
        let mut at = 0;
        while at < shelf.length {
            let mut piece = vec![0; (PIECE as u64).min(shelf.length - at) as usize];
            shelf.medium.read_at(&mut piece, at)?;
            failpoint!("copy.write.before", name);
            medium.write_at(&piece, at)?;
            failpoint!("copy.sync.before", name);
            medium.sync()?;
            failpoint!("copy.sync.after", name);
            at += piece.len() as u64;
        }
        Ok(())
    });
    copied.map_err(|error| JournalError::io(target.place(&name), &error))
}
