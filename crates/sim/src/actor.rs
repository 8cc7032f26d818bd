//! Those who act: callers that claim and run, waiters, operators, and the sweeper. Each does one
//! thing a step: a store call, a message, or giving up.

mod ask;
mod faults;
mod hold;
mod operate;

use std::time::Duration;

use onlyonce::FLOOR_AGE_MAX;
use onlyonce::act::Act;
use onlyonce_core::{
    Claim, ClaimId, Command, Credential, Fence, Fingerprint, Floor, Holder, Look, Phase, Record,
    State, Timestamp,
};

use self::ask::Call;
use crate::bug::Bug;
use crate::random::Random;
use crate::world::{Asker, KEYS, NODES, World};

/// How long the sweeper waits after raising the floor: twice the age at which others may still
/// use the old one, and the clocks' difference.
const SWEEPER_WAIT: Duration = Duration::from_millis(FLOOR_AGE_MAX.as_millis() as u64 * 2 + 1_000);

/// One who acts.
#[derive(Debug)]
pub struct Actor {
    node: usize,
    doing: Doing,
}

/// Where somebody is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful of them, moved in place")]
enum Doing {
    Idle,
    /// A command is on its way to the store.
    Asking {
        key: usize,
        act: Act,
        then: Then,
    },
    /// It was decided what to write, and then the process was stopped, or what it sends was.
    Frozen(Call),
    /// The claim is ours, in this phase, and nothing was sent.
    Holding {
        key: usize,
        held: Held,
        phase: Phase,
    },
    /// The request was sent.
    Waiting {
        key: usize,
        held: Held,
    },
    /// Somebody else runs it; their answer will be ours too.
    Following {
        key: usize,
        asker: Asker,
    },
    /// The floor was raised; the sweeper waits.
    Sweeping {
        key: usize,
        until: Timestamp,
        floor: Floor,
    },
}

/// A granted claim.
#[derive(Clone, Debug)]
struct Held {
    fence: Fence,
    asker: Asker,
    /// In which life of the key it was granted.
    life: u32,
    record: Record,
}

/// What a command was for.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful of them, moved in place")]
enum Then {
    Claimed {
        claim: u64,
        asker: Asker,
        phase: Phase,
        /// Whether the asker has waited for another's attempt.
        waited: bool,
    },
    Looked {
        asker: Asker,
        waited: bool,
    },
    Committed(Held),
    Renewed(Held, Next),
    Released,
    Swept(Floor),
    /// Nothing more is to be done.
    Ended,
}

/// Where a renewal goes back to.
#[derive(Clone, Copy, Debug)]
enum Next {
    Holding(Phase),
    Waiting,
}

impl Actor {
    pub(crate) const fn new(at: usize) -> Self {
        Self { node: at % NODES, doing: Doing::Idle }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Idle)
    }

    /// The process is gone if it runs on `node`, and with it all that it knew. Its host can tell.
    pub(crate) fn crash(&mut self, node: usize, world: &mut World) {
        if self.node != node {
            return;
        }
        let doing = std::mem::replace(&mut self.doing, Doing::Idle);
        let (Doing::Holding { key, held, .. }
        | Doing::Waiting { key, held }
        | Doing::Asking { key, then: Then::Committed(held) | Then::Renewed(held, _), .. }
        | Doing::Frozen(Call {
            key, then: Then::Committed(held) | Then::Renewed(held, _), ..
        })) = doing
        else {
            return;
        };
        world.note(key, || format!("the holder of {} crashes", held.fence.get()));
        world.dead.push((key, held.fence));
    }

    pub(crate) fn step(&mut self, world: &mut World, random: &mut Random) {
        self.doing = match std::mem::replace(&mut self.doing, Doing::Idle) {
            Doing::Idle => self.begin(world, random),
            Doing::Asking { key, act, then } => self.ask(key, act, then, world, random),
            Doing::Frozen(call) if !world.faults || random.once_in(6) => {
                call.swap(None, world, random)
            }
            doing @ Doing::Frozen(_) => doing,
            Doing::Holding { key, held, phase } => self.hold(key, held, phase, world, random),
            Doing::Waiting { key, held } => hold::wait(key, held, world, random),
            Doing::Following { key, asker } => self.follow(key, asker, world, random),
            Doing::Sweeping { key, until, floor } if until <= world.now(self.node) => {
                asking(key, Command::Sweep, world, Then::Swept(floor))
            }
            doing @ Doing::Sweeping { .. } if world.faults => doing,
            Doing::Sweeping { .. } => Doing::Idle,
        };
    }

    fn begin(&self, world: &mut World, random: &mut Random) -> Doing {
        let key = random.below(KEYS as u64) as usize;
        let credential =
            |random: &mut Random| Credential::from_bytes([u8::from(random.once_in(6)); 16]);
        let asker = Asker {
            fingerprint: Fingerprint::new(1, [u8::from(random.once_in(8)); 32]),
            credential: world.credentials.then(|| credential(random)),
        };
        match random.below(20) {
            0 => self.operate(key, world, random),
            1 => self.sweep(key, world, random),
            2 | 3 => looking(key, asker, false, world),
            _ => claiming(key, asker, false, world, random),
        }
    }

    /// Raises the floor and waits; or goes by the word of one that did not live as long, once by
    /// any clock everyone uses the floor that it raised.
    fn sweep(&self, key: usize, world: &mut World, random: &mut Random) -> Doing {
        let now = world.now(self.node);
        let is_hasty = world.bug == Bug::WordTakenAtOnce;
        let wait = SWEEPER_WAIT.saturating_add(world.policy.skew_max);
        let wait = if is_hasty { Duration::ZERO } else { wait };
        if let Some((floor, raised)) = world.word
            && raised.plus(wait) <= now
            && random.once_in(2)
        {
            return asking(key, Command::Sweep, world, Then::Swept(floor));
        }
        let to = Floor::at(now.minus(world.policy.remember));
        let floor = if world.bug == Bug::DeletesBeforeFloor { to } else { world.raise_floor(to) };
        if world.word.is_none_or(|(_, raised)| raised.plus(wait) <= now) {
            world.word = Some((floor, now));
        }
        Doing::Sweeping { key, until: now.plus(SWEEPER_WAIT), floor }
    }

    /// Looks again now and then, and never claims: a waiter's request was not sent to be run.
    fn follow(&self, key: usize, asker: Asker, world: &mut World, random: &mut Random) -> Doing {
        match random.below(12) {
            0 => Doing::Idle,
            1..6 if world.bug == Bug::WaiterClaims => claiming(key, asker, true, world, random),
            1..6 => looking(key, asker, true, world),
            _ => Doing::Following { key, asker },
        }
    }
}

fn claiming(
    key: usize,
    asker: Asker,
    waited: bool,
    world: &mut World,
    random: &mut Random,
) -> Doing {
    let claim = world.next_claim();
    let phase = if random.once_in(2) { Phase::Prepared } else { Phase::Committing };
    let command = Command::Claim(Claim {
        fingerprint: asker.fingerprint,
        claim_id: ClaimId::from_bytes(u128::from(claim).to_be_bytes()),
        holder: Holder::default(),
        key_time: world.key_time(key),
        credential: asker.credential,
        phase,
    });
    asking(key, command, world, Then::Claimed { claim, asker, phase, waited })
}

fn looking(key: usize, asker: Asker, waited: bool, world: &World) -> Doing {
    let Asker { fingerprint, credential } = asker;
    let look = Look { fingerprint, key_time: world.key_time(key), credential };
    asking(key, Command::Look(look), world, Then::Looked { asker, waited })
}

fn asking(key: usize, command: Command, world: &World, then: Then) -> Doing {
    Doing::Asking { key, act: Act::new(command, world.policy), then }
}

fn from(key: usize, command: Command, record: Record, world: &World, then: Then) -> Doing {
    Doing::Asking { key, act: Act::from_record(command, world.policy, record), then }
}

const fn lease_until(record: &Record) -> Timestamp {
    match &record.state {
        State::InFlight(flight) => flight.lease_until,
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => Timestamp::from_millis(0),
    }
}
