//! Problem documents, and the errors that they are.

use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use serde_json::Value;

use crate::error::{Happened, Kind, OnceError, ReuseKey, Who};
use crate::http1::Answer;

const KINDS: [(&str, Kind); 12] = [
    ("request-in-progress", Kind::InProgress),
    ("key-reused", Kind::Mismatch),
    ("outcome-unknown", Kind::OutcomeUnknown),
    ("reply-not-kept", Kind::Gone),
    ("key-expired", Kind::Expired),
    ("key-sealed", Kind::Sealed),
    ("fenced", Kind::Fenced),
    ("store-unavailable", Kind::StoreAway),
    ("no-room", Kind::StoreAway),
    ("second-reply", Kind::SecondReply),
    ("attempt-released", Kind::NotExecuted),
    ("upstream-unreachable", Kind::NotExecuted),
];

/// The problem document that an answer is, if it is one of onlyonce's.
pub(crate) fn problem_of(answer: &Answer) -> Option<Value> {
    let kind = answer.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/problem+json") {
        return None;
    }
    let document: Value = serde_json::from_slice(&answer.body).ok()?;
    let is_ours = document.get("type").is_some_and(Value::is_string)
        && document.get("happened").is_some()
        && document.get("retryable").is_some();
    is_ours.then_some(document)
}

/// The error that a problem document is. What it does not say is as its kind has it.
pub(crate) fn from_problem(problem: Value, key: &str, retry_after: Option<Duration>) -> OnceError {
    let word = |name: &str| problem.get(name).and_then(Value::as_str);
    // The end of its type, whatever base the service has.
    let name = word("type").unwrap_or_default().rsplit([':', '/', '#']).next().unwrap_or_default();
    let kind = KINDS.iter().find(|(it, _)| *it == name).map_or(Kind::Refused, |(_, kind)| *kind);
    let text = word("detail").or(word("title")).unwrap_or(name);
    let mut error = OnceError::new(kind, format!("{name}: {text}"), key);
    let inner = error.inner();
    inner.problem_name = Some(name.to_owned());
    inner.retry_after = retry_after;
    if let Some(happened) = word("happened").and_then(Happened::of) {
        inner.happened = happened;
    }
    if let Some(retryable) = problem.get("retryable").and_then(Value::as_bool) {
        inner.retryable = retryable;
    }
    if let Some(who) = word("who").and_then(Who::of) {
        inner.who = who;
    }
    inner.reuse_key = word("reuse_key").and_then(ReuseKey::of);
    inner.problem = problem;
    error
}

/// How long the answer says to wait; `None` if it does not, or not legibly. A moment is taken from
/// the answer's own date, so that no clock but the server's counts.
pub(crate) fn retry_after(answer: &Answer) -> Option<Duration> {
    let said = answer.header(RETRY_AFTER.as_str())?.trim();
    if !said.is_empty() && said.bytes().all(|it| it.is_ascii_digit()) {
        let digits = &said[..said.len().min(9)];
        return digits.parse().ok().map(Duration::from_secs);
    }
    let at = |text: &str| -> Option<SystemTime> { httpdate::parse_http_date(text.trim()).ok() };
    let (then, now) = (at(said)?, at(answer.header(DATE.as_str())?)?);
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn answer(headers: &[(&'static str, &'static str)]) -> Answer {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        Answer { status: 503, headers: all, body: Bytes::new() }
    }

    #[test]
    fn problems_are_the_errors_that_every_client_has() {
        let vectors = include_str!("../../../clients/vectors.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        for (name, kind) in vectors["problems"].as_object().unwrap() {
            for base in ["urn:onlyonce:problem:", "https://api.example/problems#"] {
                let kind_of = format!("{base}{name}");
                let problem = serde_json::json!({"type": kind_of, "happened": "no"});
                let error = from_problem(problem, "k", None);
                assert_eq!(error.kind().name(), kind);
                assert_eq!(error.problem_name(), Some(name.as_str()));
                assert_eq!(error.happened(), Happened::No);
                assert_eq!(error.reuse_key(), None);
            }
        }
    }

    #[test]
    fn a_wait_is_read_in_both_forms_and_else_not_at_all() {
        let seconds = |said| retry_after(&answer(&[("retry-after", said)]));
        assert_eq!(seconds("20"), Some(Duration::from_secs(20)));
        for wrong in ["", "-1", "soon", "1.5", "Fri, 27 Nov 2026 20:00:20 GMT"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        let dated = [
            ("retry-after", "Fri, 27 Nov 2026 20:00:20 GMT"),
            ("date", "Fri, 27 Nov 2026 20:00:00 GMT"),
        ];
        assert_eq!(retry_after(&answer(&dated)), Some(Duration::from_secs(20)));
    }
}
