//! `Idempotency-Status`: how far a request got, said on every answer of ours.

use std::fmt;

use http::HeaderValue;
use onlyonce_core::{Record, State};

/// How far a request got. Only an evaluated status settles what an earlier attempt did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdempotencyStatus {
    /// It ran now, and this is its answer.
    Executed,
    /// It ran earlier, and this is the same answer again.
    Replayed,
    /// The first request with this key is still running.
    InProgress,
    /// No attempt with this key has ever happened.
    NotExecuted,
    /// This request did nothing; it says nothing about earlier attempts.
    NotEvaluated,
    /// Nobody knows whether it happened.
    Unknown,
    /// The key is too old to know whether it was used; it is never run.
    Expired,
    /// It was answered; the answer is no longer kept.
    Gone,
    /// The key was used for another request.
    Mismatch,
    /// The key was sealed: it never runs.
    Sealed,
    /// It ran now, but that could not be recorded: a retry will find an unknown outcome.
    Unrecorded,
    /// It was passed on without protection.
    Unprotected,
}

impl IdempotencyStatus {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Executed,
        Self::Replayed,
        Self::InProgress,
        Self::NotExecuted,
        Self::NotEvaluated,
        Self::Unknown,
        Self::Expired,
        Self::Gone,
        Self::Mismatch,
        Self::Sealed,
        Self::Unrecorded,
        Self::Unprotected,
    ];

    /// The value of the field: a structured field token.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::InProgress => "in-progress",
            Self::NotExecuted => "not-executed",
            Self::NotEvaluated => "not-evaluated",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Gone => "gone",
            Self::Mismatch => "mismatch",
            Self::Sealed => "sealed",
            Self::Unrecorded => "unrecorded",
            Self::Unprotected => "unprotected",
        }
    }

    /// The field's value.
    pub const fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// What to say of an attempt that certainly did nothing, by the record it left behind.
    ///
    /// `not-executed` speaks of every attempt with the key, so the record must rule them all out.
    pub fn after_nothing_happened(record: Option<&Record>) -> Self {
        match record {
            Some(record) if !record.may_have_run() => Self::NotExecuted,
            Some(Record { state: State::Unknown(_), .. }) => Self::Unknown,
            Some(_) | None => Self::NotEvaluated,
        }
    }
}

impl fmt::Display for IdempotencyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
