//! Connections that are encrypted, to a server that is known.

use std::fs;

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_store::{OpenErrorKind, Store as _, Swap};
use onlyonce_testbed::MariaDb as Server;

use crate::common::{database, init, open_as};

#[test]
fn what_is_said_is_encrypted_and_a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    for name in ["server", "other"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(file(&format!("{name}.pem")), made.cert.pem()).unwrap();
        fs::write(file(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    let mut server = Server::start();
    server.set("ssl_cert", &file("server.pem"));
    server.set("ssl_key", &file("server.key"));
    server.restart();
    let name = database(&server);
    init(&server, &name).unwrap();
    server.sql("mysql", "CREATE USER app REQUIRE SSL");
    server.sql("mysql", &format!("GRANT ALL ON {name}.* TO app"));
    let url = |host: &str, options: &str| {
        format!("mysql://app@{host}:{}/{name}?{options}", server.port())
    };
    let known = format!("ssl-mode=verify_identity&ca={}", file("server.pem"));
    let store = open_as(&url("localhost", &known)).unwrap();
    let swap = store.swap(id(1), None, Some(claimed(1)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    // The user may not come without; nobody vouches for the certificate; it is of another name.
    let other = format!("ssl-mode=verify_identity&ca={}", file("other.pem"));
    for (host, options) in [("localhost", ""), ("localhost", &other), ("127.0.0.1", &known)] {
        let Err(error) = open_as(&url(host, options)) else { panic!("{host} {options}") };
        assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
    }
}
