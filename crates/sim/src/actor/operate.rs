//! An operator, who looks at the receiver and says only what can be known there.

use onlyonce_core::{Command, Record, Reply, State, Timestamp, Verdict, settle};

use super::{Actor, Doing, Then, asking};
use crate::random::Random;
use crate::world::World;

impl Actor {
    pub(super) fn operate(&self, key: usize, world: &World, random: &mut Random) -> Doing {
        let now = world.now(self.node);
        let record = world.keys[key].record.as_ref();
        let Some(record) = record.map(|record| settle(now, &world.policy, record)) else {
            return sealing(key, world);
        };
        match &record.state {
            State::Unknown(_) => resolving(key, &record, now, world, random),
            State::Released { .. } => sealing(key, world),
            // Its process is provably gone.
            State::InFlight(_) if world.dead.contains(&(key, record.fence)) => {
                let command = Command::CertifyDeath { fence: record.fence };
                asking(key, command, world, Then::Ended)
            }
            State::InFlight(_) | State::Completed { .. } | State::Tombstone { .. } => Doing::Idle,
        }
    }
}

fn sealing(key: usize, world: &World) -> Doing {
    let reply = Reply::kept(410, bytes::Bytes::new());
    let (by, why) = (String::new(), String::new());
    let command = Command::Seal { reply, key_time: world.key_time(key), by, why };
    asking(key, command, world, Then::Ended)
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
    let (by, why) = (String::new(), String::new());
    asking(key, Command::Resolve { fence: record.fence, verdict, by, why }, world, Then::Ended)
}

/// Whether a holder may still be about to send: while its lease runs, and some time after it. An
/// operator who cannot rule it out says nothing.
fn may_still_send(world: &World, record: &Record, now: Timestamp) -> bool {
    let since = Timestamp::from_millis(record.revision.get());
    now.since(since) < (world.policy.lease + world.policy.skew_max) * 2
}
