//! The header fields that idempotency adds to HTTP, and those that must not travel on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use onlyonce_core::Fence;

/// The client's key. Other names may be configured beside or instead of it.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Request: when the client first sent the operation, as an HTTP date; for keys without time.
pub const FIRST_SENT: HeaderName = HeaderName::from_static("idempotency-first-sent");
/// Request: `?1` asks for the answer without any risk of running the operation.
pub const REPLAY_ONLY: HeaderName = HeaderName::from_static("idempotency-replay-only");
/// Answer: how far the request got, see [`crate::status::IdempotencyStatus`].
pub const STATUS: HeaderName = HeaderName::from_static("idempotency-status");
/// Answer: `true` on replays, absent otherwise.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Answer: when a replayed answer was first completed, as an HTTP date.
pub const ORIGINAL_DATE: HeaderName = HeaderName::from_static("idempotent-original-date");
/// Answer: until when at least the same key gets the same answer, as an HTTP date.
pub const EXPIRES: HeaderName = HeaderName::from_static("idempotency-expires");
/// Answer: what a replay lacks of the first answer, because the route never keeps it: names of
/// header fields and JSON pointers, as a list of strings.
pub const REDACTED: HeaderName = HeaderName::from_static("idempotency-redacted");
/// To the upstream: which attempt this is, from 1.
pub const ATTEMPT: HeaderName = HeaderName::from_static("idempotency-attempt");
/// To the upstream: the fence of the claim; a higher one is a later claim.
pub const FENCE: HeaderName = HeaderName::from_static("idempotency-fence");
/// Request: set by a gateway that forwards TLS early data (RFC 8470 section 5.1).
pub const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// Answer fields that a page of another origin must be allowed to read.
pub const EXPOSED: [&str; 9] = [
    "Idempotency-Redacted",
    "Idempotent-Replayed",
    "Idempotent-Original-Date",
    "Idempotency-Key",
    "Idempotency-Status",
    "Idempotency-Expires",
    "Retry-After",
    "Location",
    "Link",
];

/// Fields that belong to one connection, whatever its `Connection` field says (RFC 9110 section
/// 7.6.1). In HTTP/2 they make a message malformed (RFC 9113 section 8.2.2).
pub(crate) const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
];

/// Takes off what only we may say to the upstream: a client must not choose attempt or fence.
pub fn strip_request(headers: &mut HeaderMap) {
    headers.remove(ATTEMPT);
    headers.remove(FENCE);
}

/// Tells the upstream which attempt this is and its fence, in place of what the client claimed.
pub fn announce(headers: &mut HeaderMap, attempt: u32, fence: Fence) {
    headers.insert(ATTEMPT, attempt.into());
    headers.insert(FENCE, fence.get().into());
}

/// Takes off what only we may say to the client: an upstream's marks would be taken for ours.
pub fn strip_response(headers: &mut HeaderMap) {
    for name in [STATUS, REPLAYED, ORIGINAL_DATE, EXPIRES, REDACTED] {
        headers.remove(name);
    }
}

/// Takes off the fields of one connection, those that `Connection` names included.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in connection_names(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The names listed in the `Connection` fields.
pub(crate) fn connection_names(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// Whether a comma-separated field has this member, without regard to case or parameters.
pub(crate) fn has_member(headers: &HeaderMap, name: &HeaderName, member: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|item| item.split(|byte| *byte == b';').next())
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
}

/// A field value of text that is known to be visible ASCII.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Reads [`REPLAY_ONLY`]: a structured field boolean (RFC 9651 section 3.3.6).
///
/// # Errors
/// Anything but one `?1` or `?0`: who asks without risk must never be run by mistake.
pub fn replay_only(headers: &HeaderMap) -> Result<bool, ReplayOnlyError> {
    let mut values = headers.get_all(REPLAY_ONLY).iter();
    let Some(value) = values.next() else { return Ok(false) };
    match (value.as_bytes().trim_ascii(), values.next()) {
        (b"?1", None) => Ok(true),
        (b"?0", None) => Ok(false),
        _ => Err(ReplayOnlyError),
    }
}

/// `Idempotency-Replay-Only` is neither `?1` nor `?0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayOnlyError;

impl std::fmt::Display for ReplayOnlyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Idempotency-Replay-Only must be one ?1 or ?0")
    }
}

impl std::error::Error for ReplayOnlyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_only_is_one_boolean_and_nothing_else() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(REPLAY_ONLY, HeaderValue::from_static(value));
            }
            replay_only(&headers)
        };
        assert_eq!(read(&[]), Ok(false));
        assert_eq!(read(&["?1"]), Ok(true));
        assert_eq!(read(&[" ?0 "]), Ok(false));
        for bad in [&["1"][..], &["true"], &[""], &["?1", "?1"], &["?1, ?1"]] {
            assert_eq!(read(bad), Err(ReplayOnlyError), "{bad:?}");
        }
    }

    #[test]
    fn what_connection_names_does_not_travel_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "keep-alive, X-Hop"), ("x-hop", "1"), ("te", "trailers"), ("x-a", "1")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-a"]);
    }

    #[test]
    fn a_client_cannot_choose_its_fence_and_an_upstream_cannot_speak_for_us() {
        let all = || {
            let mut headers = HeaderMap::new();
            for name in [ATTEMPT, FENCE, STATUS, REPLAYED, ORIGINAL_DATE, EXPIRES, REDACTED] {
                headers.append(name, HeaderValue::from_static("9"));
            }
            headers
        };
        let mut request = all();
        strip_request(&mut request);
        assert!(!request.contains_key(ATTEMPT) && !request.contains_key(FENCE));
        let mut request = all();
        announce(&mut request, 2, Fence::new(77).unwrap());
        assert_eq!((&request[ATTEMPT], &request[FENCE]), (&"2".parse().unwrap(), &77.into()));
        let mut response = all();
        strip_response(&mut response);
        assert!(!response.contains_key(STATUS) && !response.contains_key(REPLAYED));
        assert!(!response.contains_key(REDACTED));
    }
}
