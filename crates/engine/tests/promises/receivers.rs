//! What each class of receiver makes certain, counted at the receiver: also when a holder freezes
//! after its mark, others settle what it left behind, and it wakes and sends after all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::core::{
    Always, Cause, Class, Command, Event, Fence, Next, OnUnknown, Outcome, Phase, Policy, Receiver,
    Reply, Timestamp, decide,
};
use onlyonce::store::{Store, Swap};
use onlyonce::{Answer, Attempt, Effect, Engine, InDoubt, Probed, Ran, Sealing, Ticket};

use crate::common::{Rigged, World, id, order, request, seconds};

const WINDOW: Duration = seconds(600);
const SETTLE: Duration = seconds(10);
const LATE: Duration = seconds(90);

/// What a class is declared as.
fn receiver(class: Class) -> Receiver {
    match class {
        Class::Transactional => Receiver::always(Always::Transactional),
        Class::Fenced => Receiver::always(Always::Fenced),
        Class::UniqueName => Receiver::always(Always::UniqueName),
        Class::Sealable => Receiver::always(Always::Sealable),
        Class::Keyed => Receiver { late: LATE, ..Receiver::keyed(WINDOW) },
        Class::Queryable => Receiver::queryable(SETTLE, LATE),
        Class::Bare => Receiver::BARE,
    }
}

/// What has happened there, and what it refuses.
#[derive(Default)]
struct There {
    /// Under which claim each effect happened, and when.
    effects: Vec<(Fence, Timestamp)>,
    /// The largest fence that was seen.
    seen: Option<Fence>,
    /// The largest fence that is sealed against.
    sealed: Option<Fence>,
    asked: usize,
}

/// A receiver of some class. Its effects are what is counted.
#[derive(Clone)]
struct Site {
    class: Class,
    engine: Engine,
    store: Arc<Rigged>,
    policy: Policy,
    there: Arc<Mutex<There>>,
    /// How long it takes until a commit can be sent.
    prepare: Duration,
    /// Whether the answer is lost on its way back.
    mute: bool,
}

impl Site {
    fn of(class: Class, world: &World) -> Self {
        let policy =
            Policy { on_unknown: OnUnknown::Auto, receiver: receiver(class), ..world.policy };
        let (engine, store) = (world.engine.clone(), Arc::clone(&world.store));
        let (there, prepare) = (Arc::default(), Duration::ZERO);
        let policy = policy.check().unwrap();
        Self { class, engine, store, policy, there, prepare, mute: false }
    }

    fn effects(&self) -> usize {
        self.there.lock().unwrap().effects.len()
    }

    fn happens(&self, fence: Fence) -> Reply {
        let mut there = self.there.lock().unwrap();
        there.effects.push((fence, self.engine.now()));
        order(there.effects.len())
    }

    /// A request arrives, however late. `None`: it is refused, and does nothing.
    async fn arrive(&self, fence: Fence) -> Option<Reply> {
        if self.class == Class::Transactional {
            return self.transact(fence).await;
        }
        {
            let mut there = self.there.lock().unwrap();
            let newest = there.effects.len();
            let last = there.effects.last().copied();
            let is_known = match self.class {
                Class::Fenced if there.seen.is_some_and(|seen| fence < seen) => return None,
                Class::Sealable if there.sealed.is_some_and(|sealed| fence <= sealed) => {
                    return None;
                }
                // The same value is set again.
                Class::Fenced | Class::UniqueName => last.is_some(),
                Class::Keyed => last.is_some_and(|(_, then)| self.engine.now() < then.plus(WINDOW)),
                Class::Sealable | Class::Queryable | Class::Bare | Class::Transactional => false,
            };
            there.seen = there.seen.max(Some(fence));
            if is_known {
                return Some(order(newest));
            }
        }
        Some(self.happens(fence))
    }

    /// The effect and the completion are written together, by the latest claim only.
    async fn transact(&self, fence: Fence) -> Option<Reply> {
        let record = self.store.get(id()).await.unwrap().filter(|record| record.fence == fence)?;
        let reply = order(self.effects() + 1);
        let command = Command::Complete { fence, reply: reply.clone() };
        let (now, floor) = (self.engine.now(), self.store.floor().await.unwrap());
        let Next::Write(next) = decide(now, floor, &self.policy, Some(&record), &command).next
        else {
            return None;
        };
        let swap = self.store.swap(id(), Some(record.revision), Some(next)).await.unwrap();
        (swap == Swap::Done).then(|| self.happens(fence))
    }

    async fn once(&self) -> Answer {
        self.engine.once(&request(), &self.policy, seconds(1), self.clone()).await.unwrap()
    }

    /// A holder that has made its mark, and is stopped there.
    async fn frozen(&self) -> Ticket {
        let claimed = self.engine.claim(&request(), &self.policy, Phase::Prepared).await.unwrap();
        let onlyonce::Claimed::Granted(mut ticket) = claimed else { panic!("{claimed:?}") };
        ticket.commit().await.unwrap();
        ticket
    }

    /// It goes on, and sends; what it is answered it says.
    async fn wake(&self, frozen: Ticket) {
        match self.arrive(frozen.fence()).await {
            Some(reply) => drop(frozen.complete(reply).await.unwrap()),
            None => drop(frozen.abandon(Cause::Abandoned, None).await.unwrap()),
        }
    }
}

impl Effect for Site {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        tokio::time::sleep(self.prepare).await;
        Ok(())
    }

    async fn commit(&mut self, (): (), attempt: Attempt) -> Ran {
        match self.arrive(attempt.fence).await {
            Some(reply) if !self.mute => Ran::Happened(reply),
            Some(_) | None => Ran::CannotTell(Cause::TimedOut),
        }
    }

    async fn probe(&mut self, _doubt: &InDoubt) -> Probed {
        let mut there = self.there.lock().unwrap();
        there.asked += 1;
        match there.effects.len() {
            0 => Probed::DidNotHappen,
            newest => Probed::Happened(order(newest)),
        }
    }

    async fn seal(&mut self, doubt: &InDoubt) -> Sealing {
        let mut there = self.there.lock().unwrap();
        match there.effects.len() {
            0 => {
                there.sealed = there.sealed.max(Some(doubt.fence));
                Sealing::Sealed
            }
            newest => Sealing::Found(order(newest)),
        }
    }
}

fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Outcome::OutcomeUnknown { .. }))
}

const CERTAIN: [Class; 4] =
    [Class::Transactional, Class::Fenced, Class::UniqueName, Class::Sealable];

#[tokio::test(start_paused = true)]
async fn a_frozen_holder_that_wakes_at_last_adds_no_second_effect() {
    for class in CERTAIN {
        let world = World::new().await;
        let site = Site::of(class, &world);
        let frozen = site.frozen().await;
        tokio::time::sleep(seconds(3_600)).await;
        assert_eq!(site.once().await, Answer::Reply(order(1)), "{class}");
        site.wake(frozen).await;
        assert_eq!(site.effects(), 1, "{class}");
        assert_eq!(site.once().await, Answer::Replayed(order(1)), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_happened_and_was_never_heard_of_is_found_and_not_repeated() {
    for class in CERTAIN.into_iter().chain([Class::Keyed, Class::Queryable]) {
        let world = World::new().await;
        let site = Site::of(class, &world);
        let mute = Site { mute: true, ..site.clone() };
        let lost = mute.once().await;
        // A transaction is its own record of what it did.
        let told = [Answer::Reply(order(1)), Answer::Replayed(order(1))];
        assert!(is_unknown(&lost) || told.contains(&lost), "{class}: {lost:?}");
        tokio::time::sleep(seconds(60)).await;
        let again = site.once().await;
        assert!(told.contains(&again), "{class}: {again:?}");
        assert_eq!(site.effects(), 1, "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keyed_receiver_makes_a_second_run_harmless_within_its_window_only() {
    let world = World::new().await;
    let site = Site::of(Class::Keyed, &world);
    let mute = Site { mute: true, ..site.clone() };
    assert!(is_unknown(&mute.once().await));
    // What is granted now arrives within the lease, the clocks' difference, and what is late.
    let Policy { lease, skew_max, .. } = site.policy;
    tokio::time::sleep(WINDOW - lease - skew_max - LATE - seconds(1)).await;
    assert!(is_unknown(&mute.once().await));
    assert_eq!((site.effects(), site.record_attempts().await), (1, 2), "it ran again");
    tokio::time::sleep(seconds(2)).await;
    for _ in 0..3 {
        assert!(is_unknown(&site.once().await));
        tokio::time::sleep(WINDOW).await;
    }
    assert_eq!((site.effects(), site.record_attempts().await), (1, 2), "it was not run again");
}

impl Site {
    async fn record_attempts(&self) -> u32 {
        self.engine.get(id()).await.unwrap().unwrap().attempt
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_window_closes_while_it_prepares_is_called_off() {
    let world = World::new().await;
    let site = Site::of(Class::Keyed, &world);
    drop(site.frozen().await);
    tokio::time::sleep(seconds(60)).await;
    let slow = Site { prepare: WINDOW, ..site.clone() };
    let answer = slow.once().await;
    assert!(is_unknown(&answer), "{answer:?}");
    assert_eq!((site.effects(), site.record_attempts().await), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_keyed_receiver_promises_nothing_of_who_wakes_after_its_window() {
    let world = World::new().await;
    let site = Site::of(Class::Keyed, &world);
    let (soon, late) = (site.frozen().await, Duration::ZERO);
    tokio::time::sleep(seconds(60) + late).await;
    assert_eq!(site.once().await, Answer::Reply(order(1)));
    tokio::time::sleep(WINDOW - seconds(1)).await;
    site.wake(soon).await;
    assert_eq!(site.effects(), 1, "it still knows the key");

    let world = World::new().await;
    let site = Site::of(Class::Keyed, &world);
    let late = site.frozen().await;
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(site.once().await, Answer::Reply(order(1)));
    tokio::time::sleep(WINDOW).await;
    site.wake(late).await;
    assert_eq!(site.effects(), 2, "exactly once within the window, as the documents say");
    assert_eq!(site.once().await, Answer::Replayed(order(1)), "and everyone is told the same");
}

#[tokio::test(start_paused = true)]
async fn the_no_of_a_queryable_receiver_counts_once_its_bounds_have_passed() {
    let world = World::new().await;
    let site = Site::of(Class::Queryable, &world);
    // It lapses, and that is written down, after 60 s.
    let frozen = site.frozen().await;
    tokio::time::sleep(seconds(60)).await;
    assert!(is_unknown(&site.once().await));
    let Policy { skew_max, .. } = site.policy;
    tokio::time::sleep(SETTLE + LATE + skew_max - seconds(1)).await;
    assert!(is_unknown(&site.once().await));
    assert_eq!((site.effects(), site.there.lock().unwrap().asked), (0, 2));
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(site.once().await, Answer::Reply(order(1)));
    // Later than `late` says: then the bound does not hold, and nothing is promised.
    site.wake(frozen).await;
    assert_eq!(site.effects(), 2, "at most once if the bounds hold, as the documents say");
}

#[tokio::test(start_paused = true)]
async fn who_wakes_within_the_bounds_of_a_queryable_receiver_is_found() {
    let world = World::new().await;
    let site = Site::of(Class::Queryable, &world);
    let frozen = site.frozen().await;
    tokio::time::sleep(seconds(60)).await;
    assert!(is_unknown(&site.once().await));
    tokio::time::sleep(LATE).await;
    // It sends, and is stopped again before it can say so.
    assert!(site.arrive(frozen.fence()).await.is_some());
    std::mem::forget(frozen);
    tokio::time::sleep(SETTLE + seconds(2)).await;
    assert_eq!(site.once().await, Answer::Replayed(order(1)));
    assert_eq!(site.effects(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bare_receiver_is_run_once_and_the_doubt_is_told() {
    for on_unknown in OnUnknown::ALL {
        let world = World::new().await;
        let bare = Site::of(Class::Bare, &world);
        let policy = Policy { on_unknown, ..bare.policy };
        let site = Site { policy, ..bare };
        let frozen = site.frozen().await;
        tokio::time::sleep(seconds(3_600)).await;
        for _ in 0..3 {
            assert!(is_unknown(&site.once().await), "{on_unknown:?}");
        }
        assert_eq!(site.effects(), 0);
        site.wake(frozen).await;
        assert_eq!(site.once().await, Answer::Replayed(order(1)));
        assert_eq!(site.effects(), 1, "{on_unknown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_of_a_receiver_while_unknown_outcomes_hold() {
    for class in Class::ALL {
        let world = World::new().await;
        let auto = Site::of(class, &world);
        let policy = Policy { on_unknown: OnUnknown::Hold, ..auto.policy };
        let site = Site { policy, ..auto };
        std::mem::forget(site.frozen().await);
        tokio::time::sleep(seconds(3_600)).await;
        assert!(is_unknown(&site.once().await), "{class}");
        assert_eq!((site.effects(), site.record_attempts().await), (0, 1), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sealable_receiver_that_cannot_tell_settles_nothing() {
    let world = World::new().await;
    let site = Site::of(Class::Sealable, &world);
    std::mem::forget(site.frozen().await);
    tokio::time::sleep(seconds(60)).await;
    let outside = Arc::clone(&world.outside);
    let mail = crate::common::Mail { outside, prepare: Duration::ZERO, refused: false };
    let answer = world.engine.once(&request(), &site.policy, seconds(1), mail).await.unwrap();
    assert!(is_unknown(&answer), "{answer:?}");
    assert_eq!(world.outside.runs(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_record_tells_why_it_was_run_again() {
    let world = World::new().await;
    let site = Site::of(Class::Fenced, &world);
    std::mem::forget(site.frozen().await);
    tokio::time::sleep(seconds(60)).await;
    site.once().await;
    let record = world.engine.get(id()).await.unwrap().unwrap();
    let entry = record.history.entries().last().unwrap();
    assert_eq!(
        (entry.event, entry.why.as_str()),
        (Event::RetriedByPolicy, "the receiver is fenced")
    );
}
