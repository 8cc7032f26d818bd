//! What an error of the server, or its silence, means for the call that met it.

use onlyonce_store::{OpenError, StoreError, StoreErrorKind};
use redis::{ErrorKind, RedisError};

/// A call without an answer, or with an error for one.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    kind: StoreErrorKind,
    text: String,
    pub(crate) then: Then,
}

impl Fault {
    pub(crate) fn new(kind: StoreErrorKind, text: String) -> Self {
        Self { kind, text, then: Then::Nothing }
    }

    /// Whether it certainly did not take place.
    pub(crate) fn is_refusal(&self) -> bool {
        self.kind == StoreErrorKind::NotApplied
    }

    /// What it means for a read: nothing was changed.
    pub(crate) fn of_read(self) -> StoreError {
        let kind = match self.kind {
            StoreErrorKind::Unknown => StoreErrorKind::NotApplied,
            other @ (StoreErrorKind::NotApplied
            | StoreErrorKind::Full
            | StoreErrorKind::Damaged
            | StoreErrorKind::Poisoned) => other,
        };
        StoreError::new(kind, self.text)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::new(fault.kind, fault.text)
    }
}

/// What may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// This server does not have the keys, or may not write: look for the one that does.
    LookElsewhere,
    /// The server has forgotten the script.
    LoadScripts,
}

/// Codes with which the server refuses before anything of a call has taken place.
const REFUSALS: [&str; 14] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "NOSCRIPT",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
];

/// What this error means for a call that was sent to `place`.
#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum that grows")]
pub(crate) fn fault(place: &str, error: &RedisError) -> Fault {
    let text = format!("{place}: {error}");
    let make = |kind, then| Fault { kind, text: text.clone(), then };
    if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) {
        // Without an answer nobody knows. The connection is given up, and the master may have
        // changed.
        return make(StoreErrorKind::Unknown, Then::LookElsewhere);
    }
    let code = error.code().unwrap_or_default();
    // Older servers put the refusal of a script's first write into a text of their own.
    if code == "OOM" || text.contains("OOM command not allowed") {
        return make(StoreErrorKind::Full, Then::Nothing);
    }
    match code {
        "NOSCRIPT" => make(StoreErrorKind::NotApplied, Then::LoadScripts),
        "MOVED" | "READONLY" | "CLUSTERDOWN" | "MASTERDOWN" => {
            make(StoreErrorKind::NotApplied, Then::LookElsewhere)
        }
        code if REFUSALS.contains(&code) => make(StoreErrorKind::NotApplied, Then::Nothing),
        _ => make(StoreErrorKind::Unknown, Then::Nothing),
    }
}

/// An answer that makes no sense.
pub(crate) fn nonsense(place: &str) -> Fault {
    Fault::new(StoreErrorKind::Unknown, format!("{place}: the answer is not understood"))
}

/// Nothing was asked, since the server could not be reached or is not what it must be.
pub(crate) fn not_opened(error: &OpenError) -> Fault {
    let text = error.to_string();
    Fault { kind: StoreErrorKind::NotApplied, text, then: Then::LookElsewhere }
}
