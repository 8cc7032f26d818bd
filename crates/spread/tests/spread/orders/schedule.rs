//! All orders: at each step one of the tasks goes on, or one that may die does.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Something that goes on step by step.
pub(crate) struct Task {
    work: Option<Work>,
    is_mortal: bool,
}

impl Task {
    /// One that goes on to its end.
    pub(crate) fn steady(work: impl Future<Output = ()> + 'static) -> Self {
        Self { work: Some(Box::pin(work)), is_mortal: false }
    }

    /// One that may end between any two of its calls.
    pub(crate) fn mortal(work: impl Future<Output = ()> + 'static) -> Self {
        Self { is_mortal: true, ..Self::steady(work) }
    }

    fn step(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let ended = self
            .work
            .as_mut()
            .is_none_or(|work| matches!(work.as_mut().poll(&mut context), Poll::Ready(())));
        if ended {
            self.work = None;
        }
    }
}

/// What can be seen of a world between two steps, all that its tasks have been told among it. What
/// comes of it depends on nothing else.
pub(crate) trait Sight {
    /// The next call is this task's.
    fn turn(&self, task: usize);
    /// A digest of it.
    fn digest(&self) -> u64;
    /// What must hold at the end.
    fn check(self);
}

/// Makes a world and runs its tasks in an order, for each order there is; returns how many. One
/// that comes to where another has been is not followed any further.
pub(crate) fn every_order<S: Sight>(make: impl Fn() -> (Vec<Task>, S)) -> u64 {
    let (mut path, mut runs): (Vec<(usize, usize)>, u64) = (Vec::new(), 0);
    let mut known = HashSet::new();
    loop {
        let (mut tasks, sight) = make();
        // Up to the first call of each.
        for (number, task) in tasks.iter_mut().enumerate() {
            sight.turn(number);
            task.step();
        }
        if follow(&mut tasks, &sight, &mut path, &mut known) {
            sight.check();
            runs += 1;
        }
        while path.last().is_some_and(|(chosen, choices)| chosen + 1 == *choices) {
            path.pop();
        }
        let Some((chosen, _)) = path.last_mut() else { return runs };
        *chosen += 1;
    }
}

/// Follows a path, and whatever comes first after it; says whether that led to a new end.
fn follow(
    tasks: &mut [Task],
    sight: &impl Sight,
    path: &mut Vec<(usize, usize)>,
    known: &mut HashSet<(u64, Vec<bool>)>,
) -> bool {
    let mut depth = 0;
    loop {
        let alive: Vec<usize> = (0..tasks.len()).filter(|it| tasks[*it].work.is_some()).collect();
        let mortal: Vec<usize> = alive.iter().copied().filter(|it| tasks[*it].is_mortal).collect();
        if path.len() <= depth {
            let at = tasks.iter().map(|task| task.work.is_some()).collect();
            if !known.insert((sight.digest(), at)) {
                return false;
            }
            if alive.is_empty() {
                return true;
            }
            path.push((0, alive.len() + mortal.len()));
        }
        let (chosen, choices) = path[depth];
        assert_eq!(choices, alive.len() + mortal.len(), "the same steps lead to the same place");
        match alive.get(chosen) {
            Some(task) => {
                sight.turn(*task);
                tasks[*task].step();
            }
            None => tasks[mortal[chosen - alive.len()]].work = None,
        }
        depth += 1;
    }
}
