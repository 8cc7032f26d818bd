//! The store, the network to it, the clocks, and what happens outside.

use std::time::Duration;

use onlyonce::FLOOR_AGE_MAX;
use onlyonce_core::{
    Fence, Fingerprint, Floor, OnUnknown, Policy, Record, Reply, Revision, State, Timestamp,
};
use onlyonce_store::Swap;

use crate::bug::Bug;
use crate::invariants::{self, Violation};
use crate::random::Random;

/// Keys in a world: the first carries its time, the second does not.
pub const KEYS: usize = 2;
/// Nodes in a world, each with its clock.
pub const NODES: usize = 3;
const BEGIN: u64 = 1_764_000_000_000;

/// A request that is on its way to the receiver. It may arrive at any time, or never.
#[derive(Clone, Debug)]
pub struct Message {
    /// The key.
    pub key: usize,
    /// The claim it was sent under.
    pub fence: Fence,
    /// What it asks for.
    pub fingerprint: Fingerprint,
}

/// Something that happened outside.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The claim it happened under.
    pub fence: Fence,
    /// What it was asked for with.
    pub fingerprint: Fingerprint,
    /// What the receiver answered.
    pub reply: Reply,
}

/// What there is of one key, in the store and outside.
#[derive(Clone, Debug, Default)]
pub struct KeyWorld {
    pub(crate) record: Option<Record>,
    /// All effects, in their order.
    pub effects: Vec<Effect>,
    /// How many of them happened before the key was last forgotten, where it may be.
    pub forgotten: usize,
    /// Runs beyond the first that a person or the policy has allowed.
    pub allowed: usize,
    /// The reply that somebody was given first.
    pub told: Option<Reply>,
    /// The largest fence that was granted, and whose claim it was.
    pub granted: Option<(Fence, u64)>,
    /// The largest revision that was ever written.
    pub revision_max: u64,
}

/// The floor as a node knows it, and when it read it.
#[derive(Clone, Copy, Debug)]
struct Known {
    floor: Floor,
    read_at: u64,
}

/// All there is outside the actors.
#[derive(Debug)]
pub struct World {
    now: u64,
    skews: [u64; NODES],
    known: [Known; NODES],
    floor: Floor,
    pub(crate) keys: [KeyWorld; KEYS],
    messages: Vec<Message>,
    pub(crate) policy: Policy,
    pub(crate) bug: Bug,
    /// Whether calls get lost and processes crash.
    pub(crate) faults: bool,
    pub(crate) violation: Option<Violation>,
    replies: u16,
    claims: u64,
}

/// What became of a call of the store.
#[derive(Debug)]
pub enum Called<T> {
    /// The answer.
    Answer(T),
    /// No answer came; it may have taken place.
    Lost,
}

impl World {
    pub(crate) fn new(random: &mut Random, bug: Bug) -> Self {
        let on_unknown = if random.once_in(8) { OnUnknown::Retry } else { OnUnknown::Hold };
        // Short, so that a run lives through them.
        let (retention, remember) = (Duration::from_secs(60), Duration::from_secs(120));
        let policy = Policy { retention, remember, on_unknown, ..Policy::default() };
        let skew = policy.skew_max.as_millis() as u64;
        let known = Known { floor: Floor::NONE, read_at: BEGIN };
        Self {
            now: BEGIN,
            skews: std::array::from_fn(|_| random.below(skew)),
            known: [known; NODES],
            floor: Floor::NONE,
            keys: std::array::from_fn(|_| KeyWorld::default()),
            messages: Vec::new(),
            policy,
            bug,
            faults: true,
            violation: None,
            replies: 0,
            claims: 0,
        }
    }

    /// A node's present time.
    pub(crate) const fn now(&self, node: usize) -> Timestamp {
        Timestamp::from_millis(self.now + self.skews[node])
    }

    /// The time that a key carries: when its world began.
    pub(crate) fn key_time(&self, key: usize) -> Option<Timestamp> {
        (key == 0).then_some(Timestamp::from_millis(BEGIN))
    }

    pub(crate) fn pass_time(&mut self, random: &mut Random) {
        self.now += match random.below(64) {
            0 => 40_000 + random.below(60_000),
            1..4 => 8_000 + random.below(10_000),
            _ => random.below(40),
        };
    }

    /// A number for a claim that no other has.
    pub(crate) const fn next_claim(&mut self) -> u64 {
        self.claims += 1;
        self.claims
    }

    /// The floor as a node may use it.
    pub(crate) fn floor_at(&mut self, node: usize) -> Floor {
        let age = self.now - self.known[node].read_at;
        let old = (FLOOR_AGE_MAX.as_millis() as u64) < age;
        if old && self.bug != Bug::FloorNeverRead {
            self.known[node] = Known { floor: self.floor, read_at: self.now };
        }
        self.known[node].floor
    }

    /// Whether this call is lost on its way there, or on its way back.
    fn lost(&self, random: &mut Random) -> (bool, bool) {
        if !self.faults {
            return (false, false);
        }
        match random.below(16) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        }
    }

    pub(crate) fn get(&self, key: usize, random: &mut Random) -> Called<Option<Record>> {
        match self.lost(random) {
            (false, false) => Called::Answer(self.keys[key].record.clone()),
            (true, _) | (_, true) => Called::Lost,
        }
    }

    pub(crate) fn swap(
        &mut self,
        key: usize,
        expected: Option<Revision>,
        next: Option<Record>,
        random: &mut Random,
    ) -> Called<Swap> {
        let (there, back) = self.lost(random);
        if there {
            return if self.bug == Bug::LostIsDone {
                Called::Answer(Swap::Done)
            } else {
                Called::Lost
            };
        }
        let swapped = self.swap_now(key, expected, next);
        if back { Called::Lost } else { Called::Answer(swapped) }
    }

    fn swap_now(&mut self, key: usize, expected: Option<Revision>, next: Option<Record>) -> Swap {
        let stands = self.keys[key].record.as_ref().map(|record| record.revision);
        if stands != expected && self.bug != Bug::StoreIgnoresRevision {
            return Swap::Conflict(self.keys[key].record.clone());
        }
        if let Some(next) = &next {
            let broken = invariants::revisions::check(&self.keys[key], next);
            self.report(broken);
            let allowed = policy_allowed(self.keys[key].record.as_ref(), next);
            let known = &mut self.keys[key];
            known.revision_max = known.revision_max.max(next.revision.get());
            known.allowed += usize::from(allowed);
        } else if key != 0 {
            // A key without time that was forgotten runs as new: the one case, and a stated one.
            let known = &mut self.keys[key];
            known.forgotten = known.effects.len();
            (known.told, known.allowed) = (None, 0);
            self.messages.retain(|message| message.key != key);
        }
        self.keys[key].record = next;
        Swap::Done
    }

    /// The sweeper's first step, durable at once. Returns the floor that it may rely on later.
    pub(crate) fn raise_floor(&mut self, to: Floor) -> Floor {
        self.floor = self.floor.max(to);
        self.floor
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Something that was sent arrives, or is lost for good.
    pub(crate) fn deliver(&mut self, random: &mut Random) {
        if self.messages.is_empty() {
            return;
        }
        let at = random.below(self.messages.len() as u64) as usize;
        let message = self.messages.swap_remove(at);
        if self.faults && random.once_in(6) {
            return;
        }
        self.replies += 1;
        let reply = Reply::kept(200 + self.replies % 300, bytes::Bytes::new());
        let effect = Effect { fence: message.fence, fingerprint: message.fingerprint, reply };
        self.keys[message.key].effects.push(effect);
        let broken = invariants::once::check(&self.keys[message.key]);
        self.report(broken);
    }

    /// What the receiver has done under a claim.
    pub(crate) fn effect_of(&self, key: usize, fence: Fence) -> Option<&Effect> {
        self.keys[key].effects.iter().find(|effect| effect.fence == fence)
    }

    /// Whether something may still arrive.
    pub(crate) fn is_under_way(&self, key: usize) -> bool {
        self.messages.iter().any(|message| message.key == key)
    }

    pub(crate) fn report(&mut self, violation: Option<Violation>) {
        if self.violation.is_none() {
            self.violation = violation;
        }
    }

    /// Effects that happened.
    pub(crate) fn effects(&self) -> usize {
        self.keys.iter().map(|key| key.effects.len()).sum()
    }

    pub(crate) fn describe(&self) -> String {
        let keys: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let state = key.record.as_ref().map_or("absent", |it| it.state.kind().name());
                format!("{state}/{}", key.effects.len())
            })
            .collect();
        format!("{:>8} ms {:?} {}", self.now - BEGIN, keys, self.messages.len())
    }
}

/// Whether a write is a grant out of doubt, which the policy has to answer for.
fn policy_allowed(before: Option<&Record>, next: &Record) -> bool {
    let new = before.is_none_or(|before| before.fence < next.fence);
    match &next.state {
        State::InFlight(flight) => new && flight.inherited.is_some(),
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => false,
    }
}
