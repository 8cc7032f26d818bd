//! Looking a journal through without changing anything.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::dir;
use crate::disk::{Disk, Folder};
use crate::entry::Entry;
use crate::error::JournalError;
use crate::label::{self, Extent};
use crate::progress::{Progress, SILENT};
use crate::segment::{self, Header};
use crate::shelf::{self, Shelf};
use crate::shelves;
use crate::snapshot;
use crate::survey::{Survey, survey};

/// What a journal looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments that were read.
    pub segments: usize,
    /// Entries about keys that can be read, on shelves too.
    pub entries: u64,
    /// What was found, in the order of files and places.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether the journal refuses to open, or a record in it cannot be read.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.is_damage)
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What.
    pub text: String,
    /// Whether something that had been confirmed is lost; if not, opening mends it by itself.
    pub is_damage: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_damage { "damage" } else { "note" };
        write!(f, "{kind}: {} at byte {}: {}", self.file.display(), self.offset, self.text)
    }
}

/// Reads every entry of every segment and shelf of the journal or backup in `dir`.
///
/// # Errors
/// There is no journal, another process has it, or a file cannot be read at all.
pub fn check(dir: &Path) -> Result<Report, JournalError> {
    check_with(dir, SILENT)
}

/// The same, and tells how far it is.
///
/// # Errors
/// As [`check`].
pub fn check_with(dir: &Path, progress: Progress<'_>) -> Result<Report, JournalError> {
    if !dir::exists(dir) {
        dir::secret(dir)?;
    }
    let _lock = dir::hold(dir)?;
    check_held(dir, progress)
}

/// The same for who holds it already.
pub(crate) fn check_held(dir: &Path, progress: Progress<'_>) -> Result<Report, JournalError> {
    let mut report = Report::default();
    if let Err(error) = dir::secret(dir) {
        report.find(error.place(), 0, error.to_string(), true);
    }
    let disk = Folder::at(dir);
    let numbers = segment::numbers(&disk)?;
    if numbers.is_empty() {
        report.find(dir, 0, "there is no segment", true);
    }
    let read = |number: u64| -> Result<(PathBuf, Bytes), JournalError> {
        let place = disk.place(&segment::name(number));
        let all = fs::read(&place).map_err(|error| JournalError::io(&place, &error))?;
        Ok((place, Bytes::from(all)))
    };
    let extent = label::read(dir).ok().and_then(|label| label.extent);
    if let Some(extent) = &extent {
        report.is_whole(extent, &disk, &numbers);
    }
    let mut before = None;
    for (at, number) in numbers.iter().enumerate() {
        let (place, all) = read(*number)?;
        let next = numbers.get(at + 1).map(|next| read(*next)).transpose()?;
        let next = next.and_then(|(_, all)| Header::parse(&all).ok());
        match Header::parse(&all) {
            Err(why) => report.find(&place, 0, why, true),
            Ok(header) if before.is_some_and(|before| before != header.previous.segment) => {
                let text = format!("segment {} before it is missing", header.previous.segment);
                report.find(&place, 24, text, true);
            }
            Ok(_) => {}
        }
        let survey = survey(&all, *number);
        let sealed_at = next.map(|header| header.previous.offset);
        // A backup says where its last one ends, of which a journal has only marks.
        let last = extent.filter(|extent| extent.until.segment == *number);
        let sealed_at = sealed_at.or(last.map(|extent| extent.until.offset));
        report.look_through(&place, *number, &survey, sealed_at);
        if let Some((offset, error)) = &survey.newer {
            report.find(&place, *offset, error.to_string(), true);
        }
        if let Some(end) = sealed_at
            && extent.is_none()
            && snapshot::read(&disk, *number, end).is_none()
        {
            let place = disk.place(&snapshot::name(*number));
            report.find(&place, 0, "the snapshot is missing or wrong; it is made again", false);
        }
        before = Some(*number);
        progress(at + 1, numbers.len());
    }
    report.look_at_shelves(&disk);
    Ok(report)
}

impl Report {
    fn look_at_shelves(&mut self, disk: &Folder) {
        let wrong = |error: &JournalError, report: &mut Self| {
            let (text, offset) = (error.text().to_owned(), error.offset().unwrap_or_default());
            report.find(error.place(), offset, text, true);
        };
        let listed = match shelves::read(disk) {
            Ok(listed) => listed.unwrap_or_default(),
            Err(error) => return wrong(&error, self),
        };
        for one in &listed {
            let shelf = match Shelf::open(disk, one.number, &one.gone) {
                Ok(shelf) => shelf,
                Err(error) => {
                    wrong(&error, self);
                    continue;
                }
            };
            if let Err(error) = shelf.is_listed(one) {
                wrong(&error, self);
            }
            for block in 0..shelf.blocks() {
                match shelf.check_block(block) {
                    Ok(entries) => self.entries += entries.len() as u64,
                    Err(error) => wrong(&error, self),
                }
            }
        }
        let is_listed = |number: &u64| listed.iter().any(|one| one.number == *number);
        let left = shelves::numbers(disk).unwrap_or_default();
        for number in left.into_iter().filter(|number| !is_listed(number)) {
            let place = disk.place(&shelf::name(number));
            self.find(&place, 0, "it is not in the list of shelves; opening removes it", false);
        }
    }

    fn find(&mut self, file: &Path, offset: u64, text: impl Into<String>, is_damage: bool) {
        let (file, text) = (file.to_owned(), text.into());
        self.findings.push(Finding { file, offset, text, is_damage });
    }

    /// Whether a backup has all that it had: segments at either end leave no gap when they go.
    fn is_whole(&mut self, extent: &Extent, disk: &Folder, numbers: &[u64]) {
        for number in [extent.from, extent.until.segment] {
            if !numbers.contains(&number) {
                let place = disk.place(&segment::name(number));
                self.find(&place, 0, "the segment is missing in this backup", true);
            }
        }
    }

    fn look_through(&mut self, place: &Path, number: u64, survey: &Survey, sealed: Option<u64>) {
        self.segments += 1;
        let about_keys = |entry: &Entry| matches!(entry, Entry::Record(..) | Entry::Deleted(..));
        self.entries += survey.entries.iter().filter(|(_, entry)| about_keys(entry)).count() as u64;
        let synced = sealed.unwrap_or_else(|| synced(survey, number));
        for gap in &survey.gaps {
            let text = format!("{}; nothing can be read up to byte {}", gap.why, gap.until);
            // What follows a break that nothing proves synced was never confirmed either.
            self.find(place, gap.from, text, gap.from < synced);
        }
        if survey.end < synced {
            let why = survey.broken.unwrap_or("entries are missing");
            self.find(place, survey.end, format!("{why}; it was synced up to {synced}"), true);
        } else if let Some(why) = survey.broken {
            let text =
                format!("{why}: nothing proves that this write was confirmed; opening cuts it");
            self.find(place, survey.end, text, false);
        }
    }
}

/// How far marks prove the last segment to be synced.
fn synced(survey: &Survey, number: u64) -> u64 {
    let marks = survey.entries.iter().filter_map(|(_, entry)| match entry {
        Entry::Mark(position) if position.segment == number => Some(position.offset),
        Entry::Mark(_) | Entry::Record(..) | Entry::Deleted(..) | Entry::Floor(_) => None,
    });
    marks.max().unwrap_or(0)
}
