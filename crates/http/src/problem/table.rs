//! The table of problems: what each means, and what the client should do.

use http::StatusCode;

use super::kind::{ProblemKind, Row};
use super::{Happened, ReuseKey};
use crate::status::IdempotencyStatus as Says;

const MUST: Option<ReuseKey> = Some(ReuseKey::Must);
const MUST_NOT: Option<ReuseKey> = Some(ReuseKey::MustNot);

/// A refusal that did nothing and says nothing about earlier attempts.
const REFUSED: Row = Row {
    kind: ProblemKind::KeyMissing,
    name: "",
    status: StatusCode::BAD_REQUEST,
    says: Says::NotEvaluated,
    retryable: false,
    happened: Happened::Unknown,
    reuse_key: MUST,
    waiting_helps: false,
    title: "",
    detail: "",
    advice: "",
};

/// Every problem there is.
pub static TABLE: [Row; 35] = [
    Row {
        kind: ProblemKind::KeyMissing,
        name: "key-missing",
        reuse_key: None,
        title: "The request needs an idempotency key",
        detail: "This operation is only run with an Idempotency-Key.",
        advice: "Make one key per intended operation, keep it, and send it with every attempt.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::KeyInvalid,
        name: "key-invalid",
        reuse_key: MUST_NOT,
        title: "The idempotency key is not valid",
        detail: "The key must be 1 to 255 bytes of printable ASCII.",
        advice: "A key is 1 to 255 bytes of printable ASCII, best a quoted UUID; `detail` names \
                 the byte that is wrong. Send a valid key.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::KeyDuplicate,
        name: "key-duplicate",
        title: "The idempotency key was sent more than once",
        detail: "Exactly one key is accepted, even if two are equal.",
        advice: "Send the key in one header line. If the client already does, something between \
                 repeats or joins lines. Keep the key: an earlier attempt may have used it.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::KeyTimeInvalid,
        name: "key-time-invalid",
        reuse_key: MUST_NOT,
        title: "The idempotency key's time cannot be used",
        detail: "The key's time is missing, unreadable or in the future.",
        advice: "Correct the client's clock, or make a new key with the time of its making: a \
                 UUIDv7, or any key with `Idempotency-First-Sent`.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::ReplayOnlyInvalid,
        name: "replay-only-invalid",
        title: "The request asks for a replay only, and that cannot be honoured",
        detail: "Idempotency-Replay-Only must be ?1 or ?0, on a protected operation.",
        advice: "Send `?1` or `?0`, with the key, to an operation that is protected. The request \
                 was not passed on, because that might have run it.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::ScopeMissing,
        name: "scope-missing",
        title: "It is not known whom the idempotency key belongs to",
        detail: "The request does not say who sends it in the way this route is set up for.",
        advice: "Send the credential that the API asks for. For the operator: a route whose \
                 callers are named by a cookie needs `scope = \"cookie:NAME\"`.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::ScopeDuplicate,
        name: "scope-duplicate",
        title: "What names the caller was sent more than once",
        detail: "The credential must come once, or it is not clear whose key this is.",
        advice: "Send each credential once.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::UpgradeRefused,
        name: "upgrade-refused",
        title: "A request that changes the protocol cannot have an idempotency key",
        detail: "There is no answer to an upgrade that could be given again.",
        advice: "Send the request without a key; it is then passed on unprotected.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::KeyReused,
        name: "key-reused",
        status: StatusCode::UNPROCESSABLE_ENTITY,
        says: Says::Mismatch,
        reuse_key: MUST_NOT,
        title: "The idempotency key was used for another request",
        detail: "The first request with this key was accepted and differs from this one. This \
                 one was not run.",
        advice: "If this is a new operation, send it with a new key. If it was meant as a retry, \
                 something changed on the way. `happened` speaks of the first request: look at \
                 what it did before sending anything new.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::RequestInProgress,
        name: "request-in-progress",
        status: StatusCode::CONFLICT,
        says: Says::InProgress,
        retryable: true,
        waiting_helps: true,
        title: "The first request with this key is still running",
        detail: "It is not run a second time. Ask again for its answer.",
        advice: "Wait as long as `Retry-After` says and send the same request with the same key.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::CredentialChanged,
        name: "credential-changed",
        status: StatusCode::CONFLICT,
        title: "The key's record was made under another credential",
        detail: "The new credential has not been verified here, so the answer is not shown. \
                 Nothing was run.",
        advice: "Ask again with the first credential while it is valid, or look the outcome up \
                 in another way. For the operator: `scope = \"jwt\"` with the issuer's key set \
                 verifies tokens and lets a rotated one read its answers.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::OutcomeUnknown,
        name: "outcome-unknown",
        status: StatusCode::CONFLICT,
        says: Says::Unknown,
        title: "Nobody knows whether the operation happened",
        detail: "It was sent to the service, and its answer was lost. It is not run again until \
                 somebody has found out, unless the service makes that harmless.",
        advice: "Do not send it with a new key. Find out whether it happened, or wait until the \
                 operator has: then the same key gets the answer. Where `receiver` in \
                 `/.well-known/idempotency` says `run again` or `probe`, sending it again with the \
                 same key settles it. The first caller gets this problem with 502, or 504 after a \
                 time-out; later ones with 409.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::AttemptReleased,
        name: "attempt-released",
        status: StatusCode::SERVICE_UNAVAILABLE,
        says: Says::NotExecuted,
        retryable: true,
        happened: Happened::No,
        waiting_helps: true,
        title: "The attempt that this request waited for did not run the operation",
        detail: "It ended before the operation began. Send the request again.",
        advice: "Wait as long as `Retry-After` says and send the same request with the same key.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::UpstreamUnreachable,
        name: "upstream-unreachable",
        status: StatusCode::BAD_GATEWAY,
        says: Says::NotExecuted,
        retryable: true,
        happened: Happened::No,
        title: "The service could not be reached",
        detail: "Nothing was sent to it in this attempt.",
        advice: "Send the same request with the same key again.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::ReplyNotKept,
        name: "reply-not-kept",
        status: StatusCode::GONE,
        says: Says::Gone,
        happened: Happened::Yes,
        title: "The operation was answered, and the answer is no longer kept",
        detail: "It was too large, is too long ago, or was not to be kept. It is not run again.",
        advice: "The operation is done: `answered_at` says when, `original_status` with what \
                 status. Look the result up in another way.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::KeySealed,
        name: "key-sealed",
        status: StatusCode::GONE,
        says: Says::Sealed,
        happened: Happened::No,
        title: "The idempotency key was sealed",
        detail: "Somebody decided that this operation must not run.",
        advice: "Requests with this key are never run. If the operation is wanted after all, it \
                 is a new one and needs a new key.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::KeyExpired,
        name: "key-expired",
        status: StatusCode::PRECONDITION_FAILED,
        says: Says::Expired,
        title: "The idempotency key is too old",
        detail: "It may have been used and forgotten, so it is not run.",
        advice: "Find out whether the operation happened before sending it with a new key.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::NotSeen,
        name: "not-seen",
        status: StatusCode::PRECONDITION_FAILED,
        title: "There is no answer to replay",
        detail: "The request asked for a replay only, so it was not run.",
        advice: "`happened` is `no` if that is certain. A key without a time of its own may have \
                 been used and forgotten: then it is `unknown`.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::BodyTooLarge,
        name: "body-too-large",
        status: StatusCode::PAYLOAD_TOO_LARGE,
        title: "The request's body is too large to be compared",
        detail: "A keyed request is read whole before it is run, up to a limit.",
        advice: "Send a smaller body. The limit is in `/.well-known/idempotency`.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::BodyIncomplete,
        name: "body-incomplete",
        retryable: true,
        title: "The request's body did not arrive whole",
        detail: "The body broke off before its end, so the request was not passed on.",
        advice: "Send the same request with the same key again.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::NoRoom,
        name: "no-room",
        status: StatusCode::SERVICE_UNAVAILABLE,
        retryable: true,
        waiting_helps: true,
        title: "Too many bodies are held in memory at present",
        detail: "A keyed request is held in memory while it runs, so this one was not passed on.",
        advice: "Wait as long as `Retry-After` says and send the same request with the same key.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::EarlyData,
        name: "early-data",
        status: StatusCode::TOO_EARLY,
        retryable: true,
        title: "The request came in TLS early data",
        detail: "Early data can be repeated by others on the way.",
        advice: "Send the same request with the same key after the handshake (RFC 8470).",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::StoreUnavailable,
        name: "store-unavailable",
        status: StatusCode::SERVICE_UNAVAILABLE,
        retryable: true,
        waiting_helps: true,
        title: "The store of idempotency records cannot be reached",
        detail: "Without it the operation could run twice, so this request was not passed on.",
        advice: "Wait as long as `Retry-After` says and send the same request with the same key. \
                 An earlier attempt may have happened.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::RecordDamaged,
        name: "record-damaged",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "The record of this key cannot be read",
        detail: "It is not run again, because the record may say that it happened.",
        advice: "Do not send it with a new key before finding out whether it happened. For the \
                 operator: the log names the record and what is wrong with it.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::RequestInvalid,
        name: "request-invalid",
        title: "The request is not understood",
        detail: "Its body must be a JSON document as the description of the endpoint has it.",
        advice: "`field` names the member that is wrong, as a path; `detail` says what is wrong \
                 with it. Nothing was done.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::PathUnknown,
        name: "path-unknown",
        status: StatusCode::NOT_FOUND,
        reuse_key: None,
        title: "There is nothing at this path",
        detail: "The endpoints are listed in /v1/openapi.json.",
        advice: "Look at the address, and at `/v1/openapi.json`. Nothing was done.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::MethodNotAllowed,
        name: "method-not-allowed",
        status: StatusCode::METHOD_NOT_ALLOWED,
        reuse_key: None,
        title: "The endpoint is not asked with this method",
        detail: "The field Allow says with which one it is.",
        advice: "Use the method that the field `Allow` names. Nothing was done.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::MediaTypeUnsupported,
        name: "media-type-unsupported",
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        title: "The request's body is not JSON",
        detail: "Send application/json, without a Content-Encoding.",
        advice: "Send `Content-Type: application/json` and the document itself. Nothing was done.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::Unauthenticated,
        name: "unauthenticated",
        status: StatusCode::UNAUTHORIZED,
        title: "It is not known who asks",
        detail: "The bearer token is missing or wrong, and there is no known certificate.",
        advice: "Send `Authorization: Bearer TOKEN`, or show a certificate that the service \
                 knows. Nothing was done.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::NotAllowed,
        name: "not-allowed",
        status: StatusCode::FORBIDDEN,
        title: "The caller may not do this",
        detail: "The caller has no right to this scope or endpoint.",
        advice: "`detail` says which right is missing: a scope, or that of an operator. Nothing \
                 was done.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::QuotaExceeded,
        name: "quota-exceeded",
        status: StatusCode::TOO_MANY_REQUESTS,
        retryable: true,
        waiting_helps: true,
        title: "The scope's quota is used up",
        detail: "More was asked for in this scope than it may have at present.",
        advice: "Wait as long as `Retry-After` says and send the same request again. Nothing was \
                 claimed.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::NoRecord,
        name: "no-record",
        status: StatusCode::NOT_FOUND,
        title: "Nothing is held, answered or in doubt under this key",
        detail: "The key has no record, or one that is free.",
        advice: "`happened` is `no` if that is certain: claim the key to run the operation. A key \
                 without a time of its own may have been used and forgotten: then it is `unknown`.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::Fenced,
        name: "fenced",
        status: StatusCode::CONFLICT,
        title: "A newer claim or a final state stands in the way",
        detail: "The claim that was named is no longer the one that counts. Nothing was changed.",
        advice: "The claim is over: send nothing more for it. `state` says what stands there. If \
                 the operation happened all the same, say so with `complete`: that is accepted \
                 under an older fence too.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::FenceInvalid,
        name: "fence-invalid",
        status: StatusCode::CONFLICT,
        title: "The fence was never granted for this key",
        detail: "It is above every fence of this key. Nothing was changed.",
        advice: "Send the fence that the claim was granted with, for the same key and scope.",
        ..REFUSED
    },
    Row {
        kind: ProblemKind::SecondReply,
        name: "second-reply",
        status: StatusCode::CONFLICT,
        title: "The operation was answered before, differently",
        detail: "The first answer stands. Somebody may have run the operation twice.",
        advice: "Find out why there are two answers to one operation: it may have happened twice. \
                 Operators are alarmed too (`onlyonce_second_reply_total`, `onlyonce keys list \
                 --alarm`).",
        ..REFUSED
    },
];
