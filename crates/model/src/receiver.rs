//! The receiver of the effect, as its class has it.

use onlyonce_core::Fence;

use crate::Setup;
use crate::class::{Class, Modelled, WINDOW};
use crate::mutant::Mutant;

/// What the receiver holds. Effect number 1 is the first of `effects`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Receiver {
    /// When each effect happened.
    pub(crate) effects: Vec<u8>,
    /// The largest fence a fenced receiver has seen.
    pub(crate) seen: Option<Fence>,
    /// The largest fence a sealable receiver refuses.
    pub(crate) sealed: Option<Fence>,
}

/// What the receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    /// It happened, by this effect.
    Happened(u8),
    /// This attempt did nothing and will do nothing.
    Refused,
}

impl Receiver {
    /// Whether something that arrives under `fence` can take effect.
    pub(crate) fn accepts(&self, setup: &Setup, fence: Fence) -> bool {
        match setup.class {
            Class::Fenced => {
                setup.mutant == Mutant::FenceUnchecked || self.seen.is_none_or(|seen| seen <= fence)
            }
            Class::Sealable => self.sealed.is_none_or(|sealed| sealed < fence),
            Class::Transactional
            | Class::UniqueName
            | Class::Keyed
            | Class::Queryable
            | Class::Bare => true,
        }
    }

    /// The effect that an arrival is taken for a repetition of.
    fn repeated(&self, setup: &Setup, fence: Fence, tick: u8) -> Option<u8> {
        let newest = u8::try_from(self.effects.len()).ok().filter(|newest| 0 < *newest)?;
        let known = match setup.class {
            // The same assignment again, in order; out of order it undoes what came after it.
            Class::Fenced => self.seen.is_none_or(|seen| seen <= fence),
            Class::UniqueName => setup.mutant != Mutant::NameReused,
            Class::Keyed => self.effects.last().is_some_and(|then| tick < then + WINDOW),
            Class::Transactional | Class::Sealable | Class::Queryable | Class::Bare => false,
        };
        known.then_some(newest)
    }

    /// A request arrives.
    pub(crate) fn arrive(&mut self, setup: &Setup, fence: Fence, tick: u8) -> Answer {
        if !self.accepts(setup, fence) {
            return Answer::Refused;
        }
        let repeated = self.repeated(setup, fence, tick);
        if setup.class == Class::Fenced {
            self.seen = self.seen.max(Some(fence));
        }
        Answer::Happened(repeated.unwrap_or_else(|| self.happen(setup, tick)))
    }

    /// The effect happens once more; its number.
    pub(crate) fn happen(&mut self, setup: &Setup, tick: u8) -> u8 {
        self.effects.push(if setup.class.is_bounded() { tick } else { 0 });
        u8::try_from(self.effects.len()).unwrap_or(u8::MAX)
    }

    /// How many effects the class allows after `reruns` that a person has asked for.
    pub(crate) fn allowed(class: Class, reruns: u8) -> usize {
        match class {
            Class::Transactional | Class::Fenced | Class::UniqueName => 1,
            Class::Sealable | Class::Keyed | Class::Queryable | Class::Bare => {
                1 + usize::from(reruns)
            }
        }
    }
}
