//! A receiver that can be asked: a yes is taken whenever it comes, a no only once it is final.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::core::{Cause, OnUnknown, Outcome, Policy, Receiver, Reply};
use onlyonce::{Answer, Attempt, Effect, InDoubt, Probed, Ran};

use crate::common::{World, order, request, seconds};

const SETTLE: Duration = seconds(10);
const LATE: Duration = seconds(60);

/// A bank whose answer to the first transfer is lost.
#[derive(Clone, Default)]
struct Bank {
    says: Arc<Mutex<Vec<Probed>>>,
    runs: Arc<Mutex<usize>>,
    asked: Arc<Mutex<Vec<InDoubt>>>,
    /// How long an answer takes.
    takes: Duration,
}

impl Effect for Bank {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), _attempt: Attempt) -> Ran {
        let mut runs = self.runs.lock().unwrap();
        *runs += 1;
        if *runs == 1 { Ran::CannotTell(Cause::TimedOut) } else { Ran::Happened(order(*runs)) }
    }

    async fn probe(&mut self, doubt: &InDoubt) -> Probed {
        self.asked.lock().unwrap().push(doubt.clone());
        tokio::time::sleep(self.takes).await;
        self.says.lock().unwrap().pop().unwrap_or(Probed::CannotTell)
    }
}

impl Bank {
    fn says(self, probed: Probed) -> Self {
        self.says.lock().unwrap().push(probed);
        self
    }

    fn runs(&self) -> usize {
        *self.runs.lock().unwrap()
    }
}

async fn transfer(world: &World, bank: &Bank, on_unknown: OnUnknown) -> Answer {
    let receiver = Receiver::queryable(SETTLE, LATE);
    let policy = Policy { on_unknown, receiver, ..world.policy }.check().unwrap();
    world.engine.once(&request(), &policy, seconds(1), bank.clone()).await.unwrap()
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Outcome::OutcomeUnknown { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_yes_is_the_answer_for_everyone_from_then_on() {
    let (world, bank) = (World::new().await, Bank::default().says(Probed::Happened(order(7))));
    assert!(is_unknown(&transfer(&world, &bank, OnUnknown::Probe).await));
    for _ in 0..2 {
        assert_eq!(transfer(&world, &bank, OnUnknown::Probe).await, Answer::Replayed(order(7)));
    }
    assert_eq!((bank.runs(), bank.asked.lock().unwrap().len()), (1, 1));
    assert_eq!(bank.asked.lock().unwrap()[0].cause, Cause::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_final_no_lets_it_run_and_any_other_answer_does_not() {
    // A revision may be a moment ahead of the clock.
    let bounds = SETTLE + LATE + Policy::default().skew_max + seconds(1);
    for (probed, later, runs) in [
        (Probed::DidNotHappen, bounds, 2),
        (Probed::DidNotHappen, bounds - seconds(2), 1),
        (Probed::StillRunning, bounds, 1),
        (Probed::CannotTell, bounds, 1),
    ] {
        let (world, bank) = (World::new().await, Bank::default().says(probed.clone()));
        assert!(is_unknown(&transfer(&world, &bank, OnUnknown::Probe).await));
        tokio::time::sleep(later).await;
        let again = transfer(&world, &bank, OnUnknown::Probe).await;
        assert_eq!(bank.runs(), runs, "{probed:?}");
        if runs == 2 {
            assert_eq!(again, Answer::Reply(order(2)));
        } else {
            assert!(is_unknown(&again), "{again:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_no_speaks_of_the_moment_of_the_question_however_long_it_takes_to_come() {
    let bounds = SETTLE + LATE + Policy::default().skew_max;
    let slow = Bank { takes: seconds(30), ..Bank::default().says(Probed::DidNotHappen) };
    let world = World::new().await;
    assert!(is_unknown(&transfer(&world, &slow, OnUnknown::Probe).await));
    tokio::time::sleep(bounds - seconds(1)).await;
    assert!(is_unknown(&transfer(&world, &slow, OnUnknown::Probe).await));
    assert_eq!(slow.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_unless_the_policy_says_so() {
    let (world, bank) = (World::new().await, Bank::default().says(Probed::Happened(order(7))));
    for _ in 0..2 {
        assert!(is_unknown(&transfer(&world, &bank, OnUnknown::Hold).await));
    }
    assert_eq!((bank.runs(), bank.asked.lock().unwrap().len()), (1, 0));
}

/// What is in doubt in an older copy may have been freed since, and have run again a moment before
/// the store was lost.
#[tokio::test(start_paused = true)]
async fn a_no_after_a_store_was_put_back_is_final_once_its_bounds_have_passed_since_then() {
    let bounds = SETTLE + LATE + Policy::default().skew_max + seconds(1);
    for (later, runs) in [(bounds - seconds(2), 1), (bounds, 2)] {
        let (world, bank) = (World::new().await, Bank::default().says(Probed::DidNotHappen));
        assert!(is_unknown(&transfer(&world, &bank, OnUnknown::Probe).await));
        let copy = world.store.copied().await;
        tokio::time::sleep(3 * bounds).await;
        let after = world.beside(copy).await;
        after.engine.restored(seconds(300), "anna", "a dump", &|_| {}).await.unwrap();
        tokio::time::sleep(later).await;
        let again = transfer(&after, &bank, OnUnknown::Probe).await;
        assert_eq!((bank.runs(), is_unknown(&again)), (runs, runs == 1), "{again:?}");
    }
}
