//! What a receiver offers to settle an unknown outcome, and what may be done with it.

use core::time::Duration;

pub use onlyonce_core::Class;
use onlyonce_core::{Always, OnUnknown, Policy, Receiver, Timestamp};

/// The instants of the model are so far apart, in milliseconds: at each next one a lease is over.
pub(crate) const TICK: u64 = 100_000;
/// The last instant.
pub(crate) const LAST: u8 = 4;
/// How many instants a keyed receiver remembers a key, from the effect.
pub(crate) const WINDOW: u8 = 3;
/// How many instants after its mark an attempt can still take effect, where that is bounded.
pub(crate) const LATE: u8 = 1;
/// How many instants it takes until a queryable receiver shows an effect.
pub(crate) const SETTLE: u8 = 1;

/// What the model knows of a class beyond its name; docs/model.md has the table.
pub(crate) trait Modelled: Copy {
    /// Whether its promise rests on a bound of how late an attempt can take effect. All others
    /// hold however late a holder or a message is.
    fn is_bounded(self) -> bool;

    /// Whether running again out of an unknown outcome is harmless at `tick`, when an attempt
    /// first went out at `first`. A keyed receiver is only bare once its window closes, and what
    /// goes out now may arrive as late as the bound allows. This is the oracle: `decide` has a rule
    /// of its own.
    fn dedupes(self, tick: u8, first: Option<Timestamp>) -> bool;

    /// What is declared of it.
    fn receiver(self) -> Receiver;

    /// The policy of the operation: what is right at a moment, the real `decide` works out.
    fn policy(self) -> Policy;
}

impl Modelled for Class {
    fn is_bounded(self) -> bool {
        matches!(self, Self::Keyed | Self::Queryable)
    }

    fn dedupes(self, tick: u8, first: Option<Timestamp>) -> bool {
        match self {
            Self::Fenced | Self::UniqueName => true,
            Self::Keyed => {
                first.is_none_or(|first| at(tick + LATE) < first.plus_millis(millis(WINDOW)))
            }
            Self::Transactional | Self::Sealable | Self::Queryable | Self::Bare => false,
        }
    }

    fn receiver(self) -> Receiver {
        let (window, settle, late) = (span(WINDOW), span(SETTLE), span(LATE));
        match self {
            Self::Transactional => Receiver::always(Always::Transactional),
            Self::Fenced => Receiver::always(Always::Fenced),
            Self::UniqueName => Receiver::always(Always::UniqueName),
            Self::Sealable => Receiver::always(Always::Sealable),
            Self::Keyed => Receiver { late, ..Receiver::keyed(window) },
            Self::Queryable => Receiver::queryable(settle, late),
            Self::Bare => Receiver::BARE,
        }
    }

    fn policy(self) -> Policy {
        Policy {
            lease: Duration::from_millis(TICK / 2),
            retention: Duration::from_millis(TICK),
            remember: REMEMBER,
            on_unknown: OnUnknown::Auto,
            receiver: self.receiver(),
            ..Policy::default()
        }
    }
}

const fn span(ticks: u8) -> Duration {
    Duration::from_millis(millis(ticks))
}

/// How long it is remembered that a key was answered.
pub(crate) const REMEMBER: Duration = Duration::from_millis(2 * TICK);

/// The instant `tick`.
pub(crate) const fn at(tick: u8) -> Timestamp {
    Timestamp::from_millis(TICK + millis(tick))
}

const fn millis(ticks: u8) -> u64 {
    TICK * ticks as u64
}
