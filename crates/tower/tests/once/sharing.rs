//! Requests with one key that arrive while the first still runs.

use std::time::Duration;

use http::HeaderValue;
use onlyonce_http::{FailureKind, RoutePolicy, UpstreamFailure};

use crate::common::{Ends, Set, Shop, Told, answer, post, send, set, until};

/// The first request and `others` that arrive while it runs.
async fn together(set: &Set, others: usize) -> Vec<Told> {
    let door = set.door.clone();
    let first = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    let waiting: Vec<_> = (0..others)
        .map(|_| {
            let door = set.door.clone();
            tokio::spawn(async move { send(&door, post("tap", "seat")).await })
        })
        .collect();
    // All of them have asked the store and wait.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    set.shop.go_on();
    let mut told = vec![first.await.unwrap()];
    for one in waiting {
        told.push(one.await.unwrap());
    }
    told
}

#[tokio::test]
async fn a_thousand_at_once_run_once_and_get_the_same_bytes() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let told = together(&set, 999).await;
    assert_eq!(set.shop.runs(), 1);
    for one in &told {
        assert_eq!((one.status, one.text()), (201, "order 1"));
    }
    assert_eq!(told.iter().filter(|one| one.is_replay()).count(), 999);
}

#[tokio::test]
async fn fifty_duplicates_of_a_refused_request_make_one_call() {
    let shop = Shop::held().answers(answer(429, "slow down"));
    let set = set(shop, RoutePolicy::default()).await;
    for one in together(&set, 49).await {
        assert_eq!((one.status, one.text(), one.says()), (429, "slow down", "not-executed"));
        assert!(!one.is_replay());
    }
    assert_eq!(set.shop.runs(), 1);
    set.shop.go_on();
    assert_eq!(send(&set.door, post("tap", "seat")).await.text(), "order 2");
}

#[tokio::test]
async fn an_upstream_that_was_never_reached_frees_the_key_and_says_so_to_all() {
    let refused = UpstreamFailure::new(FailureKind::NeverSent, "connection refused");
    // Wrapped as by a client library.
    let shop = Shop::held().answers(Err(std::io::Error::other(refused).into()));
    let set = set(shop, RoutePolicy::default()).await;
    for one in together(&set, 20).await {
        assert_eq!((one.status, &*one.problem()), (502, "upstream-unreachable"));
        assert_eq!(one.says(), "not-executed");
    }
    assert_eq!(set.shop.runs(), 1);
    set.shop.go_on();
    assert_eq!(send(&set.door, post("tap", "seat")).await.status, 201);
}

#[tokio::test]
async fn those_who_waited_for_an_unknown_outcome_are_told_so() {
    let lost = UpstreamFailure::new(FailureKind::SentAndLost, "reset");
    let set = set(Shop::held().answers(Err(lost.into())), RoutePolicy::default()).await;
    for one in together(&set, 20).await {
        assert_eq!((&*one.problem(), one.says()), ("outcome-unknown", "unknown"));
    }
    set.shop.go_on();
    let later = send(&set.door, post("tap", "seat")).await;
    assert_eq!((later.status, &*later.problem()), (409, "outcome-unknown"));
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn who_waits_too_long_is_told_to_come_again() {
    let policy = RoutePolicy { wait: Duration::from_millis(1), ..RoutePolicy::default() };
    let set = set(Shop::held(), policy).await;
    let door = set.door.clone();
    let first = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    let second = send(&set.door, post("tap", "seat")).await;
    assert_eq!((second.status, &*second.problem()), (409, "request-in-progress"));
    assert_eq!(second.headers["retry-after"], "2");
    set.shop.go_on();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn a_waiter_with_another_body_sees_nothing_of_the_answer() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let door = set.door.clone();
    let first = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    assert_eq!(send(&set.door, post("tap", "other")).await.problem(), "key-reused");
    set.shop.go_on();
    assert_eq!(first.await.unwrap().status, 201);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let door = set.door.clone();
    let gone = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    set.shop.go_on();
    let told = send(&set.door, post("tap", "seat")).await;
    assert_eq!((told.text(), told.says(), set.shop.runs()), ("order 1", "replayed", 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_during_the_claim_does_not_hold_up_its_retry() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    *set.store.ends.lock().unwrap() = Ends::ClaimsHeld;
    let tap = || {
        let door = set.door.clone();
        tokio::spawn(async move { send(&door, post("tap", "seat")).await })
    };
    let gone = tap();
    until(async || set.store.held() == 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let retry = tap();
    until(async || set.store.held() == 2).await;
    let before = tokio::time::Instant::now();
    set.store.gate.notify_waiters();
    let told = retry.await.unwrap();
    assert_eq!((told.text(), set.shop.runs()), ("order 1", 1));
    assert!(before.elapsed() < Duration::from_secs(1), "of virtual time");
}

#[tokio::test]
async fn a_client_that_goes_away_before_it_is_granted_leaves_no_doubt_behind() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    for _ in 0..100 {
        let door = set.door.clone();
        let gone = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
    }
    until(async || send(&set.door, post("tap", "seat")).await.status == 201).await;
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn the_drain_waits_for_operations_whose_clients_are_gone() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let door = set.door.clone();
    let gone = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    gone.abort();
    set.layer.tasks().close();
    let drained = tokio::spawn({
        let tasks = set.layer.tasks().clone();
        async move { tasks.wait().await }
    });
    tokio::task::yield_now().await;
    assert!(!drained.is_finished());
    set.shop.go_on();
    drained.await.unwrap();
    let mut ask = post("tap", "seat");
    ask.headers_mut().insert("idempotency-replay-only", HeaderValue::from_static("?1"));
    assert_eq!(send(&set.door, ask).await.text(), "order 1");
}
