//! The consumer before a real server that speaks TLS, with certificates of an authority that the
//! system does not know.

use std::sync::Arc;

use async_nats::ConnectOptions;
use onlyonce_consume::{KeyFrom, Settings, Told};
use onlyonce_nats::Jet;
use onlyonce_testbed::{Authority, Nats, Relay};

use crate::desk::Desk;
use crate::server::{Running, Stream, streams, until};

fn settings() -> Settings {
    Settings { key: KeyFrom::Header("order".to_owned()), ..Settings::default() }
}

/// Why a consumer does not get to its server.
async fn lost(desk: &Desk, jet: &Jet) -> String {
    let running = Running::start(desk, jet);
    until("it is lost", || 0 < running.count(|told| matches!(told, Told::Lost(_)))).await;
    let told = running.stop().await;
    assert!(!told.contains(&Told::Connected), "{told:?}");
    format!("{told:?}")
}

async fn stream(authority: &Arc<Authority>, certified: bool) -> Stream {
    let known = Arc::clone(authority);
    let ours = authority.client("publisher");
    let options = ConnectOptions::new().add_root_certificates(authority.certificate());
    let options = options.add_client_certificate(ours.certificate, ours.key);
    Stream::started(move || Nats::start_with_tls(&known, certified), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_over_tls_from_the_server_that_is_meant_and_from_no_other() {
    let authority = Arc::new(Authority::new());
    let stream = stream(&authority, false).await;
    let desk = Desk::open(settings()).await;
    let port = stream.server.address().port();
    let ca = format!("ca={}", authority.certificate().display());
    let others = format!("ca={}", Authority::new().certificate().display());
    stream.send(&[("m", "m")]).await;
    for (url, why) in [
        (format!("tls://localhost:{port}"), "UnknownIssuer"),
        (format!("nats://localhost:{port}"), "UnknownIssuer"),
        (format!("tls://127.0.0.1:{port}?{ca}"), "not valid for name"),
    ] {
        let told = lost(&desk, &Jet::new(&url, streams()).unwrap()).await;
        assert!(told.contains(why), "{url}: {told}");
    }
    // The file of that authority is gone with it.
    let refused = Jet::new(&format!("tls://localhost:{port}?{others}"), streams()).err().unwrap();
    assert!(refused.to_string().contains("ca.pem"), "{refused}");
    assert_eq!(desk.hand.begun(), 0);

    let relay = Relay::to(stream.server.address());
    let url = format!("tls://localhost:{}?{ca}", relay.port());
    let running = Running::start(&desk, &Jet::new(&url, streams()).unwrap());
    until("it ran", || desk.hand.outside.times("m") == 1).await;
    relay.cut();
    relay.mend();
    stream.send(&[("m", "m"), ("n", "n")]).await;
    until("the other ran too", || desk.hand.outside.times("n") == 1).await;
    running.stop().await;
    assert_eq!(desk.hand.outside.times("m"), 1);
}

/// Somebody in between could say that the server speaks no TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tls_is_meant_nothing_is_said_without_it() {
    let stream = Stream::start().await;
    let desk = Desk::open(settings()).await;
    let authority = Authority::new();
    let ca = authority.certificate().display().to_string();
    let url = format!("tls://localhost:{}?ca={ca}", stream.server.address().port());
    lost(&desk, &Jet::new(&url, streams()).unwrap()).await;
    for (address, why) in [
        (format!("nats://localhost?ca={ca}"), "`ca` is for tls://"),
        ("nats://localhost?ack=1".to_owned(), "`ack` is no option of it"),
        ("localhost:4222".to_owned(), "it must begin with nats:// or tls://"),
    ] {
        let refused = Jet::new(&address, streams()).err().unwrap().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_who_we_are_is_told() {
    let authority = Arc::new(Authority::new());
    let stream = stream(&authority, true).await;
    let desk = Desk::open(settings()).await;
    let ca = authority.certificate().display().to_string();
    let url = format!("tls://localhost:{}?ca={ca}", stream.server.address().port());
    stream.send(&[("m", "m")]).await;
    lost(&desk, &Jet::new(&url, streams()).unwrap()).await;
    let ours = authority.client("warehouse");
    let (cert, key) = (ours.certificate.display(), ours.key.display());
    let jet = Jet::new(&format!("{url}&cert={cert}&key={key}"), streams()).unwrap();
    let running = Running::start(&desk, &jet);
    until("it ran", || desk.hand.outside.times("m") == 1).await;
    running.stop().await;
}
