//! Bug reports of other products, tried on this one: what is replayed, and to whom.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use onlyonce_journal::Journal;
use tokio::sync::Semaphore;

use crate::common::{
    Answering, Told, Upstream, caller2, orders, origin, post, proxy, proxy_on, raw, read, send,
    upstream,
};

async fn open(answering: Answering) -> Upstream {
    upstream(answering, Semaphore::MAX_PERMITS).await
}

/// Answers with this status, these fields and this body.
fn says(status: u16, fields: &'static [(&'static str, &'static str)], body: Bytes) -> Answering {
    Arc::new(move |_, _| {
        let mut answer = Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        answer.body(Full::from(body.clone())).unwrap()
    })
}

fn by(mut request: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

/// Fields that are specified to differ between an answer and its replay left out.
fn rest(told: &Told) -> HeaderMap {
    let mut headers = told.headers.clone();
    for name in ["date", "idempotency-status", "idempotent-replayed", "idempotent-original-date"] {
        headers.remove(name);
    }
    headers.remove("cache-control");
    headers
}

fn same(first: &Told, again: &Told) {
    assert_eq!((first.says(), again.says()), ("executed", "replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(first.headers.get("idempotent-replayed"), None);
    assert_eq!((first.status, rest(first)), (again.status, rest(again)));
    assert!(first.body == again.body, "the body is another one");
}

/// Cases B39, B42, B50 and B51: a retry gets what the first attempt got, whatever that was, and
/// runs nothing.
#[tokio::test]
async fn three_retries_of_any_answer_get_it_whole_and_run_nothing() {
    let fields: &[_] =
        &[("content-type", "application/problem+json"), ("x-id", "7829"), ("x-id", "7830")];
    for status in [200, 201, 202, 204, 205, 303, 307, 400, 402, 404, 409, 410, 422, 500, 501] {
        let body = if [204, 205].contains(&status) { "" } else { "{\"order\":7829}" };
        let upstream = open(says(status, fields, body.into())).await;
        let proxy = proxy(upstream.address, "").await;
        let first = send(proxy.address, post("tap", "seat")).await;
        assert_eq!((first.status, &first.body[..]), (status, body.as_bytes()));
        for _ in 0..3 {
            same(&first, &send(proxy.address, post("tap", "seat")).await);
        }
        assert_eq!(upstream.runs(), 1, "{status}");
    }
}

/// Case B50: a stored answer of a gateway, where a route keeps those.
#[tokio::test]
async fn a_kept_503_is_repeated_as_it_was() {
    let json: &[_] = &[("content-type", "application/json")];
    let upstream = open(says(503, json, "{\"code\":\"shut\"}".into())).await;
    let proxy = proxy(upstream.address, "[policy]\ncomplete = [503]").await;
    let first = send(proxy.address, post("tap", "seat")).await;
    for _ in 0..3 {
        same(&first, &send(proxy.address, post("tap", "seat")).await);
    }
    assert_eq!((first.status, upstream.runs()), (503, 1));
}

/// Case B41: up to the limit all is kept; above it nothing is, and nothing is cut or run again.
#[tokio::test]
async fn an_answer_is_kept_whole_or_not_at_all() {
    const LIMIT: usize = 1 << 20;
    // The head counts too.
    for size in [LIMIT - 1_000, LIMIT + 1, 64 * LIMIT] {
        let body = Bytes::from_iter((0..size).map(|at| at as u8));
        let upstream = open(says(201, &[], body.clone())).await;
        let proxy = proxy(upstream.address, "[policy]\nreply_max = \"1MiB\"").await;
        let first = send(proxy.address, post("tap", "seat")).await;
        assert!(first.body == body, "{size}: the first caller gets all of it");
        let again = send(proxy.address, post("tap", "seat")).await;
        if size < LIMIT {
            same(&first, &again);
        } else {
            assert_eq!((again.status, again.says()), (410, "gone"));
            assert_eq!(again.problem(), "reply-not-kept");
        }
        assert_eq!(upstream.runs(), 1);
    }
}

/// Cases B45 and B47: bytes are nobody's text, and coded ones stay with their coding.
#[tokio::test]
async fn bytes_come_back_as_they_were_with_their_coding() {
    let all = Bytes::from_iter((0..=255_u8).chain([0, 0xff, 0xfe, 0xc3, 0x28]));
    // "seat 1" as gzip writes it.
    let zipped = Bytes::from_static(&[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x2b, 0x4e, 0x4d, 0x2c, 0x51, 0x30, 4, 0, 0x9d, 0x5c,
        0xf6, 0x8e, 6, 0, 0, 0,
    ]);
    for (fields, body) in [
        (&[("content-type", "application/json")][..], all.clone()),
        (&[("content-type", "image/png")], all),
        (&[("content-encoding", "gzip"), ("vary", "accept-encoding")], zipped.clone()),
        (&[("content-encoding", "br")], zipped),
    ] {
        let upstream = open(says(200, fields, body.clone())).await;
        let proxy = proxy(upstream.address, "").await;
        let tap = || by(post("tap", "seat"), "accept-encoding", "gzip, br");
        let first = send(proxy.address, tap()).await;
        assert_eq!(first.body, body);
        assert_eq!(first.headers["content-length"], body.len().to_string());
        same(&first, &send(proxy.address, tap()).await);
        // To one who asks for none: as it was stored, which is the stated rule.
        same(&first, &send(proxy.address, post("tap", "seat")).await);
        assert_eq!(upstream.runs(), 1);
    }
}

/// Case B44: a replay has the framing of its own connection, and no field of the first one.
#[tokio::test]
async fn a_replay_has_the_framing_of_its_own_connection() {
    let (rude, runs) = crate::common::rude(concat!(
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\nconnection: close, x-hop\r\n",
        "x-hop: 1\r\nkeep-alive: timeout=5\r\nx-order: 7829\r\n\r\n",
        "5\r\norder\r\n5\r\n 7829\r\n0\r\nx-sum: 1\r\n\r\n",
    ))
    .await;
    let proxy = proxy(rude, "").await;
    let first = send(proxy.address, post("tap", "seat")).await;
    assert_eq!((first.status, &first.body[..]), (201, &b"order 7829"[..]));
    let head = "host: shop\r\nidempotency-key: tap\r\ncontent-type: text/plain\r\n\
                content-length: 4\r\nconnection: close\r\n\r\nseat";
    for version in ["1.1", "1.0"] {
        let request = format!("POST /orders?x=1 HTTP/{version}\r\n{head}");
        let answer = raw(proxy.address, request.as_bytes()).await.to_ascii_lowercase();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-order: 7829") && !head.contains("x-hop"), "{head}");
        assert!(!head.contains("keep-alive: timeout"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(head.matches("content-length: 10").count(), 1, "{head}");
        assert_eq!(body, "order 7829");
    }
    let mut caller = caller2(proxy.address).await;
    let again = read(caller.send_request(post("tap", "seat")).await.unwrap()).await;
    assert_eq!((again.status, &again.body[..]), (201, &b"order 7829"[..]));
    for name in ["x-hop", "keep-alive", "connection", "transfer-encoding"] {
        assert_eq!(again.headers.get(name), None, "{name}");
    }
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// Case B48: what was streamed is replayed whole.
#[tokio::test]
async fn a_streamed_answer_is_replayed_whole() {
    let (rude, runs) = crate::common::rude(concat!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event\r\n\r\n",
        "3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n",
    ))
    .await;
    let proxy = proxy(rude, "").await;
    let first = send(proxy.address, post("tap", "seat")).await;
    let again = send(proxy.address, post("tap", "seat")).await;
    assert_eq!(first.body, "onetwothree");
    assert_eq!((again.says(), &again.body), ("replayed", &first.body));
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// Cases B26, B32 and B96: another request with the key is told so by a type, gets nothing of the
/// stored answer, and is not run; with a key of its own it runs.
#[tokio::test]
async fn a_key_used_for_another_request_is_refused_by_type() {
    let upstream = open(says(402, &[], "card 4242 declined".into())).await;
    let proxy = proxy(upstream.address, "[policy]\nmethods = [\"POST\", \"PUT\", \"PATCH\"]").await;
    send(proxy.address, post("tap", "seat")).await;
    let request = |method: &str, target: &str, body: &'static str| {
        let mut request = post("tap", body);
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = target.parse().unwrap();
        request
    };
    for (method, target, body) in [
        ("POST", "/orders?x=1", "another seat"),
        ("POST", "/refunds?x=1", "seat"),
        ("POST", "/orders?x=2", "seat"),
        ("POST", "/orders", "seat"),
        ("POST", "/orders/?x=1", "seat"),
        ("PUT", "/orders?x=1", "seat"),
        ("PATCH", "/orders?x=1", "seat"),
    ] {
        let told = send(proxy.address, request(method, target, body)).await;
        assert_eq!((told.status, told.says()), (422, "mismatch"), "{method} {target}");
        assert_eq!(told.problem(), "key-reused");
        assert!(!String::from_utf8_lossy(&told.body).contains("4242"));
        assert_eq!(told.headers.get("retry-after"), None);
    }
    assert_eq!(upstream.runs(), 1);
    let new = send(proxy.address, post("tap-2", "another seat")).await;
    assert_eq!((new.says(), upstream.runs()), ("executed", 2));
}

/// Cases B67 and B70: a key is worth nothing without the credentials it was used with.
#[tokio::test]
async fn nobody_sees_the_answer_to_another_caller_or_that_there_is_one() {
    let upstream = open(Arc::new(|number, seen: &crate::common::Seen| {
        let known = ["authorization", "x-api-key"].iter().any(|it| seen.headers.contains_key(*it));
        let status = if known { 201 } else { 401 };
        Response::builder().status(status).body(format!("secret {number}").into()).unwrap()
    }))
    .await;
    let proxy = proxy(upstream.address, "").await;
    let callers = [
        ("authorization", "Bearer alice"),
        ("authorization", "Bearer bob"),
        ("authorization", "Basic YWxpY2U6MQ=="),
        ("x-api-key", "alice"),
        ("x-api-key", "bob"),
    ];
    for (at, (name, value)) in callers.iter().enumerate() {
        let first = send(proxy.address, by(post("1", "seat"), name, value)).await;
        assert_eq!((first.status, first.says()), (201, "executed"), "{name} {value}");
        assert_eq!(first.body, format!("secret {}", at + 1));
    }
    for (at, (name, value)) in callers.iter().enumerate() {
        let again = send(proxy.address, by(post("1", "seat"), name, value)).await;
        assert_eq!(again.says(), "replayed");
        assert_eq!(again.body, format!("secret {}", at + 1));
    }
    assert_eq!(upstream.runs(), 5);
    // Without credentials the service says no, and that is not kept under the key.
    for run in 6..8 {
        let told = send(proxy.address, post("1", "seat")).await;
        assert_eq!((told.status, told.says(), upstream.runs()), (401, "not-executed", run));
    }
}

/// Case B68: who comes with a cookie alone is refused until the route says what names the caller.
#[tokio::test]
async fn callers_whom_nobody_can_name_are_never_pooled() {
    let upstream = open(orders()).await;
    let plain = proxy(upstream.address, "").await;
    let told = send(plain.address, by(post("1", "seat"), "cookie", "session=alice")).await;
    assert_eq!((told.status, told.problem().as_str()), (400, "scope-missing"));
    assert_eq!(upstream.runs(), 0);
    let named = proxy(upstream.address, "[policy]\nscope = \"cookie:session\"").await;
    for (cookie, runs) in [("a=1; session=alice", 1), ("session=bob", 2), ("session=alice", 2)] {
        let told = send(named.address, by(post("1", "seat"), "cookie", cookie)).await;
        assert_eq!((told.status, upstream.runs()), (201, runs), "{cookie}");
    }
}

/// A token with this subject, tenant and expiry, which nobody verifies here.
fn token(subject: &str, expiry: u32) -> String {
    let part = |text: String| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let head = part("{\"alg\":\"HS256\",\"typ\":\"JWT\"}".to_owned());
    let claims = format!("{{\"iss\":\"shop\",\"sub\":\"{subject}\",\"exp\":{expiry}}}");
    format!("Bearer {head}.{}.{}", part(claims), part(format!("signature {expiry}")))
}

/// Case B73: a rotated token that nobody has verified finds the record, reads nothing, and runs
/// nothing; another subject has its own.
#[tokio::test]
async fn a_rotated_token_that_nobody_has_verified_runs_nothing() {
    let upstream = open(orders()).await;
    let proxy = proxy(upstream.address, "").await;
    let tap = |token: String| by(post("1", "seat"), "authorization", &token);
    let first = send(proxy.address, tap(token("alice", 1))).await;
    assert_eq!(first.says(), "executed");
    let rotated = send(proxy.address, tap(token("alice", 2))).await;
    assert_eq!((rotated.status, rotated.problem().as_str()), (409, "credential-changed"));
    assert!(!String::from_utf8_lossy(&rotated.body).contains("order 1"));
    assert_eq!(upstream.runs(), 1);
    same(&first, &send(proxy.address, tap(token("alice", 1))).await);
    let other = send(proxy.address, tap(token("bob", 1))).await;
    assert_eq!((other.says(), upstream.runs()), ("executed", 2));
}

/// Case B71: a stolen folder names no key and opens no account, and holds no answer of a route
/// that keeps none.
#[tokio::test]
async fn keys_and_credentials_are_not_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open_or_create(
        &folder.path().join("journal"),
        onlyonce_journal::Settings::default(),
        onlyonce_journal::Start::First,
    )
    .unwrap();
    let upstream = open(says(201, &[("x-token", "once-shown")], "once-shown".into())).await;
    let proxy = proxy_on(Arc::new(journal), upstream.address, "[policy]\nreply_max = \"0\"").await;
    let tap = || by(post("key-of-alice", "pin-4821"), "authorization", "Bearer of-alice");
    assert_eq!(send(proxy.address, tap()).await.body, "once-shown");
    let again = send(proxy.address, tap()).await;
    assert_eq!((again.problem().as_str(), upstream.runs()), ("reply-not-kept", 1));
    let mut files = 0;
    for file in std::fs::read_dir(folder.path().join("journal")).unwrap() {
        let path = file.unwrap().path();
        let Ok(mut bytes) = std::fs::read(&path) else { continue };
        // Segments are zeroed ahead of what is written.
        bytes.truncate(bytes.iter().rposition(|it| *it != 0).map_or(0, |last| last + 1));
        files += 1;
        for secret in ["key-of-alice", "pin-4821", "of-alice", "once-shown"] {
            let found = bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
            assert!(!found, "{secret} stands in {}", path.display());
        }
    }
    assert!(1 < files);
}

/// Case B74: fields that a caller can write do not choose its scope, and the one that does may
/// come only once.
#[tokio::test]
async fn a_caller_cannot_choose_another_scope() {
    let upstream = open(orders()).await;
    let plain = proxy(upstream.address, "").await;
    let alice = || by(post("1", "seat"), "authorization", "Bearer alice");
    send(plain.address, alice()).await;
    for name in ["x-tenant-id", "x-forwarded-for", "forwarded"] {
        let told = send(plain.address, by(alice(), name, "for=10.0.0.1")).await;
        assert_eq!(told.says(), "replayed", "{name}");
        let mallory = by(post("1", "seat"), "authorization", "Bearer mallory");
        let told = send(plain.address, by(mallory, name, "alice")).await;
        assert_ne!(told.body, "order 1", "{name}");
    }
    let named = proxy(upstream.address, "[policy]\nscope = \"header:x-tenant-id\"").await;
    let runs = upstream.runs();
    let twice = by(by(post("1", "seat"), "x-tenant-id", "a"), "x-tenant-id", "b");
    assert_eq!(send(named.address, twice).await.status, 400);
    assert_eq!(upstream.runs(), runs);
}

/// Cases B29, B93 and B102: without a key nothing is guessed. The request passes each time it
/// comes, or is refused where the route demands a key.
#[tokio::test]
async fn equal_requests_without_a_key_are_two_unless_the_route_demands_one() {
    let form = || {
        let request = Request::post("/orders").header("host", "shop");
        let form = "application/x-www-form-urlencoded";
        request.header("content-type", form).body(Full::from("seat=1")).unwrap()
    };
    let upstream = open(orders()).await;
    let optional = proxy(upstream.address, "").await;
    for runs in 1..=2 {
        let told = send(optional.address, form()).await;
        assert_eq!((told.status, upstream.runs()), (201, runs));
        assert_eq!(told.headers.get("idempotency-status"), None);
    }
    let required = proxy(upstream.address, "[policy]\nkeys = \"required\"").await;
    let told = send(required.address, form()).await;
    assert_eq!((told.status, told.problem().as_str()), (400, "key-missing"));
    assert_eq!(upstream.runs(), 2);
}

/// Cases B94, B100, B102 and B106: the same request on another connection, after the first one
/// was given up, joins it and never runs; two keys are two intentions.
#[tokio::test]
async fn a_resend_after_a_reset_joins_the_first_and_does_not_run() {
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "[policy]\nwait = \"0s\"").await;
    for _ in 0..5 {
        let tap = tokio::spawn(send(proxy.address, post("tap", "seat")));
        if upstream.runs() == 0 {
            upstream.started.notified().await;
            // The caller's deadline is over, and its connection is reset.
            tap.abort();
            continue;
        }
        let told = tap.await.unwrap();
        assert_eq!((told.status, told.problem().as_str()), (409, "request-in-progress"));
        assert!(told.headers.contains_key("retry-after"));
    }
    assert_eq!(upstream.runs(), 1);
    upstream.permits.add_permits(1);
    let told = loop {
        let told = send(proxy.address, post("tap", "seat")).await;
        if told.status != 409 {
            break told;
        }
    };
    assert_eq!((told.says(), &told.body[..], upstream.runs()), ("replayed", &b"order 1"[..], 1));
    upstream.permits.add_permits(1);
    let second = send(proxy.address, post("tap-2", "seat")).await;
    assert_eq!((second.says(), upstream.runs()), ("executed", 2));
}

/// Case B94: the proxy never sends anything twice by itself, whatever the service answers.
#[tokio::test]
async fn the_proxy_never_resends() {
    for status in [429, 500, 502, 503, 504] {
        let upstream = open(says(status, &[], "no".into())).await;
        let proxy = proxy(upstream.address, "").await;
        assert_eq!(send(proxy.address, post("tap", "seat")).await.status, status);
        assert_eq!(upstream.runs(), 1, "{status}");
    }
}

/// Case B97: a preflight never claims a key and may send it; a replay speaks to the origin that
/// asks now.
#[tokio::test]
async fn browsers_may_send_the_key_and_read_what_comes_back() {
    let allowed: &[_] = &[("access-control-allow-origin", "https://first.example")];
    let upstream = open(says(201, allowed, "order 1".into())).await;
    let origins = "[policy]\ncors_origins = [\"https://shop.example\", \"https://first.example\"]";
    let proxy = proxy(upstream.address, origins).await;
    let mut preflight = by(post("tap", ""), "origin", "https://shop.example");
    *preflight.method_mut() = http::Method::OPTIONS;
    let asked = "idempotency-key, content-type";
    let preflight = by(
        by(preflight, "access-control-request-headers", asked),
        "access-control-request-method",
        "POST",
    );
    let told = send(proxy.address, preflight).await;
    let headers = told.headers["access-control-allow-headers"].to_str().unwrap();
    assert!(headers.to_ascii_lowercase().contains("idempotency-key"), "{headers}");
    for site in ["https://first.example", "https://shop.example"] {
        let told = send(proxy.address, by(post("tap", "seat"), "origin", site)).await;
        if told.says() == "replayed" {
            assert_eq!(told.headers["access-control-allow-origin"], site);
            assert!(told.headers["vary"].to_str().unwrap().to_lowercase().contains("origin"));
        }
        assert_eq!(told.status, 201);
    }
    let reused = by(post("tap", "another"), "origin", "https://shop.example");
    let told = send(proxy.address, reused).await;
    assert_eq!(told.status, 422);
    assert_eq!(told.headers["access-control-allow-origin"], "https://shop.example");
}

/// Case B105: a blank key is refused on every route, and runs nothing.
#[tokio::test]
async fn a_blank_key_is_refused_and_never_a_shared_record() {
    let upstream = open(orders()).await;
    let proxy = proxy(upstream.address, "").await;
    for key in ["", " ", "\t", "\"\""] {
        let told = send(proxy.address, origin(post(key, "seat"))).await;
        assert_eq!((told.status, told.problem().as_str()), (400, "key-invalid"), "{key:?}");
    }
    assert_eq!(upstream.runs(), 0);
}
