//! A claim and its completion inside the caller's own transaction: what is asked, answered, and
//! what went wrong. The database makes duplicates wait, `onlyonce-core` decides; here is no I/O.
//!
//! A claim is written as any other, committing from the start, and no one else sees it before it is
//! answered: the transaction that commits it has completed it. One that ends otherwise leaves
//! nothing, so an outcome is never unknown; and one that commits a claim without its completion
//! leaves just that, which becomes unknown and never runs again by itself.

use core::fmt;

use onlyonce_core::limits::KEY_AHEAD_MAX;
use onlyonce_core::{
    Claim, ClaimId, Command, Fence, Fingerprint, Floor, Holder, Key, KeyId, Next, Outcome, Phase,
    Policy, Record, Reply, Scope, Secret, State, Timestamp, decide,
};

/// How often a claim may lose against another writer of its record before it gives up.
pub const CONFLICTS_MAX: u32 = 32;

/// Where a store has a record, under no key's id, while it is moved, after it was, and while it is
/// made safe after it was put back from an older copy. Nobody may claim in it then.
pub const MARK: KeyId = KeyId::from_bytes(*b"onlyonce's mark!");
/// Why it is refused.
pub const MARKED: &str = "the store was moved, or is being moved or put back into use: \
                          `onlyonce doctor` says more";

/// Where a store may have a record, under no key's id, of sweepers that did not live long: word for
/// the next one.
pub const SWEPT: KeyId = KeyId::from_bytes(*b"onlyonce's sweep");

/// Where a store has a record, under no key's id, whose answers are encrypted: the names of the
/// keys. A transaction of a caller's can neither open nor encrypt one: nobody may claim in it then.
pub const NAMES: KeyId = KeyId::from_bytes(*b"onlyonce's keys!");
/// Why it is refused.
pub const ENCRYPTED: &str = "answers in this store are encrypted, and those of a caller's \
                             transaction cannot be: use another store for one of the two";

/// The rule by which [`Request::new`] makes fingerprints.
const RULE: u8 = 1;
/// What their key is derived for.
const PURPOSE: &str = "transaction request";

/// A request to run an operation once, in a transaction of the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What its record is found by.
    pub id: KeyId,
    /// What the request looks like.
    pub fingerprint: Fingerprint,
    /// The time the key carries.
    pub key_time: Option<Timestamp>,
}

impl Request {
    /// A request under a key of `scope`, which says whose key it is. `request` is what must be the
    /// same whenever the key comes again, in a spelling that does not change. A UUIDv7 is a timed
    /// key. The function `onlyonce.claim` in PostgreSQL finds the same record and sees the same
    /// request.
    pub fn new(secret: &Secret, scope: &Scope, key: &Key, request: &[u8]) -> Self {
        let fingerprint = Fingerprint::new(RULE, secret.digest(PURPOSE, request));
        Self { id: secret.key_id(scope, key), fingerprint, key_time: key.uuid7_time() }
    }

    /// The claim, for the core. Whatever is committed of it may have happened, so it is committing
    /// from the start; and nothing but its lease ends it, so its holder is nobody in particular.
    pub fn claim(&self, claim_id: ClaimId) -> Command {
        Command::Claim(Claim {
            fingerprint: self.fingerprint,
            claim_id,
            holder: Holder::default(),
            key_time: self.key_time,
            credential: None,
            phase: Phase::Committing,
        })
    }

    /// Refuses a key whose time lies too far ahead: its record could go while it looks new.
    ///
    /// # Errors
    /// [`TxErrorKind::NotExecuted`].
    pub fn check(&self, now: Timestamp) -> Result<(), TxError> {
        match self.key_time {
            Some(time) if now.plus(KEY_AHEAD_MAX) < time => {
                let text = "the time of the key is more than five minutes ahead";
                Err(TxError::new(TxErrorKind::NotExecuted, text))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// What a claim was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed<G> {
    /// The operation is ours to run, in this transaction.
    Granted(G),
    /// It was answered before, or sealed: this is what to say. The transaction goes on.
    Replay(Reply),
    /// Neither; this is why. The transaction goes on, and nothing may be run in it.
    Refused(Outcome),
}

impl<G> Claimed<G> {
    /// What an outcome that grants nothing says.
    pub fn refused(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Replay { reply, .. } => Self::Replay(reply),
            other @ (Outcome::Granted(_)
            | Outcome::InFlight { .. }
            | Outcome::Mismatch
            | Outcome::CredentialChanged
            | Outcome::OutcomeUnknown { .. }
            | Outcome::Gone { .. }
            | Outcome::Expired
            | Outcome::Done
            | Outcome::Fenced
            | Outcome::InvalidFence
            | Outcome::SecondReply
            | Outcome::Absent) => Self::Refused(other),
        }
    }
}

/// The record that a completion makes of `record`, in the transaction that it commits with.
///
/// It is stricter than [`decide()`], for which a success is true however late it is told: here it
/// is not true before the commit. So it counts for the latest claim alone, and once: an answer that
/// is there, be it the same, means that another transaction has run the operation.
///
/// # Errors
/// The outcome that stands in the way. The transaction must not be committed then.
pub fn complete(
    now: Timestamp,
    policy: &Policy,
    record: &Record,
    fence: Fence,
    reply: Reply,
) -> Result<Record, Outcome> {
    if record.fence < fence {
        return Err(Outcome::InvalidFence);
    }
    let is_open = match &record.state {
        State::InFlight(_) | State::Unknown(_) => fence == record.fence,
        // Somebody was told that it did not happen, or that it did.
        State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => false,
    };
    if !is_open {
        return Err(Outcome::Fenced);
    }
    let command = Command::Complete { fence, reply };
    let decision = decide(now, Floor::NONE, policy, Some(record), &command);
    match decision.next {
        Next::Write(next) if decision.outcome == Outcome::Done => Ok(next),
        Next::Write(_) | Next::Keep | Next::Delete => Err(decision.outcome),
    }
}

/// A transaction could not be carried on, or not be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxError {
    kind: TxErrorKind,
    message: String,
}

/// What an error means for the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxErrorKind {
    /// It did not happen: the database has ended the transaction in favour of another one, or the
    /// connection was lost before the commit.
    Again,
    /// It did not happen, for a reason that stays.
    NotExecuted,
    /// It did not happen in this transaction, whose claim is not the latest one, or is answered. It
    /// must be rolled back.
    Fenced,
    /// It did not happen: the stored record cannot be read.
    Damaged,
    /// The answer to the commit was lost, so it happened whole or not at all.
    Unknown,
}

impl TxError {
    /// An error of this kind; `message` names the place: server, file, statement.
    pub fn new(kind: TxErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What it means for the operation.
    pub const fn kind(&self) -> TxErrorKind {
        self.kind
    }

    /// Whether the operation may have happened in this transaction.
    pub const fn may_have_happened(&self) -> bool {
        matches!(self.kind, TxErrorKind::Unknown)
    }

    /// Whether to claim again, with the same key and in a new transaction. After a lost answer to a
    /// commit that brings the reply, or runs what did not happen.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, TxErrorKind::Again | TxErrorKind::Unknown)
    }
}

impl fmt::Display for TxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (happened, send) = match self.kind {
            TxErrorKind::Again => ("it did not happen", "send it again with the same key"),
            TxErrorKind::NotExecuted => ("it did not happen", "sending it again will not help"),
            TxErrorKind::Fenced => {
                ("it did not happen in this transaction", "roll it back, and ask again")
            }
            TxErrorKind::Damaged => ("it did not happen", "the stored record must be looked at"),
            TxErrorKind::Unknown => {
                ("it happened whole or not at all", "send it again with the same key, to be told")
            }
        };
        write!(f, "{happened}; {send}: {}", self.message)
    }
}

impl std::error::Error for TxError {}

#[cfg(test)]
mod tests;
