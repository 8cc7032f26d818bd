//! The consumer before a real RabbitMQ that speaks TLS, with certificates of an authority that the
//! system does not know.

use std::sync::Arc;
use std::time::Duration;

use onlyonce_consume::{Consumption, Rabbit, Settings, Told};
use onlyonce_testbed::{Authority, Pair, RabbitMq, Relay};

use crate::broker::{Broker, FROM, Running, queues, until};
use crate::desk::Desk;

/// A consumer of the broker at this port, whose name is `localhost`.
fn consumer(port: u16, options: &str) -> Rabbit {
    let url = format!("amqps://guest:guest@localhost:{port}/%2f?heartbeat=5&{options}");
    at(&url)
}

fn at(url: &str) -> Rabbit {
    let how = Consumption { prefetch: 4, pause: Duration::from_millis(100) };
    Rabbit::new(url, queues(), how).unwrap()
}

/// Why a consumer does not get to its broker.
async fn lost(desk: &Desk, rabbit: &Rabbit) -> String {
    let running = Running::start(desk, rabbit);
    until("it is lost", || 0 < running.count(|told| matches!(told, Told::Lost(_)))).await;
    let told = running.stop().await;
    assert!(!told.contains(&Told::Connected), "{told:?}");
    let why = told.into_iter().find_map(|told| match told {
        Told::Lost(why) => Some(why),
        Told::Connected
        | Told::Done
        | Told::Duplicate
        | Told::Later(_)
        | Told::Aside(..)
        | Told::Unanswered(_) => None,
    });
    why.unwrap()
}

/// It is spoken to in TLS or not at all, over a cut of the line too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_come_over_tls_from_the_broker_that_is_meant_and_from_no_other() {
    let authority = Arc::new(Authority::new());
    let known = Arc::clone(&authority);
    let broker = Broker::started(move || RabbitMq::start_with_tls(&known, false)).await;
    let desk = Desk::open(Settings::default()).await;
    let (secure, plain) = (broker.server.tls_address().port(), broker.server.address().port());
    let ca = format!("ca={}", authority.certificate().display());
    let other = Authority::new();
    let others = format!("ca={}", other.certificate().display());
    broker.send(&["m".to_owned()]).await;

    // Nobody vouches for it, or somebody else; it has another name; one side speaks no TLS.
    for (rabbit, why) in [
        (consumer(secure, ""), "UnknownIssuer"),
        (consumer(secure, &others), "UnknownIssuer"),
        (at(&format!("amqps://guest:guest@127.0.0.1:{secure}/%2f?{ca}")), "not valid for name"),
        (consumer(plain, &ca), "no TLS is spoken there; is it amqp://"),
        (at(&format!("amqp://guest:guest@localhost:{secure}/%2f")), "is it TLS, as by amqps://"),
    ] {
        let told = lost(&desk, &rabbit).await;
        assert!(told.contains(why), "{why}: {told}");
    }
    assert_eq!((broker.ready(FROM).await, desk.hand.begun()), (1, 0));

    let relay = Relay::to(broker.server.tls_address());
    let running = Running::start(&desk, &consumer(relay.port(), &ca));
    until("it ran", || desk.hand.outside.times("m") == 1).await;
    relay.cut();
    relay.mend();
    broker.send(&["m", "n"].map(str::to_owned)).await;
    until("the other ran too", || desk.hand.outside.times("n") == 1).await;
    running.stop().await;
    assert_eq!(desk.hand.outside.times("m"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_asks_who_we_are_is_told() {
    let authority = Arc::new(Authority::new());
    let known = Arc::clone(&authority);
    let broker = Broker::started(move || RabbitMq::start_with_tls(&known, true)).await;
    let desk = Desk::open(Settings::default()).await;
    let port = broker.server.tls_address().port();
    let ca = format!("ca={}", authority.certificate().display());
    let ours = authority.client("guest");
    // Nobody, and somebody whom another authority calls so.
    let other = Authority::new();
    let others = other.client("guest");
    let of = |pair: &Pair| {
        format!("{ca}&cert={}&key={}", pair.certificate.display(), pair.key.display())
    };
    for options in [ca.clone(), of(&others)] {
        let told = lost(&desk, &consumer(port, &options)).await;
        // Its reason may be lost with the connection.
        let why = ["CertificateRequired", "UnknownCA", "BadCertificate", "who we are"];
        assert!(why.iter().any(|it| told.contains(it)), "{told}");
    }
    let (options, name) = (of(&ours), format!("localhost:{port}"));
    for (message, rabbit) in [
        ("by password", consumer(port, &options)),
        ("by name", at(&format!("amqps://{name}/%2f?auth_mechanism=external&{options}"))),
    ] {
        broker.send(&[message.to_owned()]).await;
        let running = Running::start(&desk, &rabbit);
        until("it ran", || desk.hand.outside.times(message) == 1).await;
        running.stop().await;
    }
}
