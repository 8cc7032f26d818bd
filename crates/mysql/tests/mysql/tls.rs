//! Connections that are encrypted, to a server that is known.

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_store::{OpenErrorKind, Store as _, Swap};
use onlyonce_testbed::{Authority, MariaDb as Server};

use crate::common::{database, init, open_as};

#[test]
fn what_is_said_is_encrypted_and_a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let pair = authority.server(folder.path());
    let mut server = Server::start();
    server.set("ssl_cert", &pair.certificate.display().to_string());
    server.set("ssl_key", &pair.key.display().to_string());
    server.restart();
    let name = database(&server);
    init(&server, &name).unwrap();
    server.sql("mysql", "CREATE USER app REQUIRE SSL; CREATE USER free");
    server.sql("mysql", &format!("GRANT ALL ON {name}.* TO app; GRANT ALL ON {name}.* TO free"));
    let url = |user: &str, host: &str, options: &str| {
        format!("mysql://{user}@{host}:{}/{name}?{options}", server.port())
    };
    let trust = |authority: &Authority| {
        format!("ssl-mode=verify_identity&ca={}", authority.certificate().display())
    };
    let known = trust(&authority);
    let store = open_as(&url("app", "localhost", &known)).unwrap();
    let swap = store.swap(id(1), None, Some(claimed(1)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    open_as(&url("free", "localhost", "")).unwrap();
    server.sql("mysql", "SET GLOBAL require_secure_transport = ON");
    for (user, host, options, says) in [
        ("app", "localhost", "", "ssl-mode=verify_identity"),
        ("free", "localhost", "", "ssl-mode=verify_identity"),
        ("app", "localhost", &trust(&other), "UnknownIssuer"),
        ("app", "localhost", "ssl-mode=verify_identity", "UnknownIssuer"),
        ("app", "127.0.0.1", &known, "not valid for name"),
    ] {
        let url = url(user, host, options);
        let Err(error) = open_as(&url) else { panic!("{url}") };
        assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
}
