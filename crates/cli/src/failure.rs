//! Why a command failed: who failed, whether anything happened, whether to send it again.

use std::fmt;

use onlyonce::EngineError;
use onlyonce_journal::{JournalError, JournalErrorKind};
use onlyonce_store::{StoreError, StoreErrorKind};

use crate::exit::Exit;

/// A command failed. Its [`Exit`] says whether anything happened and whether to repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// Who failed, and why.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), hint: None }
    }

    /// The same with what to do about it.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n({})", self.what, self.exit.meaning())?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let exit = match error.kind() {
            StoreErrorKind::NotApplied | StoreErrorKind::Full | StoreErrorKind::Damaged => {
                Exit::StoreUnavailable
            }
            StoreErrorKind::Unknown => Exit::Unknown,
            StoreErrorKind::Poisoned => Exit::Poisoned,
        };
        Self::new(exit, error.to_string())
    }
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

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        if let EngineError::Store(error) = error {
            return error.into();
        }
        if let EngineError::ClockDoubtful { .. } = error {
            let hint = "set the clock right; if it is right, start with --clock-is-right";
            return Self::new(Exit::StoreUnavailable, error.to_string()).with_hint(hint);
        }
        let lost = error == EngineError::StoreTimeout;
        let exit = if lost { Exit::Unknown } else { Exit::StoreUnavailable };
        Self::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Unavailable, error.to_string())
    }
}
