//! A server that is spoken to with TLS: whom we trust.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use onlyonce_core::Floor;
use onlyonce_store::OpenErrorKind;
use onlyonce_testbed::{Authority, Redis};

use common::{claim, get, init, open, try_open};

#[test]
fn what_is_said_is_encrypted_and_a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = Redis::start_with_tls(&authority);
    let port = redis.tls_port();
    let url = |host: &str, ca: &Authority| {
        format!("rediss://{host}:{port}?ca={}", ca.certificate().display())
    };
    let known = url("localhost", &authority);
    init(&known, Floor::NONE);
    let store = open(&known);
    let claimed = claim(&store, 1);
    assert_eq!(get(&store, 1), Some(claimed));
    for (wrong, says) in [
        (url("localhost", &other), "UnknownIssuer"),
        (url("127.0.0.1", &authority), "not valid for name"),
        (format!("rediss://localhost:{port}"), "UnknownIssuer"),
        (format!("redis://localhost:{port}"), "rediss://"),
        (format!("rediss://localhost:{}", redis.port()), "redis://"),
    ] {
        let error = try_open(&wrong).err().unwrap();
        assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(says), "{wrong}: {error}");
    }
}
