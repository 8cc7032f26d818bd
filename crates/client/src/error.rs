//! What can stand in the way. Every error answers three questions: who failed, did it happen, may
//! the same be sent again.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::http1::Answer;

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The first attempt still runs: the same again, later, with the same key.
    InProgress,
    /// The key was used with other inputs, or for another request. Whether anything happened
    /// speaks of that one: look at what it did before asking for anything with a new key.
    Mismatch,
    /// Nobody knows whether it happened. Find out; never ask with another key.
    OutcomeUnknown,
    /// It happened, and its reply is not kept. Look the result up in another way.
    Gone,
    /// The key is too old to tell whether it was used. It is never run.
    Expired,
    /// Somebody decided that this key must never run.
    Sealed,
    /// The claim is over. Send nothing more for it.
    Fenced,
    /// The records could not be reached in time, so nothing was begun. An earlier attempt may have
    /// happened.
    StoreAway,
    /// It happened just now, and that could not be recorded. Keep the result; a retry finds an
    /// unknown outcome.
    NotRecorded,
    /// It happened just now, and its result has no form in JSON. That it happened is recorded:
    /// later callers are told [`Kind::Gone`].
    ResultNotJson,
    /// It happened here although it was answered before, differently: it may have happened twice.
    SecondReply,
    /// No attempt with this key has happened, and the time for more is over.
    NotExecuted,
    /// No answer came, however often it was asked: send the same again later, with the same key.
    NoAnswer,
    /// The key of an intent could not be kept or read, so nothing was sent.
    NotKept,
    /// What was given cannot be sent: the address, a name, or the inputs. Nothing was.
    Invalid,
    /// Every other problem; [`OnceError::problem_name`] says which.
    Refused,
}

impl Kind {
    /// Its name, the same in all clients.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::Mismatch => "Mismatch",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::Sealed => "Sealed",
            Self::Fenced => "Fenced",
            Self::StoreAway => "StoreAway",
            Self::NotRecorded => "NotRecorded",
            Self::ResultNotJson => "ResultNotJson",
            Self::SecondReply => "SecondReply",
            Self::NotExecuted => "NotExecuted",
            Self::NoAnswer => "NoAnswer",
            Self::NotKept => "NotKept",
            Self::Invalid => "Invalid",
            Self::Refused => "Refused",
        }
    }

    const fn happened(self) -> Happened {
        match self {
            Self::Gone | Self::NotRecorded | Self::ResultNotJson | Self::SecondReply => {
                Happened::Yes
            }
            Self::Sealed | Self::NotExecuted => Happened::No,
            Self::InProgress
            | Self::Mismatch
            | Self::OutcomeUnknown
            | Self::Expired
            | Self::Fenced
            | Self::StoreAway
            | Self::NoAnswer
            | Self::NotKept
            | Self::Invalid
            | Self::Refused => Happened::Unknown,
        }
    }

    const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::InProgress | Self::StoreAway | Self::NotExecuted | Self::NoAnswer | Self::NotKept
        )
    }

    const fn who(self) -> Who {
        match self {
            Self::OutcomeUnknown => Who::Attempt,
            Self::StoreAway | Self::NotRecorded => Who::Store,
            Self::NoAnswer => Who::Upstream,
            Self::InProgress | Self::Gone | Self::Sealed | Self::NotExecuted => Who::Nobody,
            Self::Mismatch
            | Self::Expired
            | Self::Fenced
            | Self::ResultNotJson
            | Self::SecondReply
            | Self::NotKept
            | Self::Invalid
            | Self::Refused => Who::Caller,
        }
    }
}

/// Whether anything has happened under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the three answers")]
pub enum Happened {
    Yes,
    No,
    Unknown,
}

impl Happened {
    /// `yes`, `no` or `unknown`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Yes, Self::No, Self::Unknown].into_iter().find(|it| it.name() == name)
    }
}

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "docs/problems.md has them")]
#[non_exhaustive]
pub enum Who {
    Caller,
    Attempt,
    Upstream,
    Store,
    Onlyonce,
    Nobody,
}

impl Who {
    const ALL: [Self; 6] =
        [Self::Caller, Self::Attempt, Self::Upstream, Self::Store, Self::Onlyonce, Self::Nobody];

    /// As problems name it, such as `caller`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Attempt => "attempt",
            Self::Upstream => "upstream",
            Self::Store => "store",
            Self::Onlyonce => "onlyonce",
            Self::Nobody => "nobody",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// What is to be done with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReuseKey {
    /// Another key could run the operation twice.
    Must,
    /// This key can never be right.
    MustNot,
}

impl ReuseKey {
    /// `must` or `must_not`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::MustNot => "must_not",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::Must, Self::MustNot].into_iter().find(|it| it.name() == name)
    }
}

/// Why there is no result, or why the record of one is not as it should be.
#[derive(Clone, Debug)]
pub struct OnceError(Box<Inner>);

#[derive(Clone, Debug)]
pub(crate) struct Inner {
    kind: Kind,
    text: String,
    key: String,
    pub(crate) happened: Happened,
    pub(crate) retryable: bool,
    pub(crate) who: Who,
    pub(crate) reuse_key: Option<ReuseKey>,
    pub(crate) problem_name: Option<String>,
    pub(crate) problem: Value,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) answer: Option<Answer>,
}

impl OnceError {
    pub(crate) fn new(kind: Kind, text: impl Into<String>, key: &str) -> Self {
        let reuse_key = if kind == Kind::Mismatch { ReuseKey::MustNot } else { ReuseKey::Must };
        Self(Box::new(Inner {
            kind,
            text: text.into(),
            key: key.to_owned(),
            happened: kind.happened(),
            retryable: kind.is_retryable(),
            who: kind.who(),
            reuse_key: Some(reuse_key),
            problem_name: None,
            problem: Value::Null,
            retry_after: None,
            answer: None,
        }))
    }

    pub(crate) fn inner(&mut self) -> &mut Inner {
        &mut self.0
    }

    /// Another error with the problem of this one.
    pub(crate) fn into_cause_of(self, kind: Kind, text: &str) -> Self {
        let mut error = Self::new(kind, format!("{text}: {self}"), self.key());
        error.0.problem_name = self.0.problem_name;
        error.0.problem = self.0.problem;
        error
    }

    /// What stands in the way.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The key that it is about; empty if there was none yet.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// Whether anything has happened under the key.
    pub fn happened(&self) -> Happened {
        self.0.happened
    }

    /// Whether the same may succeed later without being changed.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Who failed.
    pub fn who(&self) -> Who {
        self.0.who
    }

    /// Whether the key must be kept, or can never be right; `None` where there is none.
    pub fn reuse_key(&self) -> Option<ReuseKey> {
        self.0.reuse_key
    }

    /// The name of the problem, if one was told (docs/problems.md).
    pub fn problem_name(&self) -> Option<&str> {
        self.0.problem_name.as_deref()
    }

    /// The whole problem document; null if there was none.
    pub fn problem(&self) -> &Value {
        &self.0.problem
    }

    /// How long to wait before asking again, if that was told.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The last answer of whoever stood in front, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        self.0.answer.as_ref()
    }
}

impl fmt::Display for OnceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for OnceError {}
