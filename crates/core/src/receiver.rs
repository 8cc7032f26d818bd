//! What the receiver of an effect offers to settle an outcome that nobody knows, and until when.
//!
//! A receiver may offer several things at once. Which of them counts is worked out at the moment
//! of the decision, never before: what a receiver forgets, it no longer offers.

use core::fmt;
use core::time::Duration;

use crate::time::Timestamp;

/// What a receiver offers at one moment, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The effect and the record's completion are one transaction, which only the latest claim can
    /// write: what is not completed did not happen, and a new claim undoes what comes later.
    Transactional,
    /// It compares fences, and refuses older ones.
    Fenced,
    /// It knows the operation by a name that it never gives twice.
    UniqueName,
    /// A key can be occupied there: it is then found, or can never be used again.
    Sealable,
    /// It still remembers the key, and repeats its answer.
    Keyed,
    /// It can be asked.
    Queryable,
    /// It offers nothing.
    Bare,
}

impl Class {
    /// All of them, the strongest first.
    pub const ALL: [Self; 7] = [
        Self::Transactional,
        Self::Fenced,
        Self::UniqueName,
        Self::Sealable,
        Self::Keyed,
        Self::Queryable,
        Self::Bare,
    ];

    /// The name used in configuration, documents and histories.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transactional => "transactional",
            Self::Fenced => "fenced",
            Self::UniqueName => "unique-name",
            Self::Sealable => "sealable",
            Self::Keyed => "keyed",
            Self::Queryable => "queryable",
            Self::Bare => "bare",
        }
    }

    /// What such a receiver guarantees, if unknown outcomes are settled by what it offers.
    pub const fn guarantee(self) -> &'static str {
        match self {
            Self::Transactional | Self::Fenced | Self::UniqueName => "exactly once",
            Self::Sealable => "exactly once, or provably never",
            Self::Keyed => "exactly once within its window",
            Self::Queryable => "at most once if its bounds hold",
            Self::Bare => "at most once, and never silently",
        }
    }

    /// Whether running the operation again does nothing that its first run has done already.
    pub(crate) const fn makes_harmless(self) -> bool {
        match self {
            Self::Transactional | Self::Fenced | Self::UniqueName | Self::Keyed => true,
            Self::Sealable | Self::Queryable | Self::Bare => false,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a receiver offers for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Always {
    /// [`Class::Transactional`]
    Transactional,
    /// [`Class::Fenced`]
    Fenced,
    /// [`Class::UniqueName`]
    UniqueName,
    /// [`Class::Sealable`]
    Sealable,
}

impl Always {
    /// The class that it is at every moment.
    pub const fn class(self) -> Class {
        match self {
            Self::Transactional => Class::Transactional,
            Self::Fenced => Class::Fenced,
            Self::UniqueName => Class::UniqueName,
            Self::Sealable => Class::Sealable,
        }
    }
}

/// What the receiver of an effect offers. By default nothing: [`Class::Bare`].
///
/// Only declare what the receiver promises. Where it promises less, an operation may happen twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receiver {
    /// What it offers for ever.
    pub always: Option<Always>,
    /// For how long it remembers a key, from when it first sees it.
    pub keyed: Option<Duration>,
    /// If it can be asked: how long what has happened may be missing from its answer.
    pub settle: Option<Duration>,
    /// How long after its attempt was given up a request may still arrive and be carried out. A
    /// holder begins nothing once its lease is over. Count in what lies beyond its reach: bytes in
    /// buffers and on the network, the receiver's own queue and how long it takes to carry a
    /// request out, and how long a process may stand still and then go on with what it had begun
    /// to write.
    pub late: Duration,
}

impl Receiver {
    /// One that offers nothing.
    pub const BARE: Self = Self { always: None, keyed: None, settle: None, late: Duration::ZERO };

    /// One that offers this for ever.
    pub const fn always(always: Always) -> Self {
        Self { always: Some(always), ..Self::BARE }
    }

    /// One that remembers a key for `window`, from when it first sees it.
    pub const fn keyed(window: Duration) -> Self {
        Self { keyed: Some(window), ..Self::BARE }
    }

    /// One that can be asked: its "no" is final once `settle` and `late` have passed.
    pub const fn queryable(settle: Duration, late: Duration) -> Self {
        Self::BARE.and_queryable(settle, late)
    }

    /// This one, which can also be asked, such as after its window.
    pub const fn and_queryable(self, settle: Duration, late: Duration) -> Self {
        Self { settle: Some(settle), late, ..self }
    }

    /// What it offers for an operation that arrives at the latest `arrives`, where an attempt first
    /// may have been sent at `first_commit`. A window counts from there: the receiver cannot have
    /// seen the key before. Where nobody knows that moment, no window is known to be open.
    pub fn class_at(&self, first_commit: Option<Timestamp>, arrives: Timestamp) -> Class {
        let is_open =
            |window| first_commit.is_some_and(|first| arrives < Timestamp::plus(first, window));
        match (self.always, self.keyed, self.settle) {
            (Some(always), _, _) => always.class(),
            (None, Some(window), _) if is_open(window) => Class::Keyed,
            (None, _, Some(_)) => Class::Queryable,
            (None, _, None) => Class::Bare,
        }
    }

    /// Every class that it is at some moment, the strongest first.
    pub fn classes(&self) -> impl Iterator<Item = Class> {
        let after = match (self.always, self.settle) {
            (Some(always), _) => always.class(),
            (None, Some(_)) => Class::Queryable,
            (None, None) => Class::Bare,
        };
        let keyed = self.keyed.filter(|_| self.always.is_none()).map(|_| Class::Keyed);
        keyed.into_iter().chain([after])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Timestamp = Timestamp::from_millis(1_764_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_closes_and_what_is_left_counts() {
        let first = Some(FIRST);
        let keyed = Receiver::keyed(DAY);
        let (last, closed) = (FIRST.plus(DAY).minus(Duration::from_millis(1)), FIRST.plus(DAY));
        for (receiver, after) in [
            (keyed, Class::Bare),
            (keyed.and_queryable(SECOND, SECOND), Class::Queryable),
            (Receiver { always: Some(Always::Sealable), ..keyed }, Class::Sealable),
        ] {
            let open = if receiver.always.is_some() { after } else { Class::Keyed };
            assert_eq!(receiver.class_at(first, FIRST), open);
            assert_eq!(receiver.class_at(first, last), open);
            assert_eq!(receiver.class_at(first, closed), after);
            assert_eq!(receiver.class_at(None, FIRST), after, "nobody knows when it began");
            assert_eq!(receiver.classes().last(), Some(after));
            assert_eq!(receiver.classes().next(), Some(open));
        }
    }

    #[test]
    fn what_is_offered_for_ever_does_not_change() {
        for always in [Always::Transactional, Always::Fenced, Always::UniqueName, Always::Sealable]
        {
            let receiver = Receiver::always(always);
            for arrives in [FIRST, Timestamp::MAX] {
                assert_eq!(receiver.class_at(Some(FIRST), arrives), always.class());
            }
        }
        assert_eq!(Receiver::default().class_at(Some(FIRST), FIRST), Class::Bare);
    }
}
