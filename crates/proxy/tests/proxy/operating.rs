//! What operators see: routes, policy, metrics, readiness, TLS.

use std::sync::Arc;

use http::{HeaderValue, Request};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::common::{orders, origin, post, proxy, read, send, upstream};

#[tokio::test]
async fn routes_have_policies_of_their_own_and_publish_them() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let lines = "[[route]]\npath = \"/orders\"\n[route.policy]\nkeys = \"required\"";
    let proxy = proxy(upstream.address, lines).await;
    let keyless =
        |path: &str| Request::post(path).header("host", "a").body(Full::default()).unwrap();
    let told = send(proxy.address, keyless("/orders/7")).await;
    assert_eq!((told.status, &*told.problem()), (400, "key-missing"));
    assert_eq!(send(proxy.address, keyless("/ordersnot")).await.status, 201);
    let get = Request::get("/.well-known/idempotency").header("host", "a");
    let told = send(proxy.address, get.body(Full::default()).unwrap()).await;
    let policy: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(policy["routes"][1]["path"], "/orders");
    assert_eq!(policy["routes"][1]["key"]["policy"], "required");
}

#[tokio::test]
async fn operators_need_the_token_and_see_counts_without_keys() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let lines = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"0123456789abcdef\"";
    let proxy = proxy(upstream.address, lines).await;
    let admin = proxy.admin.unwrap();
    for _ in 0..3 {
        send(proxy.address, post("secret-key", "seat")).await;
    }
    let ask = |path: &str, token: &'static str| {
        let mut request = Request::get(path).header("host", "a").body(Full::default()).unwrap();
        if !token.is_empty() {
            request.headers_mut().insert("authorization", HeaderValue::from_static(token));
        }
        request
    };
    for token in ["", "Bearer", "Bearer 0123456789abcdeX", "Basic 0123456789abcdef"] {
        assert_eq!(send(admin, ask("/metrics", token)).await.status, 401, "{token}");
    }
    let token = "Bearer 0123456789abcdef";
    let told = send(admin, ask("/metrics", token)).await;
    let page = String::from_utf8(told.body.to_vec()).unwrap();
    for line in [
        "onlyonce_requests_total{kind=\"executed\"} 1",
        "onlyonce_requests_total{kind=\"replayed\"} 2",
        "onlyonce_claims_total 1",
        "onlyonce_completed_total 1",
        "onlyonce_anonymous_total 3",
        "onlyonce_request_seconds_count 3",
    ] {
        assert!(page.lines().any(|it| it == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("secret-key"));
    assert_eq!(send(admin, ask("/livez", token)).await.status, 200);
    assert_eq!(send(admin, ask("/readyz", token)).await.status, 200);
    assert_eq!(send(admin, ask("/else", token)).await.status, 404);
}

#[tokio::test]
async fn with_tls_on_both_sides_the_clients_certificate_names_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let certified = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (server, anna, bert) = (certified(), certified(), certified());
    let certificate = write("cert.pem", server.cert.pem());
    let key = write("key.pem", server.signing_key.serialize_pem());
    let trust = write("clients.pem", anna.cert.pem() + &bert.cert.pem());
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    // One proxy speaks TLS to the other, so that both sides are tried.
    let tls = format!(
        "[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\nclient_trust = \"{trust}\""
    );
    let inner = proxy(upstream.address, &tls).await;
    let port = inner.address.port();
    let lines =
        format!("upstream_trust = \"{certificate}\"\nupstream = \"https://localhost:{port}\"");
    let outer = proxy(inner.address, &lines).await;
    let told = send(outer.address, post("tap", "seat")).await;
    assert_eq!((told.status, told.says()), (201, "executed"));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.cert.der().clone()).unwrap();
    for (who, expect) in [(&anna, "order 2"), (&bert, "order 3"), (&anna, "order 2")] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(who.signing_key.serialize_der()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(vec![who.cert.der().clone()], key)
            .unwrap();
        let stream = TcpStream::connect(inner.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut caller, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let told = read(caller.send_request(origin(post("tap", "seat"))).await.unwrap()).await;
        assert_eq!(told.body, expect);
    }
}
