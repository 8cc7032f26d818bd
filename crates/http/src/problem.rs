//! The answers we make ourselves: one table of them, and the RFC 9457 body of each.
//!
//! `docs/problems.md` is generated from the table. A problem is told by its type, never by its
//! status: upstreams answer 409 and 422 too.

mod kind;
mod table;

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use onlyonce_core::{Key, Record, State, Timestamp};
use serde_json::{Map, Value, json};

use crate::date::rfc3339;
use crate::render::{self, Rendered};
use crate::status::IdempotencyStatus;
pub use kind::{ProblemKind, Row, Who};
pub use table::TABLE;

/// What problem types begin with unless configured otherwise.
pub const TYPE_BASE: &str = "urn:onlyonce:problem:";

/// Whether anything has happened under the key, in this attempt or an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It has.
    Yes,
    /// It certainly has not.
    No,
    /// This answer cannot say.
    Unknown,
}

impl Happened {
    /// The value of the member `happened`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }

    /// What a record says about its key.
    pub fn by_record(record: Option<&Record>) -> Self {
        let Some(record) = record else { return Self::Unknown };
        match &record.state {
            _ if !record.may_have_run() => Self::No,
            State::Completed { sealed: false, .. } | State::Tombstone { sealed: false, .. } => {
                Self::Yes
            }
            State::InFlight(_)
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => Self::Unknown,
        }
    }
}

/// What to do with the key of a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReuseKey {
    /// Ask again only with this key: another one could run the operation twice.
    Must,
    /// This key can never be right for this request.
    MustNot,
}

impl ReuseKey {
    /// The value of the member `reuse_key`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::MustNot => "must_not",
        }
    }
}

/// An answer of ours. Begins as its row of the table says; what is known better is set on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    kind: ProblemKind,
    status: StatusCode,
    says: IdempotencyStatus,
    happened: Happened,
    detail: String,
    retryable: bool,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
}

impl Problem {
    /// The problem as the table has it.
    pub fn new(kind: ProblemKind) -> Self {
        let row = kind.row();
        Self {
            kind,
            status: row.status,
            says: row.says,
            happened: row.happened,
            detail: row.detail.to_owned(),
            retryable: row.retryable,
            retry_after: None,
            members: Map::new(),
        }
    }

    /// What is wrong, for this request.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// Another status than the table's.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// How far the key got, known better than the table.
    #[must_use]
    pub fn with_outcome(self, says: IdempotencyStatus, happened: Happened) -> Self {
        Self { says, happened, ..self }
    }

    /// Whether the same request may succeed later, known better than the table.
    #[must_use]
    pub fn with_retryable(self, retryable: bool) -> Self {
        Self { retryable, ..self }
    }

    /// When asking again may help. Has no effect on problems for which waiting does not.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let retry_after = self.kind.row().waiting_helps.then_some(wait);
        Self { retry_after, ..self }
    }

    /// A further member of the body.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// A further member that is an instant.
    #[must_use]
    pub fn with_time(self, name: &str, at: Timestamp) -> Self {
        self.with_member(name, rfc3339(at))
    }

    /// Its place in the table.
    pub const fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// How far the request got.
    pub const fn says(&self) -> IdempotencyStatus {
        self.says
    }

    /// Whether anything has happened under the key.
    pub const fn happened(&self) -> Happened {
        self.happened
    }

    /// The body (RFC 9457). `base` is what the type begins with.
    pub fn body(&self, base: &str) -> Value {
        let row = self.kind.row();
        let mut body = self.members.clone();
        body.insert("type".into(), self.type_uri(base).into());
        body.insert("title".into(), row.title.into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("detail".into(), self.detail.clone().into());
        body.insert("retryable".into(), self.retryable.into());
        body.insert("happened".into(), self.happened.name().into());
        body.insert("who".into(), self.kind.who().name().into());
        if let Some(reuse_key) = row.reuse_key {
            body.insert("reuse_key".into(), json!(reuse_key.name()));
        }
        Value::Object(body)
    }

    /// The response. `key` is echoed, if the request had a readable one.
    pub fn render(&self, base: &str, key: Option<&Key>) -> Rendered {
        let body = Bytes::from(self.body(base).to_string());
        let mut head = Response::new(()).into_parts().0;
        head.status = self.status;
        let headers = &mut head.headers;
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            // In whole seconds, rounded up: earlier would be in vain.
            let seconds = wait.as_secs() + u64::from(0 < wait.subsec_nanos());
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        if base.starts_with("http") {
            let link = format!("<{}>; rel=\"describedby\"", self.type_uri(base));
            headers.insert(header::LINK, crate::headers::value(&link));
        }
        render::mark(headers, self.says, key, None);
        Rendered { head, body, trailers: None }
    }

    fn type_uri(&self, base: &str) -> String {
        format!("{base}{}", self.kind.row().name)
    }
}

/// The page that documents every problem, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Problems\n\n\
         <!-- Generated from `crates/http/src/problem/table.rs` by `cargo xtask docs`. -->\n\n\
         Every answer that onlyonce makes itself is an `application/problem+json` document \
         (RFC 9457). Tell problems by `type`, which is the configured base (default \
         `urn:onlyonce:problem:`) and the name below, never by the status: the service behind \
         onlyonce answers 409 and 422 too.\n\n\
         - `retryable`: whether the same request may succeed later without being changed. That of \
         `outcome-unknown` is `true` where the route has such an operation run again, or asked \
         about, at that moment.\n\
         - `happened`: whether anything has happened under this key, in this attempt or an \
         earlier one. `unknown` means that this answer cannot say.\n\
         - `who`: who failed, which decides who can mend it: the `caller`; an `attempt` whose end \
         nobody knows; the `upstream`; the `store`; `onlyonce` itself; or `nobody`, where things \
         simply stand so.\n\
         - `reuse_key`: `must` means that another key could run the operation twice; `must_not` \
         means that this key can never be right for this request.\n\
         - `Idempotency-Status`: how far the request got.\n\n\
         | name | status | Retry-After | Idempotency-Status | retryable | happened | who | \
         reuse_key |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let yes = |it: bool| if it { "yes" } else { "no" };
    for row in &TABLE {
        let reuse = row.reuse_key.map_or("", ReuseKey::name);
        let _ = writeln!(
            page,
            "| [{name}](#{name}) | {} | {} | {} | {} | {} | {} | {reuse} |",
            row.status.as_u16(),
            yes(row.waiting_helps),
            row.says,
            yes(row.retryable),
            row.happened.name(),
            row.kind.who().name(),
            name = row.name,
        );
    }
    for row in &TABLE {
        let _ = write!(page, "\n## {}\n\n{}. {}\n", row.name, row.title, row.advice);
    }
    page
}

#[cfg(test)]
mod tests;
