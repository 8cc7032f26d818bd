//! Connections that are encrypted: whom we trust, and who we are.

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_store::{OpenErrorKind, Store as _, Swap};
use onlyonce_testbed::{Authority, Postgres as Server};

use crate::common::{database, init, open_as};

/// What users need who are not the superuser.
const GRANT: &str = "
GRANT USAGE ON SCHEMA onlyonce TO app, certified;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO app, certified";

#[test]
fn what_is_said_is_encrypted_and_a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start_with_tls(&authority);
    let name = database(&server);
    init(&server, &name).unwrap();
    server.sql(&name, "CREATE USER app; CREATE USER certified");
    server.sql(&name, GRANT);
    let url = |user: &str, host: &str, options: &str| {
        format!("postgres://{user}@{host}:{}/{name}?{options}", server.port())
    };
    let trust = |authority: &Authority| {
        format!("sslmode=require&sslrootcert={}", authority.certificate().display())
    };
    let known = trust(&authority);
    let store = open_as(&url("app", "localhost", &known)).unwrap();
    assert_eq!(block_on(store.swap(id(1), None, Some(claimed(1)))).unwrap(), Swap::Done);
    let encrypted = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
                     WHERE a.usename = 'app'";
    assert_eq!(server.sql(&name, encrypted), "t");

    let us = |authority: &Authority, user: &str| {
        let pair = authority.client(user);
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        format!("{known}&sslcert={certificate}&sslkey={key}")
    };
    open_as(&url("certified", "localhost", &us(&authority, "certified"))).unwrap();
    for (user, host, options, says) in [
        ("app", "localhost", trust(&other), "UnknownIssuer"),
        ("app", "localhost", "sslmode=require".to_owned(), "UnknownIssuer"),
        ("app", "127.0.0.1", known.clone(), "not valid for name"),
        ("app", "localhost", String::new(), "sslmode=require"),
        ("certified", "localhost", known.clone(), "certificate"),
        ("certified", "localhost", us(&authority, "app"), "certificate"),
        ("certified", "localhost", us(&other, "certified"), ""),
        ("app", "localhost", "sslmode=require&sslrootcert=/nowhere/ca.pem".into(), "/nowhere/ca"),
    ] {
        let Err(error) = open_as(&url(user, host, &options)) else { panic!("{user} {options}") };
        assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(says), "{user} {host} {options}: {error}");
    }
}

#[test]
fn a_server_without_tls_is_not_spoken_to_where_tls_is_asked_for() {
    let server = Server::start();
    let url = format!("postgres://postgres@localhost:{}/postgres?sslmode=require", server.port());
    let Err(error) = open_as(&url) else { panic!("it was let in") };
    assert!(error.to_string().contains("sslmode=disable"), "{error}");
}
