//! Replay fidelity: what the first caller was answered is what a retry is answered.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use bytes::Bytes;
use http::response::Parts as Head;
use http::{HeaderMap, HeaderValue, Request, Response};
use onlyonce_core::{Fence, Outcome, Policy, Reply, Secret, Timestamp};
use onlyonce_http::render::{self, expires, mark};
use onlyonce_http::{
    Answer, Capture, IdempotencyStatus, Intake, Keys, Protected, Rendered, RoutePolicy, answer,
    capture, headers, intake,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_600_800_000);

fn head(status: u16, fields: &[(&'static str, &[u8])]) -> Head {
    let mut head = Response::builder().status(status).body(()).unwrap().into_parts().0;
    for (name, value) in fields {
        head.headers.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    head
}

fn request(fields: &[(&str, &str)]) -> Protected {
    let mut request = Request::post("/orders").header("idempotency-key", "order-1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let keys = Keys::new(Secret::from_bytes([7; 32]));
    let intake = intake::read(&head, None, &RoutePolicy::default(), &keys, NOW);
    let Intake::Protect(request) = intake else { panic!("{intake:?}") };
    request
}

fn again_for(reply: Reply, request: &Protected) -> Rendered {
    let outcome = Outcome::Replay { reply, answered_at: NOW, sealed: false };
    let told = answer::answer(&outcome, None, request, &RoutePolicy::default(), NOW);
    let Answer::Replay(rendered) = told else { panic!("{told:?}") };
    rendered
}

fn again(status: u16, fields: &[(&'static str, &[u8])], body: &[u8]) -> Rendered {
    again_for(capture::whole(&head(status, fields), body, false, 1 << 20), &request(&[]))
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(http::HeaderName::as_str).collect()
}

/// Case B42.
#[test]
fn a_status_is_replayed_as_it_was() {
    for status in [200, 201, 202, 204, 205, 303, 307, 400, 402, 409, 422, 500] {
        let replay = again(status, &[("location", b"/x")], b"");
        assert_eq!(replay.head.status.as_u16(), status);
        assert_eq!(replay.head.headers["idempotent-replayed"], "true");
        assert_eq!(replay.head.headers.contains_key("content-length"), status != 204);
    }
}

#[test]
fn fields_keep_their_order_their_repeats_and_every_byte() {
    let fields: &[(&'static str, &[u8])] = &[
        ("content-type", b"text/plain"),
        ("x-b", b"1"),
        ("x-a", b"\xE9\t \xFF"),
        ("x-b", b"2"),
        ("link", b"<a>"),
        ("link", b"<b>"),
        ("x-empty", b""),
    ];
    let replay = again(200, fields, b"x");
    let headers = &replay.head.headers;
    assert_eq!(names(headers)[..5], ["content-type", "x-b", "x-a", "link", "x-empty"]);
    let values: Vec<&[u8]> = headers.get_all("x-b").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(values, [b"1", b"2"]);
    assert_eq!(headers["x-a"].as_bytes(), b"\xE9\t \xFF");
    assert_eq!(headers.get_all("link").iter().count(), 2);
}

/// Case B44.
#[test]
fn nothing_of_the_first_connection_is_replayed() {
    let fields: &[(&'static str, &[u8])] = &[
        ("connection", b"keep-alive, X-Hop"),
        ("connection", b"X-Other"),
        ("x-hop", b"1"),
        ("x-other", b"1"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"x"),
        ("transfer-encoding", b"chunked"),
        ("te", b"trailers"),
        ("upgrade", b"h2c"),
        ("proxy-authenticate", b"Basic"),
        ("content-length", b"99"),
        ("date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        ("age", b"7"),
        ("set-cookie", b"sid=old"),
        ("access-control-allow-origin", b"https://first.example"),
        ("access-control-expose-headers", b"X"),
        ("idempotency-status", b"executed"),
        ("idempotency-key", b"theirs"),
        ("etag", b"\"1\""),
    ];
    let replay = again(200, fields, b"12345");
    let mut kept = names(&replay.head.headers);
    kept.sort_unstable();
    let expect = [
        "cache-control",
        "content-length",
        "etag",
        "idempotency-key",
        "idempotency-status",
        "idempotent-original-date",
        "idempotent-replayed",
    ];
    assert_eq!(kept, expect);
    assert_eq!(replay.head.headers["content-length"], "5");
    assert_eq!(replay.head.headers["idempotency-key"], "\"order-1\"");
    assert_eq!(replay.head.headers["idempotency-status"], "replayed");
}

#[test]
fn cookies_are_replayed_only_where_the_route_says_so() {
    let head = head(200, &[("set-cookie", b"a=1"), ("set-cookie", b"b=2")]);
    let reply = capture::whole(&head, b"", true, 1 << 20);
    let replay = again_for(reply, &request(&[]));
    assert_eq!(replay.head.headers.get_all("set-cookie").iter().count(), 2);
}

/// Case B44.
#[test]
fn trailers_come_back_to_those_who_accept_them_and_are_dropped_for_others() {
    let head = head(200, &[("trailer", b"x-sum")]);
    let mut trailers = HeaderMap::new();
    trailers.append("x-sum", HeaderValue::from_static("9"));
    trailers.append("set-cookie", HeaderValue::from_static("a=1"));
    trailers.append("content-length", HeaderValue::from_static("1"));
    let mut capture = Capture::new(&head, false, 1 << 20);
    capture.push(b"1234");
    let reply = capture.finish(Some(&trailers));
    let with = again_for(reply.clone(), &request(&[("te", "trailers;q=1")]));
    assert_eq!(names(&with.trailers.unwrap()), ["x-sum"]);
    assert_eq!(with.head.headers["trailer"], "x-sum");
    assert!(!with.head.headers.contains_key("content-length"));
    let without = again_for(reply, &request(&[]));
    assert!(without.trailers.is_none());
    assert!(!without.head.headers.contains_key("trailer"));
    assert_eq!(without.head.headers["content-length"], "4");
}

/// Case B45.
#[test]
fn coded_bytes_and_their_coding_stay_together() {
    let gzip = b"\x1F\x8B\x08\0\0\0\0\0";
    let fields: &[(&'static str, &[u8])] =
        &[("content-encoding", b"gzip"), ("vary", b"Accept-Encoding"), ("etag", b"\"gz\"")];
    let replay = again(200, fields, gzip);
    assert_eq!(replay.body, &gzip[..]);
    for (name, value) in fields {
        assert_eq!(replay.head.headers[*name].as_bytes(), *value);
    }
}

/// Case B47.
#[test]
fn a_binary_body_is_replayed_byte_for_byte() {
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for body in [&all[..], b"\0\0", b"\xFF{\"not\": utf8\xC3", b""] {
        let replay = again(200, &[("content-type", b"application/json")], body);
        assert_eq!(replay.body, body);
        assert_eq!(replay.head.headers["content-length"], body.len().to_string());
    }
}

/// Case B41.
#[test]
fn an_answer_is_kept_whole_or_not_at_all() {
    let head = head(201, &[("x-a", b"1")]);
    let overhead = capture::whole(&head, b"", false, 1 << 20).content().unwrap().len();
    let body = vec![b'x'; 1000];
    for (max, kept) in [
        (overhead + 1001, true),
        (overhead + 1000, true),
        (overhead + 999, false),
        (overhead, false),
        (5, false),
        (0, false),
    ] {
        let mut capture = Capture::new(&head, false, max);
        for chunk in body.chunks(7) {
            capture.push(chunk);
        }
        let reply = capture.finish(None);
        assert_eq!(reply.status(), 201);
        assert_eq!(reply.content().is_some(), kept, "{max}");
        if kept {
            assert_eq!(again_for(reply, &request(&[])).body, body);
        }
    }
}

#[test]
fn an_answer_is_let_go_as_soon_as_it_is_over_the_limit() {
    // Not at its end: a long answer must not fill the memory of whoever passes it on.
    let head = head(201, &[]);
    let mut capture = Capture::new(&head, false, 1_000);
    capture.push(&[b'x'; 900]);
    assert!(capture.is_kept());
    capture.push(&[b'x'; 900]);
    assert!(!capture.is_kept());
    capture.push(b"");
    assert!(capture.finish(None).content().is_none());
}

#[test]
fn a_replay_is_not_stored_by_caches_unless_it_says_otherwise() {
    assert_eq!(again(200, &[], b"").head.headers["cache-control"], "no-store");
    let own = again(200, &[("cache-control", b"private")], b"");
    assert_eq!(own.head.headers["cache-control"], "private");
}

/// Case B54.
#[test]
fn only_a_replay_is_marked_as_one_and_every_answer_says_how_far_it_got() {
    let replay = again(402, &[], b"declined");
    assert_eq!(replay.head.headers[headers::REPLAYED], "true");
    assert_eq!(replay.head.headers[headers::ORIGINAL_DATE], "Wed, 25 Nov 2026 10:00:00 GMT");
    assert_eq!(replay.body, "declined");

    let mut first = head(402, &[("idempotent-replayed", b"true"), ("idempotency-status", b"x")]);
    let request = request(&[]);
    let until = expires(Fence::new(NOW.as_millis()).unwrap(), &Policy::default(), None);
    mark(&mut first.headers, IdempotencyStatus::Executed, Some(&request.key), Some(until));
    assert!(!first.headers.contains_key(headers::REPLAYED));
    assert_eq!(first.headers[headers::STATUS], "executed");
    assert_eq!(first.headers[headers::EXPIRES], "Thu, 26 Nov 2026 10:00:00 GMT");
    for name in ["Idempotent-Replayed", "Idempotency-Status", "Idempotency-Key"] {
        assert!(headers::EXPOSED.contains(&name));
    }
}

#[test]
fn no_kept_bytes_panic_when_they_are_replayed() {
    let request = request(&[]);
    let good = capture::whole(&head(200, &[("a", b"1")]), b"body", false, 1 << 20);
    let good = good.content().unwrap();
    for at in 0..good.len() {
        for flip in [1_u8, 0x80, 0xFF] {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            let marks = render::ReplayMarks {
                key: &request.key,
                answered_at: NOW,
                expires: None,
                trailers: true,
                sealed: false,
            };
            let _ = render::replay(&Reply::kept(200, Bytes::from(bytes)), &marks);
        }
    }
    for status in [0, 99, 1000] {
        let reply = Reply::kept(status, good.clone());
        let outcome = Outcome::Replay { reply, answered_at: NOW, sealed: false };
        let told = answer::answer(&outcome, None, &request, &RoutePolicy::default(), NOW);
        assert!(matches!(told, Answer::Damaged(..)), "{status}");
    }
}
