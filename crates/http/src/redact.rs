//! What a route never keeps of an answer: header fields, and members of a JSON body.
//!
//! The first caller gets the whole answer. A replay lacks what was taken out, and says so
//! (`Idempotency-Redacted`): it is not byte for byte what was answered, and must not look as if.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::content;
use crate::fingerprint::is_json;
use crate::fingerprint::json::{self, Span};
use crate::fingerprint::pointer::{self, Pointers};
use crate::headers;

/// What stands where a member was: no value, so that nothing can be taken for the one that was.
const NOTHING: &[u8] = b"null";

/// Fields that speak of a body's very bytes: a digest of what was taken out could be used to guess
/// it, and none of them would be true of what is left (RFC 9530, RFC 9110 section 8.8.3, RFC 9421).
const OF_THE_BYTES: [HeaderName; 7] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    http::header::ETAG,
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];

/// What is never kept of an answer. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// Header and trailer fields.
    pub headers: Vec<HeaderName>,
    /// Members of a JSON body. An answer whose body cannot be read as JSON is then not kept at all.
    pub members: Pointers,
}

impl Redact {
    /// Whether everything is kept.
    pub fn is_none(&self) -> bool {
        self.headers.is_empty() && self.members.is_empty()
    }

    /// The content to keep of an answer, or `None` if it cannot be told what is to be taken out.
    pub(crate) fn content(
        &self,
        mut headers: HeaderMap,
        body: &[u8],
        mut trailers: HeaderMap,
    ) -> Option<Bytes> {
        let is_readable = is_plain_json(&headers);
        let mut taken = Vec::new();
        let mut take = |names: &[HeaderName], taken: &mut Vec<String>| {
            for name in names {
                let stood = headers.remove(name).is_some();
                // Both: a field can come in the head and in the trailers.
                if trailers.remove(name).is_some() || stood {
                    taken.push(name.as_str().to_owned());
                }
            }
        };
        take(&self.headers, &mut taken);
        let mut kept = None;
        if !self.members.is_empty() && !body.is_empty() {
            let found = is_readable.then(|| json::spans(body, &self.members)).flatten();
            let spans = found?;
            if !spans.is_empty() {
                take(&OF_THE_BYTES, &mut taken);
                taken.extend(spans.iter().map(|span| pointer::text(&span.path)));
                kept = Some(without(body, &spans));
            }
        }
        if !taken.is_empty() {
            headers.insert(headers::REDACTED, mark(&taken));
        }
        let mut out = content::begin(&headers);
        out.extend_from_slice(kept.as_deref().unwrap_or(body));
        Some(content::end(out, &trailers))
    }
}

/// One JSON document, and not in a coding.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(http::header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    is_json(&essence.trim_ascii().to_ascii_lowercase())
        && !headers.contains_key(http::header::CONTENT_ENCODING)
}

/// The body with nothing where `spans` are, and every other byte as it was.
fn without(body: &[u8], spans: &[Span]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut at = 0;
    for span in spans {
        out.extend_from_slice(&body[at..span.from]);
        out.extend_from_slice(NOTHING);
        at = span.to;
    }
    out.extend_from_slice(&body[at..]);
    out
}

/// A list of strings (RFC 9651 section 3.1): names of fields in lower case, JSON pointers as in a
/// URI fragment (RFC 6901 section 6).
fn mark(taken: &[String]) -> HeaderValue {
    let quoted: Vec<String> = taken.iter().map(|it| format!("\"{}\"", ascii(it))).collect();
    headers::value(&quoted.join(", "))
}

fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | b'"' | b'\\' | 0..=0x20 | 0x7F.. => out.push_str(&format!("%{byte:02X}")),
            plain => out.push(plain.into()),
        }
    }
    out
}

#[cfg(test)]
mod tests;
