//! A holder: it claims, marks, sends, waits for the answer, and says how it ended. Each step may
//! come at any time, so that a holder that freezes and goes on is only one of many orders.

use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Fence, Fingerprint, Holder as Process, Outcome, Phase,
};

use crate::Setup;
use crate::class::{Class, Modelled};
use crate::mutant::Mutant;
use crate::receiver::{Answer, Receiver};
use crate::step::Action;
use crate::world::{Message, World, reply};

/// How far a holder has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Holder {
    /// It has nothing to do with the key.
    Idle,
    /// It claimed, and the store's answer was lost.
    Unsure { claim_id: u8, committing: bool },
    /// Its claim was granted, and is not marked.
    Holding { fence: Fence },
    /// It may send. `marked` tells when its mark became durable.
    Ready { fence: Fence, marked: Option<u8> },
    /// It has sent, may have said that it cannot tell, and may have heard the answer.
    Sent { fence: Fence, said: bool, answer: Option<Answer> },
}

/// The id of a claim that is being made; [`crate::normal`] renames it afterwards.
pub(crate) const NEW_CLAIM: u8 = 2;

impl Holder {
    /// The claim it knows of.
    pub(crate) const fn fence(self) -> Option<Fence> {
        match self {
            Self::Idle | Self::Unsure { .. } => None,
            Self::Holding { fence } | Self::Ready { fence, .. } | Self::Sent { fence, .. } => {
                Some(fence)
            }
        }
    }
}

/// What holder `at` can do next.
pub(crate) fn actions(setup: &Setup, world: &World, at: usize, actions: &mut Vec<Action>) {
    let transactional = setup.class == Class::Transactional;
    let holder = world.holders[at];
    let lose = 0 < world.losses;
    match holder {
        Holder::Idle if world.claims < setup.claims_max => {
            for committing in [false, true] {
                if transactional && committing {
                    continue;
                }
                for old_floor in [false, true] {
                    // An old floor may be used as long as the sweeper waits.
                    if old_floor && world.raised != Some(world.tick) {
                        continue;
                    }
                    actions.push(Action::Claim { at, committing, old_floor, lost: false });
                    if lose {
                        actions.push(Action::Claim { at, committing, old_floor, lost: true });
                    }
                }
            }
        }
        Holder::Idle => {}
        Holder::Unsure { .. } => actions.push(Action::ClaimAgain { at }),
        Holder::Holding { .. } => {
            if transactional {
                actions.push(Action::Transact { at });
                if setup.mutant == Mutant::TransactionMarkedApart {
                    actions.push(Action::Commit { at, lost: true });
                }
            } else if setup.mutant == Mutant::CommitSkipped {
                actions.push(Action::Skip { at });
            } else {
                actions.push(Action::Commit { at, lost: false });
                if lose {
                    actions.push(Action::Commit { at, lost: true });
                }
            }
            actions.push(Action::Release { at });
        }
        Holder::Ready { marked, .. } => {
            let late = world.is_late(setup.class, marked.unwrap_or(world.tick));
            if !late || setup.mutant == Mutant::LateBoundBroken {
                actions.push(Action::Send { at });
            }
            actions.push(Action::Release { at });
            actions.push(Action::Abandon { at });
        }
        Holder::Sent { said, answer, .. } => {
            match answer {
                Some(Answer::Happened(_)) => {
                    actions.push(Action::Complete { at, lost: false });
                    if lose {
                        actions.push(Action::Complete { at, lost: true });
                    }
                }
                Some(Answer::Refused) => actions.push(Action::Release { at }),
                None => {}
            }
            if !said {
                actions.push(Action::Abandon { at });
            }
        }
    }
    if holder != Holder::Idle {
        actions.push(Action::Crash { at });
    }
}

/// Claims, or asks again what became of the claim.
pub(crate) fn claim(
    setup: &Setup,
    world: &mut World,
    at: usize,
    (claim_id, committing): (u8, bool),
    (old_floor, lost): (bool, bool),
) {
    let phase = if committing { Phase::Committing } else { Phase::Prepared };
    let command = claiming(1, claim_id, phase);
    let floor = world.floor(old_floor);
    let outcome = world.ask(setup, floor, command);
    world.holders[at] = match outcome {
        _ if lost => Holder::Unsure { claim_id, committing },
        Outcome::Granted(fence) => {
            let others = world.holders.iter().enumerate();
            let taken = others
                .filter(|(other, _)| *other != at)
                .any(|(_, holder)| holder.fence() == Some(fence));
            world.demand(setup, "fences", !taken);
            match phase {
                Phase::Prepared => Holder::Holding { fence },
                Phase::Committing => Holder::Ready { fence, marked: Some(world.tick) },
            }
        }
        Outcome::Replay { .. }
        | Outcome::InFlight { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Gone { .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => Holder::Idle,
    };
}

/// The wish of request `request` with the key.
pub(crate) fn claiming(request: u8, claim_id: u8, phase: Phase) -> Command {
    Command::Claim(Claim {
        fingerprint: Fingerprint::new(1, [request; 32]),
        claim_id: ClaimId::from_bytes([claim_id; 16]),
        holder: Process::default(),
        // The key's time is the setup's; `World::ask` puts it in.
        key_time: None,
        credential: None,
        phase,
    })
}

/// Has its mark made durable.
pub(crate) fn commit(setup: &Setup, world: &mut World, at: usize, lost: bool) {
    let Holder::Holding { fence } = world.holders[at] else { return };
    let floor = world.floor(false);
    let done = world.ask(setup, floor, Command::Commit { fence }) == Outcome::Done;
    if lost {
        return;
    }
    world.holders[at] = if done {
        Holder::Ready { fence, marked: Some(world.tick) }
    } else if setup.mutant == Mutant::FencedGoesOn {
        Holder::Ready { fence, marked: None }
    } else {
        Holder::Idle
    };
}

/// Sends what can take effect.
pub(crate) fn send(setup: &Setup, world: &mut World, at: usize) {
    let Holder::Ready { fence, marked } = world.holders[at] else { return };
    world.demand(setup, "marked", marked.is_some());
    if !world.is_forgotten(fence) {
        let bounded = setup.class.is_bounded() && setup.mutant != Mutant::LateBoundBroken;
        let marked = if bounded { marked.unwrap_or(world.tick) } else { 0 };
        world.net.push(Message { fence, marked });
    }
    world.holders[at] = Holder::Sent { fence, said: false, answer: None };
}

/// Says that it happened, with the answer it has heard.
pub(crate) fn complete(setup: &Setup, world: &mut World, at: usize, lost: bool) {
    let Holder::Sent { fence, answer: Some(Answer::Happened(number)), .. } = world.holders[at]
    else {
        return;
    };
    let command = Command::Complete { fence, reply: reply(number) };
    world.say_happened(setup, fence, number, command);
    if !lost {
        world.holders[at] = Holder::Idle;
    }
}

/// Says that this attempt did nothing.
pub(crate) fn release(setup: &Setup, world: &mut World, at: usize) {
    let Some(fence) = world.holders[at].fence() else { return };
    let floor = world.floor(false);
    world.ask(setup, floor, Command::Release { fence, stranger: false });
    world.holders[at] = Holder::Idle;
}

/// Says that it cannot tell. An answer may still come.
pub(crate) fn abandon(setup: &Setup, world: &mut World, at: usize) {
    let Some(fence) = world.holders[at].fence() else { return };
    let floor = world.floor(false);
    world.ask(setup, floor, Command::Abandon { fence, cause: Cause::TimedOut });
    world.holders[at] = match world.holders[at] {
        Holder::Sent { answer, .. } => Holder::Sent { fence, said: true, answer },
        Holder::Idle | Holder::Unsure { .. } | Holder::Holding { .. } | Holder::Ready { .. } => {
            Holder::Idle
        }
    };
}

/// Runs the operation in the transaction that writes its reply: the mark, which only the latest
/// claim gets, and the reply are both written with the effect, or none of the three is.
pub(crate) fn transact(setup: &Setup, world: &mut World, at: usize) {
    let Holder::Holding { fence } = world.holders[at] else { return };
    let before = world.clone();
    let floor = world.floor(false);
    let number = u8::try_from(world.receiver.effects.len()).unwrap_or(u8::MAX).saturating_add(1);
    let checked = setup.mutant == Mutant::TransactionUnchecked
        || world.ask(setup, floor, Command::Commit { fence }) == Outcome::Done;
    let completing = Command::Complete { fence, reply: reply(number) };
    let written = checked
        && world.ask(setup, floor, completing) == Outcome::Done
        && world.record != before.record;
    if !written {
        *world = before;
    }
    if written || setup.mutant == Mutant::TransactionSplit {
        world.receiver.happen(setup, world.tick);
        world.count_effects(setup);
    }
    world.holders[at] = Holder::Idle;
}

impl World {
    /// More effects than the class allows break the first promise of all.
    pub(crate) fn count_effects(&mut self, setup: &Setup) {
        let allowed = Receiver::allowed(setup.class, self.reruns);
        self.demand(setup, "once", self.receiver.effects.len() <= allowed);
    }
}
