//! Cases of requests with one key at once, over one instance and several.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request};
use http_body_util::Full;
use onlyonce::core::{Always, OnUnknown, Receiver};
use onlyonce_http::RoutePolicy;
use tokio::sync::Barrier;

use crate::common::{Door, Ends, Set, Shop, Told, post, send, set, until};
use crate::several::{Several, several, two};

fn impatient() -> RoutePolicy {
    RoutePolicy { wait: Duration::ZERO, ..RoutePolicy::default() }
}

fn tap(door: &Door) -> tokio::task::JoinHandle<Told> {
    let door = door.clone();
    tokio::spawn(async move { send(&door, post("tap", "seat")).await })
}

/// A duplicate is told to come again, or the one answer.
fn check_duplicate(told: &Told) {
    if told.status == 409 {
        assert_eq!(told.problem(), "request-in-progress");
        assert!(told.headers.contains_key("retry-after"));
    } else {
        assert_eq!((told.status, told.text()), (201, "order 1"));
    }
}

/// Case B01: however many instances share the store, fifty at the same moment run once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_over_several_instances_run_once() {
    for (instances, policy) in
        [(1, impatient()), (2, impatient()), (4, impatient()), (4, RoutePolicy::default())]
    {
        let clocks = vec![Duration::ZERO; instances];
        let several = several(&clocks, Shop::held(), policy).await;
        let asked: Vec<_> = (0..50).map(|at| tap(&several.doors[at % instances])).collect();
        several.shop.started().await;
        // A second run would not be held up either.
        (0..50).for_each(|_| several.shop.go_on());
        let mut executed = 0;
        for one in asked {
            let told = one.await.unwrap();
            check_duplicate(&told);
            executed += u32::from(told.says() == "executed");
        }
        assert_eq!((executed, several.shop.runs()), (1, 1), "{instances} instances");
    }
}

/// Case B137: however often the middleware is mounted, what shares an engine shares its records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_mounts_on_one_engine_run_a_key_once() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let again = tower::Layer::layer(&set.layer, set.shop.clone());
    let keys = Arc::new(onlyonce_http::Keys::new(onlyonce::core::Secret::from_bytes([7; 32])));
    let policy = Arc::new(RoutePolicy::default().check().unwrap());
    let other = onlyonce_tower::OnceLayer::new(set.engine.clone(), keys, policy);
    let other = tower::Layer::layer(&other, set.shop.clone());
    let mounts = [set.door.clone(), again, other];
    let asked: Vec<_> = (0..30).map(|at| tap(&mounts[at % 3])).collect();
    set.shop.started().await;
    (0..30).for_each(|_| set.shop.go_on());
    for one in asked {
        assert_eq!(one.await.unwrap().text(), "order 1");
    }
    assert_eq!(set.shop.runs(), 1);
}

/// Case B03: a second claim is refused and leaves the first one's record as it was.
#[tokio::test(start_paused = true)]
async fn a_second_claim_does_not_touch_the_first() {
    let Several { doors, engines, shop, .. } = two(Shop::held(), impatient()).await;
    let first = tap(&doors[0]);
    shop.started().await;
    let filter = onlyonce::store::Filter::default;
    let before = engines[0].list(filter(), None).await.unwrap().records;
    assert_eq!(send(&doors[1], post("tap", "seat")).await.problem(), "request-in-progress");
    assert_eq!(send(&doors[1], post("tap", "another seat")).await.problem(), "key-reused");
    let after = engines[1].list(filter(), None).await.unwrap().records;
    assert_eq!((before.len(), &before), (1, &after));
    shop.go_on();
    assert_eq!(first.await.unwrap().says(), "executed");
    assert_eq!(shop.runs(), 1);
}

/// Case B04: a holder that renews while others are taking its key over stays the only one.
#[tokio::test(start_paused = true)]
async fn who_renews_in_time_is_not_taken_over_from() {
    let mut policy = impatient();
    policy.record.on_unknown = OnUnknown::Retry;
    policy.record.receiver = Receiver::always(Always::UniqueName);
    let ahead = Duration::from_secs(25);
    let clocks = [Duration::ZERO, ahead, ahead, ahead];
    let Several { doors, store, shop, .. } = several(&clocks, Shop::held(), policy).await;
    *store.ends.lock().unwrap() = Ends::TakeOversHeld;
    let first = tap(&doors[0]);
    shop.started().await;
    // To clocks that are ahead the lease of 30 s looks over; it is renewed every 10 s.
    tokio::time::sleep(Duration::from_millis(9_800)).await;
    let others: Vec<_> = doors[1..].iter().map(tap).collect();
    until(async || store.held() == 3).await;
    let swaps = store.swaps();
    assert!(others.iter().all(|one| !one.is_finished()), "they are about to take it over");
    // The renewal comes first.
    until(async || store.swaps() == swaps + 1).await;
    store.gate.notify_waiters();
    for one in others {
        assert_eq!(one.await.unwrap().problem(), "request-in-progress");
    }
    shop.go_on();
    assert_eq!(first.await.unwrap().says(), "executed");
    assert_eq!(shop.runs(), 1);
}

/// Case B06: who loses the race of two inserts is told to wait or the answer, never a failure.
#[tokio::test(start_paused = true)]
async fn losers_of_the_insert_are_duplicates_and_not_failures() {
    for policy in [impatient(), RoutePolicy::default()] {
        let Set { door, store, shop, .. } = set(Shop::held(), policy).await;
        // None of them has found anything, and all write now.
        *store.rush.lock().unwrap() = Some(Arc::new(Barrier::new(20)));
        let racers: Vec<_> = (0..20).map(|_| tap(&door)).collect();
        shop.started().await;
        (0..20).for_each(|_| shop.go_on());
        for one in racers {
            check_duplicate(&one.await.unwrap());
        }
        assert_eq!(shop.runs(), 1);
        // Each tried once, and the winner ended: nobody tried again and again.
        assert_eq!(store.swaps(), 21);
    }
}

/// Case B07: another request is told so at once, not to wait for one that it can never join.
#[tokio::test(start_paused = true)]
async fn a_mismatch_is_said_before_the_first_has_ended() {
    let set = set(Shop::held(), impatient()).await;
    let first = tap(&set.door);
    set.shop.started().await;
    let other = send(&set.door, post("tap", "another seat")).await;
    assert_eq!((other.status, &*other.problem()), (422, "key-reused"));
    assert!(!other.headers.contains_key("retry-after"));
    assert_eq!(send(&set.door, post("tap", "seat")).await.status, 409);
    set.shop.go_on();
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(set.shop.runs(), 1);
}

/// Case B09: whoever looks sees nothing, that it runs, or the whole answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_at_any_moment_finds_a_whole_state() {
    let Several { doors, shop, .. } = two(Shop::held(), impatient()).await;
    let look = |door: Door| async move {
        let mut question = post("tap", "seat");
        let yes = HeaderValue::from_static("?1");
        question.headers_mut().insert("idempotency-replay-only", yes);
        let told = send(&door, question).await;
        match told.status {
            412 => assert_eq!(told.problem(), "not-seen"),
            409 => assert_eq!(told.problem(), "request-in-progress"),
            _ => assert_eq!((told.text(), told.says()), ("order 1", "replayed")),
        }
        told.status
    };
    assert_eq!(look(doors[1].clone()).await, 412);
    let looking: Vec<_> = doors
        .iter()
        .map(|door| {
            let door = door.clone();
            tokio::spawn(async move {
                while look(door.clone()).await != 201 {
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let first = tap(&doors[0]);
    shop.started().await;
    assert_eq!(look(doors[1].clone()).await, 409);
    shop.go_on();
    assert_eq!(first.await.unwrap().status, 201);
    for one in looking {
        one.await.unwrap();
    }
    assert_eq!((look(doors[1].clone()).await, shop.runs()), (201, 1));
}

/// Case B10: one key on two endpoints at once is one operation; its answer stays its own.
#[tokio::test(start_paused = true)]
async fn one_key_on_two_endpoints_runs_one_of_them() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let to = |path: &str| {
        let request = Request::post(path).header("idempotency-key", "tap");
        let (door, request) = (set.door.clone(), request.body(Full::from("7")).unwrap());
        tokio::spawn(async move { send(&door, request).await })
    };
    let both = [to("/payments"), to("/refunds")];
    set.shop.started().await;
    (0..2).for_each(|_| set.shop.go_on());
    let mut statuses = Vec::new();
    for one in both {
        statuses.push(one.await.unwrap().status);
    }
    let winner = statuses.iter().position(|status| *status == 201).unwrap();
    for (at, path) in ["/payments", "/refunds"].into_iter().enumerate() {
        let again = to(path).await.unwrap();
        if at == winner {
            assert_eq!((again.text(), again.says()), ("order 1", "replayed"));
        } else {
            assert_eq!((statuses[at], &*again.problem()), (422, "key-reused"));
        }
    }
    assert_eq!(set.shop.runs(), 1);
}
