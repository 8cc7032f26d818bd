//! The promises that must hold in every state; those about a step are demanded where it is taken.
//!
//! Whatever can be told in a state counts as told: everybody may ask at any time.

use onlyonce_core::{Command, Decision, Fingerprint, Look, Next, Outcome, Phase, Record, State};

use crate::Setup;
use crate::class::Class;
use crate::holder::{NEW_CLAIM, claiming};
use crate::world::{World, number};

/// The name of the promise that is broken.
pub(crate) fn broken(setup: &Setup, world: &World) -> Option<&'static str> {
    world.broken.or_else(|| told(setup, world)).or_else(|| standing(setup, world))
}

/// Only the promise that is watched counts, if one is.
fn watched(setup: &Setup, broken: Option<&'static str>) -> Option<&'static str> {
    broken.filter(|broken| setup.watched.is_none_or(|watched| watched == *broken))
}

/// What somebody is told who asks with the same request, under any floor in use.
fn told(setup: &Setup, world: &World) -> Option<&'static str> {
    let look = Command::Look(Look {
        fingerprint: Fingerprint::new(1, [1; 32]),
        key_time: World::key_time(setup),
        credential: None,
    });
    let old_too = world.raised == Some(world.tick);
    let floors = [Some(false), old_too.then_some(true)];
    let may = world.may_have_happened(setup);
    floors.into_iter().flatten().find_map(|old| {
        let outcome = world.decide(setup, world.floor(old), look.clone()).outcome;
        let answer = watched(setup, answer_stays(world, &outcome));
        answer.or_else(|| watched(setup, no_denial(world, may, &outcome)))
    })
}

/// Once answered, always the same answer; and it is the receiver's.
fn answer_stays(world: &World, outcome: &Outcome) -> Option<&'static str> {
    let fine = match outcome {
        Outcome::Replay { reply, sealed: false, .. } => is_told(world, reply.status()),
        Outcome::Gone { status, sealed: false, .. } => is_told(world, *status),
        Outcome::Replay { .. } | Outcome::Gone { .. } => world.sealed && world.told.is_none(),
        Outcome::InFlight { .. } | Outcome::OutcomeUnknown { .. } | Outcome::Absent => {
            world.told.is_none() && !world.sealed
        }
        Outcome::Expired => true,
        Outcome::Granted(_)
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply => false,
    };
    (!fine).then_some("answer")
}

fn is_told(world: &World, status: u16) -> bool {
    let effects = world.receiver.effects.len();
    let number = number(status);
    world.told == number && number.is_some_and(|it| 0 < it && usize::from(it) <= effects)
}

/// "It was not executed" is told only where no attempt has happened or still can.
fn no_denial(world: &World, may: bool, outcome: &Outcome) -> Option<&'static str> {
    let denies = match outcome {
        Outcome::Absent
        | Outcome::Replay { sealed: true, .. }
        | Outcome::Gone { sealed: true, .. } => {
            world.record.as_ref().is_none_or(|record| !record.may_have_run())
        }
        Outcome::Granted(_)
        | Outcome::Replay { .. }
        | Outcome::InFlight { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Gone { .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply => false,
    };
    (denies && may).then_some("not-executed")
}

/// What the record must be like, whoever asks.
fn standing(setup: &Setup, world: &World) -> Option<&'static str> {
    let record = world.record.as_ref()?;
    let settled = world.settled(setup.class)?;
    let doubt = setup.class == Class::Transactional && matches!(settled.state, State::Unknown(_));
    watched(setup, doubt.then_some("no-doubt")).or_else(|| {
        if is_sealed(&settled) {
            return None;
        }
        watched(setup, mismatch(setup, world, record, &settled))
    })
}

/// Another request with the key is told so, and changes nothing that time has not.
fn mismatch(
    setup: &Setup,
    world: &World,
    record: &Record,
    settled: &Record,
) -> Option<&'static str> {
    let claim = claiming(2, NEW_CLAIM, Phase::Prepared);
    let Decision { outcome, next } = world.decide(setup, world.floor(false), claim);
    let unchanged = match next {
        Next::Keep => settled == record,
        Next::Write(next) => Record { revision: record.revision, ..next } == *settled,
        Next::Delete => false,
    };
    (outcome != Outcome::Mismatch || !unchanged).then_some("mismatch")
}

fn is_sealed(record: &Record) -> bool {
    match record.state {
        State::Completed { sealed, .. } | State::Tombstone { sealed, .. } => sealed,
        State::InFlight(_) | State::Released { .. } | State::Unknown(_) => false,
    }
}
