//! A new journal of another one's records, for when later ones may be missing: what was open or
//! free becomes unknown, and the floor rises.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_executor::block_on;
use futures_util::future::join_all;
use onlyonce_core::{
    Cause, Doubt, Entry as Note, Event, Floor, KeyId, Record, Revision, Secret, State, Timestamp,
};
use onlyonce_store::Store as _;

use crate::check::Finding;
use crate::dir::{self, Names};
use crate::disk::{Disk, Folder};
use crate::entry::Entry;
use crate::error::{JournalError, JournalErrorKind};
use crate::journal::{Journal, Settings};
use crate::label;
use crate::segment::{self, Header};
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
) -> Result<Rebuilt, JournalError> {
    let source = Source { disk: Folder::at(from), past: order.past };
    let standing = source.standing(order.floor)?;
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
        let mut copy = Copy { journal: &journal, order, records: 0, made_unknown: 0 };
        for number in segment::numbers(&source.disk)? {
            copy.living(&source.survey(number)?.1, number, &standing)?;
        }
        let Copy { records, made_unknown, .. } = copy;
        journal.close();
        // Until now nobody can have opened it.
        Names::read(&source.disk)?
            .write(&*disk)
            .and_then(|()| label::write(&*disk, secret, None))
            .map_err(|error| JournalError::io(new, &error))?;
        let (floor, lost) = (standing.floor, standing.lost);
        Ok(Rebuilt { records, made_unknown, floor, lost })
    })
}

struct Source {
    disk: Folder,
    past: Past,
}

/// A segment and an offset in it.
type Place = (u64, u64);

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
        if let (Past::Stop, Some(gap)) = (self.past, survey.gaps.first()) {
            let end = gap.from;
            survey.entries.retain(|(offset, _)| *offset < end);
        }
        Ok((place, survey, header))
    }

    fn standing(&self, floor: Timestamp) -> Result<Standing, JournalError> {
        let mut standing = Standing {
            newest: HashMap::new(),
            floor: Floor::at(floor),
            revision_max: 0,
            lost: Vec::new(),
        };
        for number in segment::numbers(&self.disk)? {
            let (place, survey, header) = self.survey(number)?;
            if let Some(header) = header {
                standing.floor = standing.floor.max(header.floor);
                standing.revision_max = standing.revision_max.max(header.revision_max);
            }
            standing.miss(&place, &survey);
            for (offset, entry) in &survey.entries {
                standing.take((number, *offset), entry);
            }
        }
        Ok(standing)
    }
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
}

impl Copy<'_> {
    /// Takes over the records of a segment that are the newest of their keys.
    fn living(
        &mut self,
        survey: &Survey,
        number: u64,
        standing: &Standing,
    ) -> Result<(), JournalError> {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for (offset, entry) in &survey.entries {
            let Entry::Record(id, record) = entry else { continue };
            if !standing.lives(*id, (number, *offset)) {
                continue;
            }
            bytes += reply_bytes(record);
            some.push((*id, self.in_doubt(record.clone())));
            if some.len() == AT_ONCE || BYTES_AT_ONCE <= bytes {
                self.write(std::mem::take(&mut some))?;
                bytes = 0;
            }
        }
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
    fn in_doubt(&mut self, mut record: Record) -> Record {
        match &record.state {
            State::InFlight(_) | State::Released { .. } => {}
            State::Completed { .. } | State::Unknown(_) | State::Tombstone { .. } => return record,
        }
        let Order { now, by, why, .. } = *self.order;
        self.made_unknown += 1;
        record.revision = Revision::after(Some(record.revision), now);
        record.history.push(Note {
            at: now,
            event: Event::Restored,
            fence: record.fence,
            by: by.to_owned(),
            why: why.to_owned(),
        });
        record.state = State::Unknown(Doubt { since: now, cause: Cause::Restored, only: None });
        record
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
