//! Who settles what nobody knows: an operator, who looks at the receiver and says only what can be
//! known there, and the engine, which asks or seals it as the policy says.

use onlyonce_core::{Command, Record, Remedy, Reply, State, Timestamp, Verdict, settle};

use super::{Actor, Doing, Then, asking};
use crate::bug::Bug;
use crate::random::Random;
use crate::world::World;

impl Actor {
    pub(super) fn operate(&self, key: usize, world: &mut World, random: &mut Random) -> Doing {
        let now = world.now(self.node);
        let Some(stored) = world.keys[key].record.clone() else { return sealing(key, world) };
        let record = settle(now, &world.policy, &stored);
        // Who asks the receiver has found it written that nobody knows.
        if matches!(stored.state, State::Unknown(_)) && !random.once_in(4) {
            match world.policy.remedy_at(record.first_commit_at, now) {
                Remedy::Probe => return probing(key, &record, now, world),
                Remedy::Seal => return occupying(key, &record, world),
                Remedy::RunAgain | Remedy::Hold => {}
            }
        }
        match &record.state {
            State::Unknown(_) => resolving(key, &record, now, world, random),
            State::Released { .. } => sealing(key, world),
            // Its process is provably gone.
            State::InFlight(_) if world.dead.contains(&(key, record.fence)) => {
                let command = Command::CertifyDeath { fence: record.fence };
                asking(key, command, world, Then::Ended)
            }
            State::Completed { .. } | State::Tombstone { .. } => {
                telling(key, &record, world, random)
            }
            State::InFlight(_) => Doing::Idle,
        }
    }
}

/// Has an answer erased; or says of one again that it happened, as it did or as it did not.
fn telling(key: usize, record: &Record, world: &World, random: &mut Random) -> Doing {
    let (by, why) = (String::new(), String::new());
    match random.below(4) {
        0 => asking(key, Command::Erase { by, why }, world, Then::Ended),
        1 => {
            let verdict = Verdict::Happened(Reply::kept(598, bytes::Bytes::new()));
            found(key, record, verdict, world)
        }
        _ => Doing::Idle,
    }
}

fn sealing(key: usize, world: &World) -> Doing {
    let reply = Reply::kept(410, bytes::Bytes::new());
    let (by, why) = (String::new(), String::new());
    let command = Command::Seal { reply, key_time: world.key_time(key), by, why };
    asking(key, command, world, Then::Ended)
}

/// Asks the receiver: a yes always counts, a no once it is final.
fn probing(key: usize, record: &Record, now: Timestamp, world: &World) -> Doing {
    let written = Timestamp::from_millis(record.revision.get());
    match world.shown(key) {
        Some(reply) => found(key, record, Verdict::Happened(reply), world),
        None if world.policy.is_final(written, now) || world.bug == Bug::AbsentAtOnce => {
            found(key, record, Verdict::NotExecuted, world)
        }
        None => Doing::Idle,
    }
}

/// Seals the receiver: it has happened, or no longer can.
fn occupying(key: usize, record: &Record, world: &mut World) -> Doing {
    let verdict = world.occupy(key, record.fence).map_or(Verdict::NotExecuted, Verdict::Happened);
    found(key, record, verdict, world)
}

fn found(key: usize, record: &Record, verdict: Verdict, world: &World) -> Doing {
    let (by, why) = (String::new(), String::new());
    asking(key, Command::Resolve { fence: record.fence, verdict, by, why }, world, Then::Ended)
}

fn resolving(
    key: usize,
    record: &Record,
    now: Timestamp,
    world: &World,
    random: &mut Random,
) -> Doing {
    let known = &world.keys[key];
    let verdict = match known.effects_now().last() {
        Some(effect) if !random.once_in(4) => Verdict::Happened(effect.reply.clone()),
        None if known.under_way == 0 && !may_still_send(world, record, now) => Verdict::NotExecuted,
        Some(_) | None => Verdict::RunAgain,
    };
    found(key, record, verdict, world)
}

/// Whether a holder may still be about to send: while its lease runs, and some time after it. An
/// operator who cannot rule it out says nothing.
fn may_still_send(world: &World, record: &Record, now: Timestamp) -> bool {
    let since = Timestamp::from_millis(record.revision.get());
    now.since(since) < (world.policy.lease + world.policy.skew_max) * 2
}
