//! What can be asked of a record, what the asker is told, and what the record becomes.

use crate::fingerprint::{Credential, Fingerprint};
use crate::record::{Cause, ClaimId, Evidence, Holder, Phase, Record};
use crate::reply::Reply;
use crate::revision::Fence;
use crate::time::Timestamp;

/// What is asked of a record. Every command that speaks about a claim names it by its fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Become the only one who may run the operation.
    Claim(Claim),
    /// Ask what a claim would be answered, without ever being granted one.
    Look(Look),
    /// Enter the phase in which the operation may happen.
    Commit {
        /// The claim that speaks.
        fence: Fence,
    },
    /// Extend the lease.
    Renew {
        /// The claim that speaks.
        fence: Fence,
    },
    /// Keep what was learnt during the attempt, such as an external id.
    Note {
        /// The claim that speaks.
        fence: Fence,
        /// What was learnt.
        evidence: Evidence,
    },
    /// It happened, and this is the reply. True for ever, however late it is said.
    Complete {
        /// The claim under which it happened.
        fence: Fence,
        /// What is answered from now on.
        reply: Reply,
    },
    /// It certainly did not happen under this claim and no longer can.
    Release {
        /// The claim that speaks.
        fence: Fence,
        /// The caller was refused as a stranger, so what it sent must not bind the key's owner.
        /// Acts on a first attempt only.
        stranger: bool,
    },
    /// The holder cannot tell whether it happened.
    Abandon {
        /// The claim that speaks.
        fence: Fence,
        /// How knowledge was lost.
        cause: Cause,
    },
    /// The holder's process is provably gone: its lease ends now.
    CertifyDeath {
        /// The claim it held.
        fence: Fence,
    },
    /// What somebody found out about an unknown outcome.
    Resolve {
        /// The claim that was looked into, so that a verdict never hits a later one.
        fence: Fence,
        /// What was found out.
        verdict: Verdict,
        /// Who found out.
        by: String,
        /// Why they are sure.
        why: String,
    },
    /// This key must never run; later requests get `reply`.
    Seal {
        /// The refusal that later requests get.
        reply: Reply,
        /// The time the key carries.
        key_time: Option<Timestamp>,
        /// Who seals it.
        by: String,
        /// The reason.
        why: String,
    },
    /// Forget what was answered, but not that it was: somebody has the right to have it gone.
    Erase {
        /// Who has it erased.
        by: String,
        /// The reason.
        why: String,
    },
    /// The store was put back from an older copy of itself: what may have gone on since the copy
    /// was made is in doubt. Time does not act first: a lease may have been renewed since.
    Restore {
        /// When that was begun: what was said since then need not be said again.
        begun: Timestamp,
        /// Who puts it back into use.
        by: String,
        /// The reason.
        why: String,
    },
    /// Make durable what time alone has done; the only command that may delete.
    Sweep,
}

/// A request's wish to run the operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the request looks like.
    pub fingerprint: Fingerprint,
    /// Random bits of this attempt: repeating the claim with them grants the same fence.
    pub claim_id: ClaimId,
    /// The process that would run it.
    pub holder: Holder,
    /// The time the key carries.
    pub key_time: Option<Timestamp>,
    /// The caller's credential, if nobody has verified it.
    pub credential: Option<Credential>,
    /// Where the attempt starts: `Committing` if there is no way to mark the moment of sending.
    pub phase: Phase,
}

/// A question about a key that never grants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What the request looks like.
    pub fingerprint: Fingerprint,
    /// The time the key carries.
    pub key_time: Option<Timestamp>,
    /// The caller's credential, if nobody has verified it.
    pub credential: Option<Credential>,
}

/// What was found out about an unknown outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It happened, with this reply.
    Happened(Reply),
    /// It did not happen and can no longer happen.
    NotExecuted,
    /// Nobody knows; run it again all the same.
    RunAgain,
}

/// What the asker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The asker, and nobody else, may run the operation under this fence.
    Granted(Fence),
    /// It was answered or sealed: this is the reply.
    Replay {
        /// What was answered.
        reply: Reply,
        /// When.
        answered_at: Timestamp,
        /// It was sealed, so it never runs from then on. Whether an attempt may have happened
        /// before, by a person's leave, the record tells: [`Record::may_have_run`].
        sealed: bool,
    },
    /// A holder may be running it.
    InFlight {
        /// When its claim lapses unless renewed.
        lease_until: Timestamp,
    },
    /// The key was used for another request.
    Mismatch,
    /// The record was made under another credential, and this one is unverified.
    CredentialChanged,
    /// Nobody knows whether it happened.
    OutcomeUnknown {
        /// Since when.
        since: Timestamp,
        /// How knowledge was lost.
        cause: Cause,
    },
    /// It was answered or sealed; the reply is no longer kept.
    Gone {
        /// When it was answered.
        answered_at: Timestamp,
        /// With what status.
        status: u16,
        /// It never ran.
        sealed: bool,
    },
    /// The key is too old to know whether it ran, so it never will.
    Expired,
    /// The command took effect, or had already.
    Done,
    /// A newer claim or a final state stands in the way; nothing changed.
    Fenced,
    /// The fence was never granted on this record; nothing changed.
    InvalidFence,
    /// An alarm: it was answered before, differently. That answer stays; the record's history tells
    /// of this one.
    SecondReply,
    /// There is nothing to act on, or nothing that was ever run.
    Absent,
}

/// What is to be done with the record.
#[allow(clippy::large_enum_variant, reason = "lives for one call, boxing would cost more")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Keep,
    /// It is replaced by this one.
    Write(Record),
    /// It is deleted.
    Delete,
}

/// The answer to a command, and what becomes of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What the asker is told, once `next` is durable.
    pub outcome: Outcome,
    /// What the store must hold first.
    pub next: Next,
}
