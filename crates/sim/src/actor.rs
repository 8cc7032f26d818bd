//! Those who act: callers that claim and run, operators, and the sweeper. Each does one thing a
//! step: a store call, a message, or giving up.

use std::time::Duration;

use onlyonce::FLOOR_AGE_MAX;
use onlyonce::act::{Act, Step};
use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Fence, Fingerprint, Floor, Holder, Look, Outcome, Phase,
    Record, Reply, State, Timestamp, Verdict,
};
use onlyonce_store::Swap;

use crate::bug::Bug;
use crate::invariants::{fences, mismatch, replay, truth};
use crate::random::Random;
use crate::world::{Called, Message, NODES, World};

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
    fingerprint: Fingerprint,
    record: Record,
}

/// What a command was for.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful of them, moved in place")]
enum Then {
    Claimed {
        claim: u64,
        fingerprint: Fingerprint,
        phase: Phase,
    },
    Looked {
        fingerprint: Fingerprint,
    },
    Committed(Held),
    Renewed(Held, Next),
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
    pub(crate) fn new(at: usize, _random: &mut Random) -> Self {
        Self { node: at % NODES, doing: Doing::Idle }
    }

    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Idle)
    }

    pub(crate) fn describe(&self) -> String {
        let doing = match &self.doing {
            Doing::Idle => "idle".to_owned(),
            Doing::Asking { key, act, .. } => format!("asks {key}: {act:?}"),
            Doing::Holding { key, phase, .. } => format!("holds {key} {phase:?}"),
            Doing::Waiting { key, .. } => format!("waits for {key}"),
            Doing::Sweeping { key, .. } => format!("sweeps {key}"),
        };
        format!("node {} {doing}", self.node)
    }

    pub(crate) fn step(&mut self, world: &mut World, random: &mut Random) {
        if world.faults && random.once_in(200) {
            // The process is gone, and with it all that it knew.
            self.doing = Doing::Idle;
            return;
        }
        self.doing = match std::mem::replace(&mut self.doing, Doing::Idle) {
            Doing::Idle => self.begin(world, random),
            Doing::Asking { key, act, then } => self.ask(key, act, then, world, random),
            Doing::Holding { key, held, phase } => self.hold(key, held, phase, world, random),
            Doing::Waiting { key, held } => self.wait(key, held, world, random),
            Doing::Sweeping { key, until, floor } if until <= world.now(self.node) => {
                asking(key, Command::Sweep, world, Then::Swept(floor))
            }
            doing @ Doing::Sweeping { .. } => {
                if world.faults {
                    doing
                } else {
                    Doing::Idle
                }
            }
        };
    }

    fn begin(&self, world: &mut World, random: &mut Random) -> Doing {
        let key = random.below(2) as usize;
        let fingerprint = Fingerprint::new(1, [u8::from(random.once_in(8)); 32]);
        match random.below(20) {
            0 => self.operate(key, world, random),
            1 => {
                let to = Floor::at(world.now(self.node).minus(world.policy.remember));
                let floor =
                    if world.bug == Bug::DeletesBeforeFloor { to } else { world.raise_floor(to) };
                let until = world.now(self.node).plus(SWEEPER_WAIT);
                Doing::Sweeping { key, until, floor }
            }
            2 | 3 => {
                let key_time = world.key_time(key);
                let look = Look { fingerprint, key_time, credential: None };
                asking(key, Command::Look(look), world, Then::Looked { fingerprint })
            }
            _ => {
                let claim = world.next_claim();
                let phase = if random.once_in(2) { Phase::Prepared } else { Phase::Committing };
                let command = Command::Claim(Claim {
                    fingerprint,
                    claim_id: ClaimId::from_bytes(u128::from(claim).to_be_bytes()),
                    holder: Holder::default(),
                    key_time: world.key_time(key),
                    credential: None,
                    phase,
                });
                asking(key, command, world, Then::Claimed { claim, fingerprint, phase })
            }
        }
    }

    /// An operator looks at the receiver, and says only what can be known there.
    fn operate(&self, key: usize, world: &mut World, random: &mut Random) -> Doing {
        let Some(record) = world.keys[key].record.clone() else { return Doing::Idle };
        if !matches!(record.state, State::Unknown(_)) {
            return Doing::Idle;
        }
        let known = &world.keys[key];
        let verdict = match known.effects.get(known.forgotten) {
            Some(effect) if !random.once_in(4) => Verdict::Happened(effect.reply.clone()),
            None if !world.is_under_way(key) && !may_still_send(world, &record) => {
                Verdict::NotExecuted
            }
            Some(_) | None => {
                world.keys[key].allowed += 1;
                Verdict::RunAgain
            }
        };
        let (by, why) = (String::new(), String::new());
        let command = Command::Resolve { fence: record.fence, verdict, by, why };
        asking(key, command, world, Then::Ended)
    }

    /// One store call of a command.
    fn ask(
        &self,
        key: usize,
        mut act: Act,
        then: Then,
        world: &mut World,
        random: &mut Random,
    ) -> Doing {
        let now = world.now(self.node);
        let floor = match &then {
            // The sweeper relies on the floor that it has waited for, never on a newer one, which
            // others may not have read yet.
            Then::Swept(floor) if world.bug != Bug::SweepsByNewerFloor => *floor,
            Then::Swept(_)
            | Then::Claimed { .. }
            | Then::Looked { .. }
            | Then::Committed(_)
            | Then::Renewed(..)
            | Then::Ended => world.floor_at(self.node),
        };
        let acted = match act.step(now, floor) {
            Step::Get => {
                if let Called::Answer(found) = world.get(key, random) {
                    act.read(spoilt(found, &then, world));
                    return answer(key, act, then, (now, floor), world);
                }
                return Doing::Asking { key, act, then };
            }
            Step::Swap { expected, next } => match world.swap(key, expected, next, random) {
                Called::Answer(Swap::Conflict(found)) => {
                    let found = spoilt(found, &then, world);
                    act.swapped(Swap::Conflict(found));
                    return answer(key, act, then, (now, floor), world);
                }
                Called::Answer(done) => match act.swapped(done) {
                    Some(acted) => acted,
                    None => return Doing::Asking { key, act, then },
                },
                Called::Lost if random.once_in(3) && world.faults => return Doing::Idle,
                Called::Lost => return Doing::Asking { key, act, then },
            },
            Step::Done(acted) => acted,
            Step::Contended => return Doing::Idle,
        };
        told(key, acted.outcome, acted.record, then, world)
    }

    fn hold(
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
            (_, 1) => {
                let command = Command::Release { fence, stranger: random.once_in(4) };
                from(key, command, held.record, world, Then::Ended)
            }
            (Phase::Prepared, _) if world.bug != Bug::CommitSkipped => {
                let record = held.record.clone();
                from(key, Command::Commit { fence }, record, world, Then::Committed(held))
            }
            (Phase::Prepared | Phase::Committing, _) => {
                // Nothing may be sent under a lease that is nearly over.
                let left = lease_until(&held.record).since(world.now(self.node));
                if left < world.policy.lease / 3 {
                    let command = Command::Release { fence, stranger: false };
                    return from(key, command, held.record, world, Then::Ended);
                }
                world.send(Message { key, fence, fingerprint: held.fingerprint });
                Doing::Waiting { key, held }
            }
        }
    }

    fn wait(&self, key: usize, held: Held, world: &mut World, random: &mut Random) -> Doing {
        let fence = held.fence;
        let reply = world.effect_of(key, fence).map(|effect| effect.reply.clone());
        match (reply, random.below(12)) {
            (_, 0) => renewing(key, held, Next::Waiting, world),
            (Some(reply), _) => {
                let command = Command::Complete { fence, reply: altered(reply, world) };
                from(key, command, held.record, world, Then::Ended)
            }
            (None, _) if world.bug == Bug::NeverGivesUp => Doing::Waiting { key, held },
            // No answer came in time.
            (None, 1 | 2) => {
                let command = if world.bug == Bug::TimeoutIsRelease {
                    Command::Release { fence, stranger: false }
                } else {
                    Command::Abandon { fence, cause: Cause::TimedOut }
                };
                from(key, command, held.record, world, Then::Ended)
            }
            (None, _) if !world.is_under_way(key) && !world.faults => {
                let command = Command::Abandon { fence, cause: Cause::TimedOut };
                from(key, command, held.record, world, Then::Ended)
            }
            (None, _) => Doing::Waiting { key, held },
        }
    }
}

/// Whether a holder may still be about to send: while its lease runs, and for as long after it as
/// a process may sleep. An operator who cannot rule it out says nothing.
fn may_still_send(world: &World, record: &Record) -> bool {
    let since = Timestamp::from_millis(record.revision.get());
    world.now(0).since(since) < Duration::from_secs(600)
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

fn asking(key: usize, command: Command, world: &World, then: Then) -> Doing {
    Doing::Asking { key, act: Act::new(command, world.policy), then }
}

fn from(key: usize, command: Command, record: Record, world: &World, then: Then) -> Doing {
    Doing::Asking { key, act: Act::from_record(command, world.policy, record), then }
}

fn renewing(key: usize, held: Held, next: Next, world: &World) -> Doing {
    let (command, record) = (Command::Renew { fence: held.fence }, held.record.clone());
    from(key, command, record, world, Then::Renewed(held, next))
}

/// What was just read may be all there is to tell. It is true of the moment of the read, so that
/// is when the oracle looks at it.
fn answer(
    key: usize,
    mut act: Act,
    then: Then,
    (now, floor): (Timestamp, Floor),
    world: &mut World,
) -> Doing {
    match act.step(now, floor) {
        Step::Done(acted) => told(key, acted.outcome, acted.record, then, world),
        Step::Get | Step::Swap { .. } | Step::Contended => Doing::Asking { key, act, then },
    }
}

/// What an answer to a command leads to, and the oracle's look at it.
fn told(
    key: usize,
    outcome: Outcome,
    record: Option<Record>,
    then: Then,
    world: &mut World,
) -> Doing {
    let asked = match &then {
        Then::Claimed { fingerprint, .. } | Then::Looked { fingerprint } => Some(*fingerprint),
        Then::Committed(_) | Then::Renewed(..) | Then::Swept(_) | Then::Ended => None,
    };
    if let Some(asked) = asked {
        if let Outcome::Replay { reply, sealed: false, .. } = &outcome {
            let broken = mismatch::check(&world.keys[key], asked, reply)
                .or_else(|| replay::check(&mut world.keys[key], reply));
            world.report(broken);
        }
        let broken = truth::check(&world.keys[key], &outcome, record.as_ref(), key == 0);
        world.report(broken);
    }
    match (then, outcome, record) {
        (Then::Claimed { claim, fingerprint, phase }, Outcome::Granted(fence), Some(record)) => {
            let broken = fences::check(&mut world.keys[key], fence, claim);
            world.report(broken);
            let held = Held { fence, fingerprint, record };
            Doing::Holding { key, held, phase }
        }
        (Then::Committed(held), Outcome::Done, Some(record)) => {
            Doing::Holding { key, held: Held { record, ..held }, phase: Phase::Committing }
        }
        (Then::Renewed(held, next), Outcome::Done, Some(record)) => {
            let held = Held { record, ..held };
            match next {
                Next::Holding(phase) => Doing::Holding { key, held, phase },
                Next::Waiting => Doing::Waiting { key, held },
            }
        }
        // The claim is lost, but what was sent may still be answered.
        (Then::Renewed(held, Next::Waiting), _, _) => Doing::Waiting { key, held },
        (
            Then::Claimed { .. }
            | Then::Looked { .. }
            | Then::Committed(_)
            | Then::Renewed(..)
            | Then::Swept(_)
            | Then::Ended,
            _,
            _,
        ) => Doing::Idle,
    }
}

/// A record as a node with a fault reads it.
fn spoilt(found: Option<Record>, then: &Then, world: &World) -> Option<Record> {
    let mut record = found?;
    match world.bug {
        Bug::LapseIsRelease => {
            if let State::Unknown(doubt) = &record.state
                && doubt.cause == Cause::Lapsed
            {
                record.state = State::Released { since: doubt.since };
            }
            let lapsed = lease_until(&record).plus(world.policy.skew_max) <= world.now(0);
            if matches!(record.state, State::InFlight(_)) && lapsed {
                record.state = State::Released { since: world.now(0) };
            }
        }
        Bug::FingerprintIgnored => {
            if let Then::Claimed { fingerprint, .. } | Then::Looked { fingerprint } = then {
                record.fingerprint = Some(*fingerprint);
            }
        }
        Bug::None
        | Bug::CommitSkipped
        | Bug::LostIsDone
        | Bug::FloorNeverRead
        | Bug::DeletesBeforeFloor
        | Bug::TimeoutIsRelease
        | Bug::StoreIgnoresRevision
        | Bug::SweepsByNewerFloor
        | Bug::NeverGivesUp
        | Bug::OtherReplyShown => {}
    }
    Some(record)
}

/// A reply as a holder with a fault records it.
fn altered(reply: Reply, world: &World) -> Reply {
    if world.bug == Bug::OtherReplyShown { Reply::kept(599, bytes::Bytes::new()) } else { reply }
}
