//! The file that says what a folder is: a journal, or a backup of one. Written last when either is
//! made, so that a half-made one is neither.

use std::fs;
use std::io;
use std::path::Path;

use onlyonce_core::{Secret, Timestamp};

use crate::disk::{self, Disk};
use crate::entry::Position;
use crate::error::{JournalError, JournalErrorKind};

pub(crate) const FORMAT_FILE: &str = "format";
const JOURNAL_LINE: &str = "onlyonce journal, format 1";
/// Of a journal that has a list of shelves: a program that knows none would forget what is on them.
const SHELVED_LINE: &str = "onlyonce journal, format 2";
// A line of the same file and not a file of its own: a copy of the folder that misses some files
// is then never a backup that is taken for a journal.
const BACKUP_LINE: &str = "onlyonce backup, format 1";
const SHELVED_BACKUP_LINE: &str = "onlyonce backup, format 2";
/// The newest format of either.
const NEWEST: u32 = 2;

/// What the folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The check value of its secret, in hexadecimal.
    pub(crate) check: Option<String>,
    /// `None` for a journal.
    pub(crate) extent: Option<Extent>,
    /// Whether it has a list of shelves.
    pub(crate) has_shelves: bool,
}

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// When it was taken: all that had been confirmed by then is in it.
    pub(crate) taken: Timestamp,
    /// Its first segment.
    pub(crate) from: u64,
    /// Its last segment, and where that ends.
    pub(crate) until: Position,
}

/// Reads what the folder is.
///
/// # Errors
/// It is neither a journal nor a backup, or a newer program made it.
pub(crate) fn read(dir: &Path) -> Result<Label, JournalError> {
    let place = dir.join(FORMAT_FILE);
    let text = match fs::read_to_string(&place) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = "there is no journal here; `onlyonce store init` makes one";
            return Err(JournalError::new(JournalErrorKind::Missing, dir, text));
        }
        Err(error) => return Err(JournalError::io(&place, &error)),
    };
    let wrong = |text: String| JournalError::new(JournalErrorKind::Format, &place, text);
    let mut lines = text.lines();
    let first = lines.next();
    let check = lines.next().and_then(|line| line.strip_prefix("secret ")).map(str::to_owned);
    let has_shelves = matches!(first, Some(SHELVED_LINE | SHELVED_BACKUP_LINE));
    match first {
        Some(JOURNAL_LINE | SHELVED_LINE) => Ok(Label { check, extent: None, has_shelves }),
        Some(BACKUP_LINE | SHELVED_BACKUP_LINE) => {
            let extent =
                extent(lines).ok_or_else(|| wrong("what the backup holds is missing".into()))?;
            Ok(Label { check, extent: Some(extent), has_shelves })
        }
        Some(line) if let Some(format) = format_of(line) => Err(wrong(format!(
            "format {format} is not known here, where the newest is {NEWEST}: use a newer onlyonce"
        ))),
        Some(_) | None => Err(wrong(format!(
            "the first line is neither `{SHELVED_LINE}` nor `{SHELVED_BACKUP_LINE}`, nor one of \
             format 1"
        ))),
    }
}

/// The format in a first line that is like those here.
fn format_of(line: &str) -> Option<u32> {
    let (what, format) = line.rsplit_once(" format ")?;
    ["onlyonce journal,", "onlyonce backup,"].contains(&what).then(|| format.parse().ok()).flatten()
}

/// Whether the label on this disk says that there is a list of shelves.
pub(crate) fn has_shelves(disk: &dyn Disk) -> Result<bool, JournalError> {
    let bytes = match disk.open(FORMAT_FILE).and_then(|medium| medium.read_all()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(JournalError::io(disk.place(FORMAT_FILE), &error)),
    };
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(first == SHELVED_LINE.as_bytes() || first == SHELVED_BACKUP_LINE.as_bytes())
}

fn extent<'a>(mut lines: impl Iterator<Item = &'a str>) -> Option<Extent> {
    let mut line = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
    let taken = Timestamp::from_millis(line("taken")?.parse().ok()?);
    let from = line("from")?.parse().ok()?;
    let (segment, offset) = line("until")?.split_once(' ')?;
    let until = Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? };
    Some(Extent { taken, from, until })
}

/// Says what the folder is. All else in it must be durable by then.
pub(crate) fn write(
    disk: &dyn Disk,
    secret: &Secret,
    extent: Option<Extent>,
    has_shelves: bool,
) -> io::Result<()> {
    let check = hex(&secret.check_value());
    let (journal, backup) = match has_shelves {
        true => (SHELVED_LINE, SHELVED_BACKUP_LINE),
        false => (JOURNAL_LINE, BACKUP_LINE),
    };
    let text = match extent {
        None => format!("{journal}\nsecret {check}\n"),
        Some(Extent { taken, from, until }) => {
            let (taken, Position { segment, offset }) = (taken.as_millis(), until);
            format!(
                "{backup}\nsecret {check}\ntaken {taken}\nfrom {from}\nuntil {segment} \
                 {offset}\n"
            )
        }
    };
    disk::write_whole(disk, FORMAT_FILE, text.as_bytes())
}

impl Label {
    /// That it is a journal.
    ///
    /// # Errors
    /// It is a backup.
    pub(crate) fn refuse_backup(&self, dir: &Path) -> Result<(), JournalError> {
        if self.extent.is_none() {
            return Ok(());
        }
        let text = "this is a backup: what ran after it was taken is not in it, and would run \
                    again; `onlyonce journal restore` makes a journal of it";
        Err(JournalError::new(JournalErrorKind::Backup, dir, text))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
