//! Cases of crashes, time-outs and outcomes that nobody knows.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::Response;
use onlyonce::core::{Always, Fence, OnUnknown, Outcome, Policy, Receiver, State, Verdict};
use onlyonce::{Engine, EngineEvent, Observer, Settings};
use onlyonce_http::{FailureKind, RoutePolicy, UpstreamFailure, capture};
use tower::Layer as _;

use crate::common::{Door, Ends, Shop, Slow, Told, answer, post, send, set, until};
use crate::several::{Several, two};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DAY: Duration = seconds(24 * 3_600);

/// A lease of two seconds, and nobody waits for anybody.
fn short(on_unknown: OnUnknown) -> RoutePolicy {
    let receiver = match on_unknown {
        OnUnknown::Retry => Receiver::always(Always::Fenced),
        OnUnknown::Hold | OnUnknown::Probe | OnUnknown::Auto => Receiver::BARE,
    };
    let skew_max = Duration::ZERO;
    let record = Policy { lease: seconds(2), skew_max, on_unknown, receiver, ..policy() };
    RoutePolicy { record, wait: Duration::ZERO, ..RoutePolicy::default() }
}

fn policy() -> Policy {
    Policy::default()
}

fn tap(door: &Door) -> tokio::task::JoinHandle<Told> {
    let door = door.clone();
    tokio::spawn(async move { send(&door, post("tap", "seat")).await })
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Two instances, the first of which was killed while the shop was at work for it.
async fn killed_at_work(on_unknown: OnUnknown) -> Several {
    let several = two(Shop::held(), short(on_unknown)).await;
    tap(&several.doors[0]);
    several.shop.started().await;
    // Longer than its lease: it renews.
    pass(seconds(9)).await;
    several.kill(0);
    several
}

/// Case B12: a key whose holder was killed is blocked for what is left of the lease, and no longer.
#[tokio::test(start_paused = true)]
async fn a_killed_holder_blocks_its_key_for_its_lease_and_no_longer() {
    for on_unknown in [OnUnknown::Hold, OnUnknown::Retry] {
        let several = killed_at_work(on_unknown).await;
        let (door, shop) = (&several.doors[1], &several.shop);
        pass(seconds(1)).await;
        let told = send(door, post("tap", "seat")).await;
        assert_eq!((told.status, &*told.problem()), (409, "request-in-progress"));
        // In a route without that claim it would be two.
        assert_eq!(told.headers["retry-after"], "1");
        (0..2).for_each(|_| shop.go_on());
        for later in [seconds(2), seconds(57), seconds(22 * 3_600)] {
            pass(later).await;
            let told = send(door, post("tap", "seat")).await;
            if on_unknown == OnUnknown::Hold {
                assert_eq!((told.status, &*told.problem()), (409, "outcome-unknown"), "{later:?}");
                assert_eq!(shop.runs(), 1);
            } else {
                let says = if later == seconds(2) { "executed" } else { "replayed" };
                assert_eq!((told.text(), told.says()), ("order 2", says), "{later:?}");
                assert_eq!(shop.runs(), 2);
            }
        }
    }
}

/// Case B13: what may have happened is never run again by itself, however much later; a person
/// settles it either way.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_held_until_somebody_settles_it() {
    for happened in [true, false] {
        let several = killed_at_work(OnUnknown::Hold).await;
        let (door, shop) = (&several.doors[1], &several.shop);
        (0..2).for_each(|_| shop.go_on());
        let at_once = send(door, post("tap", "seat")).await;
        assert_eq!((at_once.status, &*at_once.problem()), (409, "request-in-progress"));
        for later in [seconds(3), seconds(3_600)] {
            pass(later).await;
            let told = send(door, post("tap", "seat")).await;
            assert_eq!((told.status, &*told.problem()), (409, "outcome-unknown"));
            assert_eq!((told.says(), told.headers.get("retry-after")), ("unknown", None));
        }
        assert_eq!(shop.runs(), 1);

        let (id, record) = several.record().await;
        let found = Response::builder().status(201).header("x-shop", "found").body(()).unwrap();
        let reply = capture::whole(&found.into_parts().0, b"order 1", false, 1 << 20);
        let verdict = if happened { Verdict::Happened(reply) } else { Verdict::NotExecuted };
        let engine = &several.engines[1];
        let settled = engine.resolve(id, &policy(), record.fence, verdict, "ann", "looked").await;
        assert_eq!(settled.unwrap().outcome, Outcome::Done);
        let told = send(door, post("tap", "seat")).await;
        let (text, says, runs) =
            if happened { ("order 1", "replayed", 1) } else { ("order 2", "executed", 2) };
        assert_eq!((told.text(), told.says()), (text, says));
        let again = send(door, post("tap", "seat")).await;
        assert_eq!((again.text(), again.says(), shop.runs()), (text, "replayed", runs));
    }
}

#[derive(Default)]
struct Failures(AtomicU32);

impl Observer for Failures {
    fn on(&self, event: &EngineEvent) {
        if matches!(event, EngineEvent::StoreFailed { .. }) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Case B15: that an answer could not be saved at first is not that it did not happen. It is saved
/// within the lease; who asks meanwhile is told to wait.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_saved_late_is_the_answer() {
    for fault in [Ends::Lost, Ends::Hung] {
        let (store, failures) = (Arc::new(Slow::default()), Arc::new(Failures::default()));
        let runtime = Arc::new(onlyonce_tokio::TokioRuntime::new());
        let (observer, settings) = (failures.clone(), Settings::default());
        let engine = Engine::start(store.clone(), runtime, settings, Some(observer)).await.unwrap();
        let keys = onlyonce_http::Keys::new(onlyonce::core::Secret::from_bytes([7; 32]));
        let route = RoutePolicy { wait: Duration::ZERO, ..RoutePolicy::default() };
        let route = Arc::new(route.check().unwrap());
        let shop = Shop::held();
        let layer = onlyonce_tower::OnceLayer::new(engine, Arc::new(keys), route);
        let door = layer.layer(shop.clone());
        store.next_ends.lock().unwrap().extend([fault; 3]);

        let first = tap(&door);
        shop.started().await;
        shop.go_on();
        until(async || 0 < failures.0.load(Ordering::SeqCst)).await;
        let meanwhile = send(&door, post("tap", "seat")).await;
        assert_eq!(meanwhile.problem(), "request-in-progress", "{fault:?}");
        let told = first.await.unwrap();
        assert_eq!((told.status, told.text(), told.says()), (201, "order 1", "executed"));
        let again = send(&door, post("tap", "seat")).await;
        assert_eq!((again.text(), again.says(), shop.runs()), ("order 1", "replayed", 1));
        assert_eq!(failures.0.load(Ordering::SeqCst), 3, "each was told of");
    }
}

/// Case B15: one that cannot be saved at all is still given, and the key is in doubt and not free.
#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_saved_is_given_and_its_key_is_not_freed() {
    for fault in [Ends::Lost, Ends::Hung] {
        let set = set(Shop::held(), short(OnUnknown::Hold)).await;
        *set.store.ends.lock().unwrap() = fault;
        let first = tap(&set.door);
        set.shop.started().await;
        set.shop.go_on();
        pass(seconds(1)).await;
        assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "request-in-progress");
        let told = first.await.unwrap();
        assert_eq!((told.text(), told.says()), ("order 1", "unrecorded"), "{fault:?}");
        *set.store.ends.lock().unwrap() = Ends::Kept;
        pass(seconds(2)).await;
        assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
        assert_eq!(set.shop.runs(), 1);
    }
}

/// Case B16: there is no claim without an end. The shortest and the longest lease there may be are
/// written with the claim, and nobody else is granted it until then.
#[tokio::test(start_paused = true)]
async fn every_claim_has_an_end_and_is_exclusive_until_then() {
    for lease in [onlyonce::core::limits::LEASE_MIN, onlyonce::core::limits::LEASE_MAX] {
        let mut policy = short(OnUnknown::Retry);
        policy.record.lease = lease;
        let several = two(Shop::held(), policy).await;
        tap(&several.doors[0]);
        several.shop.started().await;
        several.kill(0);
        let State::InFlight(flight) = several.record().await.1.state else { panic!("it runs") };
        let left = flight.lease_until.since(several.engines[1].now());
        assert!(!left.is_zero() && left <= lease, "{left:?}");
        pass(left - Duration::from_millis(2)).await;
        let told = send(&several.doors[1], post("tap", "seat")).await;
        assert_eq!(told.problem(), "request-in-progress");
        pass(Duration::from_millis(2)).await;
        (0..2).for_each(|_| several.shop.go_on());
        assert_eq!(send(&several.doors[1], post("tap", "seat")).await.text(), "order 2");
        assert_eq!(several.shop.runs(), 2);
    }
}

/// Case B18: the claim is on record before the outside hears anything, so whatever the service
/// rolls back, its retry finds it. Each attempt names itself with the same key.
#[tokio::test(start_paused = true)]
async fn what_a_service_rolls_back_does_not_take_the_claim_along() {
    let failure = UpstreamFailure::new(FailureKind::SentAndLost, "rolled back");
    let set = set(Shop::held().answers(Err(failure.into())), short(OnUnknown::Hold)).await;
    let first = tap(&set.door);
    set.shop.started().await;
    let filter = onlyonce::store::Filter::default;
    let page = set.engine.list(filter(), None).await.unwrap();
    assert!(matches!(page.records[..], [(_, ref it)] if matches!(it.state, State::InFlight(_))));
    set.shop.go_on();
    assert_eq!(first.await.unwrap().problem(), "outcome-unknown");
    assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
    assert_eq!(set.shop.runs(), 1);

    let (id, fence): (_, Fence) = (page.records[0].0, page.records[0].1.fence);
    let verdict = Verdict::RunAgain;
    set.engine.resolve(id, &policy(), fence, verdict, "ann", "it dedupes").await.unwrap();
    set.shop.go_on();
    assert_eq!(send(&set.door, post("tap", "seat")).await.text(), "order 2");
    let seen = set.shop.seen();
    let named = |name: &str| seen.iter().map(|(headers, _)| headers[name].clone()).collect();
    let keys: BTreeSet<_> = named("idempotency-key");
    let attempts: BTreeSet<_> = named("idempotency-attempt");
    assert_eq!((keys.len(), attempts.len()), (1, 2));
}

/// Case B22: a refusal that the service asks to be repeated frees its key, and so does our own
/// limit, which counts before anything is claimed.
#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_passed_on_and_the_retry_runs_once() {
    let limited = Response::builder().status(429).header("retry-after", "1");
    let shop = Shop::default().answers(Ok(limited.body("slow down".into()).unwrap()));
    let set = set(shop, RoutePolicy::default()).await;
    let first = send(&set.door, post("tap", "seat")).await;
    assert_eq!((first.status, first.text(), first.says()), (429, "slow down", "not-executed"));
    assert_eq!(first.headers["retry-after"], "1");
    pass(seconds(1)).await;
    let retry = send(&set.door, post("tap", "seat")).await;
    assert_eq!((retry.status, retry.says(), set.shop.runs()), (201, "executed", 2));
    assert_eq!(send(&set.door, post("tap", "seat")).await.text(), "order 2");

    let full = set.layer.clone().with_room(onlyonce_tower::Room::new(3)).layer(set.shop.clone());
    let swaps = set.store.swaps();
    let refused = send(&full, post("another-tap", "seat")).await;
    assert_eq!((refused.status, &*refused.problem()), (503, "no-room"));
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!((set.store.swaps(), set.shop.runs()), (swaps, 2), "nothing was claimed");
}

/// Case B19: a passing error of a route that says so frees its key, and of many retries one runs.
#[tokio::test(start_paused = true)]
async fn a_passing_error_is_not_pinned_to_its_key_where_the_route_says_so() {
    for is_passing in [true, false] {
        let mut policy = RoutePolicy::default();
        if is_passing {
            policy.classify.release = vec![http::StatusCode::INTERNAL_SERVER_ERROR];
        }
        let set = set(Shop::default().answers(answer(500, "oh no")), policy).await;
        let first = send(&set.door, post("tap", "seat")).await;
        assert_eq!((first.status, first.text()), (500, "oh no"));
        let retries: Vec<_> = (0..10).map(|_| tap(&set.door)).collect();
        let mut executed = 0;
        for retry in retries {
            let told = retry.await.unwrap();
            let expect = if is_passing { (201, "order 2") } else { (500, "oh no") };
            assert_eq!((told.status, told.text()), expect);
            executed += u32::from(!told.is_replay());
        }
        let runs = if is_passing { 2 } else { 1 };
        assert_eq!((executed, set.shop.runs()), (runs - 1, runs));
        pass(DAY / 2).await;
        assert!(send(&set.door, post("tap", "seat")).await.is_replay());
    }
}
