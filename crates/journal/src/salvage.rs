//! Making a new journal of what can still be read of a damaged one.

use std::path::Path;
use std::time::Duration;

use onlyonce_core::Timestamp;

use crate::check::Finding;
use crate::dir;
use crate::error::JournalError;
use crate::progress::{Progress, SILENT};
use crate::rebuild::{Order, Past, Rebuilt, rebuild};

/// What came of a salvage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Records that are in the new journal.
    pub records: u64,
    /// How many of them are unknown now, since what became of them may be lost.
    pub made_unknown: u64,
    /// What could not be read.
    pub lost: Vec<Finding>,
}

/// Copies what can be read of the journal in `from` to a new one in `to`, with the same secret.
///
/// Whatever followed may be lost, so every claim that is open and every key that is free becomes
/// unknown, and the floor is `now` and `key_ahead_max`: keys with an earlier time that have no
/// record are refused.
///
/// # Errors
/// `from` is no journal, another process has it, or its secret is missing; `to` exists.
pub fn salvage(
    from: &Path,
    to: &Path,
    now: Timestamp,
    key_ahead_max: Duration,
) -> Result<Salvaged, JournalError> {
    salvage_with(from, to, now, key_ahead_max, SILENT)
}

/// The same, and tells how far it is: each segment is read twice.
///
/// # Errors
/// As [`salvage`].
pub fn salvage_with(
    from: &Path,
    to: &Path,
    now: Timestamp,
    key_ahead_max: Duration,
    progress: Progress<'_>,
) -> Result<Salvaged, JournalError> {
    let secret = dir::secret(from)?;
    let _lock = dir::hold(from)?;
    let order = Order {
        past: Past::GoOn,
        now,
        floor: now.plus(key_ahead_max),
        by: "salvage",
        why: "later entries may be lost",
    };
    let rebuilt = rebuild(from, to, &secret, &order, progress)?;
    let Rebuilt { records, made_unknown, lost, .. } = rebuilt;
    Ok(Salvaged { records, made_unknown, lost })
}
