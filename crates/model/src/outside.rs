//! Those who hold nothing: operators, probes, and the sweeper.

use onlyonce_core::{Command, Fence, Floor, Record, Reply, State, Verdict};

use crate::Setup;
use crate::class::{Class, Modelled, SETTLE};
use crate::holder::Holder;
use crate::mutant::Mutant;
use crate::step::{Action, Known};
use crate::world::{Found, World, reply};

/// How often a person may have it run again.
const RERUNS_MAX: u8 = 1;

/// What those outside can do next.
pub(crate) fn actions(setup: &Setup, world: &World, actions: &mut Vec<Action>) {
    let settled = world.settled(setup.class);
    if world.found.is_some() {
        actions.push(Action::Say);
    } else if let Some(State::Unknown(_)) = settled.as_ref().map(|record| &record.state) {
        let happened = !world.receiver.effects.is_empty();
        if happened {
            actions.push(Action::Know(Known::Happened));
        }
        // A queryable receiver is asked instead; whoever knows better says no more than it does.
        if setup.class != Class::Queryable && !world.may_have_happened(setup) {
            actions.push(Action::Know(Known::NotExecuted));
        }
        if world.reruns < RERUNS_MAX {
            actions.push(Action::Know(Known::Nothing));
        }
        if matches!(setup.class, Class::Queryable | Class::Sealable) {
            actions.push(Action::Probe);
        }
    }
    let is_erased = settled.as_ref().is_some_and(Record::is_erased);
    match settled.map(|record| record.state) {
        Some(State::Completed { .. } | State::Tombstone { .. }) if !is_erased => {
            actions.push(Action::Erase);
        }
        Some(State::InFlight(_)) if holder_is_gone(world) => actions.push(Action::CertifyDeath),
        Some(State::InFlight(_) | State::Released { .. } | State::Completed { .. }) | None => {}
        Some(State::Unknown(_) | State::Tombstone { .. }) => {}
    }
    // It ends nothing that may be happening, and an answer stays.
    if world.told.is_none() && !world.sealed {
        actions.push(Action::Seal);
    }
    if setup.timed && world.raised.is_none() && 2 <= world.tick {
        actions.push(Action::RaiseFloor);
    }
    if world.record.is_some() {
        actions.push(Action::Sweep);
    }
}

fn holder_is_gone(world: &World) -> bool {
    let fence = latest(world);
    world.holders.iter().all(|holder| match holder {
        // It may be the one whose claim was granted.
        Holder::Unsure { .. } => false,
        Holder::Idle | Holder::Holding { .. } | Holder::Ready { .. } | Holder::Sent { .. } => {
            holder.fence() != fence
        }
    })
}

fn latest(world: &World) -> Option<Fence> {
    world.record.as_ref().map(|record| record.fence)
}

/// The process of the latest claim is proved gone.
pub(crate) fn certify_death(setup: &Setup, world: &mut World) {
    let floor = world.floor(false);
    if let Some(fence) = latest(world) {
        world.ask(setup, floor, Command::CertifyDeath { fence });
    }
}

/// An operator comes to know something. That it happened stays true, and who knows nothing has
/// nothing that could grow old: saying it later is the same as coming to know it later.
pub(crate) fn know(setup: &Setup, world: &mut World, known: Known) {
    let newest = u8::try_from(world.receiver.effects.len()).unwrap_or(u8::MAX);
    match known {
        Known::Happened => world.find(Found::Happened(newest)),
        Known::NotExecuted => return world.find(Found::NotExecuted),
        Known::Nothing => world.find(Found::RunAgain),
    }
    say(setup, world);
}

/// The receiver is asked; a sealable one is occupied with it.
pub(crate) fn probe(setup: &Setup, world: &mut World) {
    let shown = |then: &u8| setup.class == Class::Sealable || then + SETTLE <= world.tick;
    let newest = world.receiver.effects.iter().rposition(shown);
    if let Some(newest) = newest.and_then(|newest| u8::try_from(newest + 1).ok()) {
        world.find(Found::Happened(newest));
        return say(setup, world);
    }
    let Some(record) = world.settled(setup.class) else { return };
    if setup.class == Class::Sealable {
        if setup.mutant != Mutant::SealNotKept {
            world.receiver.sealed = Some(record.fence);
        }
        return world.find(Found::NotExecuted);
    }
    let State::Unknown(doubt) = record.state else { return };
    // Of the record's last write nothing is kept but its order, so this counts from the lapse.
    let is_final = setup.class.policy().is_final(doubt.since, world.now());
    if is_final || setup.mutant == Mutant::AbsentAtOnce {
        world.find(Found::NotExecuted);
    }
}

/// What was found out is said, about the claim it was found out of.
pub(crate) fn say(setup: &Setup, world: &mut World) {
    let Some((fence, found)) = world.found.take() else { return };
    let verdict = match found {
        Found::Happened(number) => Verdict::Happened(reply(number)),
        Found::NotExecuted => Verdict::NotExecuted,
        Found::RunAgain => Verdict::RunAgain,
    };
    let again = found == Found::RunAgain;
    let command = Command::Resolve { fence, verdict, by: String::new(), why: String::new() };
    if let Found::Happened(number) = found {
        return world.say_happened(setup, fence, number, command);
    }
    let floor = world.floor(false);
    let was = world.settled(setup.class);
    world.ask(setup, floor, command);
    let acted =
        was.is_some_and(|record| matches!(record.state, State::Unknown(_))) && !world.is_unknown();
    if again && acted {
        world.reruns += 1;
    }
}

/// The key is sealed here: no later claim is granted.
pub(crate) fn seal(setup: &Setup, world: &mut World) {
    let command = Command::Seal {
        reply: Reply::kept(200, ""),
        key_time: World::key_time(setup),
        by: String::new(),
        why: String::new(),
    };
    let floor = world.floor(false);
    world.ask(setup, floor, command);
}

/// What was answered is erased; that it was answered stays.
pub(crate) fn erase(setup: &Setup, world: &mut World) {
    let floor = world.floor(false);
    world.ask(setup, floor, Command::Erase { by: String::new(), why: String::new() });
}

/// The sweeper goes by the floor that every node must know by now.
pub(crate) fn sweep(setup: &Setup, world: &mut World) {
    let waited = world.floor_is_known() || setup.mutant == Mutant::SweepsAtOnce;
    let floor = if waited { world.floor(false) } else { Floor::NONE };
    world.ask(setup, floor, Command::Sweep);
}
