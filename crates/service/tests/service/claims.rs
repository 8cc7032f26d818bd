//! Claims, replies, and what is told to those who come second.

use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::world::*;

/// A whole client: claims, orders, completes; waits if somebody else has the claim.
async fn buy(client: Client, shop: Shop, number: u32) -> serde_json::Value {
    loop {
        let answer = client.post("claim", &claim("tap", number)).await;
        if answer.status == 200 {
            let answer = answer.ok();
            if answer["outcome"] == "replay" {
                return answer["reply"].clone();
            }
            let reply = shop.order();
            let said =
                with(of("tap", answer["fence"].as_u64().unwrap()), json!({ "reply": reply }));
            client.post("complete", &said).await.ok();
            continue;
        }
        answer.problem(409, "request-in-progress");
        let wait = json!({ "scope": "orders", "key": "tap", "fingerprint": "f" });
        client.post("wait", &wait).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_clients_at_once_make_one_order_and_get_one_reply() {
    let (world, shop) = (World::start(SCOPES).await, Shop::default());
    let buying: Vec<_> = (1..=50)
        .map(|number| {
            let token = if number % 2 == 0 { ANNA } else { BERT };
            tokio::spawn(buy(world.client(token), shop.clone(), number))
        })
        .collect();
    for one in buying {
        let reply = one.await.unwrap();
        assert_eq!(reply["json"]["order"], 7_829);
        assert_eq!(reply["status"], 201);
    }
    assert_eq!(shop.orders(), 1);
    assert_eq!(world.stop().await.left, 0);
}

#[tokio::test]
async fn a_key_that_is_held_says_so_and_for_how_long() {
    let world = World::start(SCOPES).await;
    let (anna, bert) = (world.client(ANNA), world.client(BERT));
    let answer = anna.post("claim", &claim("tap", 1)).await.ok();
    assert_eq!((&answer["attempt"], &answer["phase"]), (&json!(1), &json!("committing")));
    let left = answer["lease_left_ms"].as_u64().unwrap();
    assert!((20_000..=30_000).contains(&left), "{answer}");
    let answer = bert.post("claim", &claim("tap", 2)).await;
    let problem = answer.problem(409, "request-in-progress");
    assert_eq!(problem["retryable"], true);
    assert!(problem["lease_left_ms"].as_u64().unwrap() <= 30_000);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.header("idempotency-status"), Some("in-progress"));
}

#[tokio::test]
async fn the_same_key_for_another_request_is_refused_and_shows_nothing() {
    let (world, shop) = (World::start(SCOPES).await, Shop::default());
    let anna = world.client(ANNA);
    let fence = granted(&anna, "tap", 1).await;
    let other = with(claim("tap", 2), json!({ "fingerprint": "another" }));
    anna.post("claim", &other).await.problem(422, "key-reused");
    anna.post("complete", &with(of("tap", fence), json!({ "reply": shop.order() }))).await.ok();
    let problem = anna.post("claim", &other).await.problem(422, "key-reused");
    assert_eq!((&problem["happened"], &problem["reuse_key"]), (&json!("yes"), &json!("must_not")));
    assert!(!problem.to_string().contains("7829"), "{problem}");
    // The time that was sent beside the key is part of the request.
    let first = with(claim("mail", 3), json!({ "first_sent_ms": 1_700_000_000_000_u64 }));
    anna.post("claim", &first).await.ok();
    let second = with(first.clone(), json!({ "first_sent_ms": 1_700_000_000_001_u64 }));
    anna.post("claim", &second).await.problem(422, "key-reused");
    assert_eq!(anna.post("claim", &first).await.ok()["outcome"], "granted");
}

#[tokio::test]
async fn who_waits_gets_the_reply_when_it_is_there() {
    let (world, shop) = (World::start(SCOPES).await, Shop::default());
    let (anna, bert) = (world.client(ANNA), world.client(BERT));
    let fence = granted(&anna, "tap", 1).await;
    let wait = json!({ "scope": "orders", "key": "tap", "fingerprint": "f" });
    let short = bert.post("wait", &with(wait.clone(), json!({ "wait_ms": 1 }))).await;
    short.problem(409, "request-in-progress");
    let waiting = tokio::spawn(async move { bert.post("wait", &wait).await });
    // It waits by the time that something else was answered to the same service.
    while world.telemetry.get("onlyonce_service_requests_total", "get") == 0 {
        anna.post("get", &json!({ "key": "tap" })).await.ok();
    }
    anna.post("complete", &with(of("tap", fence), json!({ "reply": shop.order() }))).await.ok();
    let answer = waiting.await.unwrap().ok();
    assert_eq!(
        (&answer["outcome"], &answer["reply"]["json"]["order"]),
        (&json!("replay"), &json!(7_829))
    );
}

#[tokio::test]
async fn a_key_that_nobody_holds_is_not_waited_for() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    let wait = json!({ "key": "tap", "fingerprint": "f" });
    let problem = anna.post("wait", &wait).await.problem(404, "no-record");
    assert_eq!(problem["happened"], "unknown", "it may have been used and forgotten: {problem}");
    // A key with a time of its own would still be known.
    let timed = with(wait.clone(), json!({ "key": "0193a2f0-7c11-7d3e-9c55-2f6b8a4d1e90" }));
    let problem = anna.post("wait", &timed).await.problem(404, "no-record");
    assert_eq!(problem["happened"], "no");
    // After a release the record itself can tell.
    let fence = granted(&anna, "tap", 1).await;
    anna.post("release", &of("tap", fence)).await.ok();
    let problem = anna.post("wait", &wait).await.problem(404, "no-record");
    assert_eq!(problem["happened"], "no");
}

#[tokio::test]
async fn stopping_tells_those_who_wait_to_ask_again_and_lets_nobody_hang() {
    let mut config = config(&SCOPES.replacen("orders\"", "orders\"\nlease = \"1h\"", 1));
    config.limits.wait_time = Duration::from_secs(600);
    let world = World::with(config).await;
    let (anna, bert) = (world.client(ANNA), world.client(BERT));
    granted(&anna, "tap", 1).await;
    let wait = json!({ "scope": "orders", "key": "tap", "fingerprint": "f" });
    let mut stream = bert.connect().await;
    let request = bert.request("/v1/wait", wait.to_string().as_bytes());
    let waiting = tokio::spawn(async move { crate::client::exchange(&mut stream, &request).await });
    while world.telemetry.render().contains("onlyonce_requests_running 0") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.stop().await.left, 0);
    // Long before the wait that it asked for is over.
    let told = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it hangs");
    told.unwrap().unwrap().problem(409, "request-in-progress");
}

#[tokio::test]
async fn content_in_every_form_comes_back_as_it_was_given() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    for (at, reply) in [
        json!({ "status": 201, "json": { "total": 1.50, "lines": [1, null, "ä"] } }),
        json!({ "json": null }),
        json!({ "status": 0, "text": "exit code 0\n" }),
        json!({ "status": 250, "base64": "AAEC/w==", "media_type": "application/pdf" }),
        json!({ "status": 204 }),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("key {at}");
        let fence = granted(&anna, &key, 1).await;
        let said = with(of(&key, fence), json!({ "reply": reply }));
        assert_eq!(anna.post("complete", &said).await.ok()["kept"], true);
        let told = anna.post("claim", &claim(&key, 2)).await.ok();
        for (member, value) in reply.as_object().unwrap() {
            assert_eq!(&told["reply"][member], value, "{told}");
        }
    }
}

#[tokio::test]
async fn a_reply_over_the_limit_is_answered_and_not_kept() {
    let scopes =
        "[[scope]]\nname = \"orders\"\nreply_max = \"100B\"\n[[scope]]\nname = \"mails\"\n";
    let world = World::start(scopes).await;
    let anna = world.client(ANNA);
    let fence = granted(&anna, "tap", 1).await;
    let reply = json!({ "reply": { "status": 201, "text": "x".repeat(101) } });
    let done = anna.post("complete", &with(of("tap", fence), reply)).await.ok();
    assert_eq!((&done["state"], &done["kept"]), (&json!("completed"), &json!(false)));
    let problem = anna.post("claim", &claim("tap", 2)).await.problem(410, "reply-not-kept");
    assert_eq!((&problem["original_status"], &problem["happened"]), (&json!(201), &json!("yes")));
}
