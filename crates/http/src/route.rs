//! The numbers and choices of a route in one value, checked once.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use onlyonce_core::limits::{FOREVER, KEY_AHEAD_MAX, REPLY_BYTES_MAX};
use onlyonce_core::{Always, Cause, Class, OnUnknown, Policy, PolicyError};

use crate::classify::{ClassifyError, ClassifyRules, Ending, classify};
use crate::cors::Cors;
use crate::fingerprint::FingerprintRule;
use crate::headers::IDEMPOTENCY_KEY;
use crate::key::{KeyFormat, KeyPolicy, KeySpelling};
use crate::probe::{Probe, ProbeError};
use crate::problem::TYPE_BASE;
use crate::redact::Redact;
use crate::scope::ScopeRule;

const MIB: usize = 1 << 20;

/// What happens to keyed requests while the store cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStoreError {
    /// They are refused.
    #[default]
    Closed,
    /// They pass without protection, and the answer says so.
    Open,
}

impl OnStoreError {
    /// The name used in configuration and in the published policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

/// How requests to a route are protected. [`RoutePolicy::check`] states the bounds.
#[derive(Clone, Debug)]
pub struct RoutePolicy {
    /// How long things last, and what an unknown outcome allows.
    pub record: Policy,
    /// How long a concurrent duplicate waits for the first one's answer. Default 5 s.
    pub wait: Duration,
    /// What `Retry-After` says where waiting helps. Default 2 s.
    pub retry_after: Duration,
    /// The methods that are protected. Default POST and PATCH.
    pub methods: Vec<Method>,
    /// Whether a key is needed. Default optional.
    pub keys: KeyPolicy,
    /// The fields a key may come in; lines are counted over all. Default `Idempotency-Key`.
    pub key_names: Vec<HeaderName>,
    /// Which spellings are accepted. Default lenient.
    pub key_spelling: KeySpelling,
    /// What keys look like. Default any.
    pub key_format: KeyFormat,
    /// How far ahead of our clock a key's time may be. Default 5 min.
    pub key_ahead_max: Duration,
    /// Whom keys belong to. Default auto.
    pub scope: ScopeRule,
    /// What makes a request the same one.
    pub fingerprint: FingerprintRule,
    /// The route's own word on statuses.
    pub classify: ClassifyRules,
    /// Largest answer that is kept, in bytes. Default 16 MiB.
    pub reply_max: usize,
    /// Largest body of a keyed request, in bytes. Default 16 MiB.
    pub body_max: usize,
    /// What happens while the store is away. Default closed.
    pub on_store_error: OnStoreError,
    /// Whether `Set-Cookie` is kept and replayed. Default no.
    pub set_cookie: bool,
    /// What is never kept of an answer. Default nothing.
    pub redact: Redact,
    /// Whether keyed requests in TLS early data are refused with 425. Default yes.
    pub refuse_early_data: bool,
    /// What problem types begin with. Default [`TYPE_BASE`].
    pub problem_base: String,
    /// Which pages may read the answers made here. Default none.
    pub cors: Cors,
    /// Where the service is asked about an unknown outcome, if the receiver is queryable.
    pub probe: Option<Probe>,
}

impl Default for RoutePolicy {
    fn default() -> Self {
        Self {
            record: Policy::default(),
            wait: Duration::from_secs(5),
            retry_after: Duration::from_secs(2),
            methods: vec![Method::POST, Method::PATCH],
            keys: KeyPolicy::default(),
            key_names: vec![IDEMPOTENCY_KEY],
            key_spelling: KeySpelling::default(),
            key_format: KeyFormat::default(),
            key_ahead_max: KEY_AHEAD_MAX,
            scope: ScopeRule::default(),
            fingerprint: FingerprintRule::default(),
            classify: ClassifyRules::default(),
            reply_max: 16 * MIB,
            body_max: 16 * MIB,
            on_store_error: OnStoreError::default(),
            set_cookie: false,
            redact: Redact::default(),
            refuse_early_data: true,
            problem_base: TYPE_BASE.to_owned(),
            cors: Cors::default(),
            probe: None,
        }
    }
}

/// Choices that contradict each other or a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteError {
    /// A number of the record's policy.
    Policy(PolicyError),
    /// A status in two lists.
    Classify(ClassifyError),
    /// No field that a key could come in.
    NoKeyName,
    /// The method has no effect that could happen twice, or no answer that could be kept.
    Method(Method),
    /// More than any store keeps.
    ReplyMax(usize),
    /// Keys from further ahead than a store that lost its records looks.
    KeyAhead(Duration),
    /// A cookie's name that no cookie has.
    Cookie(String),
    /// What problem types begin with is not a URI in visible ASCII.
    ProblemBase(String),
    /// A probe that could settle nothing, or settle it wrongly.
    Probe(ProbeError),
    /// The receiver is to be asked, or is said to be, and nothing says where.
    NoProbe,
    /// It is said where to ask, and `on_unknown` never does.
    UnusedProbe,
    /// It is said where to ask, and not when a "no" is final.
    ProbeWithoutBounds,
    /// What only an effect in Rust can make use of.
    Receiver(Class),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(f),
            Self::Classify(error) => error.fmt(f),
            Self::NoKeyName => f.write_str("no header name is given for the key"),
            Self::Method(method) => write!(f, "method {method} cannot be protected"),
            Self::KeyAhead(ahead) => write!(
                f,
                "key_ahead_max {ahead:?} is longer than {KEY_AHEAD_MAX:?}: keys from further ahead \
                 could run twice once a store is lost"
            ),
            Self::ReplyMax(bytes) => {
                write!(f, "reply_max {bytes} is larger than {REPLY_BYTES_MAX}")
            }
            Self::Cookie(name) => write!(f, "{name:?} is no name of a cookie"),
            Self::ProblemBase(base) => write!(f, "problem base {base:?} is not a URI"),
            Self::Probe(error) => error.fmt(f),
            Self::NoProbe => f.write_str(
                "the receiver is to be asked (on_unknown is probe, or auto with settle and late), \
                 and no probe says where to ask",
            ),
            Self::UnusedProbe => {
                f.write_str("a probe is used only with on_unknown = \"probe\" or \"auto\"")
            }
            Self::ProbeWithoutBounds => f.write_str(
                "a probe needs the receiver's settle and late: they say when a \"no\" is final",
            ),
            Self::Receiver(class) => write!(
                f,
                "a route's receiver cannot be {class}: only an effect of the Rust API can make \
                 use of that"
            ),
        }
    }
}

impl std::error::Error for RouteError {}

impl RoutePolicy {
    /// Checks the bounds and the relations between the choices.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(self) -> Result<Self, RouteError> {
        self.record.check().map_err(RouteError::Policy)?;
        self.classify.check().map_err(RouteError::Classify)?;
        if self.key_names.is_empty() {
            return Err(RouteError::NoKeyName);
        }
        let unfit = |method: &&Method| method.is_safe() || **method == Method::CONNECT;
        if let Some(method) = self.methods.iter().find(unfit) {
            return Err(RouteError::Method(method.clone()));
        }
        if REPLY_BYTES_MAX < self.reply_max {
            return Err(RouteError::ReplyMax(self.reply_max));
        }
        if KEY_AHEAD_MAX < self.key_ahead_max {
            return Err(RouteError::KeyAhead(self.key_ahead_max));
        }
        if let ScopeRule::Cookie(name) = &self.scope {
            // A cookie's name is a token, as a field's is.
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| RouteError::Cookie(name.clone()))?;
        }
        self.check_receiver()?;
        let visible =
            self.problem_base.bytes().all(|it| it.is_ascii_graphic() && !b"<>\"".contains(&it));
        if !visible || !self.problem_base.contains(':') {
            return Err(RouteError::ProblemBase(self.problem_base));
        }
        Ok(self)
    }

    fn check_receiver(&self) -> Result<(), RouteError> {
        let receiver = self.record.receiver;
        match receiver.always {
            Some(always @ (Always::Transactional | Always::Sealable)) => {
                return Err(RouteError::Receiver(always.class()));
            }
            Some(Always::Fenced | Always::UniqueName) | None => {}
        }
        match (self.record.on_unknown, &self.probe, receiver.settle) {
            (OnUnknown::Hold | OnUnknown::Retry, Some(_), _) => Err(RouteError::UnusedProbe),
            (OnUnknown::Hold | OnUnknown::Retry, None, _) | (OnUnknown::Auto, None, None) => Ok(()),
            (OnUnknown::Probe, None, _) | (OnUnknown::Auto, None, Some(_)) => {
                Err(RouteError::NoProbe)
            }
            (OnUnknown::Probe | OnUnknown::Auto, Some(_), None) => {
                Err(RouteError::ProbeWithoutBounds)
            }
            (OnUnknown::Probe | OnUnknown::Auto, Some(probe), Some(_)) => {
                probe.check().map_err(RouteError::Probe)
            }
        }
    }

    /// What an answer of the service says about the operation: [`classify`], by the route's word.
    ///
    /// A fenced receiver refuses with 412 who comes under an older claim than it has seen (RFC 9110
    /// section 15.5.13: a precondition that came with the request does not hold). That is no answer
    /// to the operation, which runs or ran under the newer claim.
    pub fn ending(&self, status: StatusCode, headers: &HeaderMap) -> Ending {
        let ClassifyRules { complete, release, unknown } = &self.classify;
        let is_listed = [complete, release, unknown].iter().any(|list| list.contains(&status));
        let is_fenced = self.record.receiver.always == Some(Always::Fenced);
        if is_fenced && status == StatusCode::PRECONDITION_FAILED && !is_listed {
            return Ending::Abandon(Cause::Abandoned);
        }
        classify(status, headers, &self.classify)
    }

    /// What an operator should know about these choices before a request finds out.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.record.warnings().iter().map(ToString::to_string).collect();
        let mut warn = |text: &str| warnings.push(text.to_owned());
        match &self.scope {
            ScopeRule::Auto => warn(
                "scope is auto: callers without any credential share one scope, and a refreshed \
                 opaque token makes its retry a new operation",
            ),
            ScopeRule::Shared => {
                warn("scope is shared: whoever knows a key can read its answer");
            }
            ScopeRule::Header(_) => warn(
                "scope is a header: only safe if a gateway in front sets it and clients cannot",
            ),
            ScopeRule::Cookie(_) | ScopeRule::Jwt(_) => {}
        }
        if self.keys != KeyPolicy::Timed && self.record.remember != FOREVER {
            warn(
                "keys need not carry a time: one without runs as new when it comes back after \
                 remember",
            );
        }
        if self.on_store_error == OnStoreError::Open {
            warn("on_store_error is open: without the store requests pass unprotected");
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use onlyonce_core::Receiver;

    use super::*;
    use crate::probe::Absent;

    #[test]
    fn the_refusal_of_a_fenced_receiver_is_no_answer() {
        let ending = |always, classify| {
            let mut policy = RoutePolicy { classify, ..RoutePolicy::default() };
            policy.record.receiver = Receiver::always(always);
            policy.ending(StatusCode::PRECONDITION_FAILED, &HeaderMap::new())
        };
        let refused = Ending::Abandon(Cause::Abandoned);
        assert_eq!(ending(Always::Fenced, ClassifyRules::default()), refused);
        assert_eq!(ending(Always::UniqueName, ClassifyRules::default()), Ending::Complete);
        let complete = vec![StatusCode::PRECONDITION_FAILED];
        let listed = ClassifyRules { complete, ..ClassifyRules::default() };
        assert_eq!(ending(Always::Fenced, listed), Ending::Complete);
    }

    #[test]
    fn the_defaults_hold_and_contradictions_are_refused() {
        let default = RoutePolicy::default;
        assert!(default().check().is_ok());
        let refused = |policy: RoutePolicy| policy.check().unwrap_err();
        let none = RoutePolicy { key_names: vec![], ..default() };
        assert_eq!(refused(none), RouteError::NoKeyName);
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::CONNECT] {
            let policy = RoutePolicy { methods: vec![method.clone()], ..default() };
            assert_eq!(refused(policy), RouteError::Method(method));
        }
        let large = RoutePolicy { reply_max: usize::MAX, ..default() };
        assert_eq!(refused(large), RouteError::ReplyMax(usize::MAX));
        let far = RoutePolicy { key_ahead_max: Duration::from_secs(301), ..default() };
        assert_eq!(refused(far), RouteError::KeyAhead(Duration::from_secs(301)));
        let cookie = RoutePolicy { scope: ScopeRule::Cookie("a b".into()), ..default() };
        assert_eq!(refused(cookie), RouteError::Cookie("a b".into()));
        for base in ["", "no uri", "problems/", "https://x/\"/"] {
            let policy = RoutePolicy { problem_base: base.into(), ..default() };
            assert_eq!(refused(policy), RouteError::ProblemBase(base.into()));
        }
        let status = vec![StatusCode::CONFLICT];
        let classify =
            ClassifyRules { release: status.clone(), unknown: status, ..Default::default() };
        let twice = RoutePolicy { classify, ..default() };
        assert!(matches!(refused(twice), RouteError::Classify(_)));
    }

    #[test]
    fn a_probe_and_its_bounds_go_together_and_only_effects_seal() {
        let (bounds, bare) =
            (Receiver::queryable(Duration::from_secs(1), Duration::ZERO), Receiver::BARE);
        let absent = Absent::Member("/error".into(), "none".into());
        let path = "/by-key/{key}".to_owned();
        let probe = Probe { path, absent_status: StatusCode::NOT_FOUND, absent };
        let with = |on_unknown, receiver, probe: Option<&Probe>| {
            let record = Policy { on_unknown, receiver, ..Policy::default() };
            let probe = probe.cloned();
            RoutePolicy { record, probe, ..RoutePolicy::default() }.check().map(drop)
        };
        let (asks, auto) = (OnUnknown::Probe, OnUnknown::Auto);
        for (on_unknown, receiver, probe, says) in [
            (asks, bounds, Some(&probe), Ok(())),
            (auto, bounds, Some(&probe), Ok(())),
            (auto, bare, None, Ok(())),
            (asks, bounds, None, Err(RouteError::NoProbe)),
            (auto, bounds, None, Err(RouteError::NoProbe)),
            (OnUnknown::Hold, bounds, None, Ok(())),
            (auto, bare, Some(&probe), Err(RouteError::ProbeWithoutBounds)),
            (OnUnknown::Hold, bounds, Some(&probe), Err(RouteError::UnusedProbe)),
        ] {
            assert_eq!(with(on_unknown, receiver, probe), says, "{on_unknown:?} {receiver:?}");
        }
        for always in [Always::Transactional, Always::Sealable] {
            let refused = with(auto, Receiver::always(always), None);
            assert_eq!(refused, Err(RouteError::Receiver(always.class())));
        }
    }

    #[test]
    fn what_could_surprise_is_said_at_start() {
        assert_eq!(RoutePolicy::default().warnings().len(), 2);
        let open = RoutePolicy {
            keys: KeyPolicy::Timed,
            scope: ScopeRule::Cookie("sid".into()),
            on_store_error: OnStoreError::Open,
            ..RoutePolicy::default()
        };
        assert_eq!(open.warnings().len(), 1);
        let mut forever = RoutePolicy::default();
        forever.record.remember = FOREVER;
        assert_eq!(forever.warnings().len(), 1, "no key runs as new");
    }
}
