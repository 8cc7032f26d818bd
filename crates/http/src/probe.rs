//! Asking a service whether an operation happened whose outcome nobody knows.
//!
//! A yes is true whoever says it and whenever. A no is worth something only if it cannot be
//! mistaken for a page that is not there, and only once nothing that was sent can still arrive: the
//! bounds of that are the receiver's, in the policy.

use std::fmt;

use http::header::{EXPECT, RANGE, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use onlyonce_core::{Key, KeyId};

/// Stands in a path for the key.
const KEY: &str = "{key}";

/// How a route's service is asked. When its "no" is final its receiver says, in the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where: a path, perhaps with a query; `{key}` in it is replaced by the key.
    pub path: String,
    /// The status of "it did not happen".
    pub absent_status: StatusCode,
    /// What that answer has beside its status, and what a missing page or a proxy would not.
    pub absent: Absent,
}

/// What tells "it did not happen" from an answer of somebody who does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// This field with this value.
    Header(HeaderName, HeaderValue),
    /// A member of the JSON body, by pointer (RFC 6901), with this text.
    Member(String, String),
}

/// What the service has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It happened, and the answer is the reply.
    Happened,
    /// It is still being carried out.
    StillRunning,
    /// It did not happen, as far as the service knows now.
    Absent,
    /// Anything else.
    CannotTell,
}

/// A probe that could settle nothing, or settle it wrongly.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeError {
    /// The path is no path.
    Path(String),
    /// The status of "it did not happen" is a success, or says that it is still running.
    Status(StatusCode),
    /// A pointer that is none.
    Pointer(String),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "probe path {path:?} is no path; it begins with /"),
            Self::Status(status) => {
                write!(f, "probe status {} cannot mean that it did not happen", status.as_u16())
            }
            Self::Pointer(pointer) => write!(f, "{pointer:?} is no JSON pointer such as /error"),
        }
    }
}

impl std::error::Error for ProbeError {}

impl Probe {
    /// Checks that an answer can be told from its opposite.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ProbeError> {
        let path = || ProbeError::Path(self.path.clone());
        let uri: Uri = self.path.replace(KEY, "key").parse().map_err(|_| path())?;
        if !self.path.starts_with('/') || self.path.starts_with("//") || uri.host().is_some() {
            return Err(path());
        }
        if self.absent_status.is_success() || is_running(self.absent_status) {
            return Err(ProbeError::Status(self.absent_status));
        }
        match &self.absent {
            Absent::Member(pointer, _) if !pointer.starts_with('/') => {
                Err(ProbeError::Pointer(pointer.clone()))
            }
            Absent::Member(..) | Absent::Header(..) => Ok(()),
        }
    }

    /// The question about `key`, in the field among `names` that the request had its key in, with
    /// the credentials of whoever asks now.
    ///
    /// # Errors
    /// The path cannot be built with this key.
    pub fn question(
        &self,
        asked: &Parts,
        key: &Key,
        names: &[HeaderName],
    ) -> Result<Request<()>, http::Error> {
        let path = self.path.replace(KEY, &escaped(key.as_str()));
        let mut question = Request::builder().method(Method::GET).uri(path).body(())?;
        *question.version_mut() = asked.version;
        let mut uri = question.uri().clone().into_parts();
        // In HTTP/2 the authority belongs to the target.
        uri.scheme = asked.uri.scheme().cloned();
        uri.authority = asked.uri.authority().cloned();
        if uri.scheme.is_some() && uri.authority.is_some() {
            *question.uri_mut() = Uri::from_parts(uri)?;
        }
        *question.headers_mut() = asked.headers.clone();
        for name in asked.headers.keys().filter(|name| is_about_the_operation(name)) {
            question.headers_mut().remove(name);
        }
        for name in names.iter().filter(|name| asked.headers.contains_key(*name)) {
            question.headers_mut().insert(name.clone(), crate::key::render(key));
        }
        Ok(question)
    }

    /// What an answer says.
    pub fn read(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Found {
        if status.is_success() {
            return Found::Happened;
        }
        if is_running(status) {
            return Found::StillRunning;
        }
        let matches = match &self.absent {
            Absent::Header(name, value) => headers.get_all(name).iter().any(|it| it == value),
            Absent::Member(pointer, text) => serde_json::from_slice::<serde_json::Value>(body)
                .is_ok_and(|body| {
                    let found = body.pointer(pointer);
                    found.and_then(serde_json::Value::as_str) == Some(text)
                }),
        };
        if status == self.absent_status && matches { Found::Absent } else { Found::CannotTell }
    }

    /// A key that nobody has ever used. A service that has something to say about it says so of
    /// every key, and is not to be believed.
    pub fn unused_key(id: KeyId) -> Key {
        let text = format!("onlyonce-asks-about-nothing-{id}");
        // Its text is visible and short.
        Key::new(text).unwrap_or_else(|error| unreachable!("{error}"))
    }
}

const fn is_running(status: StatusCode) -> bool {
    matches!(status.as_u16(), 409 | 425)
}

/// Whether a field is about the body or the conditions of the request, and not about who asks.
fn is_about_the_operation(name: &HeaderName) -> bool {
    let parts = ["content-", "if-"];
    [EXPECT, RANGE, TRAILER, TRANSFER_ENCODING].contains(name)
        || parts.iter().any(|part| name.as_str().starts_with(part))
}

/// Percent-encoded but for what RFC 3986 calls unreserved.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe {
            path: "/orders/by-key/{key}?full=1".to_owned(),
            absent_status: StatusCode::NOT_FOUND,
            absent: Absent::Member("/error".to_owned(), "no such order".to_owned()),
        }
    }

    fn read(probe: &Probe, status: u16, headers: &[(&str, &str)], body: &str) -> Found {
        let fields = headers.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap())
        });
        let status = StatusCode::from_u16(status).unwrap();
        probe.read(status, &fields.collect(), body.as_bytes())
    }

    #[test]
    fn only_the_service_itself_can_say_that_it_did_not_happen() {
        let by_member = probe();
        let absent = "{\"error\":\"no such order\"}";
        for (status, body, found) in [
            (200, "{}", Found::Happened),
            (204, "", Found::Happened),
            (409, absent, Found::StillRunning),
            (425, "", Found::StillRunning),
            (404, absent, Found::Absent),
            (404, "<h1>Not Found</h1>", Found::CannotTell),
            (404, "{\"error\":\"no such page\"}", Found::CannotTell),
            (404, "{\"error\":{\"no such order\":1}}", Found::CannotTell),
            (410, absent, Found::CannotTell),
            (401, absent, Found::CannotTell),
            (502, absent, Found::CannotTell),
            (302, "", Found::CannotTell),
        ] {
            assert_eq!(read(&by_member, status, &[], body), found, "{status} {body}");
        }
        let field = (HeaderName::from_static("x-lookup"), HeaderValue::from_static("none"));
        let by_field = Probe { absent: Absent::Header(field.0, field.1), ..probe() };
        assert_eq!(read(&by_field, 404, &[("x-lookup", "none")], ""), Found::Absent);
        assert_eq!(read(&by_field, 404, &[("x-lookup", "some")], absent), Found::CannotTell);
        assert_eq!(read(&by_field, 404, &[], absent), Found::CannotTell);
    }

    #[test]
    fn the_question_has_key_and_credentials_and_nothing_of_the_operation() {
        let (asked, ()) = Request::post("/orders")
            .header("host", "shop")
            .header("authorization", "Bearer alice")
            .header("idempotency-key", "a b/\"")
            .header("content-type", "application/json")
            .header("content-length", "5")
            .body(())
            .unwrap()
            .into_parts();
        let key = Key::new("a b/\"".to_owned()).unwrap();
        let question = probe().question(&asked, &key, &[crate::headers::IDEMPOTENCY_KEY]).unwrap();
        assert_eq!(question.method(), Method::GET);
        assert_eq!(question.uri(), "/orders/by-key/a%20b%2F%22?full=1");
        let names: Vec<_> = question.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "authorization", "idempotency-key"]);
    }

    #[test]
    fn a_probe_that_proves_nothing_is_refused() {
        assert_eq!(probe().check(), Ok(()));
        for path in ["orders", "http://elsewhere/", "//elsewhere/x", "/a b"] {
            let wrong = Probe { path: path.to_owned(), ..probe() };
            assert_eq!(wrong.check(), Err(ProbeError::Path(path.to_owned())), "{path}");
        }
        for status in [StatusCode::OK, StatusCode::CONFLICT, StatusCode::TOO_EARLY] {
            let wrong = Probe { absent_status: status, ..probe() };
            assert_eq!(wrong.check(), Err(ProbeError::Status(status)));
        }
        let wrong = Probe { absent: Absent::Member("error".into(), "x".into()), ..probe() };
        assert_eq!(wrong.check(), Err(ProbeError::Pointer("error".into())));
    }
}
