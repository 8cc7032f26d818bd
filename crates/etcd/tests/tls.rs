//! Members that are spoken to with TLS: whom we trust, and who we are.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use onlyonce_store::{Found, OpenErrorKind};
use onlyonce_testbed::{Authority, Etcd};

use common::{checks, claim, get, init, open, try_open};

#[test]
fn what_is_said_is_encrypted_and_a_member_that_nobody_vouches_for_is_not_spoken_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let etcd = Etcd::start_with_tls(&authority, false);
    let port = etcd.tls_port();
    let url = |scheme: &str, host: &str, ca: &Authority| {
        let ca = ca.certificate().display().to_string();
        let ca = if scheme == "etcds" { format!("&ca={ca}") } else { String::new() };
        format!("{scheme}://{host}:{port}?accept=single{ca}")
    };
    let known = url("etcds", "localhost", &authority);
    init(&known);
    let store = open(&known);
    let claimed = claim(&store, 1);
    assert_eq!(get(&store, 1), Some(claimed));
    // The page by which it is seen whether it syncs is asked for with TLS too.
    assert_eq!(
        checks(&known).iter().find(|it| it.need.name == "fsync").unwrap().found,
        Found::Good
    );
    for (wrong, says) in [
        (url("etcds", "localhost", &other), "UnknownIssuer"),
        (url("etcds", "127.0.0.1", &authority), "not valid for name"),
        (format!("etcds://localhost:{port}?accept=single"), "UnknownIssuer"),
        (url("etcd", "localhost", &authority), "etcds://"),
        (format!("etcds://localhost:{}?accept=single", etcd.address().port()), "etcd://"),
    ] {
        let error = try_open(&wrong).err().unwrap();
        assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(says), "{wrong}: {error}");
    }
}

#[test]
fn a_member_that_asks_who_we_are_is_shown_our_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let etcd = Etcd::start_with_tls(&authority, true);
    let ca = authority.certificate().display().to_string();
    let url = |identity: &str| {
        format!("etcds://localhost:{}?accept=single&ca={ca}{identity}", etcd.tls_port())
    };
    let identity = |authority: &Authority| {
        let pair = authority.client("onlyonce");
        url(&format!("&cert={}&key={}", pair.certificate.display(), pair.key.display()))
    };
    let known = identity(&authority);
    init(&known);
    claim(&open(&known), 1);
    for wrong in [url(""), identity(&other)] {
        let error = try_open(&wrong).err().unwrap();
        assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("`cert`"), "{wrong}: {error}");
    }
}
