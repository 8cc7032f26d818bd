//! What is said when something breaks: who failed, whether it happened, whether to send again.

use std::time::Duration;

use onlyonce::core::{Always, OnUnknown, Outcome, Policy, Receiver, Reply, Verdict};
use onlyonce_http::{ClassifyRules, FailureKind, RoutePolicy, UpstreamFailure, capture};

use crate::common::{Ends, Shop, answer, data, post, script, send, set, until};

#[tokio::test]
async fn a_handler_that_panics_leaves_doubt_and_is_not_run_again() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    let first = send(&set.door, post("tap", "panic")).await;
    assert_eq!(
        (first.status, &*first.problem(), first.says()),
        (502, "outcome-unknown", "unknown")
    );
    until(async || send(&set.door, post("tap", "panic")).await.problem() == "outcome-unknown")
        .await;
    assert_eq!(set.shop.runs(), 0);
}

#[tokio::test]
async fn failures_are_told_apart() {
    for (kind, status, problem) in [
        (FailureKind::NeverSent, 502, "upstream-unreachable"),
        (FailureKind::SentAndLost, 502, "outcome-unknown"),
        (FailureKind::TimedOut, 504, "outcome-unknown"),
        (FailureKind::AnswerCut, 502, "outcome-unknown"),
    ] {
        let failure = UpstreamFailure::new(kind, "on purpose");
        let set = set(Shop::default().answers(Err(failure.into())), RoutePolicy::default()).await;
        let told = send(&set.door, post("tap", "seat")).await;
        assert_eq!((told.status, &*told.problem()), (status, problem), "{kind:?}");
        let again = send(&set.door, post("tap", "seat")).await;
        let runs = if kind == FailureKind::NeverSent { 2 } else { 1 };
        assert_eq!(set.shop.runs(), runs, "{kind:?}");
        assert_eq!(again.status, if runs == 2 { 201 } else { 409 });
    }
}

#[tokio::test]
async fn an_error_that_says_nothing_leaves_doubt() {
    let shop = Shop::default().answers(Err("something".into()));
    let set = set(shop, RoutePolicy::default()).await;
    assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
    assert_eq!(send(&set.door, post("tap", "seat")).await.status, 409);
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn a_gateways_answer_passes_and_leaves_doubt() {
    for status in [502, 503, 504] {
        let shop = Shop::default().answers(answer(status, "gateway"));
        let set = set(shop, RoutePolicy::default()).await;
        let told = send(&set.door, post("tap", "seat")).await;
        assert_eq!((told.status, told.text(), told.says()), (status, "gateway", "unknown"));
        assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
        assert_eq!(set.shop.runs(), 1);
    }
}

#[tokio::test]
async fn an_error_of_the_service_is_an_answer_and_is_replayed() {
    for status in [400, 404, 409, 422, 500, 501] {
        let set = set(Shop::default().answers(answer(status, "no")), RoutePolicy::default()).await;
        send(&set.door, post("tap", "seat")).await;
        let again = send(&set.door, post("tap", "seat")).await;
        assert_eq!((again.status, again.text(), again.says()), (status, "no", "replayed"));
        assert_eq!(set.shop.runs(), 1);
    }
}

#[tokio::test]
async fn a_refusal_frees_the_key_however_its_body_ends() {
    for whole in [true, false] {
        let (frames, body) = script();
        frames.send(data("slow ")).unwrap();
        if whole {
            frames.send(data("down")).unwrap();
            frames.send(None).unwrap();
        }
        drop(frames);
        let set = set(Shop::default().answers(answer(429, body)), RoutePolicy::default()).await;
        let told = send(&set.door, post("tap", "seat")).await;
        assert_eq!((told.status, told.says()), (429, "not-executed"));
        assert_eq!(told.body, if whole { Ok("slow down".into()) } else { Err("slow ".into()) });
        assert_eq!(send(&set.door, post("tap", "seat")).await.status, 201);
    }
}

#[tokio::test]
async fn a_large_refusal_reaches_the_client_whole() {
    let set =
        set(Shop::default().answers(answer(429, "x".repeat(3 << 20))), RoutePolicy::default())
            .await;
    assert_eq!(send(&set.door, post("tap", "seat")).await.text().len(), 3 << 20);
    assert_eq!(send(&set.door, post("tap", "seat")).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_recorded_says_so_and_lapses_to_unknown() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    *set.store.ends.lock().unwrap() = Ends::Lost;
    let told = send(&set.door, post("tap", "seat")).await;
    assert_eq!((told.status, told.text(), told.says()), (201, "order 1", "unrecorded"));
    *set.store.ends.lock().unwrap() = Ends::Kept;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_answer_that_could_not_be_recorded_is_still_finished() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(answer(200, body)), RoutePolicy::default()).await;
    *set.store.ends.lock().unwrap() = Ends::Lost;
    for frame in [data("ab"), data("cd"), None] {
        frames.send(frame).unwrap();
    }
    assert_eq!(send(&set.door, post("tap", "seat")).await.text(), "abcd");
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_longer_than_its_lease_keeps_its_claim() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let door = set.door.clone();
    let first = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "request-in-progress");
    }
    set.shop.go_on();
    assert_eq!(first.await.unwrap().text(), "order 1");
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn an_answer_that_somebody_else_recorded_first_stays_the_only_one() {
    let lost = UpstreamFailure::new(FailureKind::SentAndLost, "reset");
    let set = set(Shop::held().answers(Err(lost.into())), RoutePolicy::default()).await;
    let door = set.door.clone();
    let first = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    // Meanwhile an operator has looked at the receiver: it did happen.
    let filter = onlyonce::store::Filter::default();
    let page = set.engine.list(filter, None).await.unwrap();
    let (id, record) = &page.records[0];
    let (head, ()) = http::Response::builder().status(201).body(()).unwrap().into_parts();
    let reply: Reply = capture::whole(&head, b"booked by hand", false, 1 << 20);
    let verdict = Verdict::Happened(reply);
    let policy = Policy::default();
    let acted = set.engine.resolve(*id, &policy, record.fence, verdict, "anna", "seen").await;
    assert_eq!(acted.unwrap().outcome, Outcome::Done);
    set.shop.go_on();
    for told in [first.await.unwrap(), send(&set.door, post("tap", "seat")).await] {
        assert_eq!((told.text(), told.says()), ("booked by hand", "replayed"));
    }
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn a_route_decides_what_its_statuses_mean() {
    let status = |status: u16| vec![http::StatusCode::from_u16(status).unwrap()];
    let classify =
        ClassifyRules { release: status(500), complete: status(429), ..Default::default() };
    let policy = RoutePolicy { classify, ..RoutePolicy::default() };
    let shop = Shop::default().answers(answer(500, "a")).answers(answer(429, "b"));
    let set = set(shop, policy).await;
    assert_eq!(send(&set.door, post("tap", "seat")).await.says(), "not-executed");
    assert_eq!(send(&set.door, post("tap", "seat")).await.text(), "b");
    assert_eq!(send(&set.door, post("tap", "seat")).await.says(), "replayed");
    assert_eq!(set.shop.runs(), 2);
}

#[tokio::test]
async fn the_refusal_of_an_older_claim_is_not_taken_for_the_answer() {
    let mut policy = RoutePolicy::default();
    policy.record.receiver = Receiver::always(Always::Fenced);
    policy.record.on_unknown = OnUnknown::Retry;
    let shop = Shop::default().answers(answer(412, "a newer claim was here"));
    let set = set(shop, policy).await;
    let told = send(&set.door, post("tap", "seat")).await;
    assert_eq!((told.status, told.says()), (412, "unknown"));
    // Under a fence of its own the next one is let in, and its answer is the one.
    let next = send(&set.door, post("tap", "seat")).await;
    assert_eq!((next.status, next.says()), (201, "executed"));
    let again = send(&set.door, post("tap", "seat")).await;
    assert_eq!((again.text(), again.says()), (next.text(), "replayed"));
    assert_eq!(set.shop.runs(), 2);
}
