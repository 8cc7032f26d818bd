//! From a kept answer back to a response, marked as a replay.

use bytes::Bytes;
use http::response::Parts as Head;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use onlyonce_core::{Fence, Key, Policy, Reply, Timestamp};

use crate::content::{self, ContentError};
use crate::date::http_date;
use crate::headers;
use crate::key;
use crate::status::IdempotencyStatus;

/// A response that is whole in memory.
#[derive(Debug)]
pub struct Rendered {
    /// Status and fields, with the length of the body.
    pub head: Head,
    /// The body.
    pub body: Bytes,
    /// What is sent after the body.
    pub trailers: Option<HeaderMap>,
}

/// What a replay says about itself.
#[derive(Clone, Copy, Debug)]
pub struct ReplayMarks<'a> {
    /// The key, echoed.
    pub key: &'a Key,
    /// When it was first answered.
    pub answered_at: Timestamp,
    /// Until when at least it is answered so.
    pub expires: Option<Timestamp>,
    /// The request accepts trailers (`TE: trailers`), see [`accepts_trailers`].
    pub trailers: bool,
    /// It never ran: the answer is the refusal that sealed it.
    pub sealed: bool,
}

/// Whether a request accepts trailers (RFC 9110 section 10.1.4).
pub fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers::has_member(headers, &header::TE, "trailers")
}

/// Makes the kept answer a response again: same status, same fields, same bytes, and the marks.
///
/// # Errors
/// The content is not one that [`crate::capture`] made. Nothing of it may be shown then.
///
/// `Ok(None)` if no content was kept.
pub fn replay(reply: &Reply, marks: &ReplayMarks<'_>) -> Result<Option<Rendered>, ContentError> {
    let Some(content) = reply.content() else { return Ok(None) };
    let content = content::decode(content)?;
    let status = StatusCode::from_u16(reply.status()).map_err(|_| ContentError::Field("status"))?;
    let mut head = Response::new(()).into_parts().0;
    head.status = status;
    head.headers = content.headers;
    let trailers = Some(content.trailers).filter(|it| marks.trailers && !it.is_empty());
    let headers = &mut head.headers;
    if trailers.is_none() {
        headers.remove(header::TRAILER);
        // RFC 9110 section 8.6: no length for these, since they have no body at all.
        if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
            headers.insert(header::CONTENT_LENGTH, content.body.len().into());
        }
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    // It was kept with the answer: the route may say something else by now.
    let redacted = headers.remove(headers::REDACTED);
    let said = if marks.sealed { IdempotencyStatus::Sealed } else { IdempotencyStatus::Replayed };
    mark(headers, said, Some(marks.key), marks.expires);
    if let Some(redacted) = redacted {
        headers.insert(headers::REDACTED, redacted);
    }
    if !marks.sealed {
        headers.insert(headers::REPLAYED, HeaderValue::from_static("true"));
    }
    headers.insert(headers::ORIGINAL_DATE, http_date(marks.answered_at));
    Ok(Some(Rendered { head, body: content.body, trailers }))
}

/// Puts our marks on an answer, first or repeated, in place of whatever stood there.
pub fn mark(
    headers: &mut HeaderMap,
    status: IdempotencyStatus,
    key: Option<&Key>,
    expires: Option<Timestamp>,
) {
    headers::strip_response(headers);
    headers.insert(headers::STATUS, status.value());
    if let Some(key) = key {
        headers.insert(headers::IDEMPOTENCY_KEY, key::render(key));
    }
    if let Some(expires) = expires {
        headers.insert(headers::EXPIRES, http_date(expires));
    }
}

/// Until when at least a key is answered with the kept reply, known before it is answered.
///
/// Retention counts from completion, and the head of a first answer leaves before that. A fence
/// is never below the time of its claim in milliseconds, and a claim never after its completion:
/// first answer and replays can name the same instant, which no record outlives early. A clock
/// that ran ahead could not move it past `retain_until`, which replays know.
pub fn expires(fence: Fence, policy: &Policy, retain_until: Option<Timestamp>) -> Timestamp {
    let least = Timestamp::from_millis(fence.get()).plus(policy.retention);
    retain_until.map_or(least, |until| until.min(least))
}
