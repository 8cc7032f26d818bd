//! What is never kept is in no replay and in no kept byte; what is left is as it was.

use http::response::Parts as Head;
use http::{HeaderValue, Response};
use onlyonce_core::{Key, Reply, Timestamp};

use super::*;
use crate::capture::Capture;
use crate::render::{Rendered, ReplayMarks, replay};
use crate::route::RoutePolicy;

fn route(headers: &[&'static str], members: &[&str]) -> RoutePolicy {
    let redact = Redact {
        headers: headers.iter().map(|it| HeaderName::from_static(it)).collect(),
        members: Pointers::parse(members.iter().copied()).unwrap(),
    };
    RoutePolicy { redact, ..RoutePolicy::default() }
}

fn head(fields: &[(&'static str, &'static str)]) -> Head {
    let mut answer = Response::builder().status(201);
    for (name, value) in fields {
        answer = answer.header(*name, *value);
    }
    answer.body(()).unwrap().into_parts().0
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

/// What is kept of an answer that comes in pieces.
fn kept(route: &RoutePolicy, head: &Head, body: &[u8], trailers: Option<&HeaderMap>) -> Reply {
    let mut capture = Capture::on(route, head, 1 << 20);
    body.chunks(7).for_each(|piece| capture.push(piece));
    capture.finish(trailers)
}

fn again(reply: &Reply) -> Option<Rendered> {
    let key = Key::new("tap-1").unwrap();
    let (answered_at, expires) = (Timestamp::from_millis(1_764_000_000_000), None);
    let marks = ReplayMarks { key: &key, answered_at, expires, trailers: true, sealed: false };
    replay(reply, &marks).unwrap()
}

fn holds(reply: &Reply, text: &str) -> bool {
    reply.content().unwrap().windows(text.len()).any(|it| it == text.as_bytes())
}

/// The replay of a JSON answer without these members: its body, and what it says it lacks.
fn body_without(members: &[&str], body: &str) -> Option<(String, String)> {
    let reply = kept(&route(&[], members), &head(&[JSON]), body.as_bytes(), None);
    let again = again(&reply)?;
    let length = again.head.headers[http::header::CONTENT_LENGTH].to_str().unwrap();
    assert_eq!(length, again.body.len().to_string());
    let mark = again.head.headers.get(headers::REDACTED).map_or("", |it| it.to_str().unwrap());
    Some((String::from_utf8(again.body.to_vec()).unwrap(), mark.to_owned()))
}

#[test]
fn a_field_that_is_never_kept_is_in_no_kept_byte_and_the_replay_names_it() {
    let route = route(&["x-token", "x-other"], &[]);
    let head = head(&[("x-token", "once-shown"), ("x-a", "1"), ("x-token", "and-again")]);
    let reply = kept(&route, &head, b"order 7829", None);
    assert!(!holds(&reply, "once-shown") && !holds(&reply, "and-again"));
    let again = again(&reply).unwrap();
    assert_eq!(again.head.headers[headers::REDACTED], "\"x-token\"");
    assert_eq!(again.head.headers[headers::STATUS], "replayed");
    assert!(!again.head.headers.contains_key("x-token"));
    assert_eq!(
        (&again.head.headers["x-a"], &again.body[..]),
        (&"1".parse().unwrap(), &b"order 7829"[..])
    );
}

#[test]
fn a_trailer_that_is_never_kept_is_taken_out_too() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-token", HeaderValue::from_static("once-shown"));
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let reply = kept(&route(&["x-token"], &[]), &head(&[]), b"order", Some(&trailers));
    assert!(!holds(&reply, "once-shown"));
    let again = again(&reply).unwrap();
    assert_eq!(again.head.headers[headers::REDACTED], "\"x-token\"");
    assert_eq!(again.trailers.unwrap().len(), 1);
}

#[test]
fn a_member_becomes_null_and_every_other_byte_stays() {
    for (members, body, left, mark) in [
        (
            &["/card/number"][..],
            r#"{ "amount": 1.00e2, "card": { "number" : "4242" , "exp": "12/30"}, "n": 1E4 }"#,
            r#"{ "amount": 1.00e2, "card": { "number" : null , "exp": "12/30"}, "n": 1E4 }"#,
            r#""/card/number""#,
        ),
        (&["/a/1/b"], r#"{"a":[1,{"b":[1,{}]},2]}"#, r#"{"a":[1,{"b":null},2]}"#, r#""/a/1/b""#),
        // One in another, and two that stand in another order than they are named.
        (
            &["/b", "/a/c", "/a"],
            r#"{"a":{"c":1},"b":2}"#,
            r#"{"a":null,"b":null}"#,
            r#""/a", "/b""#,
        ),
        // However its name is spelled.
        (&["/pin"], r#"{"\u0070in":4821}"#, r#"{"\u0070in":null}"#, r#""/pin""#),
        (&["/a~1b/ü\""], r#"{"a/b":{"ü\"":1}}"#, r#"{"a/b":{"ü\"":null}}"#, r#""/a~1b/%C3%BC%22""#),
        // Nothing is there: it is the whole answer.
        (&["/card/number"], r#"{"card":[ ], "number":1}"#, r#"{"card":[ ], "number":1}"#, ""),
    ] {
        assert_eq!(body_without(members, body), Some((left.to_owned(), mark.to_owned())), "{body}");
    }
}

#[test]
fn a_body_in_which_nothing_can_be_found_is_not_kept() {
    let route = route(&[], &["/card"]);
    for body in [
        &br#"{"card": 1"#[..],
        br#"{"card": 1, "card": 2}"#,
        br#"{"a": 1, "a": {"card": 2}}"#,
        b"{\"card\": \"\xFF\"}",
        b"\xEF\xBB\xBF{\"card\":1}",
        b"card=4242",
    ] {
        assert_eq!(kept(&route, &head(&[JSON]), body, None), Reply::not_kept(201), "{body:?}");
    }
    let coded = head(&[JSON, ("content-encoding", "gzip")]);
    for head in [
        coded,
        head(&[("content-type", "text/plain")]),
        head(&[]),
        head(&[JSON, ("content-type", "text/plain")]),
    ] {
        assert_eq!(kept(&route, &head, br#"{"card":1}"#, None), Reply::not_kept(201), "{head:?}");
        assert!(kept(&route, &head, b"", None).content().is_some(), "nothing is in it: {head:?}");
    }
}

#[test]
fn what_speaks_of_the_bytes_goes_with_them_and_stays_with_a_whole_body() {
    let fields = [JSON, ("content-digest", "sha-256=:x:"), ("etag", "\"5\""), ("x-a", "1")];
    let route = route(&["x-none"], &["/pin"]);
    let reply = kept(&route, &head(&fields), br#"{"pin":4821}"#, None);
    assert!(!holds(&reply, "sha-256") && !holds(&reply, "4821"));
    let marks = again(&reply).unwrap().head.headers[headers::REDACTED].clone();
    assert_eq!(marks, r#""content-digest", "etag", "/pin""#);
    let whole = again(&kept(&route, &head(&fields), br#"{"a":1}"#, None)).unwrap();
    assert_eq!(whole.head.headers["etag"], "\"5\"");
    assert!(!whole.head.headers.contains_key(headers::REDACTED));
}

#[test]
fn the_bound_counts_what_is_kept() {
    let route = route(&[], &["/a"]);
    let (head, body) = (head(&[JSON]), br#"{"a":1}"#);
    let length = kept(&route, &head, body, None).content().unwrap().len();
    for (max, is_kept) in [(length - 1, false), (length, true)] {
        let mut capture = Capture::on(&route, &head, max);
        capture.push(body);
        assert_eq!(capture.finish(None).content().is_some(), is_kept, "{max}");
    }
}

#[test]
fn an_upstream_does_not_say_for_us_what_is_missing() {
    let head = head(&[("idempotency-redacted", "\"x\"")]);
    for route in [route(&[], &[]), route(&["x-token"], &[])] {
        let again = again(&kept(&route, &head, b"order", None)).unwrap();
        assert!(!again.head.headers.contains_key(headers::REDACTED));
    }
}
