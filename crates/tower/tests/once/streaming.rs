//! Answers that stream: nobody sees all of one before it is recorded.

use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use onlyonce_http::RoutePolicy;
use tower::ServiceExt;

use crate::common::{
    AnyBody, Ends, Reaction, Shop, answer, data, post, read, script, send, set, until,
};

fn streamed(body: AnyBody) -> Reaction {
    Ok(Response::builder().status(200).header("content-length", "6").body(body)?)
}

#[tokio::test]
async fn the_last_frame_waits_for_the_record() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), RoutePolicy::default()).await;
    *set.store.ends.lock().unwrap() = Ends::Held;
    // An empty frame at the end must not give the one before it away.
    for frame in [data("ab"), data("cd"), data("ef"), data(""), None] {
        frames.send(frame).unwrap();
    }
    let answer = set.door.clone().oneshot(post("tap", "seat")).await.unwrap();
    let mut body = Box::pin(answer.into_body());
    let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, "ab");
    assert_eq!(next().await, "cd");
    let mut last = Box::pin(next());
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(futures_poll(last.as_mut()).is_none(), "sent before it was recorded");
    }
    set.store.gate.notify_one();
    assert_eq!(last.await, "ef");
    assert!(body.frame().await.is_none());
    let again = send(&set.door, post("tap", "seat")).await;
    assert_eq!((again.text(), again.says()), ("abcdef", "replayed"));
    assert_eq!(again.headers["content-length"], "6");
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_small_answer_waits_for_the_record_with_its_head() {
    let set = set(Shop::default(), RoutePolicy::default()).await;
    *set.store.ends.lock().unwrap() = Ends::Held;
    let door = set.door.clone();
    let asked = tokio::spawn(async move { send(&door, post("tap", "seat")).await });
    set.shop.started().await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!asked.is_finished());
    set.store.gate.notify_one();
    assert_eq!(asked.await.unwrap().says(), "executed");
}

/// Case B48.
#[tokio::test]
async fn an_answer_cut_in_the_middle_is_in_doubt_and_not_run_again() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), RoutePolicy::default()).await;
    for frame in [data("ab"), data("cd")] {
        frames.send(frame).unwrap();
    }
    drop(frames);
    let told = send(&set.door, post("tap", "seat")).await;
    assert_eq!((told.status, told.body), (200, Err("ab".into())));
    let again = send(&set.door, post("tap", "seat")).await;
    assert_eq!((again.status, &*again.problem()), (409, "outcome-unknown"));
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn an_answer_cut_before_its_first_byte_says_so_in_its_status() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), RoutePolicy::default()).await;
    drop(frames);
    let told = send(&set.door, post("tap", "seat")).await;
    assert_eq!((told.status, &*told.problem()), (502, "outcome-unknown"));
    assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "outcome-unknown");
}

/// Case B48.
#[tokio::test]
async fn a_client_that_leaves_in_the_middle_still_finds_the_whole_answer() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), RoutePolicy::default()).await;
    frames.send(data("ab")).unwrap();
    frames.send(data("cd")).unwrap();
    let answer = set.door.clone().oneshot(post("tap", "seat")).await.unwrap();
    drop(answer);
    frames.send(data("ef")).unwrap();
    frames.send(None).unwrap();
    let told = send(&set.door, post("tap", "seat")).await;
    assert_eq!((told.text(), told.says(), set.shop.runs()), ("abcdef", "replayed", 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_left_behind() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), RoutePolicy::default()).await;
    for _ in 0..10 {
        frames.send(data("abcdef")).unwrap();
    }
    frames.send(None).unwrap();
    let stalled = set.door.clone().oneshot(post("tap", "seat")).await.unwrap();
    until(async || {
        let told = send(&set.door, post("tap", "seat")).await;
        told.status == 200 && told.text().len() == 60
    })
    .await;
    // What it was sent is no whole answer.
    assert!(read(stalled).await.body.is_err());
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn trailers_are_kept_and_repeated_to_those_who_take_them() {
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), RoutePolicy::default()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    frames.send(data("ab")).unwrap();
    frames.send(Some(Frame::trailers(trailers.clone()))).unwrap();
    frames.send(None).unwrap();
    let request = || {
        let mut request = post("tap", "seat");
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request
    };
    assert_eq!(send(&set.door, request()).await.trailers, Some(trailers.clone()));
    assert_eq!(send(&set.door, request()).await.trailers, Some(trailers));
    assert_eq!(send(&set.door, post("tap", "seat")).await.trailers, None);
}

#[tokio::test]
async fn an_answer_over_the_limit_streams_and_is_remembered_without_its_content() {
    let policy = RoutePolicy { reply_max: 64, ..RoutePolicy::default() };
    let (frames, body) = script();
    let set = set(Shop::default().answers(streamed(body)), policy).await;
    for _ in 0..100 {
        frames.send(data("abcdef")).unwrap();
    }
    frames.send(None).unwrap();
    assert_eq!(send(&set.door, post("tap", "seat")).await.text().len(), 600);
    let again = send(&set.door, post("tap", "seat")).await;
    assert_eq!((again.status, &*again.problem(), again.says()), (410, "reply-not-kept", "gone"));
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn an_event_stream_is_answered_with_its_head() {
    let (frames, body) = script();
    let events = Response::builder().header("content-type", "Text/Event-Stream; charset=utf-8");
    let shop = Shop::default().answers(Ok(events.body(body).unwrap()));
    let set = set(shop, RoutePolicy::default()).await;
    let first = set.door.clone().oneshot(post("tap", "seat")).await.unwrap();
    assert_eq!(first.headers()["idempotency-status"], "executed");
    // It goes on, and a retry is told that it ran.
    assert_eq!(send(&set.door, post("tap", "seat")).await.problem(), "reply-not-kept");
    frames.send(data("event")).unwrap();
    frames.send(None).unwrap();
    assert_eq!(read(first).await.text(), "event");
    assert_eq!(set.shop.runs(), 1);
}

#[tokio::test]
async fn answers_without_a_body_are_kept_too() {
    let set = set(Shop::default().answers(answer(204, "")), RoutePolicy::default()).await;
    let first = send(&set.door, post("tap", "seat")).await;
    let again = send(&set.door, post("tap", "seat")).await;
    assert_eq!((first.status, again.status, again.says()), (204, 204, "replayed"));
    assert!(!again.headers.contains_key("content-length"));
}
