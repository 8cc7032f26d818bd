//! Breaks onlyonce on purpose, from a seed: the code that changes records in earnest, driven a
//! store call at a time through crashes, lost answers, wrong clocks and long pauses.
//!
//! A [`world::World`] holds the store and what happens outside; [`actor::Actor`]s claim, run,
//! answer, operate and sweep by `onlyonce::act::Act`, the loop of the engine. The oracle in
//! [`invariants`] knows only what happened outside and what was told, never how it was decided.

pub mod actor;
pub mod bug;
pub mod invariants;
pub mod random;
pub mod trace;
pub mod world;

use actor::Actor;
use bug::Bug;
use invariants::Violation;
use random::Random;
use trace::Line;
use world::{NODES, World};

/// How many actors there are in a world.
const ACTORS: usize = 6;
/// How many steps everyone gets to come to rest once nothing fails any more.
const SETTLING: usize = 4_000;
/// How much time passes in each of them, in milliseconds.
const SETTLING_MILLIS: u64 = 20;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Where the random numbers begin.
    pub seed: u64,
    /// How many steps are taken.
    pub steps: u32,
    /// What is wrong on purpose, in tests of the oracle.
    pub bug: Bug,
    /// Whether to keep a line for everything that happens.
    pub trace: bool,
}

/// What a run has come to.
#[derive(Debug)]
pub struct Done {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// A line for everything that happened, if it was asked for.
    pub trace: Vec<Line>,
    /// Effects that happened in the world.
    pub effects: usize,
}

/// Runs one seed.
pub fn run(run: Run) -> Done {
    let mut random = Random::new(run.seed);
    let mut world = World::new(&mut random, run.bug, run.trace);
    let mut actors: [Actor; ACTORS] = std::array::from_fn(Actor::new);
    let mut violation = None;
    for _ in 0..run.steps {
        world.pass_time(&mut random);
        step(&mut world, &mut actors, &mut random);
        violation = world.violation.take();
        if violation.is_some() {
            break;
        }
    }
    if violation.is_none() {
        violation = settle(&mut world, &mut actors, &mut random);
    }
    let trace = world.trace.take().unwrap_or_default();
    Done { violation, trace, effects: world.effects() }
}

/// One actor does one thing, or something arrives, or a node falls and comes back.
fn step(world: &mut World, actors: &mut [Actor; ACTORS], random: &mut Random) {
    world.acting = ACTORS;
    if random.once_in(150) {
        let node = random.below(NODES as u64) as usize;
        actors.iter_mut().for_each(|actor| actor.crash(node, world));
        return world.restart(node, random);
    }
    let at = random.below(ACTORS as u64 + 1) as usize;
    let Some(actor) = actors.get_mut(at) else { return world.deliver(random) };
    world.acting = at;
    actor.step(world, random);
}

/// Lets everyone finish with nothing failing any more; then nothing may be left open.
fn settle(
    world: &mut World,
    actors: &mut [Actor; ACTORS],
    random: &mut Random,
) -> Option<Violation> {
    world.faults = false;
    for _ in 0..SETTLING {
        if actors.iter().all(Actor::is_idle) {
            break;
        }
        world.pass(SETTLING_MILLIS);
        world.acting = ACTORS;
        world.deliver(random);
        for (at, actor) in actors.iter_mut().enumerate().filter(|(_, actor)| !actor.is_idle()) {
            world.acting = at;
            actor.step(world, random);
        }
        if world.violation.is_some() {
            return world.violation.take();
        }
    }
    invariants::liveness::check(world, actors.iter().all(Actor::is_idle))
}
