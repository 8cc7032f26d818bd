//! Tries every order of events within a bound: two holders, one key, one store and one receiver,
//! with the real `decide` between them.
//!
//! It is the exhaustive sibling of the simulator: far smaller, but within its bound nothing is left
//! to chance, and a promise that breaks comes with the shortest way there. `docs/model.md` says
//! what is modelled and what is not. [`check()`] is all there is to call; [`mutant::Mutant`] lists
//! the rules that can be taken out to see the promises break.

pub mod class;
mod holder;
mod invariants;
pub mod mutant;
mod normal;
mod outside;
mod receiver;
mod step;
mod world;

use onlyonce_core::Record;
use stateright::{Checker, HasDiscoveries, Model, Property};

use class::Class;
use mutant::Mutant;
use step::Action;
use world::World;

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What the receiver offers.
    pub class: Class,
    /// Whether the key carries its time.
    pub timed: bool,
    /// The rule that is taken out.
    pub mutant: Mutant,
    /// How many claims are granted at most.
    pub claims_max: u8,
    /// How many answers of the store get lost at most.
    pub losses_max: u8,
    /// The only promise that is looked at, of [`INVARIANTS`]; without it, all of them.
    pub watched: Option<&'static str>,
}

/// The promises, as `docs/model.md` explains them.
pub const INVARIANTS: [&str; 13] = [
    "once",
    "marked",
    "not-executed",
    "evidence",
    "answer",
    "authorised",
    "counted",
    "kept",
    "floor",
    "fences",
    "sealed",
    "mismatch",
    "no-doubt",
];

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// How many different states were seen.
    pub states: usize,
    /// How many steps the farthest of them is from the beginning.
    pub depth: usize,
    /// The first promise that was found broken.
    pub broken: Option<Broken>,
    /// What never came about of all that should, for the check to mean anything.
    pub never: Vec<&'static str>,
}

/// A broken promise.
#[derive(Debug)]
pub struct Broken {
    /// Its name in `docs/model.md`.
    pub invariant: &'static str,
    /// The shortest way there, a line for each step.
    pub trace: Vec<String>,
}

/// The one property that must hold in every state.
const HOLDS: &str = "every promise holds";

/// Tries everything, until a promise is broken; then looks for the shortest way there.
pub fn check(setup: Setup, threads: usize) -> Report {
    let mut report = explore(setup, threads, None);
    while let Some(broken) = &report.broken
        && let Some(shorter) = explore(setup, threads, Some(broken.trace.len())).broken
    {
        report.broken = Some(shorter);
    }
    report
}

/// Tries everything that is fewer than `below` states away.
fn explore(setup: Setup, threads: usize, below: Option<usize>) -> Report {
    let checker = setup.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = match below {
        Some(below) => checker.target_max_depth(below),
        None => checker,
    };
    let checker = checker.spawn_bfs().join();
    let mut discoveries = checker.discoveries();
    let broken = discoveries.remove(HOLDS).map(|path| {
        let steps = path.into_vec();
        let last = steps.last().map(|(world, _)| world);
        let invariant = last.and_then(|world| invariants::broken(&setup, world));
        let trace = steps.iter().map(|(world, action)| match action {
            Some(action) => format!("{world}\n    {action:?}"),
            None => world.to_string(),
        });
        Broken { invariant: invariant.unwrap_or("none"), trace: trace.collect() }
    });
    let seen = |name: &&str| discoveries.contains_key(name);
    let never = COMES_ABOUT.iter().map(|(name, _)| *name).filter(|name| !seen(name)).collect();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    Report { states, depth, broken, never }
}

/// A name, and whether it has come about in a state.
type ComesAbout = (&'static str, fn(&Setup, &World) -> bool);

/// What must come about somewhere, or the check would hold for want of anything happening.
const COMES_ABOUT: [ComesAbout; 7] = [
    ("answered", |_, world| world.told.is_some()),
    ("unknown", |_, world| world.is_unknown()),
    ("answered by a second attempt", |_, world| world.told.is_some() && 1 < world.claims),
    ("sealed", |_, world| world.sealed),
    ("erased", |_, world| world.record.as_ref().is_some_and(Record::is_erased)),
    ("forgotten", |_, world| world.record.is_none() && world.top.is_some()),
    ("all claims used", |setup, world| setup.claims_max <= world.claims),
];

impl Model for Setup {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.losses_max)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_none() {
            step::actions(self, world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let next = step::next(self, world, action);
        if next == *world { None } else { Some(next) }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds =
            Property::always(HOLDS, |setup, world| invariants::broken(setup, world).is_none());
        let sometimes = COMES_ABOUT.map(|(name, seen)| Property::sometimes(name, seen));
        std::iter::once(holds).chain(sometimes).collect()
    }
}
