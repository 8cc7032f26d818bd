//! One store call of a command, and what its answer leads to.

use std::time::Duration;

use onlyonce::FLOOR_AGE_MAX;
use onlyonce::act::{Act, Step};
use onlyonce_core::{Fence, Floor, Outcome, Phase, Record, Revision, Timestamp};
use onlyonce_store::Swap;

use super::{Actor, Doing, Held, Next, Then, faults, hold};
use crate::bug::Bug;
use crate::invariants::{
    alarm, answered, erased, fences, mismatch, not_executed, replay, truth, waiters,
};
use crate::random::Random;
use crate::world::{Asker, Called, World};

impl Actor {
    pub(super) fn ask(
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
            | Then::Released
            | Then::Ended => world.floor_at(self.node),
        };
        match act.step(now, floor) {
            Step::Get => {
                if let Called::Answer(found) = world.get(key, random) {
                    act.read(faults::read(found, &then, world));
                    return answer(key, act, then, (now, floor), world);
                }
                Doing::Asking { key, act, then }
            }
            Step::Swap { expected, next } => {
                let call = Call { key, act, expected, next, then };
                if world.faults && random.once_in(24) {
                    world.note(key, || "is stopped before it writes".to_owned());
                    return Doing::Frozen(call);
                }
                call.swap(Some((now, floor)), world, random)
            }
            // Decided anew, later, on what was read before: true of a moment that is over, so the
            // oracle has nothing to compare it with.
            Step::Done(acted) => go_on(key, acted.outcome, acted.record, then, world),
            Step::Contended => Doing::Idle,
        }
    }
}

/// What was decided to write, on its way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: usize,
    act: Act,
    expected: Option<Revision>,
    next: Option<Record>,
    pub(super) then: Then,
}

impl Call {
    /// Writes it, unless something else is there by now; `at` is when that was decided, if it was
    /// just now.
    pub(super) fn swap(
        self,
        at: Option<(Timestamp, Floor)>,
        world: &mut World,
        random: &mut Random,
    ) -> Doing {
        let Self { key, mut act, expected, next, then } = self;
        match world.swap(key, expected, next, random) {
            Called::Answer(Swap::Conflict(found)) => {
                act.swapped(Swap::Conflict(faults::read(found, &then, world)));
                match at {
                    Some(at) => answer(key, act, then, at, world),
                    None => Doing::Asking { key, act, then },
                }
            }
            Called::Answer(done) => match act.swapped(done) {
                Some(acted) => told(key, acted.outcome, acted.record, then, world),
                None => Doing::Asking { key, act, then },
            },
            Called::Lost if random.once_in(3) && world.faults => Doing::Idle,
            Called::Lost => Doing::Asking { key, act, then },
        }
    }
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

/// The oracle's look at what a caller is told.
fn check(
    key: usize,
    (asker, waited): (Asker, bool),
    outcome: &Outcome,
    record: Option<&Record>,
    world: &mut World,
) {
    let timed = world.key_time(key).is_some();
    let known = &mut world.keys[key];
    // It is below the floor, so that nothing is granted; people may say of it what they like.
    if known.reborn {
        return;
    }
    let shown = if let Outcome::Replay { reply, sealed: false, .. } = outcome {
        mismatch::check(known, asker, reply).or_else(|| replay::check(known, reply))
    } else {
        None
    };
    let broken = shown
        .or_else(|| answered::check(known, outcome))
        .or_else(|| erased::check(known, outcome))
        .or_else(|| waiters::check(waited, outcome))
        .or_else(|| truth::check(known, outcome, record, timed));
    world.report(key, broken);
}

/// The oracle's look at what a command is answered, and what that leads to.
fn told(
    key: usize,
    outcome: Outcome,
    record: Option<Record>,
    then: Then,
    world: &mut World,
) -> Doing {
    match &then {
        // Nobody is told of a grant that is taken back.
        Then::Claimed { .. } if is_taken_back(key, &outcome, world) => {}
        Then::Claimed { asker, waited, .. } | Then::Looked { asker, waited } => {
            check(key, (*asker, *waited), &outcome, record.as_ref(), world);
        }
        Then::Released => {
            let broken = not_executed::check(&world.keys[key], record.as_ref());
            world.report(key, broken);
        }
        Then::Ended => {
            let record = faults::noted(record.clone(), world);
            world.report(key, alarm::check(&outcome, record.as_ref()));
        }
        Then::Committed(_) | Then::Renewed(..) | Then::Swept(_) => {}
    }
    go_on(key, outcome, record, then, world)
}

fn go_on(
    key: usize,
    outcome: Outcome,
    record: Option<Record>,
    then: Then,
    world: &mut World,
) -> Doing {
    world.note(key, || format!("is told {outcome:?}"));
    match (then, outcome, record) {
        (Then::Claimed { .. }, Outcome::Granted(fence), Some(record))
            if is_outlived(key, fence, world) =>
        {
            hold::disown(key, record, world)
        }
        (Then::Claimed { claim, asker, phase, .. }, Outcome::Granted(fence), Some(record)) => {
            granted(key, (fence, claim), (asker, phase), record, world)
        }
        (
            Then::Claimed { asker, .. } | Then::Looked { asker, waited: true },
            Outcome::InFlight { .. },
            _,
        ) => Doing::Following { key, asker },
        (Then::Committed(held), Outcome::Done, Some(record)) => {
            Doing::Holding { key, held: Held { record, ..held }, phase: Phase::Committing }
        }
        (Then::Committed(held), _, _) if world.bug == Bug::FencedGoesOn => {
            Doing::Holding { key, held, phase: Phase::Committing }
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
        _ => Doing::Idle,
    }
}

/// Whether a grant was so long on its way that its key may have been deleted: nobody is told of it.
fn is_outlived(key: usize, fence: Fence, world: &World) -> bool {
    let age = Duration::from_millis(world.moment().saturating_sub(fence.get()));
    let is_outlived = match world.key_time(key) {
        Some(_) => FLOOR_AGE_MAX < age && world.floor_above(key),
        None => world.policy.remember < age,
    };
    is_outlived && world.bug != Bug::LateGrantTaken
}

fn is_taken_back(key: usize, outcome: &Outcome, world: &World) -> bool {
    matches!(outcome, Outcome::Granted(fence) if is_outlived(key, *fence, world))
}

fn granted(
    key: usize,
    (fence, claim): (Fence, u64),
    (asker, phase): (Asker, Phase),
    record: Record,
    world: &mut World,
) -> Doing {
    let before = world.keys[key].granted;
    let fence = match before {
        Some((before, _)) if world.bug == Bug::OldFenceTold => before,
        Some(_) | None => fence,
    };
    let broken = fences::check(&mut world.keys[key], fence, claim);
    world.report(key, broken);
    let life = world.keys[key].life;
    Doing::Holding { key, held: Held { fence, asker, life, record }, phase }
}
