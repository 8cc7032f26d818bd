//! A holder with its claim: it marks, sends, waits for the answer, and says how it ended.

use onlyonce_core::{Cause, Command, Phase, Record};

use super::{Actor, Doing, Held, Next, Then, faults, from, lease_until};
use crate::bug::Bug;
use crate::random::Random;
use crate::world::{Message, World};

impl Actor {
    pub(super) fn hold(
        &self,
        key: usize,
        held: Held,
        phase: Phase,
        world: &mut World,
        random: &mut Random,
    ) -> Doing {
        let fence = held.fence;
        match (phase, random.below(12)) {
            (_, 0) => renewing(key, held, Next::Holding(phase), world),
            // It finds out that it cannot even connect.
            (_, 1) => releasing(key, held, random.once_in(4), world),
            (Phase::Prepared, _) if world.bug != Bug::CommitSkipped => {
                let record = held.record.clone();
                from(key, Command::Commit { fence }, record, world, Then::Committed(held))
            }
            (Phase::Prepared | Phase::Committing, _) => {
                // Nothing may be sent under a lease that is nearly over.
                let left = lease_until(&held.record).since(world.now(self.node));
                if left < world.policy.lease / 3 && world.bug != Bug::FencedGoesOn {
                    return releasing(key, held, false, world);
                }
                world.send(Message { key, life: held.life, fence, asker: held.asker });
                Doing::Waiting { key, held }
            }
        }
    }
}

/// Waits for the receiver's answer.
pub(super) fn wait(key: usize, held: Held, world: &World, random: &mut Random) -> Doing {
    let fence = held.fence;
    let reply = world.answer_to(key, fence);
    match (reply, random.below(12)) {
        (_, 0) => renewing(key, held, Next::Waiting, world),
        (Some(reply), _) => {
            let reply = faults::kept(reply, world);
            from(key, Command::Complete { fence, reply }, held.record, world, Then::Ended)
        }
        (None, _) if world.bug == Bug::NeverGivesUp => Doing::Waiting { key, held },
        // No answer came in time.
        (None, 1 | 2) if world.bug == Bug::TimeoutIsRelease => releasing(key, held, false, world),
        (None, 1 | 2) => abandoning(key, held, world),
        (None, _) if !world.is_under_way(key) && !world.faults => abandoning(key, held, world),
        (None, _) => Doing::Waiting { key, held },
    }
}

fn renewing(key: usize, held: Held, next: Next, world: &World) -> Doing {
    let (command, record) = (Command::Renew { fence: held.fence }, held.record.clone());
    from(key, command, record, world, Then::Renewed(held, next))
}

fn releasing(key: usize, held: Held, stranger: bool, world: &World) -> Doing {
    let command = Command::Release { fence: held.fence, stranger };
    from(key, command, faults::released(held.record, world), world, Then::Released)
}

fn abandoning(key: usize, held: Held, world: &World) -> Doing {
    let command = Command::Abandon { fence: held.fence, cause: Cause::TimedOut };
    from(key, command, held.record, world, Then::Ended)
}

/// Takes back a grant that nobody is told of.
pub(super) fn disown(key: usize, record: Record, world: &World) -> Doing {
    let command = Command::Release { fence: record.fence, stranger: false };
    from(key, command, record, world, Then::Ended)
}
