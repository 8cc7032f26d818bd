//! The shelves there are, and the file that lists them.
//!
//! A shelf counts if it is in the list, so that putting one in the place of others is one write of
//! a small file. The list also says which tombstones count no more: the log need not keep its
//! deletions of them.

use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use onlyonce_core::{KeyId, Record};
use onlyonce_failpoint::failpoint;

use crate::disk::{self, Disk};
use crate::error::JournalError;
use crate::label;
use crate::shelf::{self, Found, Shelf};
use crate::shelf_ends;

/// The file's name.
pub(crate) const LIST_FILE: &str = "shelves";
const MAGIC: &[u8; 8] = b"onlylist";
const FORMAT: u32 = 1;
const HEADER: usize = 16;
const LISTED: usize = 24;

/// Where a tombstone stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shelf: u64,
    pub(crate) ordinal: u32,
}

/// All shelves at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelves {
    /// Raised whenever a shelf comes or goes.
    pub(crate) generation: u64,
    /// In the order of their oldest tombstones.
    pub(crate) list: Vec<Arc<Shelf>>,
}

impl Shelves {
    /// These shelves, without some and with a new one.
    pub(crate) fn with(&self, new: Option<Arc<Shelf>>, without: &[u64]) -> Self {
        let kept = self.list.iter().filter(|shelf| !without.contains(&shelf.number)).cloned();
        let mut list: Vec<Arc<Shelf>> = kept.chain(new).collect();
        list.sort_by_key(|shelf| (shelf.revision_min, shelf.number));
        Self { generation: self.generation + 1, list }
    }

    /// The newest tombstone of a key that counts.
    ///
    /// # Errors
    /// Damage.
    pub(crate) fn find(&self, id: KeyId) -> Result<Option<(Place, Record)>, JournalError> {
        let mut newest: Option<(Place, Record)> = None;
        for shelf in &self.list {
            let Some(Found { ordinal, record, .. }) = shelf.find(id)? else { continue };
            let newer = newest.as_ref().is_none_or(|(_, known)| known.revision < record.revision);
            if newer && !shelf.is_gone(ordinal) {
                newest = Some((Place { shelf: shelf.number, ordinal }, record));
            }
        }
        Ok(newest)
    }

    /// Where tombstones of a key stand that count, up to this revision.
    ///
    /// # Errors
    /// Damage.
    pub(crate) fn places(&self, id: KeyId, until: u64) -> Result<Vec<Place>, JournalError> {
        let mut places = Vec::new();
        for shelf in &self.list {
            let Some(Found { ordinal, record, .. }) = shelf.find(id)? else { continue };
            if record.revision.get() <= until && !shelf.is_gone(ordinal) {
                places.push(Place { shelf: shelf.number, ordinal });
            }
        }
        Ok(places)
    }

    fn at(&self, place: Place) -> Option<&Arc<Shelf>> {
        self.list.iter().find(|shelf| shelf.number == place.shelf)
    }

    /// Whether the tombstone there counts.
    pub(crate) fn counts(&self, place: Place) -> bool {
        self.at(place).is_some_and(|shelf| !shelf.is_gone(place.ordinal))
    }

    /// From now on it counts no more. `false` if it did not before.
    pub(crate) fn set_gone(&self, place: Place) -> bool {
        self.at(place).is_some_and(|shelf| shelf.set_gone(place.ordinal))
    }

    /// The damage that is known of one of them, if there is any.
    pub(crate) fn damage(&self) -> Option<JournalError> {
        self.list.iter().find_map(|shelf| shelf.damage())
    }

    /// Whether a block that cannot be read may have this key: it is not found on shelves then.
    pub(crate) fn may_have_lost(&self, id: KeyId) -> bool {
        self.list.iter().any(|shelf| shelf.may_have_lost(id))
    }

    /// How many tombstones count.
    pub(crate) fn living(&self) -> usize {
        self.list.iter().map(|shelf| shelf.living() as usize).sum()
    }

    /// How much memory they take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.list.iter().map(|shelf| shelf.bytes()).sum()
    }

    /// What the list says of them now.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let listed = |shelf: &Arc<Shelf>| Listed {
            number: shelf.number,
            length: shelf.length,
            entries: shelf.entries,
            gone: shelf.gone(),
        };
        self.list.iter().map(listed).collect()
    }
}

/// A shelf in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) number: u64,
    pub(crate) length: u64,
    pub(crate) entries: u32,
    /// A bit for each tombstone that counts no more; empty if all do.
    pub(crate) gone: Vec<u64>,
}

impl Shelf {
    /// That it is the one in the list.
    ///
    /// # Errors
    /// It has another length or another number of tombstones.
    pub(crate) fn is_listed(&self, listed: &Listed) -> Result<(), JournalError> {
        if (self.length, self.entries) == (listed.length, listed.entries) {
            return Ok(());
        }
        let Listed { length, entries, .. } = listed;
        let text = format!("in the list of shelves it has {entries} tombstones in {length} bytes");
        Err(self.damaged(self.length, text))
    }
}

/// The bytes of a list.
pub(crate) fn bytes(listed: &[Listed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.put_u32_le(FORMAT);
    bytes.put_u32_le(listed.len() as u32);
    for shelf in listed {
        bytes.put_u64_le(shelf.number);
        bytes.put_u64_le(shelf.length);
        bytes.put_u32_le(shelf.entries);
        bytes.put_u32_le(shelf.gone.len() as u32);
        shelf.gone.iter().for_each(|word| bytes.put_u64_le(*word));
    }
    bytes.put_u32_le(crc32c::crc32c(&bytes));
    bytes
}

fn parse(place: &Path, bytes: &[u8]) -> Result<Vec<Listed>, JournalError> {
    let wrong = |text: &str| JournalError::damaged(place, 0, text);
    let short = || wrong("it is cut short");
    let (mut rest, check) = bytes.split_last_chunk::<4>().ok_or_else(short)?;
    if rest.len() < HEADER || &rest[..8] != MAGIC {
        return Err(wrong("this is no list of shelves"));
    }
    if crc32c::crc32c(rest) != u32::from_le_bytes(*check) {
        return Err(wrong("its checksum is wrong"));
    }
    rest.advance(8);
    let format = rest.get_u32_le();
    if format != FORMAT {
        return Err(shelf_ends::newer(place, "list", format));
    }
    let count = rest.get_u32_le();
    let mut listed = Vec::new();
    for _ in 0..count {
        if rest.len() < LISTED {
            return Err(short());
        }
        let (number, length) = (rest.get_u64_le(), rest.get_u64_le());
        let (entries, words) = (rest.get_u32_le(), rest.get_u32_le() as usize);
        if rest.len() / 8 < words || !(words == 0 || words == (entries as usize).div_ceil(64)) {
            return Err(short());
        }
        let gone = (0..words).map(|_| rest.get_u64_le()).collect();
        listed.push(Listed { number, length, entries, gone });
    }
    Ok(listed)
}

/// Reads the list. `None` if there is none, and the journal never had one.
///
/// # Errors
/// It is damaged, or of a newer format, or missing although the journal's label says that there is
/// one.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Vec<Listed>>, JournalError> {
    let place = disk.place(LIST_FILE);
    let bytes = match disk.open(LIST_FILE).and_then(|medium| medium.read_all()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if label::has_shelves(disk)? {
                return Err(JournalError::damaged(place, 0, "the list of shelves is missing"));
            }
            return Ok(None);
        }
        Err(error) => return Err(JournalError::io(place, &error)),
    };
    parse(&place, &bytes).map(Some)
}

/// Makes a list ready to take the place of the old one. Nothing has changed if it fails.
pub(crate) fn prepare(disk: &dyn Disk, listed: &[Listed]) -> std::io::Result<()> {
    disk::prepare_whole(disk, LIST_FILE, &bytes(listed))
}

/// Puts a list that is ready in the place of the old one. Nobody knows which counts if it fails.
pub(crate) fn put(disk: &dyn Disk) -> std::io::Result<()> {
    // The names of new shelves first: a list must not be there before they are.
    failpoint!("shelf.names.before", LIST_FILE);
    disk.sync_names()?;
    disk::put_whole(disk, LIST_FILE)
}

/// Writes a list where nobody reads yet.
pub(crate) fn write(disk: &dyn Disk, listed: &[Listed]) -> std::io::Result<()> {
    disk::write_whole(disk, LIST_FILE, &bytes(listed))
}

/// Opens all shelves that are listed.
///
/// # Errors
/// One is missing or not as it was written.
pub(crate) fn open(disk: &dyn Disk, listed: &[Listed]) -> Result<Shelves, JournalError> {
    let mut shelves = Shelves::default();
    for one in listed {
        let shelf = Shelf::open(disk, one.number, &one.gone)?;
        shelf.is_listed(one)?;
        shelves = shelves.with(Some(Arc::new(shelf)), &[]);
    }
    Ok(shelves)
}

/// The numbers of all shelves on disk, listed or not.
pub(crate) fn numbers(disk: &dyn Disk) -> Result<Vec<u64>, JournalError> {
    let names = disk.list().map_err(|error| JournalError::io(disk.place(""), &error))?;
    Ok(names.iter().filter_map(|name| shelf::number(name)).collect())
}
