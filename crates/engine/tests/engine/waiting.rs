//! Duplicates that come while the first request still runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use onlyonce::core::{Outcome, Phase, Reply, StateKind, Verdict};
use onlyonce::{Answer, Ran, Settings, Waited};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_thousand_at_once_make_one_charge_and_get_one_reply() {
    let shop = Shop::open().await;
    let asked: Vec<_> = (0..1_000)
        .map(|_| shop.ask_aside(seconds(1), seconds(5), Ran::Happened(confirmed())))
        .collect();
    let (mut ran, mut replayed) = (0, 0);
    for one in asked {
        let answer = one.await.unwrap();
        ran += usize::from(answer == Answer::Reply(confirmed()));
        replayed += usize::from(answer == Answer::Replayed(confirmed()));
    }
    assert_eq!((ran, replayed), (1, 999));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_woken_and_do_not_poll() {
    let shop = Shop::open().await;
    let asked: Vec<_> = (0..100)
        .map(|_| shop.ask_aside(seconds(8), seconds(60), Ran::Happened(confirmed())))
        .collect();
    pass(seconds(1)).await;
    let before = shop.store.calls();
    pass(seconds(6)).await;
    assert_eq!(shop.store.calls(), before, "nobody asks the store while waiting");
    for one in asked {
        one.await.unwrap();
    }
    assert_eq!(shop.store.calls(), before + 1, "the completion alone");
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_changed_nothing_is_shared_by_all_who_wait() {
    let shop = Shop::open().await;
    let busy = Reply::kept(429, "later");
    let asked: Vec<_> = (0..50)
        .map(|_| shop.ask_aside(seconds(1), seconds(5), Ran::NotExecuted(busy.clone())))
        .collect();
    for one in asked {
        assert_eq!(one.await.unwrap(), Answer::NotExecuted(busy.clone()));
    }
    assert_eq!(shop.charges(), 1, "a waiter never claims");
    // The key is free again for who asks anew.
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Reply(confirmed())));
    assert_eq!(shop.charges(), 2);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_an_unknown_outcome_are_told_so_and_run_nothing() {
    let shop = Shop::open().await;
    let cause = onlyonce::core::Cause::ConnectionLost;
    let asked: Vec<_> =
        (0..50).map(|_| shop.ask_aside(seconds(1), seconds(5), Ran::CannotTell(cause))).collect();
    for one in asked {
        let answer = one.await.unwrap();
        let unknown = matches!(
            answer,
            Answer::Refused(Outcome::OutcomeUnknown { cause: told, .. }) if told == cause
        );
        assert!(unknown, "{answer:?}");
    }
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait_and_the_others_hear_at_once_that_it_runs() {
    let settings = Settings { waiters_max: 2, ..Settings::default() };
    let shop = Shop::open_on(Arc::default(), settings).await;
    let asked: Vec<_> = (0..6)
        .map(|_| shop.ask_aside(seconds(1), seconds(5), Ran::Happened(confirmed())))
        .collect();
    let mut answers: HashMap<&str, usize> = HashMap::new();
    for one in asked {
        let answer = one.await.unwrap();
        let runs = matches!(answer, Answer::Refused(Outcome::InFlight { .. }));
        let heard = if answer == Answer::Reply(confirmed()) {
            "ran"
        } else if answer == Answer::Replayed(confirmed()) {
            "waited"
        } else {
            assert!(runs, "{answer:?}");
            "still runs"
        };
        *answers.entry(heard).or_default() += 1;
    }
    assert_eq!(answers, HashMap::from([("ran", 1), ("waited", 2), ("still runs", 3)]));
    // Those who have waited have left, so there is room again.
    assert_eq!(shop.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_long_enough_hears_that_it_still_runs() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(9), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    let second = shop.ask(seconds(1)).await;
    assert!(matches!(second, Ok(Answer::Refused(Outcome::InFlight { .. }))), "{second:?}");
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_request_with_the_key_sees_no_reply_and_never_runs() {
    let shop = Shop::open().await;
    let first = shop.ask_aside(seconds(2), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    for _before_and_after in 0..2 {
        let charge = shop.charge(seconds(1), Ran::Happened(confirmed()));
        let other = shop.engine.once(&other_request(), &policy(), seconds(5), charge).await;
        assert_eq!(other, Ok(Answer::Refused(Outcome::Mismatch)));
        let waited = shop.engine.wait(&other_request(), &policy(), seconds(5)).await.unwrap();
        let Waited::Ended { acted, shared: None } = waited else { panic!("{waited:?}") };
        assert_eq!(acted.outcome, Outcome::Mismatch);
        pass(seconds(2)).await;
    }
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!(shop.charges(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_wakes_those_who_wait() {
    let shop = Shop::open().await;
    let ticket = shop.claim(Phase::Committing).await;
    let waiter = shop.ask_aside(seconds(1), seconds(3_600), Ran::Happened(confirmed()));
    // The holder sleeps past its lease; whoever waits is not told until somebody knows.
    pass(seconds(40)).await;
    assert!(!waiter.is_finished());
    let happened = Verdict::Happened(confirmed());
    assert_eq!(shop.resolve(ticket.fence(), happened).await, Outcome::Done);
    pass(seconds(1)).await;
    assert!(waiter.is_finished(), "long before its own time is over");
    assert_eq!(waiter.await.unwrap(), Answer::Replayed(confirmed()));
    assert_eq!(shop.charges(), 0);
    // The holder wakes up at last and says the same.
    assert_eq!(ticket.complete(confirmed()).await.unwrap().outcome, Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_another_process_recorded_is_seen_by_those_who_wait_here() {
    let here = Shop::open().await;
    here.store.shared.store(true, SeqCst);
    let there = Shop::open_on(here.store.clone(), Settings::default()).await;
    let first = there.ask_aside(seconds(2), seconds(5), Ran::Happened(confirmed()));
    pass(seconds(1)).await;
    assert_eq!(here.ask(seconds(1)).await, Ok(Answer::Replayed(confirmed())));
    assert_eq!(first.await.unwrap(), Answer::Reply(confirmed()));
    assert_eq!((there.charges(), here.charges()), (1, 0));
    assert_eq!(here.state().await, Some(StateKind::Completed));
}
