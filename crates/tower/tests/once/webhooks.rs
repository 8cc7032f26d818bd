//! Webhooks: somebody else's events, which come twice at once, and again on the next day.

use std::time::Duration;

use http::{HeaderName, Request};
use http_body_util::Full;
use onlyonce_http::RoutePolicy;
use onlyonce_http::key::KeyPolicy;
use tokio::task::JoinSet;

use crate::common::{Shop, send, set};

/// A delivery of an event.
fn delivery(event: &str, delivery: usize) -> Request<Full<bytes::Bytes>> {
    let request = Request::post("/hooks").header("x-delivery-id", delivery.to_string());
    let request = match event {
        "" => request,
        event => request.header("x-event-id", event),
    };
    request.body(Full::from("paid")).unwrap()
}

/// Case B111. Which id counts is configured: that of the event, not that of the delivery.
#[tokio::test(start_paused = true)]
async fn an_event_runs_once_however_often_and_how_late_it_is_delivered() {
    let key_names = vec![HeaderName::from_static("x-event-id")];
    let policy = RoutePolicy { key_names, keys: KeyPolicy::Required, ..RoutePolicy::default() };
    let set = set(Shop::default(), policy).await;
    let mut all = JoinSet::new();
    for number in 0..10 {
        let door = set.door.clone();
        all.spawn(async move { send(&door, delivery("evt-1", number)).await });
    }
    let all = all.join_all().await;
    assert!(all.iter().all(|told| (told.status, told.text()) == (201, "order 1")));
    tokio::time::sleep(Duration::from_secs(23 * 3_600)).await;
    let next_day = send(&set.door, delivery("evt-1", 11)).await;
    assert_eq!((next_day.text(), next_day.says()), ("order 1", "replayed"));
    let nameless = send(&set.door, delivery("", 12)).await;
    assert_eq!((nameless.status, &*nameless.problem()), (400, "key-missing"));
    assert_eq!(set.shop.runs(), 1);
}
