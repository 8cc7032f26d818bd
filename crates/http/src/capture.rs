//! Which parts of an answer are kept, and collecting them while the answer streams by.

use http::response::Parts as Head;
use http::{HeaderMap, HeaderName, header};
use onlyonce_core::Reply;

use crate::content;
use crate::headers::{self, HOP_BY_HOP};
use crate::redact::Redact;
use crate::route::RoutePolicy;

/// What belongs to one sending of an answer: written anew for each, or not at all.
const NEVER_KEPT: [HeaderName; 3] = [header::DATE, header::AGE, header::CONTENT_LENGTH];

/// The fields of an answer that are kept: all that concern the answer itself, in their order.
///
/// Not kept are the fields of one connection and those that `Connection` names, `Date`, `Age`,
/// `Content-Length`, all of CORS (they speak to the origin that asked), our own marks, and
/// `Set-Cookie` unless `set_cookie` says so: a replay could bring an old session back.
pub fn kept_headers(headers: &HeaderMap, set_cookie: bool) -> HeaderMap {
    let named = headers::connection_names(headers);
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let dropped = HOP_BY_HOP.contains(name)
            || NEVER_KEPT.contains(name)
            || named.contains(name)
            || is_ours(name)
            || name.as_str().starts_with("access-control-")
            || (*name == header::SET_COOKIE && !set_cookie);
        if !dropped {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn is_ours(name: &HeaderName) -> bool {
    [headers::STATUS, headers::REPLAYED, headers::ORIGINAL_DATE, headers::EXPIRES].contains(name)
        || [headers::IDEMPOTENCY_KEY, headers::REDACTED].contains(name)
}

/// The trailers that are kept: those that could not be taken for framing or for our marks.
fn kept_trailers(trailers: &HeaderMap) -> HeaderMap {
    kept_headers(trailers, false)
}

/// An answer being collected while it is sent on. The body is copied once, up to a bound.
#[derive(Debug)]
pub struct Capture {
    status: u16,
    /// `None` once the bound was passed. With something to take out it is the body alone.
    content: Option<Vec<u8>>,
    content_max: usize,
    /// The head, and what is to be taken out of it and of the body once that is whole.
    redact: Option<(HeaderMap, Redact)>,
}

impl Capture {
    /// Begins with the head, and keeps of the answer what the route keeps. `content_max` bounds the
    /// kept bytes, head and trailers included.
    pub fn on(route: &RoutePolicy, head: &Head, content_max: usize) -> Self {
        if route.redact.is_none() {
            return Self::new(head, route.set_cookie, content_max);
        }
        let headers = kept_headers(&head.headers, route.set_cookie);
        let redact = Some((headers, route.redact.clone()));
        Self { status: head.status.as_u16(), content: Some(Vec::new()), content_max, redact }
    }

    /// The same without a route: all of the answer is kept, `Set-Cookie` if `set_cookie` says so.
    pub fn new(head: &Head, set_cookie: bool, content_max: usize) -> Self {
        let content = content::begin(&kept_headers(&head.headers, set_cookie));
        let content = Some(content).filter(|it| it.len() <= content_max);
        Self { status: head.status.as_u16(), content, content_max, redact: None }
    }

    /// Takes the next bytes of the body. Past the bound everything is let go: an answer is kept
    /// whole or not at all.
    pub fn push(&mut self, data: &[u8]) {
        let Some(content) = &mut self.content else { return };
        if self.content_max - content.len() < data.len() {
            self.content = None;
        } else {
            content.extend_from_slice(data);
        }
    }

    /// Whether the answer is still being kept.
    pub const fn is_kept(&self) -> bool {
        self.content.is_some()
    }

    /// The reply to record. It has its content if all of it was within the bound, and if what is
    /// never kept could be taken out of it.
    pub fn finish(self, trailers: Option<&HeaderMap>) -> Reply {
        let trailers = trailers.map(kept_trailers).unwrap_or_default();
        let content = self.content.and_then(|content| match self.redact {
            None => Some(content::end(content, &trailers)),
            Some((headers, redact)) => redact.content(headers, &content, trailers),
        });
        match content.filter(|content| content.len() <= self.content_max) {
            Some(content) => Reply::kept(self.status, content),
            None => Reply::not_kept(self.status),
        }
    }
}

/// The reply to record for an answer that is already in memory, such as one of our own.
pub fn whole(head: &Head, body: &[u8], set_cookie: bool, content_max: usize) -> Reply {
    let mut capture = Capture::new(head, set_cookie, content_max);
    capture.push(body);
    capture.finish(None)
}
