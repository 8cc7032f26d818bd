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
pub mod world;

use actor::Actor;
use bug::Bug;
use invariants::Violation;
use random::Random;
use world::World;

/// How many actors there are in a world.
const ACTORS: usize = 6;
/// How many steps everyone gets to come to rest once nothing fails any more.
const SETTLING: usize = 4_000;

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Where the random numbers begin.
    pub seed: u64,
    /// How many steps are taken.
    pub steps: u32,
    /// What is wrong on purpose, in tests of the oracle.
    pub bug: Bug,
    /// Whether to keep a line for every step.
    pub trace: bool,
}

/// What a run has come to.
#[derive(Debug)]
pub struct Done {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// A line for every step, if it was asked for.
    pub trace: Vec<String>,
    /// Effects that happened in the world.
    pub effects: usize,
}

/// Runs one seed.
pub fn run(run: Run) -> Done {
    let mut random = Random::new(run.seed);
    let mut world = World::new(&mut random, run.bug);
    let mut actors: [Actor; ACTORS] = std::array::from_fn(|at| Actor::new(at, &mut random));
    let mut trace = Vec::new();
    let mut violation = None;
    for step in 0..run.steps {
        world.pass_time(&mut random);
        let at = random.below(ACTORS as u64 + 1) as usize;
        if at == ACTORS {
            world.deliver(&mut random);
        } else {
            actors[at].step(&mut world, &mut random);
        }
        if run.trace {
            let who = actors.get(at).map_or("the world".to_owned(), Actor::describe);
            trace.push(format!("{step:4} {} {who}", world.describe()));
        }
        violation = world.violation.take();
        if violation.is_some() {
            break;
        }
    }
    if violation.is_none() {
        violation = settle(&mut world, &mut actors, &mut random);
    }
    Done { violation, trace, effects: world.effects() }
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
        world.deliver(random);
        for actor in actors.iter_mut().filter(|actor| !actor.is_idle()) {
            actor.step(world, random);
        }
        if world.violation.is_some() {
            return world.violation.take();
        }
    }
    invariants::liveness::check(world, actors.iter().all(Actor::is_idle))
}
