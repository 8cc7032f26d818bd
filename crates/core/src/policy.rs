//! The numbers and choices for a route or effect, checked against each other once.

use core::fmt;
use core::time::Duration;

use crate::limits::{LEASE_MAX, LEASE_MIN, RETENTION_MAX, SKEW_MAX};
use crate::receiver::{Class, Receiver};
use crate::time::Timestamp;

/// What a new request may do about an unknown outcome, as far as the receiver allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// Nothing: a person or the application resolves it.
    #[default]
    Hold,
    /// Run again while the receiver makes that harmless; it is counted as authorised. Else hold.
    Retry,
    /// Ask the receiver, then act on what it says.
    Probe,
    /// What the receiver offers at that moment: run again, seal, or probe; else hold.
    Auto,
}

impl OnUnknown {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hold, Self::Retry, Self::Probe, Self::Auto];

    /// The name used in configuration and in the published policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Retry => "retry",
            Self::Probe => "probe",
            Self::Auto => "auto",
        }
    }
}

/// What is done about an unknown outcome at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A claim is granted: the receiver makes a second run harmless.
    RunAgain,
    /// The key is sealed at the receiver: found there, or impossible from then on.
    Seal,
    /// The receiver is asked.
    Probe,
    /// Nothing.
    Hold,
}

impl Remedy {
    /// The name used in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunAgain => "run again",
            Self::Seal => "seal",
            Self::Probe => "probe",
            Self::Hold => "hold",
        }
    }
}

/// How long things last, and what an unknown outcome allows. [`Policy::check`] states the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a claim is exclusive without renewal. Default 30 s.
    pub lease: Duration,
    /// How long a reply is kept, from completion. Default 24 h.
    pub retention: Duration,
    /// How long it is remembered that the key was answered, from completion. Default 30 d. One
    /// number for all policies on a store: each writes down what it meets by its own. With
    /// [`FOREVER`](crate::limits::FOREVER) no key is ever forgotten, with a time or without.
    pub remember: Duration,
    /// How far two clocks of ours may differ; added before a lease counts as lapsed. Default 1 s.
    pub skew_max: Duration,
    /// What a request does that meets an unknown outcome. Default [`OnUnknown::Hold`].
    pub on_unknown: OnUnknown,
    /// What the receiver of the effect offers. Default nothing.
    pub receiver: Receiver,
}

/// Two numbers of a [`Policy`] that contradict each other or a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// The lease is outside [`LEASE_MIN`] to [`LEASE_MAX`].
    Lease(Duration),
    /// The retention is longer than [`RETENTION_MAX`].
    Retention(Duration),
    /// A reply would outlive the memory that its key was used.
    RememberBelowRetention {
        /// The configured memory.
        remember: Duration,
        /// The configured retention.
        retention: Duration,
    },
    /// The skew is longer than [`SKEW_MAX`].
    Skew(Duration),
    /// The receiver's window, or one of its bounds, is longer than [`RETENTION_MAX`].
    Receiver(Duration),
    /// The receiver's window closes before a run out of an unknown outcome can have arrived.
    WindowShort {
        /// The configured window.
        window: Duration,
        /// What has to fit into it: [`Policy::margin`].
        margin: Duration,
    },
    /// Unknown outcomes are to run again, and the receiver never makes that harmless.
    RetryNeverAllowed,
    /// The receiver is to be asked, and nothing says when its "no" is final.
    ProbeWithoutBounds,
}

/// Something a policy says that may surprise. [`fmt::Display`] says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyWarning {
    /// Callers may come back when the receiver has forgotten the key.
    WindowBelowRetention {
        /// The receiver's window.
        window: Duration,
        /// How long callers may expect an answer.
        retention: Duration,
        /// What is done about an unknown outcome from then on.
        after: Remedy,
    },
    /// The receiver chooses, and none is declared.
    AutoWithoutReceiver,
    /// A receiver is declared, and nothing is made of it.
    ReceiverUnused,
}

impl Policy {
    /// Checks the bounds and the relations between the numbers.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(self) -> Result<Self, PolicyError> {
        if self.lease < LEASE_MIN || LEASE_MAX < self.lease {
            return Err(PolicyError::Lease(self.lease));
        }
        if RETENTION_MAX < self.retention {
            return Err(PolicyError::Retention(self.retention));
        }
        if self.remember < self.retention {
            let Self { remember, retention, .. } = self;
            return Err(PolicyError::RememberBelowRetention { remember, retention });
        }
        if SKEW_MAX < self.skew_max {
            return Err(PolicyError::Skew(self.skew_max));
        }
        self.check_receiver()?;
        Ok(self)
    }

    fn check_receiver(&self) -> Result<(), PolicyError> {
        let Receiver { always: _, keyed, settle, late } = self.receiver;
        let spans = [keyed, settle, Some(late)].into_iter().flatten();
        if let Some(long) = spans.into_iter().find(|span| RETENTION_MAX < *span) {
            return Err(PolicyError::Receiver(long));
        }
        if let Some(window) = keyed.filter(|window| *window <= self.margin()) {
            return Err(PolicyError::WindowShort { window, margin: self.margin() });
        }
        match self.on_unknown {
            OnUnknown::Retry if !self.receiver.classes().any(Class::makes_harmless) => {
                Err(PolicyError::RetryNeverAllowed)
            }
            OnUnknown::Probe if settle.is_none() => Err(PolicyError::ProbeWithoutBounds),
            OnUnknown::Retry | OnUnknown::Probe | OnUnknown::Hold | OnUnknown::Auto => Ok(()),
        }
    }

    /// What should be said at start: things that hold, and may surprise.
    pub fn warnings(&self) -> Vec<PolicyWarning> {
        let Self { retention, on_unknown, receiver, .. } = *self;
        let mut warnings = Vec::new();
        let runs_again = matches!(on_unknown, OnUnknown::Retry | OnUnknown::Auto);
        if let Some(window) = receiver.keyed
            && window < retention
            && runs_again
            && receiver.always.is_none()
        {
            let after = self.remedy_at(None, Timestamp::MAX);
            warnings.push(PolicyWarning::WindowBelowRetention { window, retention, after });
        }
        let is_bare = receiver.classes().all(|class| class == Class::Bare);
        match on_unknown {
            OnUnknown::Auto if is_bare => warnings.push(PolicyWarning::AutoWithoutReceiver),
            OnUnknown::Hold if !is_bare => warnings.push(PolicyWarning::ReceiverUnused),
            OnUnknown::Auto | OnUnknown::Hold | OnUnknown::Retry | OnUnknown::Probe => {}
        }
        warnings
    }

    /// How long a run that is granted now may take to arrive: it goes out while its lease lasts, by
    /// clocks that differ, and may be late on its way.
    pub fn margin(&self) -> Duration {
        let leaves = self.lease.saturating_add(self.skew_max);
        leaves.saturating_add(self.receiver.late)
    }

    /// What the receiver offers for a run that is granted at `now`, where an attempt first may
    /// have been sent at `first_commit`.
    pub fn class_at(&self, first_commit: Option<Timestamp>, now: Timestamp) -> Class {
        self.receiver.class_at(first_commit, now.plus(self.margin()))
    }

    /// What is done about an unknown outcome at `now`.
    pub fn remedy_at(&self, first_commit: Option<Timestamp>, now: Timestamp) -> Remedy {
        self.remedy(self.class_at(first_commit, now))
    }

    /// What is done about an unknown outcome while the receiver is of this class.
    pub fn remedy(&self, class: Class) -> Remedy {
        match self.on_unknown {
            OnUnknown::Retry | OnUnknown::Auto if class.makes_harmless() => Remedy::RunAgain,
            OnUnknown::Auto if class == Class::Sealable => Remedy::Seal,
            OnUnknown::Auto if class == Class::Queryable => Remedy::Probe,
            OnUnknown::Probe if self.receiver.settle.is_some() => Remedy::Probe,
            OnUnknown::Hold | OnUnknown::Retry | OnUnknown::Auto | OnUnknown::Probe => Remedy::Hold,
        }
    }

    /// Whether the receiver's "no", to a question asked at `asked`, is final for a record that was
    /// last written at `written`: nothing of the attempt can be on its way any more, and what it
    /// had done would show. Without declared bounds no "no" ever is.
    pub fn is_final(&self, written: Timestamp, asked: Timestamp) -> bool {
        self.receiver.settle.is_some_and(|settle| {
            written.plus(self.skew_max).plus(self.receiver.late).plus(settle) <= asked
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        const HOUR: u64 = 60 * 60;
        Self {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(24 * HOUR),
            remember: Duration::from_secs(30 * 24 * HOUR),
            skew_max: Duration::from_secs(1),
            on_unknown: OnUnknown::Hold,
            receiver: Receiver::BARE,
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(lease) => {
                write!(f, "lease {lease:?} is outside {LEASE_MIN:?} to {LEASE_MAX:?}")
            }
            Self::Retention(retention) => {
                write!(f, "retention {retention:?} is longer than a hundred years")
            }
            Self::RememberBelowRetention { remember, retention } => write!(
                f,
                "remember {remember:?} is shorter than retention {retention:?}: \
                 a key would be forgotten while its reply is still kept"
            ),
            Self::Skew(skew) => write!(f, "skew_max {skew:?} is longer than {SKEW_MAX:?}"),
            Self::Receiver(span) => {
                write!(f, "the receiver's {span:?} is longer than a hundred years")
            }
            Self::WindowShort { window, margin } => write!(
                f,
                "the receiver's window of {window:?} is no longer than the {margin:?} that a run \
                 may take to arrive (lease, skew_max and late together): it would never count"
            ),
            Self::RetryNeverAllowed => f.write_str(
                "on_unknown is retry, and the receiver never makes a second run harmless: declare \
                 what it offers, such as fenced, unique-name or keyed, or hold",
            ),
            Self::ProbeWithoutBounds => f.write_str(
                "on_unknown is probe, and the receiver's settle and late are not declared: without \
                 them its \"no\" is never final",
            ),
        }
    }
}

impl std::error::Error for PolicyError {}

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WindowBelowRetention { window, retention, after } => write!(
                f,
                "the receiver forgets a key after {window:?}, and callers may come back for \
                 {retention:?}: from then on an unknown outcome is no longer run again ({})",
                after.name()
            ),
            Self::AutoWithoutReceiver => {
                f.write_str("on_unknown is auto and no receiver is declared: unknown outcomes hold")
            }
            Self::ReceiverUnused => f.write_str(
                "a receiver is declared and on_unknown is hold: nothing is made of what it offers",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::Always;

    #[test]
    fn the_defaults_hold_and_contradictions_are_refused() {
        let policy = Policy::default();
        assert_eq!(policy.check(), Ok(policy));
        let short = Policy { remember: Duration::from_secs(1), ..policy };
        assert!(matches!(short.check(), Err(PolicyError::RememberBelowRetention { .. })));
        let hasty = Policy { lease: Duration::ZERO, ..policy };
        assert_eq!(hasty.check(), Err(PolicyError::Lease(Duration::ZERO)));
        let long = Policy { skew_max: Duration::MAX, ..policy };
        assert_eq!(long.check(), Err(PolicyError::Skew(Duration::MAX)));
    }

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn with(on_unknown: OnUnknown, receiver: Receiver) -> Policy {
        Policy { on_unknown, receiver, ..Policy::default() }
    }

    #[test]
    fn a_choice_that_the_receiver_never_allows_is_refused() {
        let queryable = Receiver::queryable(SECOND, SECOND);
        for (on_unknown, receiver, says) in [
            (OnUnknown::Retry, Receiver::BARE, "never makes a second run harmless"),
            (OnUnknown::Retry, queryable, "never makes a second run harmless"),
            (OnUnknown::Retry, Receiver::always(Always::Sealable), "never makes"),
            (OnUnknown::Probe, Receiver::BARE, "settle and late"),
            (OnUnknown::Probe, Receiver::keyed(DAY), "settle and late"),
            (OnUnknown::Hold, Receiver::keyed(31 * SECOND), "it would never count"),
            (OnUnknown::Auto, Receiver { late: SECOND, ..Receiver::keyed(32 * SECOND) }, "never"),
            (OnUnknown::Auto, Receiver::keyed(Duration::MAX), "a hundred years"),
        ] {
            let error = with(on_unknown, receiver).check().unwrap_err().to_string();
            assert!(error.contains(says), "{on_unknown:?} {receiver:?}: {error}");
        }
        for (on_unknown, receiver) in [
            (OnUnknown::Retry, Receiver::keyed(32 * SECOND)),
            (OnUnknown::Retry, Receiver::always(Always::Transactional)),
            (OnUnknown::Probe, Receiver::keyed(DAY).and_queryable(SECOND, SECOND)),
            (OnUnknown::Auto, Receiver::BARE),
        ] {
            assert!(with(on_unknown, receiver).check().is_ok(), "{on_unknown:?} {receiver:?}");
        }
    }

    #[test]
    fn what_may_surprise_is_said() {
        let short = Receiver::keyed(900 * SECOND);
        let asked = short.and_queryable(SECOND, SECOND);
        for (on_unknown, receiver, says) in [
            (OnUnknown::Hold, Receiver::BARE, None),
            (OnUnknown::Retry, Receiver::keyed(DAY), None),
            (OnUnknown::Retry, short, Some("900s, and callers may come back for 86400s")),
            (OnUnknown::Retry, short, Some("(hold)")),
            (OnUnknown::Auto, asked, Some("(probe)")),
            (OnUnknown::Probe, asked, None),
            (OnUnknown::Auto, Receiver { always: Some(Always::Fenced), ..short }, None),
            (OnUnknown::Auto, Receiver::BARE, Some("no receiver is declared")),
            (OnUnknown::Hold, short, Some("nothing is made of")),
        ] {
            let warnings = with(on_unknown, receiver).warnings();
            let said: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            assert_eq!(said.len(), usize::from(says.is_some()), "{said:?}");
            let says = says.unwrap_or_default();
            assert!(said.concat().contains(says), "{on_unknown:?} {receiver:?}: {said:?}");
        }
    }

    #[test]
    fn a_no_is_final_once_nothing_can_come_and_everything_would_show() {
        let (settle, late) = (10 * SECOND, 60 * SECOND);
        let written = Timestamp::from_millis(1_764_000_000_000);
        let policy = with(OnUnknown::Probe, Receiver::queryable(settle, late));
        let last = written.plus(settle + late + policy.skew_max);
        assert!(policy.is_final(written, last));
        assert!(!policy.is_final(written, last.minus(Duration::from_millis(1))));
        let unknown = with(OnUnknown::Probe, Receiver::keyed(DAY));
        assert!(!unknown.is_final(written, Timestamp::MAX));
    }
}
