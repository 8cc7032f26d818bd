//! Who may do what: tokens, certificates, the socket, scopes and operators.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use onlyonce_service::{Config, Credential, Listen, Place};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{Address, Client, exchange};
use crate::world::*;

#[tokio::test]
async fn without_a_token_nothing_is_told_or_done() {
    let world = World::start(SCOPES).await;
    let guessing = Client { token: Some("token-of-anna-00000"), ..world.stranger() };
    for client in [world.stranger(), guessing] {
        for name in ["claim", "complete", "get", "list", "seal"] {
            let answer = client.post(name, &claim("tap", 1)).await;
            answer.problem(401, "unauthenticated");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
        client.get("/metrics").await.problem(401, "unauthenticated");
    }
    let anna = world.client(ANNA);
    anna.post("get", &json!({ "key": "tap" })).await.problem(404, "no-record");
}

#[tokio::test]
async fn the_same_key_in_two_scopes_is_two_keys() {
    let world = World::start(SCOPES).await;
    let (anna, bert) = (world.client(ANNA), world.client(BERT));
    let fence = granted(&anna, "tap", 1).await;
    let reply = json!({ "reply": { "json": "anna's" } });
    anna.post("complete", &with(of("tap", fence), reply)).await.ok();
    let mails = json!({ "scope": "mails" });
    let answer = bert.post("claim", &with(claim("tap", 2), mails.clone())).await.ok();
    assert_eq!(answer["outcome"], "granted");
    // A fence of the one says nothing in the other, even where the numbers are the same.
    let said = with(of("tap", answer["fence"].as_u64().unwrap()), json!({ "scope": "orders" }));
    assert_eq!(bert.post("release", &said).await.status, 409);
    assert_eq!(anna.post("claim", &claim("tap", 3)).await.ok()["reply"]["json"], "anna's");
}

#[tokio::test]
async fn a_caller_uses_its_own_scopes_only_and_does_not_learn_of_others() {
    let world = World::start(SCOPES).await;
    let (anna, bert) = (world.client(ANNA), world.client(BERT));
    let mut told = Vec::new();
    for scope in ["mails", "nowhere"] {
        let asked = with(claim("tap", 1), json!({ "scope": scope }));
        let problem = anna.post("claim", &asked).await.problem(403, "not-allowed");
        told.push(problem.to_string().replace(scope, "it"));
    }
    assert_eq!(told[0], told[1], "whether there is such a scope is not told");
    // Who has one scope need not name it; who has several must.
    let mut unnamed = claim("tap", 1);
    unnamed.as_object_mut().unwrap().remove("scope");
    assert_eq!(anna.post("claim", &unnamed).await.ok()["outcome"], "granted");
    let problem = bert.post("claim", &unnamed).await.problem(400, "request-invalid");
    assert_eq!(problem["field"], "scope");
    // An operator is no holder.
    world.client(OLGA).post("claim", &claim("tap", 2)).await.problem(403, "not-allowed");
}

#[tokio::test]
async fn what_is_for_operators_is_for_operators() {
    let world = World::start(SCOPES).await;
    let (anna, olga) = (world.client(ANNA), world.client(OLGA));
    let fence = granted(&anna, "tap", 1).await;
    let id = anna.post("get", &json!({ "key": "tap" })).await.ok()["id"].clone();
    let resolve = json!({ "id": id, "fence": fence, "verdict": "not-executed", "why": "w" });
    for (name, asked) in [
        ("list", json!({})),
        ("resolve", resolve),
        ("seal", json!({ "key": "tap", "why": "w" })),
        ("erase", json!({ "key": "tap", "why": "w" })),
        ("get", json!({ "id": id })),
    ] {
        anna.post(name, &asked).await.problem(403, "not-allowed");
    }
    assert_eq!(olga.post("get", &json!({ "id": id })).await.ok()["fence"], fence);
    anna.get("/metrics").await.problem(403, "not-allowed");
    assert_eq!(olga.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn whether_it_lives_and_is_ready_everybody_may_know() {
    let world = World::start(SCOPES).await;
    let stranger = world.stranger();
    for path in ["/livez", "/readyz", "/v1/openapi.json"] {
        assert_eq!(stranger.get(path).await.status, 200, "{path}");
    }
    assert_eq!(stranger.get("/v1/openapi.json").await.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn a_socket_lets_in_its_owner_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(folder.path());
    // One that a process left which is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let config = || Config::for_one(Listen::Unix(path.clone()), Credential::Socket);
    let world = World::with(config()).await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut claim = claim("tap", 1);
    claim["scope"] = json!("default");
    assert_eq!(world.stranger().post("claim", &claim).await.ok()["outcome"], "granted");
    world.stranger().post("list", &json!({})).await.ok();
    // Who shows a token means it.
    let guessing = Client { token: Some("something-guessed"), ..world.stranger() };
    guessing.post("claim", &claim).await.problem(401, "unauthenticated");
    // Nobody takes a socket that is in use, nor a file that is none.
    let taken = Place::take(config()).await.map(|_| ()).unwrap_err().to_string();
    assert!(taken.contains("somebody listens here already"), "{taken}");
    world.stop().await;
    assert!(!path.exists(), "it is taken away at the end");
    std::fs::write(&path, "a file").unwrap();
    assert!(Place::take(config()).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
}

#[tokio::test]
async fn a_service_that_knows_nobody_does_not_start() {
    let config = Config::parse("test.toml", "listen = \"127.0.0.1:0\"\n").unwrap();
    let refused = Place::take(config).await.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("no caller is known"), "{refused}");
}

#[tokio::test]
async fn a_client_certificate_names_its_caller() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    let server = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let client = rcgen::generate_simple_self_signed(vec!["orders.internal".into()]).unwrap();
    write("server.pem", server.cert.pem());
    write("server.key", server.signing_key.serialize_pem());
    write("client.pem", client.cert.pem());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "listen = \"127.0.0.1:0\"\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n\
         client_trust = \"{}\"\n[[scope]]\nname = \"orders\"\n[[caller]]\nname = \"orders\"\n\
         certificate_name = \"orders.internal\"\nscopes = [\"orders\"]\n",
        at("server.pem"),
        at("server.key"),
        at("client.pem")
    );
    let world = World::with(Config::parse("test.toml", &text).unwrap()).await;
    let Address::Tcp(address) = world.address else { panic!() };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let chain: Vec<CertificateDer<'static>> = vec![client.cert.der().clone()];
    let key = PrivateKeyDer::try_from(client.signing_key.serialize_der()).unwrap();
    let known = builder.clone().with_client_auth_cert(chain, key).unwrap();
    let unknown = builder.with_no_client_auth();
    let request = world.stranger().request("/v1/claim", claim("tap", 1).to_string().as_bytes());
    for (config, status) in [(known, 200), (unknown, 401)] {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(exchange(&mut stream, &request).await.unwrap().status, status);
    }
}
