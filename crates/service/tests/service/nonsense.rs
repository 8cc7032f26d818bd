//! Requests that make no sense: each is told which member is wrong, and none brings the service
//! down.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::world::*;

#[tokio::test]
async fn a_member_that_is_wrong_is_named() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    for (name, body, field) in [
        ("claim", "", ""),
        ("claim", "[]", ""),
        ("claim", "{}", "key"),
        ("commit", r#"{"key":"a","fence":1} x"#, ""),
        ("claim", r#"{"key":""}"#, "key"),
        ("claim", r#"{"key":"é"}"#, "key"),
        ("claim", r#"{"key":7}"#, "key"),
        ("claim", r#"{"key":"a","key":"b"}"#, "key"),
        ("claim", r#"{"key":"a","claim_id":"12"}"#, "claim_id"),
        ("claim", r#"{"key":"a","claimid":"12"}"#, "claimid"),
        ("claim", r#"{"scope":"a b","key":"a"}"#, "scope"),
        ("commit", r#"{"key":"a","fence":0}"#, "fence"),
        ("commit", r#"{"key":"a","fence":-1}"#, "fence"),
        ("commit", r#"{"key":"a","fence":1.5}"#, "fence"),
        ("commit", r#"{"key":"a","fence":"1"}"#, "fence"),
        ("commit", r#"{"key":"a","fence":99999999999999999999999}"#, "fence"),
        ("commit", r#"{"key":"a","fence":1,"lease_ms":99}"#, "lease_ms"),
        ("commit", r#"{"key":"a","fence":1e300}"#, "fence"),
        ("complete", r#"{"key":"a","fence":1,"reply":{"status":70000}}"#, "reply.status"),
        ("complete", r#"{"key":"a","fence":1,"reply":{"base64":"*"}}"#, "reply.base64"),
        ("complete", r#"{"key":"a","fence":1,"reply":{"json":1,"text":"1"}}"#, "reply"),
        ("complete", r#"{"key":"a","fence":1,"reply":{"json":[1,}}"#, "reply.json"),
        ("abandon", r#"{"key":"a","fence":1,"cause":"lapsed"}"#, "cause"),
        ("wait", r#"{"key":"a","fingerprint":""}"#, "fingerprint"),
        ("get", r#"{}"#, "key"),
        ("get", r#"{"scope":"orders","key":"a","id":"00000000000000000000000000000000"}"#, "key"),
    ] {
        let request = anna.request(&format!("/v1/{name}"), body.as_bytes());
        let answer = anna.raw(&request).await;
        let problem = answer.problem(400, "request-invalid");
        let told = problem.get("field").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(told, field, "{name} {body}: {problem}");
        assert_eq!(problem["happened"], "unknown", "{problem}");
    }
    let olga = world.client(OLGA);
    for (name, body, field) in [
        ("list", json!({ "state": "done" }), "state"),
        ("list", json!({ "limit": 0 }), "limit"),
        ("list", json!({ "after": "*" }), "after"),
        ("resolve", json!({ "key": "a", "fence": 1, "verdict": "maybe", "why": "w" }), "verdict"),
        (
            "resolve",
            json!({ "scope": "orders", "key": "a", "fence": 1, "verdict": "run-again", "why": "w",
                    "reply": {} }),
            "reply",
        ),
        ("seal", json!({ "key": "a", "why": "" }), "why"),
        ("erase", json!({ "scope": "orders", "key": "a" }), "why"),
    ] {
        let problem = olga.post(name, &body).await.problem(400, "request-invalid");
        assert_eq!(problem["field"], field, "{name}: {problem}");
    }
}

#[tokio::test]
async fn a_whole_number_may_be_written_as_any_number_is() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    let fence = granted(&anna, "tap", 1).await;
    let body = format!(r#"{{"key":"tap","fence":{fence}.0,"lease_ms":1e3}}"#);
    let answer = anna.raw(&anna.request("/v1/renew", body.as_bytes())).await.ok();
    assert_eq!(answer["fence"], fence);
}

#[tokio::test]
async fn what_is_no_request_of_ours_is_told_so() {
    let world = World::start(SCOPES).await;
    let anna = world.client(ANNA);
    anna.post("nothing", &json!({})).await.problem(404, "path-unknown");
    let answer = anna.get("/v1/claim").await;
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    let request = String::from_utf8(anna.request("/v1/claim", b"{}")).unwrap();
    for instead in ["text/plain", "application/json\r\ncontent-encoding: gzip", "x"] {
        let request = request.replace("application/json", instead);
        anna.raw(request.as_bytes()).await.problem(415, "media-type-unsupported");
    }
    // A body that breaks off does nothing.
    let mut stream = anna.connect().await;
    let request = anna.request("/v1/claim", claim("tap", 1).to_string().as_bytes());
    stream.write_all(&request[..request.len() - 1]).await.unwrap();
    drop(stream);
    anna.post("get", &json!({ "key": "tap" })).await.problem(404, "no-record");
}

/// Any JSON, with the names of members that mean something among others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        "[0-9a-f]{32}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let member = prop_oneof![
            Just("key".to_owned()),
            Just("scope".to_owned()),
            Just("fence".to_owned()),
            Just("claim_id".to_owned()),
            Just("fingerprint".to_owned()),
            Just("reply".to_owned()),
            Just("json".to_owned()),
            Just("why".to_owned()),
            "\\PC{0,8}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(member, inner, 0..8)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

const ENDPOINTS: [&str; 13] = [
    "claim", "commit", "renew", "note", "complete", "release", "abandon", "wait", "get", "list",
    "resolve", "seal", "erase",
];

/// A document of an endpoint in which one member is something else.
fn nearly_right() -> impl Strategy<Value = Value> {
    let members = ["scope", "key", "claim_id", "fingerprint", "fence", "reply", "why", "wait_ms"];
    (prop::sample::select(members.to_vec()), any_json(), 1..5_u64).prop_map(
        |(member, other, at)| {
            let mut document = claim(&format!("key {at}"), 1);
            document["fence"] = at.into();
            document[member] = other;
            document
        },
    )
}

#[test]
fn no_document_brings_the_service_down() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::start(SCOPES));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let input = (
        prop::sample::select(ENDPOINTS.to_vec()),
        prop::sample::select(vec![ANNA, BERT, OLGA]),
        prop_oneof![
            any_json().prop_map(|it| it.to_string().into_bytes()),
            nearly_right().prop_map(|it| it.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..200),
        ],
    );
    let ended = runner.run(&input, |(name, token, body)| {
        let client = world.client(token);
        let request = client.request(&format!("/v1/{name}"), &body);
        let answer = runtime.block_on(client.raw(&request));
        prop_assert!(answer.status < 500, "{name}: {answer:?}");
        if answer.status != 200 {
            let problem = answer.json();
            prop_assert_eq!(&problem["status"], &json!(answer.status));
            prop_assert!(problem["who"].is_string() && problem["happened"].is_string());
        }
        Ok(())
    });
    ended.unwrap();
    assert_eq!(runtime.block_on(world.stop()).left, 0);
}
