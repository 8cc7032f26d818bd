//! Making a journal of a backup, or of the folder of a journal that is closed.

use std::path::Path;
use std::time::Duration;

use onlyonce_core::Timestamp;

use crate::check::check_held;
use crate::dir;
use crate::error::JournalError;
use crate::label;
use crate::progress::{Progress, SILENT};
use crate::rebuild::{Order, Past, Rebuilt, rebuild};

/// What came of a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Records that are in the new journal.
    pub records: u64,
    /// How many of them are unknown now, since they may have gone on after the backup.
    pub made_unknown: u64,
    /// When the backup was taken; `None` if it was the folder of a journal.
    pub taken: Option<Timestamp>,
    /// Keys with an earlier time that have no record are refused.
    pub floor: Timestamp,
}

/// Makes a new journal in `to` of the backup or closed journal in `from`, with the same secret.
///
/// Operations may have run after the copy was made. So every claim that was open in it and every
/// key that was free is unknown, and the floor is `now` and `key_ahead_max`: keys with an earlier
/// time that have no record are refused. A key without a time that has no record cannot be told
/// from a new one.
///
/// # Errors
/// `from` is neither, is damaged or not whole, another process has it, or its secret is missing;
/// `to` exists. Nothing is left at `to` then.
pub fn restore(
    from: &Path,
    to: &Path,
    now: Timestamp,
    key_ahead_max: Duration,
) -> Result<Restored, JournalError> {
    restore_with(from, to, now, key_ahead_max, SILENT)
}

/// The same, and tells how far it is: each segment is read three times.
///
/// # Errors
/// As [`restore`].
pub fn restore_with(
    from: &Path,
    to: &Path,
    now: Timestamp,
    key_ahead_max: Duration,
    progress: Progress<'_>,
) -> Result<Restored, JournalError> {
    let taken = label::read(from)?.extent.map(|extent| extent.taken);
    let _lock = dir::hold(from)?;
    let secret = dir::secret(from)?;
    let found = check_held(from, &|at, of| progress(at, 3 * of))?.findings;
    if let Some(damage) = found.iter().find(|finding| finding.is_damage) {
        return Err(JournalError::damaged(&damage.file, damage.offset, &damage.text));
    }
    let order = Order {
        // What was never confirmed is no more in it than when it is opened.
        past: Past::Stop,
        now,
        floor: now.plus(key_ahead_max),
        by: "restore",
        why: "later entries are not in the backup",
    };
    let copying = |at, of| progress(of / 2 + at, of / 2 * 3);
    let rebuilt = rebuild(from, to, &secret, &order, &copying)?;
    let Rebuilt { records, made_unknown, floor, lost: _ } = rebuilt;
    Ok(Restored { records, made_unknown, taken, floor: floor.time() })
}
