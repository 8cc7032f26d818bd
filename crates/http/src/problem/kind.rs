//! The problems by name: what is fixed about each, and who failed.

use http::StatusCode;

use super::table::TABLE;
use super::{Happened, ReuseKey};
use crate::status::IdempotencyStatus as Says;

/// A problem's place in [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// No key where one is needed.
    KeyMissing,
    /// A key that is none.
    KeyInvalid,
    /// The key came more than once.
    KeyDuplicate,
    /// The key's time is missing, unreadable or in the future.
    KeyTimeInvalid,
    /// `Idempotency-Replay-Only` cannot be honoured.
    ReplayOnlyInvalid,
    /// Nobody the key could belong to.
    ScopeMissing,
    /// What names the caller came more than once.
    ScopeDuplicate,
    /// A key on a request to change the protocol.
    UpgradeRefused,
    /// Another request used the key.
    KeyReused,
    /// The first request still runs.
    RequestInProgress,
    /// The record belongs to another credential.
    CredentialChanged,
    /// Nobody knows whether it happened.
    OutcomeUnknown,
    /// The attempt that was waited for did not run the operation.
    AttemptReleased,
    /// The service was not reached.
    UpstreamUnreachable,
    /// It happened; the answer is not kept.
    ReplyNotKept,
    /// The key was sealed.
    KeySealed,
    /// The key is older than what is remembered.
    KeyExpired,
    /// Replay only, and there is nothing to replay.
    NotSeen,
    /// The request's body is over the limit.
    BodyTooLarge,
    /// The request's body broke off or did not come in time.
    BodyIncomplete,
    /// There is no memory for the request's body at present.
    NoRoom,
    /// The request came in TLS early data.
    EarlyData,
    /// The store cannot be asked.
    StoreUnavailable,
    /// The kept answer cannot be read.
    RecordDamaged,
    /// The record service cannot read what it is asked.
    RequestInvalid,
    /// The record service has no such endpoint.
    PathUnknown,
    /// The endpoint has another method.
    MethodNotAllowed,
    /// The body is not JSON.
    MediaTypeUnsupported,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Who asks has no right to it.
    NotAllowed,
    /// The scope has used up what it may have.
    QuotaExceeded,
    /// There is nothing to act on.
    NoRecord,
    /// Another claim or a final state stands there.
    Fenced,
    /// The fence was never granted.
    FenceInvalid,
    /// It was answered before, differently.
    SecondReply,
}

/// What is fixed about a problem.
#[derive(Debug)]
pub struct Row {
    /// Which problem.
    pub kind: ProblemKind,
    /// The end of its type.
    pub name: &'static str,
    /// The status, unless the problem says otherwise.
    pub status: StatusCode,
    /// The `Idempotency-Status`, unless the problem says otherwise.
    pub says: Says,
    /// Whether the same request may succeed later unchanged.
    pub retryable: bool,
    /// Whether anything has happened, unless the problem says otherwise.
    pub happened: Happened,
    /// What to do with the key.
    pub reuse_key: Option<ReuseKey>,
    /// Whether it comes with `Retry-After`.
    pub waiting_helps: bool,
    /// The title, without a full stop.
    pub title: &'static str,
    /// The detail where nothing more is known.
    pub detail: &'static str,
    /// What a client does about it, for the page.
    pub advice: &'static str,
}

impl ProblemKind {
    /// Its row.
    pub const fn row(self) -> &'static Row {
        // The order is that of the variants; a test holds it.
        &TABLE[self as usize]
    }

    /// The end of its type.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Who failed, which decides who can mend it.
    pub const fn who(self) -> Who {
        match self {
            Self::KeyMissing
            | Self::KeyInvalid
            | Self::KeyDuplicate
            | Self::KeyTimeInvalid
            | Self::ReplayOnlyInvalid
            | Self::ScopeMissing
            | Self::ScopeDuplicate
            | Self::UpgradeRefused
            | Self::KeyReused
            | Self::CredentialChanged
            | Self::KeyExpired
            | Self::NotSeen
            | Self::BodyTooLarge
            | Self::BodyIncomplete
            | Self::EarlyData
            | Self::RequestInvalid
            | Self::PathUnknown
            | Self::MethodNotAllowed
            | Self::MediaTypeUnsupported
            | Self::Unauthenticated
            | Self::NotAllowed
            | Self::QuotaExceeded
            | Self::NoRecord
            | Self::Fenced
            | Self::FenceInvalid
            | Self::SecondReply => Who::Caller,
            Self::OutcomeUnknown => Who::Attempt,
            Self::UpstreamUnreachable => Who::Upstream,
            Self::StoreUnavailable | Self::RecordDamaged => Who::Store,
            Self::NoRoom => Who::Onlyonce,
            Self::RequestInProgress
            | Self::AttemptReleased
            | Self::ReplyNotKept
            | Self::KeySealed => Who::Nobody,
        }
    }
}

/// Who failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// Who sent the request.
    Caller,
    /// An attempt with this key, whose end nobody knows.
    Attempt,
    /// The service that the operation is sent to.
    Upstream,
    /// The store of records.
    Store,
    /// Onlyonce itself.
    Onlyonce,
    /// Nobody: so it stands with the key.
    Nobody,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Caller, Self::Attempt, Self::Upstream, Self::Store, Self::Onlyonce, Self::Nobody];

    /// The value of the member `who`.
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
}
