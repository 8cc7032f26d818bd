//! A new journal of another one's records, for when later ones may be missing: what was open or
//! free becomes unknown, and the floor rises.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_executor::block_on;
use futures_util::future::join_all;
use onlyonce_core::{
    Floor, KeyId, Record, Revision, Secret, State, StateKind, Timestamp, restored,
};
use onlyonce_store::Store as _;

use crate::check::Finding;
use crate::dir::{self, Names};
use crate::disk::{Disk, Folder};
use crate::entry::Entry;
use crate::error::{JournalError, JournalErrorKind};
use crate::journal::{Journal, Settings};
use crate::label;
use crate::progress::Progress;
use crate::segment::{self, Header};
use crate::shelf::{self, Found, Shelf};
use crate::shelves::{self, Listed};
use crate::staging;
use crate::survey::{Survey, survey};

/// Records that are written with one sync.
const AT_ONCE: usize = 1_000;
/// Bytes of replies that are written with one sync; one reply may be larger.
const BYTES_AT_ONCE: usize = 16 << 20;

/// What to do at a place of a segment that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// What follows was never confirmed.
    Stop,
    /// What follows may be all that is left.
    GoOn,
}

/// How a journal is made of another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) past: Past,
    pub(crate) now: Timestamp,
    /// The new floor, unless the old one is higher.
    pub(crate) floor: Timestamp,
    /// For the history of what becomes unknown.
    pub(crate) by: &'static str,
    pub(crate) why: &'static str,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Rebuilt {
    pub(crate) records: u64,
    pub(crate) made_unknown: u64,
    pub(crate) floor: Floor,
    pub(crate) lost: Vec<Finding>,
}

/// Makes a journal in `to` of what is in `from`. Two passes, so that the replies of one segment
/// are in memory at a time and not all there are.
pub(crate) fn rebuild(
    from: &Path,
    to: &Path,
    secret: &Secret,
    order: &Order,
    progress: Progress<'_>,
) -> Result<Rebuilt, JournalError> {
    let source = Source { disk: Folder::at(from), past: order.past };
    let standing = source.standing(order.floor, progress)?;
    let header = Header {
        number: 1,
        floor: standing.floor,
        revision_max: standing.revision_max,
        ..Header::default()
    };
    staging::make(to, |new| {
        let (disk, settings) = (Folder::at(new), Settings::default());
        dir::begin(&disk, &header, secret, settings.segment_bytes)
            .map_err(|error| JournalError::io(new, &error))?;
        let disk = Arc::new(disk);
        let journal = Journal::on(Arc::clone(&disk) as _, settings, secret.clone(), None)?;
        let mut copy = Copy::new(&journal, order);
        let numbers = segment::numbers(&source.disk)?;
        for (at, number) in numbers.iter().copied().enumerate() {
            for (offset, entry) in source.survey(number)?.1.entries {
                let Entry::Record(id, record) = entry else { continue };
                if standing.lives(id, Place::Log(number, offset)) {
                    copy.take(id, record)?;
                }
            }
            progress(numbers.len() + at + 1, 2 * numbers.len());
        }
        for one in source.shelves()?.listed {
            source.walk(&one, |at, Found { id, record, .. }| {
                let lives = standing.lives(id, Place::Shelf(one.number, at));
                if lives { copy.take(id, record) } else { Ok(()) }
            })?;
        }
        copy.flush()?;
        let Copy { records, made_unknown, .. } = copy;
        journal.close();
        // Until now nobody can have opened it.
        Names::read(&source.disk)?
            .write(&*disk)
            .and_then(|()| label::write(&*disk, secret, None, false))
            .map_err(|error| JournalError::io(new, &error))?;
        let (floor, lost) = (standing.floor, standing.lost);
        Ok(Rebuilt { records, made_unknown, floor, lost })
    })
}

struct Source {
    disk: Folder,
    past: Past,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A segment, and the offset in it.
    Log(u64, u64),
    /// A shelf, and how many tombstones stand before.
    Shelf(u64, u32),
}

/// What counts in the old journal.
struct Standing {
    /// The newest revision of each key, and where it stands: `None` for what was deleted, so that
    /// no older entry brings it back.
    newest: HashMap<KeyId, (Revision, Option<Place>)>,
    floor: Floor,
    revision_max: u64,
    lost: Vec<Finding>,
}

impl Source {
    fn survey(&self, number: u64) -> Result<(PathBuf, Survey, Option<Header>), JournalError> {
        let place = self.disk.place(&segment::name(number));
        let all = std::fs::read(&place).map_err(|error| JournalError::io(&place, &error))?;
        let header = Header::parse(&all).ok();
        let mut survey = survey(&Bytes::from(all), number);
        // To leave out what is not understood would let it run again.
        if let Some((offset, error)) = survey.newer {
            let error = JournalError::new(JournalErrorKind::Format, &place, error.to_string());
            return Err(error.at(offset));
        }
        if let (Past::Stop, Some(gap)) = (self.past, survey.gaps.first()) {
            let end = gap.from;
            survey.entries.retain(|(offset, _)| *offset < end);
        }
        Ok((place, survey, header))
    }

    fn standing(&self, floor: Timestamp, progress: Progress<'_>) -> Result<Standing, JournalError> {
        let mut standing = Standing {
            newest: HashMap::new(),
            floor: Floor::at(floor),
            revision_max: 0,
            lost: Vec::new(),
        };
        let numbers = segment::numbers(&self.disk)?;
        for (at, number) in numbers.iter().copied().enumerate() {
            let (place, survey, header) = self.survey(number)?;
            if let Some(header) = header {
                standing.floor = standing.floor.max(header.floor);
                standing.revision_max = standing.revision_max.max(header.revision_max);
            }
            standing.miss(&place, &survey);
            for (offset, entry) in &survey.entries {
                standing.take(Place::Log(number, *offset), entry);
            }
            progress(at + 1, 2 * numbers.len());
        }
        let shelves = self.shelves()?;
        standing.lost.extend(shelves.lost);
        for one in &shelves.listed {
            let lost = self.walk(one, |at, found| {
                standing.take_record(found.id, found.record.revision, Place::Shelf(one.number, at));
                Ok(())
            })?;
            standing.lost.extend(lost);
        }
        Ok(standing)
    }

    /// The shelves there are. If their list is lost, each that is there counts whole: what was
    /// forgotten is refused again then, and nothing runs.
    fn shelves(&self) -> Result<ToRead, JournalError> {
        let lost = match shelves::read(&self.disk) {
            Ok(listed) => {
                return Ok(ToRead { listed: listed.unwrap_or_default(), lost: Vec::new() });
            }
            Err(error) => vec![lost(error)?],
        };
        let numbers = shelves::numbers(&self.disk).unwrap_or_default();
        let whole = |number| Listed { number, length: 0, entries: 0, gone: Vec::new() };
        Ok(ToRead { listed: numbers.into_iter().map(whole).collect(), lost })
    }

    /// What counts on a shelf and can be read, with how many stand before each; and what is lost.
    fn walk(
        &self,
        one: &Listed,
        mut take: impl FnMut(u32, Found) -> Result<(), JournalError>,
    ) -> Result<Vec<Finding>, JournalError> {
        let shelf = match Shelf::open(&self.disk, one.number, &one.gone) {
            Ok(shelf) => shelf,
            Err(error) => return self.walk_bare(one.number, error, take),
        };
        let mut findings = Vec::new();
        for block in 0..shelf.blocks() {
            let all = match shelf.check_block(block) {
                Ok(all) => all,
                Err(error) => {
                    let tombstones = shelf.ordinal(block + 1) - shelf.ordinal(block);
                    let finding = lost(error)?;
                    let text = format!("{}; {tombstones} tombstones are lost", finding.text);
                    findings.push(Finding { text, ..finding });
                    continue;
                }
            };
            for found in all.into_iter().filter(|found| !shelf.is_gone(found.ordinal)) {
                take(found.ordinal, found)?;
            }
        }
        Ok(findings)
    }

    /// The same of one whose ends cannot be read: block by block, and each tombstone counts.
    fn walk_bare(
        &self,
        number: u64,
        why: JournalError,
        mut take: impl FnMut(u32, Found) -> Result<(), JournalError>,
    ) -> Result<Vec<Finding>, JournalError> {
        let place = self.disk.place(&shelf::name(number));
        let (why, mut ordinal) = (lost(why)?, 0);
        if let Ok(all) = std::fs::read(&place) {
            for found in shelf::bare(&place, number, &Bytes::from(all))? {
                take(ordinal, found)?;
                ordinal += 1;
            }
        }
        Ok(vec![why])
    }
}

/// The shelves that are read, and what is lost of their list.
struct ToRead {
    listed: Vec<Listed>,
    lost: Vec<Finding>,
}

/// What is lost where something cannot be read.
///
/// # Errors
/// A newer onlyonce has written it: to leave it out would let it run again.
fn lost(error: JournalError) -> Result<Finding, JournalError> {
    if error.kind() == JournalErrorKind::Format {
        return Err(error);
    }
    Ok(Finding {
        file: error.place().to_owned(),
        offset: error.offset().unwrap_or_default(),
        text: error.text().to_owned(),
        is_damage: true,
    })
}

impl Standing {
    fn miss(&mut self, place: &Path, survey: &Survey) {
        let gaps = survey
            .gaps
            .iter()
            .map(|gap| (gap.from, format!("{}; lost up to byte {}", gap.why, gap.until)));
        let end = survey.broken.map(|why| (survey.end, format!("{why}; lost to the end")));
        self.lost.extend(gaps.chain(end).map(|(offset, text)| {
            let (file, is_damage) = (place.to_owned(), true);
            Finding { file, offset, text, is_damage }
        }));
    }

    fn take(&mut self, place: Place, entry: &Entry) {
        let (id, revision, place) = match entry {
            Entry::Record(id, record) => (*id, record.revision, Some(place)),
            Entry::Deleted(id, revision) => (*id, *revision, None),
            Entry::Floor(floor) => {
                self.floor = self.floor.max(*floor);
                return;
            }
            Entry::Mark(_) => return,
        };
        self.take_at(id, revision, place);
    }

    fn take_record(&mut self, id: KeyId, revision: Revision, place: Place) {
        self.take_at(id, revision, Some(place));
    }

    fn take_at(&mut self, id: KeyId, revision: Revision, place: Option<Place>) {
        self.revision_max = self.revision_max.max(revision.get());
        let newer = self
            .newest
            .get(&id)
            .is_none_or(|(known, _)| *known < revision || (*known == revision && place.is_none()));
        if newer {
            self.newest.insert(id, (revision, place));
        }
    }

    fn lives(&self, id: KeyId, place: Place) -> bool {
        self.newest.get(&id).is_some_and(|(_, newest)| *newest == Some(place))
    }
}

/// The new journal as it fills.
struct Copy<'a> {
    journal: &'a Journal,
    order: &'a Order,
    records: u64,
    made_unknown: u64,
    /// Records that are written next, and the bytes of their replies.
    some: Vec<(KeyId, Record)>,
    bytes: usize,
}

impl<'a> Copy<'a> {
    fn new(journal: &'a Journal, order: &'a Order) -> Self {
        Self { journal, order, records: 0, made_unknown: 0, some: Vec::new(), bytes: 0 }
    }

    /// Takes over a record that is the newest of its key.
    fn take(&mut self, id: KeyId, record: Record) -> Result<(), JournalError> {
        self.bytes += reply_bytes(&record);
        let record = self.in_doubt(record);
        self.some.push((id, record));
        if self.some.len() == AT_ONCE || BYTES_AT_ONCE <= self.bytes {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), JournalError> {
        self.bytes = 0;
        let some = std::mem::take(&mut self.some);
        self.write(some)
    }

    fn write(&mut self, some: Vec<(KeyId, Record)>) -> Result<(), JournalError> {
        self.records += some.len() as u64;
        let swaps = some.into_iter().map(|(id, record)| self.journal.swap(id, None, Some(record)));
        for swapped in block_on(join_all(swaps)) {
            swapped.map_err(|error| {
                let place = self.journal.shared.disk.place("");
                JournalError::new(JournalErrorKind::Io, place, format!("{error}; begin again"))
            })?;
        }
        Ok(())
    }

    /// What can be said of a record whose later entries may be missing.
    fn in_doubt(&mut self, record: Record) -> Record {
        let Order { now, by, why, .. } = *self.order;
        let was_unknown = record.state.kind() == StateKind::Unknown;
        let Some(restored) = restored(now, now, &record, by, why) else { return record };
        self.made_unknown += u64::from(!was_unknown);
        restored
    }
}

fn reply_bytes(record: &Record) -> usize {
    match &record.state {
        State::Completed { reply, .. } => reply.content().map_or(0, Bytes::len),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => 0,
    }
}
