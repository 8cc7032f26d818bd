//! The exit codes: one table for scripts, the help and the documents.

use std::process::ExitCode;

/// How a command ended, as a script sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It was done.
    Done = 0,
    /// The answer is no: nothing was found, or the change was refused. Nothing was changed.
    Refused = 1,
    /// The command line or a file given with it is wrong. Nothing was done.
    Usage = 2,
    /// The store could not be opened or asked. Nothing was changed.
    StoreUnavailable = 3,
    /// The store stopped after a failed write and must be opened anew.
    Poisoned = 4,
    /// The answer was lost: the change may have been made. Commands may be repeated as they are.
    Unknown = 5,
    /// This build or this machine cannot do it.
    Unavailable = 6,
    /// Some of it was done and some not; what was not is named.
    Partly = 7,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub(crate) const ALL: [Self; 8] = [
        Self::Done,
        Self::Refused,
        Self::Usage,
        Self::StoreUnavailable,
        Self::Poisoned,
        Self::Unknown,
        Self::Unavailable,
        Self::Partly,
    ];

    /// What the help and the documents say about it.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "the answer is no, or the change was refused; nothing was changed",
            Self::Usage => "the command line or a file given with it is wrong; nothing was done",
            Self::StoreUnavailable => "the store cannot be opened or asked; nothing was changed",
            Self::Poisoned => "the store stopped after a failed write and must be opened anew",
            Self::Unknown => "the answer was lost; the change may have been made, so repeat it",
            Self::Partly => {
                "some of it was done and some not; what was not is named, with its reason"
            }
            Self::Unavailable => "this build or this machine cannot do it; nothing was done",
        }
    }

    /// The code with this number.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| *exit as u8 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
