//! The record of one key, read from outside: by who must not open the journal, or cannot.

use std::path::Path;

use onlyonce_core::{KeyId, Record};

use crate::disk::{Disk as _, Folder};
use crate::entry::{self, Entry, Framed};
use crate::error::JournalError;
use crate::recover;
use crate::segment::{self, Fact, What};
use crate::snapshot;

/// The record of a key as it is on disk, also while a process has the journal. Nothing is changed.
/// Tombstones that have left the log for a shelf are not looked for.
///
/// It takes as long as opening: the index files of sealed segments and the last segment are read.
///
/// # Errors
/// There is no journal, it is damaged, or it was changed while it was read.
pub fn peek(dir: &Path, id: KeyId) -> Result<Option<Record>, JournalError> {
    let disk = Folder::at(dir);
    let numbers = segment::numbers(&disk)?;
    let Some((last, sealed)) = numbers.split_last() else { return Ok(None) };
    let active = segment::scan(&disk, *last)?;
    let mut newest = newest(id, *last, &active.facts);
    for (number, end) in sealed.iter().zip(recover::ends(&disk, sealed, &active.header)?) {
        let facts = match snapshot::read(&disk, *number, end) {
            Some(snapshot) => snapshot.facts,
            None => segment::scan(&disk, *number)?.facts,
        };
        newest = newest.max(self::newest(id, *number, &facts));
    }
    let Some(Newest { number, offset, .. }) = newest.filter(|it| !it.is_deleted) else {
        return Ok(None);
    };
    let all = segment::scan(&disk, number)?.all;
    let place = disk.place(&segment::name(number));
    let damaged = || JournalError::damaged(&place, offset, "the entry cannot be read");
    let at = usize::try_from(offset).map_err(|_| damaged())?;
    if all.len() < at {
        return Err(damaged());
    }
    let Framed::Whole(payload) = entry::framed(&all.slice(at..), number, offset) else {
        return Err(damaged());
    };
    match entry::parse(payload) {
        Ok(Entry::Record(found, record)) if found == id => Ok(Some(record)),
        Ok(_) | Err(_) => Err(damaged()),
    }
}

/// Where the newest entry of a key stands. What was deleted goes before a record of its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Newest {
    revision: u64,
    is_deleted: bool,
    number: u64,
    offset: u64,
}

fn newest(id: KeyId, number: u64, facts: &[Fact]) -> Option<Newest> {
    let of_key = facts.iter().filter(|fact| fact.id == id);
    let all = of_key.map(|fact| {
        let is_deleted = fact.what == What::Deleted;
        let (revision, offset) = (fact.revision, u64::from(fact.offset));
        Newest { revision, is_deleted, number, offset }
    });
    all.max()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use bytes::Bytes;
    use futures_executor::block_on;
    use onlyonce_core::{Cause, Doubt, Evidence, Fence, History, Revision, State, Timestamp};
    use onlyonce_store::Store as _;

    use super::*;
    use crate::{Journal, Settings, Start};

    const MARK: KeyId = KeyId::from_bytes(*b"a program's mark");

    fn mark(revision: u64) -> Record {
        let revision = Revision::new(revision).unwrap();
        let since = Timestamp::from_millis(1);
        Record {
            revision,
            fingerprint: None,
            credential: None,
            first_fence: Fence::of(revision),
            fence: Fence::of(revision),
            attempt: 0,
            first_commit_at: None,
            runs_authorised: 0,
            rerun: false,
            key_time: None,
            evidence: Evidence::new(vec![7; 4_000]),
            history: History::default(),
            state: State::Unknown(Doubt { since, cause: Cause::Restored, only: None }),
        }
    }

    fn contents(dir: &Path) -> BTreeMap<PathBuf, Bytes> {
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), Bytes::from(std::fs::read(path).unwrap()))).collect()
    }

    #[test]
    fn the_newest_of_a_key_is_found_from_outside_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        let settings = Settings { segment_bytes: 128 << 10, ..Settings::DEFAULT };
        Journal::init(&dir, settings, Start::First).unwrap();
        assert_eq!(peek(&dir, MARK).unwrap(), None);
        let journal = Journal::open(&dir, settings).unwrap();
        let put = |id, before: Option<u64>, next: Option<Record>| {
            let expected = before.and_then(Revision::new);
            block_on(journal.swap(id, expected, next)).unwrap();
        };
        let fill = |from: u64| {
            // Over several segments.
            (from..from + 100).for_each(|at| {
                put(KeyId::from_bytes([at as u8; 16]), None, Some(mark(at)));
            });
        };
        put(MARK, None, Some(mark(1_000)));
        fill(1);
        assert_eq!(peek(&dir, MARK).unwrap(), Some(mark(1_000)), "it is in use");
        put(MARK, Some(1_000), Some(mark(1_001)));
        fill(101);
        assert_eq!(peek(&dir, MARK).unwrap(), Some(mark(1_001)));
        journal.close();
        let before = contents(&dir);
        assert_eq!(peek(&dir, MARK).unwrap(), Some(mark(1_001)));
        assert!(contents(&dir) == before, "it was changed");
        for index in before.keys().filter(|path| path.extension().is_some_and(|it| it == "idx")) {
            std::fs::remove_file(index).unwrap();
        }
        assert_eq!(peek(&dir, MARK).unwrap(), Some(mark(1_001)), "without index files");
        let journal = Journal::open(&dir, settings).unwrap();
        let gone = Revision::new(1_001);
        block_on(journal.swap(MARK, gone, None)).unwrap();
        assert_eq!(peek(&dir, MARK).unwrap(), None);
    }
}
