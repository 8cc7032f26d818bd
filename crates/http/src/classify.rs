//! What an upstream's answer, or its absence, says about whether the operation happened.

use std::fmt;

use http::{HeaderMap, StatusCode, header};
use onlyonce_core::Cause;

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Definitely answered: the answer is kept and replayed, be it an error.
    Complete,
    /// It certainly did not happen; the same key may be used again.
    Release {
        /// The caller was refused as unauthenticated, so what it sent binds nobody.
        stranger: bool,
    },
    /// Nobody can tell.
    Abandon(Cause),
}

/// A route's own word on some statuses; it goes before the rules of [`classify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassifyRules {
    /// These are definite answers.
    pub complete: Vec<StatusCode>,
    /// These mean that nothing happened.
    pub release: Vec<StatusCode>,
    /// These mean that nobody can tell.
    pub unknown: Vec<StatusCode>,
}

/// A status in two lists of [`ClassifyRules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassifyError(pub StatusCode);

impl fmt::Display for ClassifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {} is listed under two of complete, release, unknown", self.0.as_u16())
    }
}

impl std::error::Error for ClassifyError {}

impl ClassifyRules {
    /// Checks that no status is listed in two ways.
    ///
    /// # Errors
    /// The first one that is.
    pub fn check(&self) -> Result<(), ClassifyError> {
        let lists = [&self.complete, &self.release, &self.unknown];
        for (at, list) in lists.iter().enumerate() {
            let others = || lists[at + 1..].iter().flat_map(|other| other.iter());
            if let Some(status) = list.iter().find(|status| others().any(|it| it == *status)) {
                return Err(ClassifyError(*status));
            }
        }
        Ok(())
    }
}

/// What an upstream's answer says.
///
/// 401, 403, 407, 408, 421, 425 and 429 are refusals before anything ran; so is 503 with
/// `Retry-After`, by which a server says that it turned the request away. 502, 503 without it and
/// 504 come from a gateway that does not know. Everything else is an answer, 500 included: a
/// server that fails half-way may have done the half that counts.
pub fn classify(status: StatusCode, headers: &HeaderMap, rules: &ClassifyRules) -> Ending {
    let stranger = matches!(status.as_u16(), 401 | 403 | 407);
    if rules.complete.contains(&status) {
        return Ending::Complete;
    }
    if rules.release.contains(&status) {
        return Ending::Release { stranger };
    }
    if rules.unknown.contains(&status) {
        return Ending::Abandon(Cause::GatewayAnswer);
    }
    match status.as_u16() {
        401 | 403 | 407 | 408 | 421 | 425 | 429 => Ending::Release { stranger },
        503 if headers.contains_key(header::RETRY_AFTER) => Ending::Release { stranger },
        502..=504 => Ending::Abandon(Cause::GatewayAnswer),
        _ => Ending::Complete,
    }
}

/// How a request got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Provably nothing was sent or begun: the connection was refused, TLS failed, or the stream
    /// was refused (RFC 9113 section 8.7).
    NeverSent,
    /// The connection was lost after something was sent.
    SentAndLost,
    /// No answer came in time.
    TimedOut,
    /// The answer broke off.
    AnswerCut,
}

impl FailureKind {
    /// What it says about the operation.
    pub const fn ending(self) -> Ending {
        match self {
            Self::NeverSent => Ending::Release { stranger: false },
            Self::SentAndLost => Ending::Abandon(Cause::ConnectionLost),
            Self::TimedOut => Ending::Abandon(Cause::TimedOut),
            Self::AnswerCut => Ending::Abandon(Cause::AnswerCut),
        }
    }
}

/// A request to the upstream that got no whole answer. Whoever makes it must be sure of the kind:
/// [`FailureKind::NeverSent`] lets the operation run again.
#[derive(Debug)]
pub struct UpstreamFailure {
    kind: FailureKind,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl UpstreamFailure {
    /// A failure with what to write in the log. The text is not shown to callers.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), source: None }
    }

    /// Adds the error behind it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// How far the request got.
    pub const fn kind(&self) -> FailureKind {
        self.kind
    }

    /// What it says about the operation.
    pub const fn ending(&self) -> Ending {
        self.kind.ending()
    }
}

impl fmt::Display for UpstreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FailureKind::NeverSent => "the upstream was not reached, nothing was sent",
            FailureKind::SentAndLost => "the connection was lost after sending",
            FailureKind::TimedOut => "the upstream did not answer in time",
            FailureKind::AnswerCut => "the upstream's answer broke off",
        };
        write!(f, "{what}: {}", self.text)
    }
}

impl std::error::Error for UpstreamFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn by_default(status: u16, retry_after: bool) -> Ending {
        let mut headers = HeaderMap::new();
        if retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        let status = StatusCode::from_u16(status).unwrap();
        classify(status, &headers, &ClassifyRules::default())
    }

    #[test]
    fn every_status_has_one_meaning() {
        for status in 200..=599 {
            for retry_after in [false, true] {
                let expect = match (status, retry_after) {
                    (401 | 403 | 407, _) => Ending::Release { stranger: true },
                    (408 | 421 | 425 | 429, _) | (503, true) => Ending::Release { stranger: false },
                    (502 | 504, _) | (503, false) => Ending::Abandon(Cause::GatewayAnswer),
                    _ => Ending::Complete,
                };
                assert_eq!(by_default(status, retry_after), expect, "{status}");
            }
        }
    }

    #[test]
    fn a_route_has_the_first_word() {
        let list = |status: u16| vec![StatusCode::from_u16(status).unwrap()];
        let rules = ClassifyRules { complete: list(429), release: list(500), unknown: list(200) };
        let of = |status: u16| {
            classify(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &rules)
        };
        assert_eq!(of(429), Ending::Complete);
        assert_eq!(of(500), Ending::Release { stranger: false });
        assert_eq!(of(200), Ending::Abandon(Cause::GatewayAnswer));
        assert_eq!(rules.check(), Ok(()));
        let both = ClassifyRules { complete: list(429), release: list(429), ..rules };
        assert_eq!(both.check(), Err(ClassifyError(StatusCode::TOO_MANY_REQUESTS)));
    }

    #[test]
    fn only_a_request_that_never_left_is_released() {
        assert_eq!(FailureKind::NeverSent.ending(), Ending::Release { stranger: false });
        for kind in [FailureKind::SentAndLost, FailureKind::TimedOut, FailureKind::AnswerCut] {
            assert!(matches!(kind.ending(), Ending::Abandon(_)));
        }
        let failure = UpstreamFailure::new(FailureKind::TimedOut, "after 30 s")
            .with_source(std::io::Error::other("x"));
        assert!(failure.to_string().ends_with("in time: after 30 s"));
        assert!(std::error::Error::source(&failure).is_some());
    }
}
