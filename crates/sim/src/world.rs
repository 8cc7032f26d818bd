//! The store, the network to it, the clocks, and what happens outside.

mod key;
mod receiver;
mod store;

use std::time::Duration;

use onlyonce::FLOOR_AGE_MAX;
use onlyonce_core::{Class, Fence, Floor, Policy, Timestamp};

pub use self::key::{Asker, Effect, KeyWorld, Message};
use self::store::Late;
use crate::bug::Bug;
use crate::invariants::{self, Violation};
use crate::random::Random;
use crate::trace::Line;

/// Keys in a world: two that carry their time, early and late, and one that does not.
pub const KEYS: usize = 3;
/// Nodes in a world, each with its clock.
pub const NODES: usize = 3;
const BEGIN: u64 = 1_764_000_000_000;
/// When each key was made, in milliseconds from the beginning, if it tells.
const KEY_TIMES: [Option<u64>; KEYS] = [Some(0), None, Some(250_000)];

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
    /// What a sweeper has left for the next one: the floor that it raised, and when, by its clock.
    pub(crate) word: Option<(Floor, Timestamp)>,
    pub(crate) keys: [KeyWorld; KEYS],
    messages: Vec<Message>,
    late: Vec<Late>,
    /// Claims whose holder's process is provably gone.
    pub(crate) dead: Vec<(usize, Fence)>,
    pub(crate) policy: Policy,
    /// What the receiver truly is.
    pub(crate) class: Class,
    /// Whether requests come with credentials that nobody has verified.
    pub(crate) credentials: bool,
    pub(crate) bug: Bug,
    /// Whether calls get lost and processes crash.
    pub(crate) faults: bool,
    pub(crate) violation: Option<Violation>,
    /// What happened, if anybody wants to know.
    pub(crate) trace: Option<Vec<Line>>,
    /// Who acts, in what is told of it.
    pub(crate) acting: usize,
    replies: u16,
    claims: u64,
}

/// What became of a call of the store.
#[derive(Debug)]
pub enum Called<T> {
    /// The answer.
    Answer(T),
    /// No answer came; it may have taken place, or may yet.
    Lost,
}

impl World {
    pub(crate) fn new(random: &mut Random, bug: Bug, trace: bool) -> Self {
        let class = receiver::class(random);
        let (on_unknown, receiver) = receiver::declared(class, bug);
        // Short, so that a run lives through them.
        let (retention, remember) = (Duration::from_secs(60), Duration::from_secs(120));
        // A long lease outlives what was deleted while its grant was on its way.
        let lease = Duration::from_secs(if random.once_in(3) { 200 } else { 30 });
        let policy =
            Policy { retention, remember, lease, on_unknown, receiver, ..Policy::default() };
        let skew = policy.skew_max.as_millis() as u64;
        Self {
            now: BEGIN,
            skews: std::array::from_fn(|_| random.below(skew)),
            known: [Known { floor: Floor::NONE, read_at: BEGIN }; NODES],
            floor: Floor::NONE,
            word: None,
            keys: std::array::from_fn(|_| KeyWorld::default()),
            messages: Vec::new(),
            late: Vec::new(),
            dead: Vec::new(),
            policy,
            class,
            credentials: random.once_in(4),
            bug,
            faults: true,
            violation: None,
            trace: trace.then(Vec::new),
            acting: 0,
            replies: 0,
            claims: 0,
        }
    }

    /// The true time, in milliseconds.
    pub(crate) const fn moment(&self) -> u64 {
        self.now
    }

    /// A node's present time.
    pub(crate) const fn now(&self, node: usize) -> Timestamp {
        Timestamp::from_millis(self.now + self.skews[node])
    }

    /// The time that a key carries.
    pub(crate) fn key_time(&self, key: usize) -> Option<Timestamp> {
        KEY_TIMES[key].map(|after| Timestamp::from_millis(BEGIN + after))
    }

    /// Whether the floor has passed a key, as the store says now.
    pub(crate) fn floor_above(&self, key: usize) -> bool {
        self.floor.is_above(self.key_time(key))
    }

    pub(crate) fn pass_time(&mut self, random: &mut Random) {
        self.now += match random.below(64) {
            0 => 40_000 + random.below(60_000),
            1..4 => 8_000 + random.below(10_000),
            _ => random.below(40),
        };
        self.drop_what_is_in_vain();
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now += millis;
        self.drop_what_is_in_vain();
    }

    /// A node starts again: another clock, put forward to what the store holds, and a floor that
    /// is read anew.
    pub(crate) fn restart(&mut self, node: usize, random: &mut Random) {
        let newest = self.keys.iter().flat_map(|key| &key.revisions).max().copied().unwrap_or(0);
        let skew = random.below(self.policy.skew_max.as_millis() as u64);
        self.skews[node] = skew.max(newest.saturating_sub(self.now));
        self.known[node] = Known { floor: self.floor, read_at: self.now };
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

    pub(crate) fn send(&mut self, message: Message) {
        let (key, fence) = (message.key, message.fence);
        self.note(key, || format!("sent under {}", fence.get()));
        let broken = invariants::marked::check(&self.keys[key], fence);
        self.report(key, broken);
        let of_now = message.life == self.keys[key].life;
        if of_now && self.is_in_vain(key, fence) {
            return self.note(key, || format!("{} is in vain", fence.get()));
        }
        self.keys[key].under_way += usize::from(of_now);
        self.messages.push(message);
    }

    /// Something that is on its way arrives, or is lost for good.
    pub(crate) fn deliver(&mut self, random: &mut Random) {
        let (messages, late) = (self.messages.len(), self.late.len());
        if messages + late == 0 {
            return;
        }
        let at = random.below((messages + late) as u64) as usize;
        if messages <= at {
            return self.arrive_late(at - messages);
        }
        let message = self.messages.swap_remove(at);
        let lost = random.once_in(6) && self.faults;
        if lost {
            let of_now = message.life == self.keys[message.key].life;
            self.keys[message.key].under_way -= usize::from(of_now);
            self.note(message.key, || format!("{} never arrives", message.fence.get()));
            return;
        }
        self.arrive(message);
    }

    /// Whether something may still arrive.
    pub(crate) fn is_under_way(&self, key: usize) -> bool {
        self.messages.iter().any(|message| message.key == key)
    }

    pub(crate) fn report(&mut self, key: usize, violation: Option<Violation>) {
        if self.violation.is_none() {
            self.violation = violation.map(|it| Violation { key: Some(key), ..it });
        }
    }

    /// Keeps what happened, if anybody wants to know.
    pub(crate) fn note(&mut self, key: usize, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let (at, who) = (self.now - BEGIN, self.acting);
            trace.push(Line { at, who, key, text: text() });
        }
    }

    /// Effects that happened.
    pub(crate) fn effects(&self) -> usize {
        self.keys.iter().map(|key| key.effects.len()).sum()
    }
}
