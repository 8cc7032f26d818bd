//! Ends that say nothing, or take nothing: what they hold up is only their own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Channel, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::common::{caller2, nobody, orders, origin, post, proxy, read, send, upstream};

/// Waits, but not until somebody ends the test.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what).await.expect("it never came")
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

#[tokio::test]
async fn who_asks_for_nothing_keeps_no_place() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let lines = "[limits]\nconnections = 3\nhead_time = \"300ms\"";
    let proxy = proxy(upstream.address, lines).await;
    let whole = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    let cases: [(&str, Vec<u8>); 7] = [
        ("nothing", Vec::new()),
        ("a letter", b"P".to_vec()),
        ("half a head", b"POST / HTTP/1.1\r\nhost: a\r\n".to_vec()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface", PREFACE.to_vec()),
        ("HTTP/2 without a request", [PREFACE, SETTINGS].concat()),
        ("nothing after a request", whole.to_vec()),
    ];
    for (name, said) in cases {
        let mut silent = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            stream.write_all(&said).await.unwrap();
            silent.push(stream);
        }
        let told = soon(send(proxy.address, post(&name.replace(' ', "-"), "seat"))).await;
        assert_eq!((told.status, told.says()), (201, "executed"), "{name}");
        for mut stream in silent {
            let _ = soon(stream.read_to_end(&mut Vec::new())).await;
        }
    }
}

#[tokio::test]
async fn who_waits_for_an_answer_is_not_silent() {
    let upstream = upstream(orders(), 0).await;
    let lines = "[limits]\nhead_time = \"200ms\"\nwrite_time = \"200ms\"";
    let proxy = proxy(upstream.address, lines).await;
    let mut two = caller2(proxy.address).await;
    let both = tokio::spawn(async move {
        let two = two.send_request(post("two", "seat"));
        let (one, two) = tokio::join!(send(proxy.address, post("one", "seat")), two);
        (one, read(two.unwrap()).await)
    });
    upstream.started.notified().await;
    // Several times as long as either may be silent.
    tokio::time::sleep(Duration::from_millis(800)).await;
    upstream.permits.add_permits(2);
    let (one, two) = soon(both).await.unwrap();
    assert_eq!((one.status, two.status), (201, 201));
}

/// More than the system takes for a caller that reads nothing.
fn large() -> crate::common::Answering {
    let body = Bytes::from(vec![7; 32 << 20]);
    Arc::new(move |_, _| Response::builder().status(201).body(Full::from(body.clone())).unwrap())
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_keeps_no_place() {
    let upstream = upstream(large(), Semaphore::MAX_PERMITS).await;
    let times = "connections = 1\nhead_time = \"1h\"\nwrite_time = \"100ms\"";
    let lines = format!("[limits]\n{times}\n[policy]\nreply_max = \"64MiB\"");
    let proxy = proxy(upstream.address, &lines).await;
    let keyless = || Request::get("http://shop/a").header("host", "shop").body(Full::default());
    // Streamed, kept and replayed; by the connection and, in HTTP/2, by the stream's own room.
    for (key, two) in [(false, false), (true, false), (true, false), (false, true), (true, true)] {
        let request = if key { post("tap", "seat") } else { keyless().unwrap() };
        if two {
            let mut caller = caller2(proxy.address).await;
            let unread = soon(caller.send_request(request)).await.unwrap();
            assert!(soon(send(proxy.address, origin(keyless().unwrap()))).await.status == 201);
            drop((unread, caller));
        } else {
            let fields = if key {
                "POST /orders?x=1 HTTP/1.1\r\nidempotency-key: tap\r\ncontent-type: text/plain\r\n\
                 content-length: 4\r\nhost: shop\r\n\r\nseat"
            } else {
                "GET /a HTTP/1.1\r\nhost: shop\r\n\r\n"
            };
            // With little room in the system, which would take all of it otherwise.
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            let mut stream = socket.connect(proxy.address).await.unwrap();
            stream.write_all(fields.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 12]).await.unwrap();
            assert!(soon(send(proxy.address, origin(keyless().unwrap()))).await.status == 201);
        }
    }
}

#[tokio::test]
async fn who_takes_an_answer_slowly_gets_all_of_it() {
    let upstream = upstream(large(), Semaphore::MAX_PERMITS).await;
    let lines = "[limits]\nhead_time = \"300ms\"\n[policy]\nreply_max = \"64MiB\"";
    let proxy = proxy(upstream.address, lines).await;
    for _ in ["executed", "replayed"] {
        let mut caller = caller2(proxy.address).await;
        let answer = caller.send_request(post("tap", "seat")).await.unwrap();
        let mut body = answer.into_body();
        let (mut taken, mut pauses) = (0, 0);
        while let Some(frame) = soon(body.frame()).await {
            taken += frame.unwrap().into_data().unwrap().len();
            if pauses < 30 {
                pauses += 1;
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
        }
        assert_eq!(taken, 32 << 20);
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    for scheme in ["http", "h2c"] {
        let lines = format!(
            "upstream = \"{scheme}://{}\"\n[limits]\nanswer_time = \"1s\"",
            upstream.address
        );
        let proxy = proxy(upstream.address, &lines).await;
        let (mut body, coming) = Channel::<Bytes>::new(1);
        let request = Request::post("/orders").header("host", "shop").body(coming).unwrap();
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let told =
            tokio::spawn(async move { read(sender.send_request(request).await.unwrap()).await });
        for _ in 0..15 {
            body.send_data(Bytes::from_static(b"part")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(body);
        assert_eq!(soon(told).await.unwrap().status, 201, "{scheme}");
    }
    assert_eq!(upstream.seen(1).body.len(), 60);
}

#[tokio::test]
async fn an_upstream_that_takes_nothing_of_a_request_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    let proxy = proxy(upstream, "[limits]\nanswer_time = \"100ms\"").await;
    let body = Full::from(vec![7; 32 << 20]);
    let request = Request::post("/orders").header("host", "shop").body(body).unwrap();
    let told = soon(send(proxy.address, request)).await;
    assert_eq!((told.status, &*told.problem()), (504, "outcome-unknown"));
    holding.abort();
}

/// Something between the proxy and its upstream that can go deaf on the connections it has.
struct Relay {
    address: SocketAddr,
    accepted: Arc<AtomicU32>,
    deaf: watch::Sender<u32>,
}

async fn relay(upstream: SocketAddr) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (deaf, heard) = watch::channel(0);
    let accepted = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (mut here, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut heard = heard.clone();
            heard.mark_unchanged();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(upstream).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut here, &mut there) => return,
                    Ok(()) = heard.changed() => {}
                }
                std::future::pending::<()>().await;
            });
        }
    });
    Relay { address, accepted, deaf }
}

#[tokio::test]
async fn a_dead_connection_of_http2_costs_one_outcome() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let relay = relay(upstream.address).await;
    // Only the time limit of one request tells that the connection is dead.
    let lines = format!(
        "upstream = \"h2c://{}\"\n[limits]\nanswer_time = \"1s\"\nupstream_idle = \"1h\"",
        relay.address
    );
    let proxy = proxy(nobody().await, &lines).await;
    assert_eq!(soon(send(proxy.address, post("tap-0", "seat"))).await.says(), "executed");
    relay.deaf.send_modify(|times| *times += 1);
    let told = soon(send(proxy.address, post("tap-1", "seat"))).await;
    assert_eq!(told.says(), "unknown");
    for number in 2..6 {
        let told = soon(send(proxy.address, post(&format!("tap-{number}"), "seat"))).await;
        assert_eq!((told.status, told.says()), (201, "executed"), "{number}");
    }
    assert_eq!(relay.accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_of_http2_that_was_idle_is_not_trusted() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let relay = relay(upstream.address).await;
    let lines =
        format!("upstream = \"h2c://{}\"\n[limits]\nupstream_idle = \"10ms\"", relay.address);
    let proxy = proxy(nobody().await, &lines).await;
    for number in 0..3 {
        let told = soon(send(proxy.address, post(&format!("tap-{number}"), "seat"))).await;
        assert_eq!((told.status, told.says()), (201, "executed"), "{number}");
        relay.deaf.send_modify(|times| *times += 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(relay.accepted.load(Ordering::SeqCst), 3);
}
