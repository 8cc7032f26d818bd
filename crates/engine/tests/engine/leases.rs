//! Leases that end because the store cannot be reached: nothing more is begun under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use onlyonce::core::{
    Cause, OnUnknown, Outcome, Phase, Policy, Receiver, Reply, StateKind, Verdict,
};
use onlyonce::{
    Answer, AtLeaseEnd, Attempt, Effect, EngineError, EngineEvent, Lease, Ran, Run, Settings,
    direct,
};
use tokio::sync::Notify;

use crate::support::*;

fn is_cut_off(answer: &Answer) -> bool {
    matches!(answer, Answer::Refused(Outcome::OutcomeUnknown { cause: Cause::Lapsed, .. }))
}

async fn once(shop: &Shop, policy: &Policy, run: impl Run) -> Result<Answer, EngineError> {
    shop.engine.once(&request(), policy, seconds(5), run).await
}

/// Charges at once, and then again and again, every 20 s.
async fn instalments(charges: Arc<AtomicUsize>) -> Ran {
    for _instalment in 0..5 {
        charges.fetch_add(1, SeqCst);
        tokio::time::sleep(seconds(20)).await;
    }
    Ran::Happened(confirmed())
}

/// The same with a moment before which nothing can happen.
struct Instalments(Arc<AtomicUsize>);

impl Effect for Instalments {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), _attempt: Attempt) -> Ran {
        instalments(Arc::clone(&self.0)).await
    }
}

/// Runs what is made of the shop's charges; the store is away from the first second on if `down`.
async fn paying<R: Run>(
    shop: &Shop,
    down: bool,
    make: impl FnOnce(Arc<AtomicUsize>) -> R,
) -> Result<Answer, EngineError> {
    let away = async {
        pass(seconds(1)).await;
        shop.store.down.store(down, SeqCst);
    };
    let usual = policy();
    let (answer, ()) = tokio::join!(once(shop, &usual, make(Arc::clone(&shop.charges))), away);
    answer
}

#[tokio::test(start_paused = true)]
async fn what_would_begin_after_the_lease_does_not() {
    for is_direct in [true, false] {
        let shop = Shop::open().await;
        let answer = if is_direct {
            paying(&shop, true, |charges| direct(|_attempt| instalments(charges))).await
        } else {
            paying(&shop, true, Instalments).await
        };
        assert!(answer.as_ref().is_ok_and(is_cut_off), "{answer:?}");
        pass(seconds(200)).await;
        assert_eq!(shop.charges(), 2, "at 0 s and at 20 s; the lease ended at 30 s");
        shop.store.down.store(false, SeqCst);
        let told = shop.look().await;
        assert!(matches!(told, Outcome::OutcomeUnknown { cause: Cause::Lapsed, .. }), "{told:?}");
    }
}

/// Runs what takes 50 s on a store that has no room from the first second to `room_at`.
async fn without_room_until(room_at: u64, run: impl FnOnce(&Shop) -> Asked) -> (Shop, Answer) {
    let shop = Shop::open().await;
    let asked = run(&shop);
    pass(seconds(1)).await;
    shop.store.stuffed.store(true, SeqCst);
    pass(seconds(room_at - 1)).await;
    shop.store.stuffed.store(false, SeqCst);
    let answer = asked.await.unwrap();
    (shop, answer)
}

type Asked = tokio::task::JoinHandle<Answer>;

fn cut_off_at_its_end(shop: &Shop) -> Asked {
    shop.ask_aside(seconds(50), seconds(5), Ran::Happened(confirmed()))
}

fn only_listening(shop: &Shop) -> Asked {
    aside(shop, Listening { charges: Arc::clone(&shop.charges), takes: seconds(50) })
}

/// One renewal, at 10 s, or all but the last that the lease has time for meet a full store.
#[tokio::test(start_paused = true)]
async fn what_runs_is_renewed_again_once_a_full_store_has_room() {
    for room_at in [11, 27] {
        for run in [cut_off_at_its_end, only_listening] {
            let (shop, answer) = without_room_until(room_at, run).await;
            assert_eq!(answer, Answer::Reply(confirmed()), "room at {room_at} s");
            let unknown = |event: &EngineEvent| {
                matches!(event, EngineEvent::OutcomeUnknown { .. } | EngineEvent::Unrecorded { .. })
            };
            let completed = |event: &EngineEvent| matches!(event, EngineEvent::Completed { .. });
            assert_eq!((shop.log.count(unknown), shop.log.count(completed)), (0, 1));
            assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
            assert_eq!(shop.charges(), 1);
        }
    }
}

/// Its lease lasts as long as is durable, and no longer.
#[tokio::test(start_paused = true)]
async fn what_runs_longer_than_its_lease_is_in_doubt_if_no_room_comes_back_meanwhile() {
    let (shop, answer) = without_room_until(31, cut_off_at_its_end).await;
    assert!(is_cut_off(&answer), "{answer:?}");
    let told = shop.look().await;
    assert!(matches!(told, Outcome::OutcomeUnknown { cause: Cause::Lapsed, .. }), "{told:?}");
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_bounds_nothing() {
    let shop = Shop::open().await;
    // Nor does the receiver's memory bound a first attempt.
    let policy = Policy { receiver: Receiver::keyed(seconds(60)), ..policy() };
    let charges = Arc::clone(&shop.charges);
    let answer = once(&shop, &policy, direct(|_attempt| instalments(charges))).await;
    assert_eq!((answer, shop.charges()), (Ok(Answer::Reply(confirmed())), 5));
}

/// Charges once it has found out what to, after 25 s, unless its lease is over before. It asks that
/// by waiting for it.
struct Waiting {
    charges: Arc<AtomicUsize>,
    lease: Option<Lease>,
}

impl Effect for Waiting {
    type Prepared = Lease;

    fn lease(&mut self, lease: Lease) -> AtLeaseEnd {
        self.lease = Some(lease);
        AtLeaseEnd::Listens
    }

    async fn prepare(&mut self, _attempt: Attempt) -> Result<Lease, Reply> {
        Ok(self.lease.take().unwrap())
    }

    async fn commit(&mut self, lease: Lease, _attempt: Attempt) -> Ran {
        tokio::select! {
            () = lease.over() => Ran::CannotTell(Cause::Abandoned),
            () = tokio::time::sleep(seconds(25)) => {
                self.charges.fetch_add(1, SeqCst);
                Ran::Happened(confirmed())
            }
        }
    }
}

/// Runs it, has an operator run the key again meanwhile although it lives, as one does who takes it
/// for dead; returns what it charged itself.
async fn charged_beside_another(make: impl FnOnce(&Shop) -> Asked) -> usize {
    let first = Shop::open().await;
    let asked = make(&first);
    pass(seconds(5)).await;
    let second = Shop::open_on(first.store.clone(), Settings::default()).await;
    let doubt = second.engine.get(request().id).await.unwrap().unwrap();
    assert_eq!(second.resolve(doubt.fence, Verdict::RunAgain).await, Outcome::Done);
    assert_eq!(second.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    // Its lease would last for 24 s more, and it learns at 10 s that somebody took over.
    asked.await.unwrap();
    pass(seconds(200)).await;
    assert_eq!(second.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    first.charges()
}

fn aside(shop: &Shop, run: impl Run) -> Asked {
    let engine = shop.engine.clone();
    tokio::spawn(async move { engine.once(&request(), &policy(), seconds(5), run).await.unwrap() })
}

#[tokio::test(start_paused = true)]
async fn who_learns_that_somebody_took_over_begins_nothing_more() {
    let cut_off = |shop: &Shop| aside(shop, Instalments(Arc::clone(&shop.charges)));
    assert_eq!(charged_beside_another(cut_off).await, 1, "at 0 s, and not at 20 s");
    let waiting =
        |shop: &Shop| aside(shop, Waiting { charges: Arc::clone(&shop.charges), lease: None });
    assert_eq!(charged_beside_another(waiting).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_preparation_ends_when_somebody_took_over() {
    let first = Shop::open().await;
    let mut ticket = first.claim(Phase::Prepared).await;
    let lease = ticket.lease();
    let second = Shop::open_on(first.store.clone(), Settings::default()).await;
    assert_eq!(second.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert!(!lease.is_over(), "nobody has told it yet");
    let elsewhere = lease.clone();
    let hears = tokio::spawn(async move { elsewhere.over().await });
    let begun = AtomicUsize::new(0);
    let prepares = async {
        pass(seconds(20)).await;
        begun.fetch_add(1, SeqCst);
    };
    assert_eq!(ticket.hold(prepares).await, None);
    assert_eq!((begun.load(SeqCst), lease.is_over()), (0, true));
    pass(seconds(1)).await;
    assert!(hears.is_finished(), "what was handed to another task hears of it too");
    assert_eq!(ticket.check_lease(seconds(0)), Err(EngineError::ClaimLost));
}

/// The receiver remembers a key for ten minutes, and an unknown outcome is run again meanwhile.
#[tokio::test(start_paused = true)]
async fn a_holder_that_lost_the_store_does_not_charge_beside_the_one_that_took_over() {
    let first = Shop::open_on(Arc::default(), Settings::default()).await;
    let line = Arc::new(first.store.another_line());
    let second = Shop::open_on(line, Settings::default()).await;
    let (on_unknown, receiver) = (OnUnknown::Retry, Receiver::keyed(seconds(600)));
    let policy = Policy { on_unknown, receiver, ..policy() }.check().unwrap();
    let charges = Arc::clone(&first.charges);
    let slow = direct(move |_attempt| async move {
        // It has still to find out what to charge.
        tokio::time::sleep(seconds(45)).await;
        charges.fetch_add(1, SeqCst);
        Ran::Happened(confirmed())
    });
    let slow = once(&first, &policy, slow);
    let takeover = async {
        pass(seconds(1)).await;
        first.store.down.store(true, SeqCst);
        pass(seconds(31)).await;
        let charge = second.charge(seconds(1), Ran::Happened(confirmed()));
        let answer = second.engine.once(&request(), &policy, seconds(5), charge).await;
        assert_eq!(answer, Ok(Answer::Reply(confirmed())));
    };
    let (answer, ()) = tokio::join!(slow, takeover);
    assert!(answer.as_ref().is_ok_and(is_cut_off), "{answer:?}");
    pass(seconds(100)).await;
    assert_eq!(first.charges() + second.charges(), 1);
}

/// The store is there and the lease is renewed, but the receiver forgets the key.
#[tokio::test(start_paused = true)]
async fn a_run_that_the_receivers_memory_allows_ends_with_it() {
    for (window, charges) in [(100, 6), (1_000, 10)] {
        let shop = Shop::open().await;
        let (on_unknown, receiver) = (OnUnknown::Retry, Receiver::keyed(seconds(window)));
        let policy = Policy { on_unknown, receiver, ..policy() }.check().unwrap();
        let lost = shop.charge(seconds(1), Ran::CannotTell(Cause::ConnectionLost));
        assert!(matches!(once(&shop, &policy, lost).await, Ok(Answer::Refused(_))));
        let charged = Arc::clone(&shop.charges);
        let parts = direct(move |_attempt| async move {
            for _part in 0..9 {
                charged.fetch_add(1, SeqCst);
                tokio::time::sleep(seconds(20)).await;
            }
            Ran::Happened(confirmed())
        });
        let answer = once(&shop, &policy, parts).await;
        let unknown = matches!(answer, Ok(Answer::Refused(Outcome::OutcomeUnknown { .. })));
        assert_eq!(unknown, window == 100, "{answer:?}");
        let timed_out = |event: &EngineEvent| {
            matches!(event, EngineEvent::OutcomeUnknown { cause: Cause::TimedOut, .. })
        };
        assert_eq!(shop.log.count(timed_out), usize::from(unknown), "its lease has not lapsed");
        pass(seconds(300)).await;
        assert_eq!(shop.charges(), charges, "one, and one each 20 s until the window closes");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_what_was_sent_in_time_is_not_lost_by_who_only_listens() {
    let shop = Shop::open().await;
    let listens = |charges| Listening { charges, takes: seconds(50) };
    let answer = paying(&shop, true, listens).await;
    assert_eq!((answer, shop.charges()), (Ok(Answer::Unrecorded(confirmed())), 1));
}

/// A charge of two parts, which asks its lease before each.
struct Careful {
    inner: Listening,
    lease: Option<Lease>,
}

impl Effect for Careful {
    type Prepared = ();

    fn lease(&mut self, lease: Lease) -> AtLeaseEnd {
        self.lease = Some(lease);
        AtLeaseEnd::Listens
    }

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), attempt: Attempt) -> Ran {
        self.inner.commit((), attempt).await;
        if self.lease.as_ref().is_some_and(Lease::is_over) {
            return Ran::CannotTell(Cause::Lapsed);
        }
        self.inner.commit((), attempt).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_asks_its_lease_learns_that_it_is_over() {
    for (down, charges) in [(true, 1), (false, 2)] {
        let shop = Shop::open().await;
        let careful =
            |charges| Careful { inner: Listening { charges, takes: seconds(50) }, lease: None };
        let answer = paying(&shop, down, careful).await;
        assert_eq!(answer.as_ref().is_ok_and(is_cut_off), down, "{answer:?}");
        assert_eq!(shop.charges(), charges);
    }
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_is_cut_off_has_done_nothing_and_frees_the_key() {
    let shop = Shop::open().await;
    let mut ticket = shop.claim(Phase::Prepared).await;
    shop.store.down.store(true, SeqCst);
    assert_eq!(ticket.hold(tokio::time::sleep(seconds(90))).await, None);
    assert_eq!(ticket.check_lease(seconds(0)), Err(EngineError::LeaseShort));
    shop.store.down.store(false, SeqCst);
    pass(policy().skew_max).await;
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.state().await, Some(StateKind::Completed));
    assert_eq!(shop.charges(), 1);
}

/// The clock goes on and nothing of the process does, as under SIGSTOP.
#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_past_its_lease_does_not_go_on_with_the_operation() {
    let shop = Shop::open().await;
    let (charges, begun) = (Arc::clone(&shop.charges), Arc::new(Notify::new()));
    let (heard, say) = (Arc::new(Notify::new()), Arc::clone(&begun));
    let hears = Arc::clone(&heard);
    let charge = direct(move |_attempt| async move {
        say.notify_one();
        hears.notified().await;
        charges.fetch_add(1, SeqCst);
        Ran::Happened(confirmed())
    });
    let engine = shop.engine.clone();
    let asked = tokio::spawn(async move {
        engine.once(&request(), &policy(), seconds(5), charge).await.unwrap()
    });
    begun.notified().await;
    // What it waits for has come when it wakes up.
    heard.notify_one();
    tokio::time::advance(seconds(40)).await;
    let answer = asked.await.unwrap();
    assert!(is_cut_off(&answer), "{answer:?}");
    assert_eq!(shop.charges(), 0);
}
