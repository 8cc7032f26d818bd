//! The thread behind the writer: makes the next segment ahead, and snapshots of sealed ones.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use onlyonce_failpoint::failpoint;

use crate::disk::{Disk, Medium};
use crate::pace::Pace;
use crate::segment;
use crate::shelf;
use crate::snapshot::{self, Snapshot};

/// Zeros are written and synced in pieces of this many bytes: the writer's own syncs wait behind
/// them on the same disk, 2 ms where it takes 250 MB a second.
const PIECE: usize = 512 << 10;

/// Something to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chore {
    /// Make the file of this segment, full of zeros.
    Prepare { number: u64 },
    /// Write the snapshot of this sealed segment.
    Snapshot { number: u64, end: u64 },
}

/// A file full of zeros that are on the disk: writing over them needs no new room, and syncs
/// faster than a file that grows.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) length: u64,
}

/// How large things may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) segment: u64,
    pub(crate) disk_max: Option<u64>,
}

/// Until the writer is gone. While it waits for the next segment there are no pauses.
pub(crate) fn run(
    disk: &dyn Disk,
    sizes: Sizes,
    (chores, waits): (&Receiver<Chore>, &AtomicBool),
    prepared: &Sender<Result<Prepared, String>>,
) {
    while let Ok(chore) = chores.recv() {
        match chore {
            Chore::Prepare { number } => {
                failpoint!("journal.prepare.before", number);
                let made = prepare(disk, sizes, number, waits).map_err(|error| error.to_string());
                failpoint!("journal.prepare.after", number);
                if prepared.send(made).is_err() {
                    return;
                }
            }
            Chore::Snapshot { number, end } => {
                // Without a snapshot the next opening is slower, and nothing else.
                if let Ok(scan) = segment::scan_slowly(disk, number)
                    && scan.end == end
                {
                    failpoint!("journal.snapshot.before", number);
                    let _ = snapshot::write(disk, &Snapshot::of(&scan));
                    failpoint!("journal.snapshot.after", number);
                }
            }
        }
    }
}

fn prepare(disk: &dyn Disk, sizes: Sizes, number: u64, waits: &AtomicBool) -> io::Result<Prepared> {
    if let Some(max) = sizes.disk_max {
        let used = used(disk)?;
        if max < used + sizes.segment {
            let text = format!("{used} of {max} bytes are in use");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, text));
        }
    }
    let name = format!("{}.new", segment::name(number));
    let made = zeros_beside(disk, &name, sizes.segment, waits);
    if made.is_err() {
        // What was taken from a full disk is given back.
        let _ = disk.remove(&name);
    }
    Ok(Prepared { medium: made?, name, length: sizes.segment })
}

/// A new file of zeros, synced.
pub(crate) fn zeros(disk: &dyn Disk, name: &str, length: u64) -> io::Result<Arc<dyn Medium>> {
    zeros_beside(disk, name, length, &AtomicBool::new(true))
}

/// The same with half of the disk's time left to others, unless somebody waits for it.
fn zeros_beside(
    disk: &dyn Disk,
    name: &str,
    length: u64,
    waits: &AtomicBool,
) -> io::Result<Arc<dyn Medium>> {
    let medium = disk.create(name)?;
    let piece = vec![0; PIECE.min(length as usize)];
    let mut offset = 0;
    while offset < length {
        let now = (piece.len() as u64).min(length - offset);
        let pace = Pace::begin();
        medium.write_at(&piece[..now as usize], offset)?;
        medium.sync()?;
        offset += now;
        if !waits.load(Ordering::Relaxed) {
            pace.end().pause();
        }
    }
    Ok(medium)
}

/// How much segments and shelves take, in bytes. Snapshots are not counted; they take a fiftieth.
pub(crate) fn used(disk: &dyn Disk) -> io::Result<u64> {
    let names = disk.list()?;
    let is_counted =
        |name: &&String| segment::number(name).is_some() || shelf::number(name).is_some();
    let counted = names.iter().filter(is_counted);
    counted.map(|name| disk.open(name)?.len()).sum()
}
