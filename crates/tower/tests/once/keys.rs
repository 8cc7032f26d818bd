//! The main promise: one key, one run, the same answer; and what is none of our business.

use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;
use onlyonce_http::{OnStoreError, RoutePolicy};
use tower::ServiceExt;

use crate::common::{AnyBody, Shop, answer, data, post, read, script, send, set, until};

#[tokio::test]
async fn three_taps_run_once_and_get_the_same_bytes() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    let first = send(&set.door, post("\"tap\"", "seat 12A")).await;
    assert_eq!((first.status, first.text(), first.says()), (201, "order 1", "executed"));
    assert!(!first.is_replay());
    for spelling in ["\"tap\"", "tap"] {
        let again = send(&set.door, post(spelling, "seat 12A")).await;
        assert_eq!((again.status, again.text(), again.says()), (201, "order 1", "replayed"));
        assert!(again.is_replay());
        assert_eq!(again.headers["x-shop"], "yes");
        assert_eq!(again.headers["idempotency-expires"], first.headers["idempotency-expires"]);
    }
    assert_eq!(set.shop.runs(), 1);
    assert_eq!(send(&set.door, post("tap-2", "seat 12A")).await.text(), "order 2");
}

#[tokio::test]
async fn another_request_with_the_key_is_refused_and_not_run() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    send(&set.door, post("tap", "seat 12A")).await;
    let other = send(&set.door, post("tap", "seat 12B")).await;
    assert_eq!((other.status, &*other.problem(), other.says()), (422, "key-reused", "mismatch"));
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn a_malformed_key_is_never_ignored() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    for key in ["", "\"a", "a, b", &"x".repeat(256)] {
        let refused = send(&set.door, post(key, "seat")).await;
        assert_eq!((refused.status, refused.says()), (400, "not-evaluated"), "{key:?}");
    }
    let mut twice = post("a", "seat");
    twice.headers_mut().append("idempotency-key", HeaderValue::from_static("a"));
    assert_eq!(send(&set.door, twice).await.problem(), "key-duplicate");
    assert_eq!(set.shop.runs(), 0);
}

#[tokio::test]
async fn requests_without_a_key_stream_through_untouched() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    for _ in 0..2 {
        let request = Request::post("/orders").body(Full::from("seat")).unwrap();
        let told = send(&set.door, request).await;
        assert_eq!((told.status, told.says()), (201, ""));
    }
    assert_eq!(set.shop.runs(), 2);
    // The body reaches the service while it is still being sent.
    let (frames, body) = script();
    let get = Request::builder().method(Method::GET).uri("/").body(body).unwrap();
    let running = tokio::spawn(set.door.clone().oneshot(get));
    frames.send(data("a")).unwrap();
    frames.send(None).unwrap();
    assert_eq!(read(running.await.unwrap().unwrap()).await.text(), "order 3");
}

#[tokio::test]
async fn only_we_say_attempt_fence_and_status() {
    let shop = Shop::default();
    let forged = Response::builder()
        .status(200)
        .header("idempotency-status", "replayed")
        .header("idempotent-replayed", "true")
        .body(AnyBody::from("forged"))
        .unwrap();
    let set = set(shop.answers(Ok(forged)), RoutePolicy::default()).await;
    let mut request = post("tap", "seat");
    for name in ["idempotency-attempt", "idempotency-fence"] {
        request.headers_mut().append(name, HeaderValue::from_static("99"));
    }
    let told = send(&set.door, request).await;
    assert_eq!(told.says(), "executed");
    assert!(!told.is_replay());
    let (headers, _) = &set.shop.seen()[0];
    assert_eq!(headers["idempotency-key"], "tap");
    assert_eq!(headers["idempotency-attempt"], "1");
    let fence = headers["idempotency-fence"].to_str().unwrap();
    assert!(99 < fence.parse::<u64>().unwrap());
    // Also where nothing is protected.
    let mut get = Request::get("/").body(Full::default()).unwrap();
    get.headers_mut().append("idempotency-fence", HeaderValue::from_static("99"));
    send(&set.door, get).await;
    assert!(!set.shop.seen()[1].0.contains_key("idempotency-fence"));
}

#[tokio::test]
async fn a_second_attempt_has_a_higher_fence() {
    let shop = Shop::default().answers(answer(429, "later"));
    let set = set(shop, RoutePolicy::default()).await;
    let first = send(&set.door, post("tap", "seat")).await;
    assert_eq!((first.status, first.text(), first.says()), (429, "later", "not-executed"));
    assert_eq!(send(&set.door, post("tap", "seat")).await.text(), "order 2");
    let fence = |at: usize| -> u64 {
        set.shop.seen()[at].0["idempotency-fence"].to_str().unwrap().parse().unwrap()
    };
    assert!(fence(0) < fence(1));
    assert_eq!(set.shop.seen()[1].0["idempotency-attempt"], "2");
}

#[tokio::test]
async fn two_callers_with_one_key_never_see_each_others_answer() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    let mut texts = Vec::new();
    for (name, value) in [
        ("authorization", "Bearer anna"),
        ("authorization", "Bearer bert"),
        ("x-api-key", "anna"),
        ("x-api-key", "bert"),
        ("x-nothing", "anonymous"),
    ] {
        let mut request = post("one-key", "seat");
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        let told = send(&set.door, request).await;
        assert_eq!((told.status, told.says()), (201, "executed"), "{name}: {value}");
        texts.push(told.text().to_owned());
    }
    texts.sort();
    texts.dedup();
    assert_eq!((texts.len(), set.shop.runs()), (5, 5));
}

#[tokio::test]
async fn a_question_never_runs_the_operation() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    let question = || {
        let mut request = post("tap", "seat");
        let ask = HeaderValue::from_static("?1");
        request.headers_mut().insert("idempotency-replay-only", ask);
        request
    };
    assert_eq!(send(&set.door, question()).await.problem(), "not-seen");
    assert_eq!(set.shop.runs(), 0);
    send(&set.door, post("tap", "seat")).await;
    let told = send(&set.door, question()).await;
    assert_eq!((told.text(), told.says(), set.shop.runs()), ("order 1", "replayed", 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_refuses_unless_the_route_is_open() {
    for on_store_error in [OnStoreError::Closed, OnStoreError::Open] {
        let policy = RoutePolicy { on_store_error, ..RoutePolicy::default() };
        let set = set(Shop::default(), policy).await;
        *set.store.is_down.lock().unwrap() = true;
        let told = send(&set.door, post("tap", "seat")).await;
        match on_store_error {
            OnStoreError::Closed => {
                assert_eq!((told.status, &*told.problem()), (503, "store-unavailable"));
                assert!(told.headers.contains_key("retry-after"));
                assert_eq!(set.shop.runs(), 0);
            }
            OnStoreError::Open => {
                assert_eq!((told.status, told.says()), (201, "unprotected"));
                let mut ask = post("tap", "seat");
                let yes = HeaderValue::from_static("?1");
                ask.headers_mut().insert("idempotency-replay-only", yes);
                assert_eq!(send(&set.door, ask).await.status, 503);
                assert_eq!(set.shop.runs(), 1);
            }
        }
    }
}

/// Case B25: it is told apart from a key that is in use.
#[tokio::test]
async fn a_record_that_cannot_be_read_is_said_to_be_damaged_and_nothing_runs() {
    for on_store_error in [OnStoreError::Closed, OnStoreError::Open] {
        let policy = RoutePolicy { on_store_error, ..RoutePolicy::default() };
        let set = set(Shop::default(), policy).await;
        assert_eq!(send(&set.door, post("tap", "seat")).await.says(), "executed");
        *set.store.is_damaged.lock().unwrap() = true;
        let told = send(&set.door, post("tap", "seat")).await;
        assert_eq!((told.status, &*told.problem()), (500, "record-damaged"));
        assert_eq!(told.headers.get("retry-after"), None);
        assert_eq!(set.shop.runs(), 1);
    }
}

#[tokio::test]
async fn bodies_together_take_no_more_than_there_is_room_for() {
    let set = set(Shop::held(), RoutePolicy::default()).await;
    let layer = set.layer.clone().with_room(onlyonce_tower::Room::new(10 << 10));
    let door = tower::Layer::layer(&layer, set.shop.clone());
    let body = "seat".repeat(1_000).leak();
    let tap = |key: &str| {
        let (door, request) = (door.clone(), post(key, body));
        tokio::spawn(async move { send(&door, request).await })
    };
    let held = [tap("one"), tap("two")];
    set.shop.started().await;
    until(async || set.shop.runs() == 2).await;
    let told = tap("three").await.unwrap();
    assert_eq!((told.status, &*told.problem()), (503, "no-room"));
    assert!(told.headers.contains_key("retry-after"));
    // It is given back once one has ended.
    (0..3).for_each(|_| set.shop.go_on());
    for one in held {
        assert_eq!(one.await.unwrap().status, 201);
    }
    until(async || tap("three").await.unwrap().status == 201).await;
    assert_eq!(set.shop.runs(), 3);
}

#[tokio::test]
async fn a_body_that_is_too_large_or_breaks_off_is_not_run() {
    let policy = RoutePolicy { body_max: 8, ..RoutePolicy::default() };
    let set = set(Shop::default(), policy).await;
    for (end, problem) in [(true, "body-too-large"), (false, "body-incomplete")] {
        let (frames, body) = script();
        frames.send(data("12345")).unwrap();
        if end {
            frames.send(data("6789")).unwrap();
        }
        drop(frames);
        let request = Request::post("/").header("idempotency-key", "tap").body(body).unwrap();
        let told = read(set.door.clone().oneshot(request).await.unwrap()).await;
        assert_eq!(told.problem(), problem);
    }
    assert_eq!(set.shop.runs(), 0);
    assert_eq!(send(&set.door, post("tap", "12345678")).await.status, 201);
}
