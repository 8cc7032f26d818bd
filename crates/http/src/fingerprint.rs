//! What a request must look like to be the same one: a versioned, keyed digest of its parts.
//!
//! A fingerprint only ever checks a record that the key has found; it is never part of what a
//! record is found by. It covers method, path, query as sent, media type, chosen fields and the
//! body in a form that an honest retry does not change. It is keyed, so that a stolen store does
//! not let anyone try out small secrets in requests.

pub mod json;
mod multipart;
pub mod pointer;

use std::fmt;

use bytes::Bytes;
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use onlyonce_core::{Fingerprint, Timestamp};

use crate::digest::{Keys, Parts};
use json::Numbers;
use pointer::Pointers;

/// How a body is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BodyRule {
    /// JSON by its structure, multipart by its parts, all else by its bytes. The spelling of
    /// numbers counts, so that two amounts never look equal because they round to one.
    #[default]
    Structure,
    /// By its bytes, whatever it is.
    Bytes,
    /// JSON in the canonical form of RFC 8785, in which `1.0` equals `1`; else as `Structure`.
    Jcs,
}

impl BodyRule {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Structure, Self::Bytes, Self::Jcs];

    /// The name used in configuration and in the published policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Bytes => "bytes",
            Self::Jcs => "jcs",
        }
    }

    /// The version that new records get. A change to what a version hashes needs a new number,
    /// and the old one must stay computable for as long as records are remembered.
    pub const fn version(self) -> u8 {
        match self {
            Self::Structure => 1,
            Self::Bytes => 2,
            Self::Jcs => 3,
        }
    }

    /// The rule behind a version; `None` if this program does not know it.
    pub const fn of_version(version: u8) -> Option<Self> {
        match version {
            1 => Some(Self::Structure),
            2 => Some(Self::Bytes),
            3 => Some(Self::Jcs),
            _ => None,
        }
    }
}

/// What a route compares.
///
/// A change to `headers` or `exclude` makes retries of earlier requests look different: they are
/// refused as reused keys, never run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FingerprintRule {
    /// How the body is compared.
    pub body: BodyRule,
    /// Fields that count, such as one that chooses the API's version. Default none.
    pub headers: Vec<HeaderName>,
    /// Members of a JSON body that do not count, such as a time of sending.
    pub exclude: Pointers,
}

/// Everything of a request that its fingerprint depends on. Cheap to clone.
#[derive(Clone)]
pub struct Likeness {
    method: Method,
    uri: Uri,
    media_type: Vec<HeaderValue>,
    encoding: Vec<HeaderValue>,
    chosen: Vec<(HeaderName, Vec<HeaderValue>)>,
    first_sent: Option<Timestamp>,
    body: Bytes,
    body_rule: BodyRule,
    exclude: Pointers,
}

impl Likeness {
    /// Takes the parts that count out of a request. `first_sent` is the time that was sent beside
    /// the key, if that is the key's time.
    pub fn new(
        head: &Head,
        body: Bytes,
        rule: &FingerprintRule,
        first_sent: Option<Timestamp>,
    ) -> Self {
        let all = |name: &HeaderName| -> Vec<HeaderValue> {
            head.headers.get_all(name).iter().cloned().collect()
        };
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            media_type: all(&header::CONTENT_TYPE),
            encoding: all(&header::CONTENT_ENCODING),
            chosen: rule.headers.iter().map(|name| (name.clone(), all(name))).collect(),
            first_sent,
            body,
            body_rule: rule.body,
            exclude: rule.exclude.clone(),
        }
    }

    /// The fingerprint by the route's rule.
    pub fn fingerprint(&self, keys: &Keys) -> Fingerprint {
        self.by_rule(self.body_rule, keys)
    }

    /// The fingerprint by the rule that another record was made with; `None` if it is not known
    /// here, and then nothing proves that the requests are the same.
    pub fn fingerprint_of_version(&self, version: u8, keys: &Keys) -> Option<Fingerprint> {
        BodyRule::of_version(version).map(|rule| self.by_rule(rule, keys))
    }

    fn by_rule(&self, rule: BodyRule, keys: &Keys) -> Fingerprint {
        let mut parts = Parts::new(&keys.fingerprint);
        parts.part(&[rule.version()]);
        parts.part(self.method.as_str().as_bytes());
        parts.part(self.uri.path().as_bytes());
        parts.maybe(self.uri.query().map(str::as_bytes));
        let media_type = self.media_type();
        parts.maybe(media_type.as_deref());
        parts.count(self.chosen.len());
        for (name, values) in &self.chosen {
            parts.part(name.as_str().as_bytes()).count(values.len());
            for value in values {
                parts.part(value.as_bytes());
            }
        }
        parts.maybe(
            self.first_sent.map(|at| at.as_millis().to_be_bytes()).as_ref().map(|it| &it[..]),
        );
        self.add_body(&mut parts, rule, media_type.as_deref().unwrap_or_default());
        Fingerprint::new(rule.version(), parts.finish())
    }

    /// Type and subtype in lower case, without parameters: a boundary or charset is no content.
    fn media_type(&self) -> Option<Vec<u8>> {
        match self.media_type.as_slice() {
            [] => None,
            [value] => {
                let essence = value.as_bytes().split(|byte| *byte == b';').next();
                Some(essence.unwrap_or_default().trim_ascii().to_ascii_lowercase())
            }
            // Two types are a mistake of somebody's; they count as they came.
            several => {
                Some(several.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b','))
            }
        }
    }

    fn add_body(&self, parts: &mut Parts, rule: BodyRule, media_type: &[u8]) {
        let numbers = match rule {
            BodyRule::Structure => Numbers::AsSpelled,
            BodyRule::Jcs => Numbers::Canonical,
            BodyRule::Bytes => return self.add_bytes(parts),
        };
        // A coded body is not what its type says; its bytes are all that can be compared.
        if !self.encoding.is_empty() {
            return self.add_bytes(parts);
        }
        if is_json(media_type) {
            if let Some(text) = json::canonical(&self.body, numbers, &self.exclude) {
                parts.part(b"json").part(&text);
                return;
            }
        } else if media_type.starts_with(b"multipart/")
            && let [value] = self.media_type.as_slice()
            && let Some(split) = multipart::split(value.as_bytes(), &self.body)
        {
            parts.part(b"multipart").count(split.len());
            for part in &split {
                parts.count(part.headers.len());
                for (name, value) in &part.headers {
                    parts.part(name).part(value);
                }
                parts.part(part.body);
            }
            return;
        }
        self.add_bytes(parts);
    }

    fn add_bytes(&self, parts: &mut Parts) {
        parts.part(b"bytes").count(self.encoding.len());
        for encoding in &self.encoding {
            parts.part(encoding.as_bytes());
        }
        parts.part(&self.body);
    }
}

/// `application/json`, `text/json`, and every type that ends in `+json` (RFC 6839).
pub(crate) fn is_json(media_type: &[u8]) -> bool {
    media_type == b"application/json"
        || media_type == b"text/json"
        || media_type.ends_with(b"+json")
}

impl fmt::Debug for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Likeness")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
