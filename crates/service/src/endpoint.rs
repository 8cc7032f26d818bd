//! The table of endpoints: requests are routed by it, and the description is made from it.

use onlyonce_http::ProblemKind;
use schemars::{Schema, SchemaGenerator};

use crate::wire;

/// An endpoint's place in [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Claim,
    Commit,
    Renew,
    Note,
    Complete,
    Release,
    Abandon,
    Wait,
    Get,
    List,
    Resolve,
    Seal,
    Erase,
}

/// What is fixed about an endpoint.
pub(crate) struct Row {
    pub(crate) endpoint: Endpoint,
    /// The end of its path, and its name in the description, the log and the counts.
    pub(crate) name: &'static str,
    /// Whether it is for operators alone.
    pub(crate) operator: bool,
    /// In a few words, without a full stop.
    pub(crate) title: &'static str,
    /// What a caller should know.
    pub(crate) text: &'static str,
    /// The document it takes.
    pub(crate) request: fn(&mut SchemaGenerator) -> Schema,
    /// The document it gives.
    pub(crate) answer: fn(&mut SchemaGenerator) -> Schema,
    /// What it may say instead, beside [`ALWAYS`].
    pub(crate) problems: &'static [ProblemKind],
}

/// What all paths begin with.
pub(crate) const BASE: &str = "/v1/";

use ProblemKind as P;

/// What every endpoint may say.
pub(crate) const ALWAYS: [ProblemKind; 9] = [
    P::RequestInvalid,
    P::BodyIncomplete,
    P::Unauthenticated,
    P::NotAllowed,
    P::BodyTooLarge,
    P::MediaTypeUnsupported,
    P::NoRoom,
    P::StoreUnavailable,
    P::RecordDamaged,
];

/// What stands in the way of those who have no claim.
const STANDING: [ProblemKind; 6] = [
    P::KeyReused,
    P::CredentialChanged,
    P::RequestInProgress,
    P::OutcomeUnknown,
    P::ReplyNotKept,
    P::KeySealed,
];

const OF_CLAIM: [ProblemKind; 9] = [
    STANDING[0],
    STANDING[1],
    STANDING[2],
    STANDING[3],
    STANDING[4],
    STANDING[5],
    P::KeyTimeInvalid,
    P::KeyExpired,
    P::QuotaExceeded,
];

const OF_WAIT: [ProblemKind; 10] = [
    STANDING[0],
    STANDING[1],
    STANDING[2],
    STANDING[3],
    STANDING[4],
    STANDING[5],
    P::KeyTimeInvalid,
    P::KeyExpired,
    P::QuotaExceeded,
    P::NoRecord,
];

const OF_HOLDER: [ProblemKind; 3] = [P::NoRecord, P::Fenced, P::FenceInvalid];

/// All of them, in the order of their variants.
pub(crate) static TABLE: [Row; 13] = [
    Row {
        endpoint: Endpoint::Claim,
        name: "claim",
        operator: false,
        title: "Ask to be the only one who runs the operation",
        text: "`granted` means: run it now, name the fence in all that is said of it, and renew \
               at a third of the lease. `replay` means: it was answered, and this is the reply. \
               Everything else is a problem; none of them lets the operation run. If no answer \
               came, repeat the claim with the same `claim_id`.",
        request: SchemaGenerator::subschema_for::<wire::Claim>,
        answer: SchemaGenerator::subschema_for::<wire::ClaimAnswer>,
        problems: &OF_CLAIM,
    },
    Row {
        endpoint: Endpoint::Commit,
        name: "commit",
        operator: false,
        title: "Say that the operation may happen from now on",
        text: "For claims in the phase `prepared`. Nothing that can take effect may be sent \
               before this is answered; after any problem, send nothing.",
        request: SchemaGenerator::subschema_for::<wire::Commit>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &OF_HOLDER,
    },
    Row {
        endpoint: Endpoint::Renew,
        name: "renew",
        operator: false,
        title: "Say that the holder is still at work",
        text: "The lease counts from now. After `fenced` the claim is over.",
        request: SchemaGenerator::subschema_for::<wire::Renew>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &OF_HOLDER,
    },
    Row {
        endpoint: Endpoint::Note,
        name: "note",
        operator: false,
        title: "Keep what was learnt about the attempt",
        text: "Such as the id of a charge at the bank: whoever has to settle an unknown outcome \
               finds it in the record.",
        request: SchemaGenerator::subschema_for::<wire::Note>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &OF_HOLDER,
    },
    Row {
        endpoint: Endpoint::Complete,
        name: "complete",
        operator: false,
        title: "Say that it happened, with the reply",
        text: "True for ever: it is accepted however late it comes, under any fence that was \
               granted for the key, also from a holder whose lease is over. Another reply than \
               the first is `second-reply`, an alarm.",
        request: SchemaGenerator::subschema_for::<wire::Complete>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &[P::NoRecord, P::Fenced, P::FenceInvalid, P::SecondReply],
    },
    Row {
        endpoint: Endpoint::Release,
        name: "release",
        operator: false,
        title: "Say that it certainly did not happen",
        text: "Under this claim, and that it no longer can: the key is free again, unless an \
               earlier attempt is in doubt. `state` says which. Who cannot tell abandons.",
        request: SchemaGenerator::subschema_for::<wire::Release>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &OF_HOLDER,
    },
    Row {
        endpoint: Endpoint::Abandon,
        name: "abandon",
        operator: false,
        title: "Say that one cannot tell whether it happened",
        text: "The outcome is unknown from then on, unless the claim was still `prepared`: then \
               nothing can have happened, and the key is free.",
        request: SchemaGenerator::subschema_for::<wire::Abandon>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &OF_HOLDER,
    },
    Row {
        endpoint: Endpoint::Wait,
        name: "wait",
        operator: false,
        title: "Wait for the outcome of the attempt that runs",
        text: "Answers as soon as the attempt ends, or when the time is over \
               (`request-in-progress`: ask again). It never claims: after `no-record` the key is \
               free, and a claim may be made.",
        request: SchemaGenerator::subschema_for::<wire::Wait>,
        answer: SchemaGenerator::subschema_for::<wire::WaitAnswer>,
        problems: &OF_WAIT,
    },
    Row {
        endpoint: Endpoint::Get,
        name: "get",
        operator: false,
        title: "Look at what is known of a key",
        text: "By `key`, or for operators by `id`.",
        request: SchemaGenerator::subschema_for::<wire::Get>,
        answer: SchemaGenerator::subschema_for::<wire::RecordView>,
        problems: &[P::NoRecord],
    },
    Row {
        endpoint: Endpoint::List,
        name: "list",
        operator: true,
        title: "List records of all scopes, a page at a time",
        text: "Records do not hold their keys, only ids. Replies are left out.",
        request: SchemaGenerator::subschema_for::<wire::List>,
        answer: SchemaGenerator::subschema_for::<wire::ListAnswer>,
        problems: &[],
    },
    Row {
        endpoint: Endpoint::Resolve,
        name: "resolve",
        operator: true,
        title: "Settle an outcome that nobody knew",
        text: "`happened` is true whenever it is said. `not-executed` says that it did not happen \
               and no longer can; both that and `run-again` free the key.",
        request: SchemaGenerator::subschema_for::<wire::Resolve>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &[P::NoRecord, P::Fenced, P::FenceInvalid, P::SecondReply, P::RequestInProgress],
    },
    Row {
        endpoint: Endpoint::Seal,
        name: "seal",
        operator: true,
        title: "Say that a key must never run",
        text: "Done for keys that were never used, and for those whose attempts certainly did not \
               happen. Claims are told `key-sealed` from then on.",
        request: SchemaGenerator::subschema_for::<wire::Seal>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &[
            P::Fenced,
            P::RequestInProgress,
            P::OutcomeUnknown,
            P::KeyExpired,
            P::KeyTimeInvalid,
        ],
    },
    Row {
        endpoint: Endpoint::Erase,
        name: "erase",
        operator: true,
        title: "Take what an answer says out of its record",
        text: "Its status stays, and who had it erased, when and why. The key never runs again: \
               claims are told `reply-not-kept`. What is not answered yet has nothing to erase.",
        request: SchemaGenerator::subschema_for::<wire::Erase>,
        answer: SchemaGenerator::subschema_for::<wire::Done>,
        problems: &[P::NoRecord, P::RequestInProgress, P::OutcomeUnknown, P::KeyExpired],
    },
];

impl Row {
    /// The row behind a path.
    pub(crate) fn at(path: &str) -> Option<&'static Self> {
        let name = path.strip_prefix(BASE)?;
        TABLE.iter().find(|row| row.name == name)
    }

    /// Everything that it may say instead of its answer.
    pub(crate) fn all_problems(&self) -> impl Iterator<Item = ProblemKind> {
        ALWAYS.into_iter().chain(self.problems.iter().copied())
    }
}
