//! Where a store is, as it is written on the command line. The only file that names stores.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use onlyonce_core::{Floor, Timestamp};
use onlyonce_journal::{Journal, JournalError, JournalErrorKind, Settings, Start};

use crate::exit::Exit;
use crate::failure::Failure;

/// How far ahead of ours a client's clock may be: what a strict start adds to the present.
pub(crate) const KEY_AHEAD_MAX: Duration = Duration::from_secs(300);

/// A store's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A journal in this folder.
    Journal(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("journal", dir)) if !dir.is_empty() => Ok(Self::Journal(dir.into())),
            _ => Err("it must be journal:DIR, such as journal:./onlyonce-data".to_owned()),
        }
    }
}

impl Place {
    /// The journal's folder.
    pub(crate) fn dir(&self) -> &Path {
        let Self::Journal(dir) = self;
        dir
    }
}

/// The present time.
#[allow(clippy::disallowed_methods, reason = "the tools have no engine to ask")]
pub(crate) fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// A start that assumes there was another store before.
pub(crate) fn strict() -> Start {
    Start::Strict { floor: Floor::at(now().plus(KEY_AHEAD_MAX)) }
}

/// Opens the journal, or makes it first; says whether it did.
pub(crate) fn open_or_create(
    dir: &Path,
    settings: Settings,
    start: Start,
) -> Result<(Journal, bool), Failure> {
    Journal::open_or_create(dir, settings, start).map_err(Failure::from)
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let dir = error.place().display().to_string();
        let hint = match error.kind() {
            JournalErrorKind::Damaged => Some(
                "`onlyonce journal check DIR` lists what is wrong, `onlyonce journal salvage DIR \
                 NEW` saves the rest"
                    .to_owned(),
            ),
            JournalErrorKind::Missing => {
                Some(format!("`onlyonce store init --first --store journal:{dir}`"))
            }
            JournalErrorKind::Backup => Some(format!("`onlyonce journal restore {dir} NEW`")),
            JournalErrorKind::Exists
            | JournalErrorKind::Locked
            | JournalErrorKind::Format
            | JournalErrorKind::Secret
            | JournalErrorKind::Io => None,
        };
        let exit = match error.kind() {
            JournalErrorKind::Exists => Exit::Refused,
            JournalErrorKind::Missing
            | JournalErrorKind::Locked
            | JournalErrorKind::Damaged
            | JournalErrorKind::Format
            | JournalErrorKind::Secret
            | JournalErrorKind::Backup
            | JournalErrorKind::Io => Exit::StoreUnavailable,
        };
        let failure = Self::new(exit, error.to_string());
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_kind_and_place() {
        assert_eq!("journal:./a:b".parse(), Ok(Place::Journal("./a:b".into())));
        for wrong in ["", "journal:", "./data", "journals:x"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
