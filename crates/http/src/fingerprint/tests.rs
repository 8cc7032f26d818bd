//! What makes two requests the same operation, and what does not.

use http::Request;
use onlyonce_core::Secret;

use super::*;

fn keys() -> Keys {
    Keys::new(Secret::from_bytes([7; 32]))
}

fn likeness(request: http::request::Builder, body: &[u8], rule: &FingerprintRule) -> Likeness {
    let (head, ()) = request.body(()).unwrap().into_parts();
    Likeness::new(&head, Bytes::copy_from_slice(body), rule, None)
}

fn post(uri: &str) -> http::request::Builder {
    Request::post(uri).header("content-type", "application/json")
}

fn print(request: http::request::Builder, body: &[u8]) -> Fingerprint {
    likeness(request, body, &FingerprintRule::default()).fingerprint(&keys())
}

/// Case B26.
#[test]
fn another_method_path_or_body_is_another_request() {
    let base = print(post("/projects"), br#"{"n":1}"#);
    assert_eq!(print(post("/projects"), br#" {"n" : 1}"#), base);
    let patch = Request::patch("/projects").header("content-type", "application/json");
    for other in [
        print(post("/applications"), br#"{"n":1}"#),
        print(post("/projects"), br#"{"n":2}"#),
        print(post("/projects/2"), br#"{"n":1}"#),
        print(patch, br#"{"n":1}"#),
        print(Request::post("/projects"), br#"{"n":1}"#),
        print(Request::post("/projects").header("content-type", "text/plain"), br#"{"n":1}"#),
    ] {
        assert_ne!(other, base);
    }
}

/// Case B27.
#[test]
fn the_body_checks_the_record_and_never_chooses_it() {
    use onlyonce_core::{Key, Scope};
    let id = keys().key_id(&Scope::new("s").unwrap(), &Key::new("k").unwrap());
    let (a, b) = (print(post("/x"), b"{\"a\":1}"), print(post("/x"), b"{\"a\":2}"));
    assert_ne!(a, b);
    // Both requests come to the same record, where the second is a mismatch.
    assert_eq!(id, keys().key_id(&Scope::new("s").unwrap(), &Key::new("k").unwrap()));
}

/// Case B32.
#[test]
fn the_query_counts_exactly_as_it_was_sent() {
    let all = [
        "/x",
        "/x?",
        "/x?dry=1",
        "/x?a=1&b=2",
        "/x?b=2&a=1",
        "/x?a=%7E",
        "/x?a=~",
        "/x?a",
        "/x?a=",
        "/x/",
        "/x?a=%7e",
    ];
    let prints: Vec<Fingerprint> = all.iter().map(|uri| print(post(uri), b"{}")).collect();
    for (at, one) in prints.iter().enumerate() {
        for (other, two) in prints.iter().enumerate() {
            assert_eq!(one == two, at == other, "{} {}", all[at], all[other]);
        }
    }
}

/// Case B33.
#[test]
fn fields_that_change_on_every_attempt_do_not_count_unless_listed() {
    let noisy = post("/x")
        .header("x-request-id", "1")
        .header("traceparent", "00-1")
        .header("authorization", "Bearer new")
        .header("user-agent", "b");
    assert_eq!(print(noisy, b"{}"), print(post("/x"), b"{}"));
    let rule = FingerprintRule {
        headers: vec![HeaderName::from_static("api-version")],
        exclude: Pointers::parse(["/meta/sent_at"]).unwrap(),
        ..FingerprintRule::default()
    };
    let of = |version: &str, body: &[u8]| {
        let request = post("/x").header("api-version", version).header("x-signature", body);
        likeness(request, body, &rule).fingerprint(&keys())
    };
    let base = of("1", br#"{"amount":5,"meta":{"sent_at":1}}"#);
    assert_eq!(of("1", br#"{"amount":5,"meta":{"sent_at":2}}"#), base);
    assert_eq!(of("1", br#"{"amount":5,"meta":{}}"#), base);
    assert_ne!(of("1", br#"{"amount":6,"meta":{"sent_at":1}}"#), base);
    assert_ne!(of("2", br#"{"amount":5,"meta":{"sent_at":1}}"#), base);
    let absent = likeness(post("/x"), b"{}", &rule).fingerprint(&keys());
    assert_ne!(of("", b"{}"), absent);
}

/// Case B38.
#[test]
fn a_body_that_is_no_json_is_compared_by_its_bytes() {
    for body in [&b"\xFF\xFE"[..], b"{\"a\":", b"", b"{\"a\":1,\"a\":2}"] {
        let retry = print(post("/x"), body);
        assert_eq!(print(post("/x"), body), retry);
        assert_ne!(print(post("/x"), &[body, b" "].concat()), retry, "{body:?}");
    }
}

/// Case B36.
#[test]
fn a_pointer_into_an_unusual_body_is_harmless() {
    let exclude = Pointers::parse(["/meta/sent_at"]).unwrap();
    let rule = FingerprintRule { exclude, ..FingerprintRule::default() };
    for body in [&b"not json"[..], b"", b"{\"meta\":", b"[]", b"7"] {
        let of = || likeness(post("/x"), body, &rule).fingerprint(&keys());
        assert_eq!(of(), of());
    }
}

#[test]
fn a_retry_of_a_form_has_another_boundary() {
    let upload = |boundary: &str, content: &str| {
        let kind = format!("multipart/form-data; boundary={boundary}");
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n{content}\r\n\
             --{boundary}--\r\n"
        );
        print(Request::post("/x").header("content-type", kind), body.as_bytes())
    };
    assert_eq!(upload("one", "a"), upload("two", "a"));
    assert_ne!(upload("one", "a"), upload("one", "b"));
}

#[test]
fn json_is_known_by_its_suffix_and_parameters_do_not_count() {
    let of =
        |kind: &str, body: &[u8]| print(Request::post("/x").header("content-type", kind), body);
    for kind in ["application/vnd.api+json; charset=utf-8", "Application/JSON", "text/json"] {
        assert_eq!(of(kind, b"{\"a\":1,\"b\":2}"), of(kind, b"{\"b\":2,\"a\":1}"), "{kind}");
    }
    assert_eq!(of("application/json", b"{}"), of("APPLICATION/JSON ; charset=utf-8", b"{}"));
    assert_ne!(of("application/jsonx", b"{}"), of("application/jsonx", b" {}"));
    assert_ne!(of("application/x-www-form-urlencoded", b"a=1"), of("text/plain", b"a=1"));
}

#[test]
fn a_coded_body_is_compared_by_its_bytes() {
    let of = |body: &[u8]| print(post("/x").header("content-encoding", "gzip"), body);
    assert_ne!(of(b"{}"), of(b" {}"));
    assert_ne!(of(b"{}"), print(post("/x"), b"{}"));
}

#[test]
fn amounts_never_look_equal_unless_the_route_asks_for_it() {
    let by = |body_rule, body: &[u8]| {
        let rule = FingerprintRule { body: body_rule, ..FingerprintRule::default() };
        likeness(post("/x"), body, &rule).fingerprint(&keys())
    };
    assert_ne!(by(BodyRule::Structure, b"[1.0]"), by(BodyRule::Structure, b"[1]"));
    assert_eq!(by(BodyRule::Jcs, b"[1.0]"), by(BodyRule::Jcs, b"[1]"));
    assert_ne!(by(BodyRule::Bytes, b"[ 1]"), by(BodyRule::Bytes, b"[1]"));
}

#[test]
fn the_time_sent_beside_a_key_counts() {
    let (head, ()) = post("/x").body(()).unwrap().into_parts();
    let of = |millis: Option<u64>| {
        let rule = FingerprintRule::default();
        let first_sent = millis.map(Timestamp::from_millis);
        Likeness::new(&head, Bytes::new(), &rule, first_sent).fingerprint(&keys())
    };
    assert_ne!(of(Some(1)), of(Some(2)));
    assert_ne!(of(Some(0)), of(None));
}

/// Case B30.
#[test]
fn a_record_is_compared_by_the_rule_it_was_made_with() {
    for old in BodyRule::ALL {
        for new in BodyRule::ALL {
            let rule = |body| FingerprintRule { body, ..FingerprintRule::default() };
            let stored = likeness(post("/x"), b"{\"a\":1}", &rule(old)).fingerprint(&keys());
            let retry = likeness(post("/x"), b"{\"a\":1}", &rule(new));
            let compared = retry.fingerprint_of_version(stored.version(), &keys());
            assert_eq!(compared, Some(stored), "{old:?} {new:?}");
            let changed = likeness(post("/x"), b"{\"a\":2}", &rule(new));
            let compared = changed.fingerprint_of_version(stored.version(), &keys());
            assert_ne!(compared, Some(stored), "{old:?} {new:?}");
        }
    }
    let retry = likeness(post("/x"), b"{}", &FingerprintRule::default());
    for unknown in [0, 4, 255] {
        assert_eq!(retry.fingerprint_of_version(unknown, &keys()), None);
    }
}

/// Case B30. Records out there hold these digests: a rule may be added, never changed.
#[test]
fn the_digests_of_every_version_stay_as_they_were() {
    let hex = |print: Fingerprint| -> String {
        print.digest()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let json =
        likeness(post("/x?a=1"), br#"{"b":[1.50,"\u00e9"],"a":null}"#, &FingerprintRule::default());
    let of = |version| hex(json.fingerprint_of_version(version, &keys()).unwrap());
    assert_eq!([of(1), of(2), of(3)], ["ac235d6d27bcf1a1", "98f1838e27eb053d", "65131dffaf7d798a"]);
    let kind = "multipart/form-data; boundary=b";
    let body = b"--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nx\r\n--b--\r\n";
    assert_eq!(
        hex(print(Request::post("/x").header("content-type", kind), body)),
        "3fba23750b9b6209"
    );
}

/// Case B76.
#[test]
fn a_stolen_fingerprint_does_not_give_away_a_small_secret() {
    let body = |pin: u32| format!("{{\"pin\":\"{pin:04}\"}}");
    let stolen = print(post("/x"), body(4821).as_bytes());
    let thief = Keys::new(Secret::from_bytes([8; 32]));
    for pin in 0..10_000 {
        let rule = FingerprintRule::default();
        let likeness = likeness(post("/x"), body(pin).as_bytes(), &rule);
        assert_ne!(likeness.fingerprint(&thief), stolen);
        assert_ne!(blake3::hash(body(pin).as_bytes()).as_bytes(), stolen.digest());
    }
}
