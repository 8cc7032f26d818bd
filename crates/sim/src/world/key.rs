//! What there is of one key, in the store and outside.

use onlyonce_core::{Credential, Fence, Fingerprint, Record, Reply};

/// A request that is on its way to the receiver. It may arrive at any time, or never.
#[derive(Clone, Debug)]
pub struct Message {
    /// The key.
    pub key: usize,
    /// In which life of the key its claim was granted.
    pub life: u32,
    /// The claim it was sent under.
    pub fence: Fence,
    /// Who asks, and for what.
    pub asker: Asker,
}

/// Who asks, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// What the request looks like.
    pub fingerprint: Fingerprint,
    /// A credential that nobody has verified.
    pub credential: Option<Credential>,
}

/// Something that happened outside.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The claim it happened under.
    pub fence: Fence,
    /// Who asked, and for what.
    pub asker: Asker,
    /// What the receiver answered.
    pub reply: Reply,
    /// When, in the world's milliseconds.
    pub at: u64,
}

/// What there is of one key, in the store and outside.
#[derive(Clone, Debug, Default)]
pub struct KeyWorld {
    /// The record, as the store has it.
    pub record: Option<Record>,
    /// All effects: first those of earlier lives, then those of this one.
    pub effects: Vec<Effect>,
    /// How many of them are of earlier lives.
    pub earlier: usize,
    /// How often the key was forgotten where it may be: without a time of its own it then runs
    /// as new, which is the one case and a stated one.
    pub life: u32,
    /// Messages of this life that may still arrive.
    pub under_way: usize,
    /// Runs beyond the first of this life that a person has allowed.
    pub allowed: usize,
    /// The reply that somebody was given first in this life.
    pub told: Option<Reply>,
    /// The largest fence that was granted, and whose claim it was.
    pub granted: Option<(Fence, u64)>,
    /// All revisions that were written.
    pub revisions: Vec<u64>,
    /// Claims that were durably marked as perhaps running, each with the time that its mark tells.
    pub marked: Vec<(Fence, u64)>,
    /// Claims that ended, each with the time at which that was written.
    pub given_up: Vec<(Fence, u64)>,
    /// What the receiver answered to what it took for a repetition.
    pub heard: Vec<(Fence, Reply)>,
    /// The largest fence that the receiver has seen.
    pub seen: Option<Fence>,
    /// The largest fence that the receiver refuses for being sealed.
    pub occupied: Option<Fence>,
    /// Whether it was sealed in this life.
    pub sealed: bool,
    /// Whether what it was answered was erased in this life.
    pub erased: bool,
    /// Whether a claim that was stopped on its way has arrived after the key was deleted. It does
    /// not run.
    pub reborn: bool,
    /// When the floor passed its time, in the world's milliseconds.
    pub passed_at: Option<u64>,
}

impl KeyWorld {
    /// The effects of this life.
    pub fn effects_now(&self) -> &[Effect] {
        &self.effects[self.earlier..]
    }

    pub(crate) fn forget(&mut self) {
        (self.earlier, self.under_way, self.allowed) = (self.effects.len(), 0, 0);
        (self.told, self.sealed, self.erased) = (None, false, false);
        self.life += 1;
    }
}
