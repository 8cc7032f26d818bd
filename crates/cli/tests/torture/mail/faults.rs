//! Connections that are cut, at every word of a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onlyonce_testbed::{Cut, Fate, MailRelay, Word};

use crate::random::Random;

/// One word in so many is lost, or its answer is.
const ONE_IN: u64 = 60;
/// The end of a message is lost more often: it is where doubts come from.
const ONE_END_IN: u64 = 12;

/// Counts words.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    words: Arc<AtomicUsize>,
    struck: Arc<AtomicUsize>,
}

/// From now on words are lost, and answers, by a seed.
pub(crate) fn strike(relay: &MailRelay, seed: u64) -> Faults {
    let faults = Faults::default();
    let (counting, mut random) = (faults.clone(), Random::new(seed ^ 0x6d61_696c));
    relay.decide(move |word, _| {
        counting.words.fetch_add(1, Ordering::Relaxed);
        let one_in = if word == Word::End { ONE_END_IN } else { ONE_IN };
        if random.below(one_in) != 0 {
            return Fate::Passes;
        }
        counting.struck.fetch_add(1, Ordering::Relaxed);
        let how = if random.below(2) == 0 { Cut::Close } else { Cut::Reset };
        match random.below(4) {
            0 => Fate::Lost(how),
            1 => Fate::Arrives(how),
            2 => Fate::Unanswered(how),
            // The sender waits in vain, until it is killed.
            _ => Fate::Silent,
        }
    });
    faults
}

impl Faults {
    /// How many words senders have said.
    pub(crate) fn words(&self) -> usize {
        self.words.load(Ordering::Relaxed)
    }

    /// How many of them, or of their answers, were lost.
    pub(crate) fn struck(&self) -> usize {
        self.struck.load(Ordering::Relaxed)
    }
}
