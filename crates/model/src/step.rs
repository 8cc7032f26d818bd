//! All that can happen next, and what it makes of the world.

use onlyonce_core::{Command, Decision, Fence, Floor, Next, Outcome, Record, State, Timestamp};

use crate::Setup;
use crate::class::{LAST, Modelled, at};
use crate::holder::{self, Holder, NEW_CLAIM};
use crate::mutant::{Asked, Mutant, decide_without};
use crate::outside;
use crate::receiver::Answer;
use crate::world::{Found, World, number};

/// One thing that happens. `lost` is a store's answer that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Time goes on: leases end, then retention, then memory.
    Tick,
    /// A holder claims.
    Claim { at: usize, committing: bool, old_floor: bool, lost: bool },
    /// It asks again what became of its claim.
    ClaimAgain { at: usize },
    /// It marks that it is about to send.
    Commit { at: usize, lost: bool },
    /// It goes on without a mark.
    Skip { at: usize },
    /// It sends.
    Send { at: usize },
    /// It runs in one transaction with the record.
    Transact { at: usize },
    /// It says what was answered.
    Complete { at: usize, lost: bool },
    /// It says that nothing happened.
    Release { at: usize },
    /// It says that it cannot tell.
    Abandon { at: usize },
    /// It is gone, and with it all that it knew.
    Crash { at: usize },
    /// A message arrives.
    Arrive { at: usize },
    /// A message arrives, and the receiver does nothing (such as 429).
    Refuse { at: usize },
    /// A message never arrives.
    Lose { at: usize },
    /// Whoever held the claim is proved gone.
    CertifyDeath,
    /// An operator knows.
    Know(Known),
    /// The receiver is asked, or occupied, and answers.
    Probe,
    /// The operator says what was found out, perhaps much later.
    Say,
    /// The key is sealed here.
    Seal,
    /// What it was answered is erased.
    Erase,
    /// The floor is raised above the key.
    RaiseFloor,
    /// The sweeper comes by.
    Sweep,
}

/// What an operator may come to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It happened.
    Happened,
    /// It did not happen and no longer can.
    NotExecuted,
    /// Nothing, but it shall run all the same.
    Nothing,
}

/// What can happen next.
pub(crate) fn actions(setup: &Setup, world: &World, actions: &mut Vec<Action>) {
    for at in 0..world.holders.len() {
        // Two holders that do nothing are alike.
        if at == 0 || world.holders[at] != Holder::Idle || world.holders[0] != Holder::Idle {
            holder::actions(setup, world, at, actions);
        }
    }
    for at in 0..world.net.len() {
        actions.extend([Action::Arrive { at }, Action::Refuse { at }, Action::Lose { at }]);
    }
    outside::actions(setup, world, actions);
    if world.tick < LAST {
        actions.push(Action::Tick);
    }
}

/// What `action` makes of `world`.
pub(crate) fn next(setup: &Setup, world: &World, action: Action) -> World {
    let mut next = world.clone();
    let losses = next.losses;
    let fewer = |lost| losses.saturating_sub(u8::from(lost));
    match action {
        Action::Tick => tick(setup, &mut next),
        Action::Claim { at, committing, old_floor, lost } => {
            next.losses = fewer(lost);
            let what = (NEW_CLAIM, committing);
            holder::claim(setup, &mut next, at, what, (old_floor, lost));
        }
        Action::ClaimAgain { at } => {
            if let Holder::Unsure { claim_id, committing } = next.holders[at] {
                holder::claim(setup, &mut next, at, (claim_id, committing), (false, false));
            }
        }
        Action::Commit { at, lost } => {
            next.losses = fewer(lost);
            holder::commit(setup, &mut next, at, lost);
        }
        Action::Skip { at } => {
            if let Some(fence) = next.holders[at].fence() {
                next.holders[at] = Holder::Ready { fence, marked: None };
            }
        }
        Action::Send { at } => holder::send(setup, &mut next, at),
        Action::Transact { at } => holder::transact(setup, &mut next, at),
        Action::Complete { at, lost } => {
            next.losses = fewer(lost);
            holder::complete(setup, &mut next, at, lost);
        }
        Action::Release { at } => holder::release(setup, &mut next, at),
        Action::Abandon { at } => holder::abandon(setup, &mut next, at),
        Action::Crash { at } => next.holders[at] = Holder::Idle,
        Action::Arrive { at } => arrive(setup, &mut next, at, true),
        Action::Refuse { at } => arrive(setup, &mut next, at, false),
        Action::Lose { at } => drop(next.net.remove(at)),
        Action::CertifyDeath => outside::certify_death(setup, &mut next),
        Action::Know(known) => outside::know(setup, &mut next, known),
        Action::Probe => outside::probe(setup, &mut next),
        Action::Say => outside::say(setup, &mut next),
        Action::Seal => outside::seal(setup, &mut next),
        Action::Erase => outside::erase(setup, &mut next),
        Action::RaiseFloor => next.raised = Some(next.tick),
        Action::Sweep => outside::sweep(setup, &mut next),
    }
    next.normalise(setup);
    next
}

fn tick(setup: &Setup, world: &mut World) {
    world.tick += 1;
    if setup.mutant != Mutant::LateBoundBroken {
        let class = setup.class;
        let kept = |world: &World, marked| !world.is_late(class, marked);
        let net = world.net.iter().copied().filter(|message| kept(world, message.marked));
        world.net = net.collect();
    }
}

/// A message arrives; its sender hears the answer if it still listens.
fn arrive(setup: &Setup, world: &mut World, at: usize, accepted: bool) {
    let fence = world.net.remove(at).fence;
    let heard =
        if accepted { world.receiver.arrive(setup, fence, world.tick) } else { Answer::Refused };
    world.count_effects(setup);
    for holder in &mut world.holders {
        if let Holder::Sent { fence: sent, answer, .. } = holder
            && *sent == fence
        {
            *answer = Some(heard);
        }
    }
}

impl World {
    /// The time the key carries.
    pub(crate) fn key_time(setup: &Setup) -> Option<Timestamp> {
        setup.timed.then(|| Timestamp::from_millis(at(0).as_millis() - 1))
    }

    /// What would be decided.
    pub(crate) fn decide(&self, setup: &Setup, floor: Floor, mut command: Command) -> Decision {
        if let Command::Claim(claim) = &mut command {
            claim.key_time = Self::key_time(setup);
        }
        let (policy, record) = (setup.class.policy(), self.record.clone());
        let asked = Asked { now: self.now(), floor, policy, record, command };
        decide_without(setup.mutant, asked)
    }

    /// Reads, decides and swaps, in one step: a swap that meets another revision reads again.
    pub(crate) fn ask(&mut self, setup: &Setup, floor: Floor, command: Command) -> Outcome {
        let Decision { outcome, next } = self.decide(setup, floor, command);
        match next {
            Next::Keep => {}
            Next::Write(record) => self.write(setup, record),
            Next::Delete => self.delete(setup),
        }
        outcome
    }

    fn write(&mut self, setup: &Setup, record: Record) {
        let before = self.record.as_ref();
        let rises = before.is_none_or(|before| before.revision < record.revision);
        self.demand(setup, "fences", rises);
        let new = self.record.as_ref().is_none_or(|before| before.fence != record.fence);
        match &record.state {
            State::InFlight(_) if new => self.grant(setup, &record),
            State::Completed { reply, sealed: false, .. } if self.told.is_none() => {
                self.told = number(reply.status());
            }
            State::Completed { sealed: true, .. } => self.sealed = true,
            State::InFlight(_)
            | State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => {}
        }
        self.top = self.top.max(Some(record.fence));
        self.record = Some(record);
    }

    fn grant(&mut self, setup: &Setup, next: &Record) {
        self.demand(setup, "fences", self.top < Some(next.fence));
        self.demand(setup, "sealed", !self.sealed);
        self.demand(setup, "answer", self.told.is_none());
        self.demand(setup, "floor", !(setup.timed && self.floor_is_known()));
        let first = self.record.as_ref().and_then(|record| record.first_commit_at);
        // Asked of the class itself, not of what a mutant takes it for.
        let harmless = setup.class.dedupes(self.tick, first) || 0 < self.reruns;
        self.demand(setup, "authorised", harmless || !self.may_have_happened(setup));
        let settled = self.settled(setup.class);
        let doubtful = settled.is_some_and(|record| matches!(record.state, State::Unknown(_)));
        // `normal` sets the count back to zero after every step.
        self.demand(setup, "counted", !doubtful || 0 < next.runs_authorised);
        self.claims += 1;
    }

    fn delete(&mut self, setup: &Setup) {
        let doubtful = self.told.is_none() && self.reruns == 0 && self.may_have_happened(setup);
        let settled = self.settled(setup.class);
        let open = settled.is_some_and(|record| match record.state {
            State::InFlight(_) | State::Unknown(_) => true,
            State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => false,
        });
        self.demand(setup, "kept", !doubtful && !open);
        self.demand(setup, "kept", !setup.timed || self.floor_is_known());
        self.record = None;
        if !setup.timed {
            self.forget();
        }
    }

    /// Somebody says that it happened, by effect `number`: it must count however late it is, and
    /// be an alarm if something else was answered already.
    pub(crate) fn say_happened(
        &mut self,
        setup: &Setup,
        fence: Fence,
        number: u8,
        command: Command,
    ) {
        let of_this_life = self.record.is_some() && !self.is_forgotten(fence);
        let other = self.sealed || self.told.is_some_and(|told| told != number);
        let floor = self.floor(false);
        let outcome = self.ask(setup, floor, command);
        let expected = if other { Outcome::SecondReply } else { Outcome::Done };
        let final_now = self.record.as_ref().is_some_and(|record| match record.state {
            State::Completed { .. } | State::Tombstone { .. } => true,
            State::InFlight(_) | State::Released { .. } | State::Unknown(_) => false,
        });
        // `normal` drops what the history says of it after every step.
        let noted = !other || self.record.as_ref().is_some_and(Record::has_alarm);
        let counts = outcome == expected && final_now && noted;
        self.demand(setup, "evidence", !of_this_life || counts);
    }

    /// What is found out about the latest claim, to be said later.
    pub(crate) fn find(&mut self, found: Found) {
        self.found = self.record.as_ref().map(|record| (record.fence, found));
    }
}
