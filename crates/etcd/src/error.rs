//! What an error of etcd, or its silence, means for the call that met it.

use std::error::Error as _;

use onlyonce_store::{StoreError, StoreErrorKind};
use tonic::{Code, Status};

use crate::target::Target;

/// A call without an answer, or with an error for one.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    kind: StoreErrorKind,
    text: String,
    /// Whether another member may do better.
    pub(crate) elsewhere: bool,
    /// Whether the lease that the call named is gone.
    pub(crate) lease_gone: bool,
}

impl Fault {
    pub(crate) fn new(kind: StoreErrorKind, text: String) -> Self {
        Self { kind, text, elsewhere: false, lease_gone: false }
    }

    /// One that another member may not have.
    pub(crate) fn of_member(kind: StoreErrorKind, text: String) -> Self {
        Self { elsewhere: true, ..Self::new(kind, text) }
    }

    /// Whether the call may have taken place.
    pub(crate) fn is_unknown(&self) -> bool {
        self.kind == StoreErrorKind::Unknown
    }

    /// Whether it was answered that there is no room.
    pub(crate) fn is_full(&self) -> bool {
        self.kind == StoreErrorKind::Full
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

    /// In words.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::new(fault.kind, fault.text)
    }
}

/// What this error means for a call that `place` was asked for.
#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enums that grow")]
pub(crate) fn fault(place: &str, status: &Status) -> Fault {
    let message = status.message();
    let text = match cause(status) {
        Some(cause) => format!("{place}: {message}: {cause}"),
        None => format!("{place}: {message}"),
    };
    let says = |words: &str| message.contains(words);
    match status.code() {
        Code::ResourceExhausted if says("database space exceeded") => {
            Fault::new(StoreErrorKind::Full, text)
        }
        Code::InvalidArgument if says("request is too large") => {
            Fault::new(StoreErrorKind::Full, text)
        }
        // Refused before it was proposed to the others.
        Code::ResourceExhausted if says("too many requests") => {
            Fault::of_member(StoreErrorKind::NotApplied, text)
        }
        Code::Unavailable if says("no leader") || says("not supported for learner") => {
            Fault::of_member(StoreErrorKind::NotApplied, text)
        }
        Code::NotFound if says("lease not found") => {
            Fault { lease_gone: true, ..Fault::new(StoreErrorKind::NotApplied, text) }
        }
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::Unimplemented => Fault::new(StoreErrorKind::NotApplied, text),
        Code::Unavailable if was_not_connected(status) => {
            Fault::of_member(StoreErrorKind::NotApplied, text)
        }
        _ => Fault::of_member(StoreErrorKind::Unknown, text),
    }
}

/// What to do about the first call of a connection that failed, where it is the connection's
/// encryption that nobody agreed on.
pub(crate) fn refused_way(target: &Target, status: &Status) -> &'static str {
    let Some(cause) = cause(status).filter(|_| !was_not_connected(status)) else { return "" };
    if !target.tls {
        ": if it wants TLS, say etcds://"
    } else if cause.contains("invalid peer certificate") {
        ""
    } else if cause.contains("handshake eof") || cause.contains("InvalidContentType") {
        ": it speaks no TLS there; etcd:// does without, and whoever is in between can read it"
    } else {
        // It says no more than that it did not like us, and sometimes not even that.
        ": it may ask who we are: name a certificate by `cert` and `key`"
    }
}

/// The innermost cause, which says what was wrong with a connection.
fn cause(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

/// Whether no connection came about, so that nothing was sent.
fn was_not_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let is_connect = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if is_connect {
            return true;
        }
        cause = error.source();
    }
    false
}
