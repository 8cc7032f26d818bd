//! Making a new journal of what can still be read of a damaged one.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_executor::block_on;
use futures_util::future::join_all;
use onlyonce_core::{
    Cause, Doubt, Entry as Note, Event, Floor, KeyId, Record, Revision, State, Timestamp,
};
use onlyonce_store::Store as _;

use crate::check::Finding;
use crate::dir::{self, Start};
use crate::disk::{Disk, Folder};
use crate::entry::Entry;
use crate::error::{JournalError, JournalErrorKind};
use crate::journal::{Journal, Settings};
use crate::segment;
use crate::survey::survey;

/// Records that are written with one sync.
const AT_ONCE: usize = 1_000;

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
    let secret = dir::secret(from)?;
    let _lock = dir::lock(from)?;
    let mut result = Salvaged::default();
    let records = read(from, &mut result)?;
    let settings = Settings::default();
    let floor = Floor::at(now.plus(key_ahead_max));
    dir::init(to, Start::Strict { floor }, Some(secret), settings.segment_bytes)?;
    let journal = Journal::open(to, settings)?;
    for some in records.chunks(AT_ONCE) {
        let swaps = some.iter().map(|(id, record)| {
            let record = in_doubt(record.clone(), now, &mut result.made_unknown);
            journal.swap(*id, None, Some(record))
        });
        for swapped in block_on(join_all(swaps)) {
            swapped.map_err(|error| {
                JournalError::new(JournalErrorKind::Io, to, format!("{error}; begin again"))
            })?;
        }
    }
    result.records = records.len() as u64;
    journal.close();
    Ok(result)
}

fn read(from: &Path, result: &mut Salvaged) -> Result<Vec<(KeyId, Record)>, JournalError> {
    let disk = Folder(from.to_owned());
    // `None` for what was deleted, so that no older entry brings it back.
    let mut newest: HashMap<KeyId, (Revision, Option<Record>)> = HashMap::new();
    for number in segment::numbers(&disk)? {
        let place = disk.place(&segment::name(number));
        let all = std::fs::read(&place).map_err(|error| JournalError::io(&place, &error))?;
        let survey = survey(&Bytes::from(all), number);
        for gap in survey.gaps {
            let text = format!("{}; lost up to byte {}", gap.why, gap.until);
            result.lost.push(Finding {
                file: place.clone(),
                offset: gap.from,
                text,
                is_damage: true,
            });
        }
        if let Some(why) = survey.broken {
            let text = format!("{why}; lost to the end");
            let (file, offset) = (place.clone(), survey.end);
            result.lost.push(Finding { file, offset, text, is_damage: true });
        }
        for (_, entry) in survey.entries {
            let (id, revision, record) = match entry {
                Entry::Record(id, record) => (id, record.revision, Some(record)),
                Entry::Deleted(id, revision) => (id, revision, None),
                Entry::Floor(_) | Entry::Mark(_) => continue,
            };
            let newer = newest.get(&id).is_none_or(|(known, _)| {
                *known < revision || (*known == revision && record.is_none())
            });
            if newer {
                newest.insert(id, (revision, record));
            }
        }
    }
    Ok(newest.into_iter().filter_map(|(id, (_, record))| Some((id, record?))).collect())
}

/// What can be said of a record whose later entries may be lost.
fn in_doubt(mut record: Record, now: Timestamp, made_unknown: &mut u64) -> Record {
    match &record.state {
        State::InFlight(_) | State::Released { .. } => {}
        State::Completed { .. } | State::Unknown(_) | State::Tombstone { .. } => return record,
    }
    *made_unknown += 1;
    record.revision = Revision::after(Some(record.revision), now);
    record.history.push(Note {
        at: now,
        event: Event::Restored,
        fence: record.fence,
        by: "salvage".to_owned(),
        why: "later entries may be lost".to_owned(),
    });
    record.state = State::Unknown(Doubt { since: now, cause: Cause::Restored, only: None });
    record
}
