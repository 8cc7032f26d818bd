//! What callers are told when the upstream, or a caller, goes away.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::common::{caller, nobody, orders, origin, post, proxy, raw, rude, send, upstream};

const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn an_upstream_that_is_down_frees_the_key() {
    let address = nobody().await;
    let proxy = proxy(address, "").await;
    let told = send(proxy.address, post("tap", "seat")).await;
    assert_eq!((told.status, &*told.problem()), (502, "upstream-unreachable"));
    assert_eq!(told.says(), "not-executed");
    // It comes up, and the same key runs.
    let listener = TcpListener::bind(address).await.unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        assert_ne!(stream.read(&mut bytes).await.unwrap(), 0);
        stream.write_all(CREATED).await.unwrap();
    });
    let told = send(proxy.address, post("tap", "seat")).await;
    assert_eq!((told.status, told.says()), (201, "executed"));
    answering.await.unwrap();
}

/// Case B94.
#[tokio::test]
async fn an_upstream_that_is_cut_leaves_doubt_and_is_not_asked_again() {
    for answer in [
        "",
        "HTTP/1.1 201 Crea",
        "HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 201 Created\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n",
        "not http at all",
    ] {
        let (upstream, runs) = rude(answer).await;
        let proxy = proxy(upstream, "").await;
        let told = send(proxy.address, post("tap", "seat")).await;
        assert_eq!((told.status, &*told.problem()), (502, "outcome-unknown"), "{answer:?}");
        let again = send(proxy.address, post("tap", "seat")).await;
        assert_eq!((again.status, &*again.problem()), (409, "outcome-unknown"), "{answer:?}");
        assert_eq!(runs.load(Ordering::SeqCst), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_cut_after_its_first_bytes_breaks_off_for_the_caller_too() {
    let (upstream, runs) = rude(
        "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n4\r\nmore\r\n",
    )
    .await;
    let proxy = proxy(upstream, "").await;
    let request = b"POST /orders?x=1 HTTP/1.1\r\nhost: a\r\nidempotency-key: tap\r\n\
        content-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\nseat";
    let answer = raw(proxy.address, request).await;
    assert!(!answer.contains("\r\n0\r\n"), "the end of a whole answer: {answer}");
    let again = send(proxy.address, post("tap", "seat")).await;
    assert_eq!(again.problem(), "outcome-unknown");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_in_doubt() {
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "[limits]\nanswer_time = \"50ms\"").await;
    let told = send(proxy.address, post("tap", "seat")).await;
    assert_eq!((told.status, &*told.problem()), (504, "outcome-unknown"));
    assert_eq!(send(proxy.address, post("tap", "seat")).await.status, 409);
    assert_eq!(upstream.runs(), 1);
    assert_eq!(proxy.telemetry.get("onlyonce_unknown_total", "timed-out"), 1);
}

#[tokio::test]
async fn requests_without_a_key_are_told_the_same_and_nothing_is_kept() {
    let keyless = || {
        let mut request = post("x", "seat");
        request.headers_mut().remove("idempotency-key");
        request
    };
    let unreachable = proxy(nobody().await, "").await;
    assert_eq!(send(unreachable.address, keyless()).await.problem(), "upstream-unreachable");
    let (upstream, runs) = rude("").await;
    let proxy = proxy(upstream, "").await;
    for _ in 0..2 {
        assert_eq!(send(proxy.address, keyless()).await.status, 502);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_connection_that_went_stale_in_the_pool_is_no_doubt() {
    // It answers once on each connection, as if it would keep it, and then closes it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let (closed, mut closes) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            assert_ne!(stream.read(&mut bytes).await.unwrap(), 0);
            stream.write_all(CREATED).await.unwrap();
            drop(stream);
            closed.send(()).unwrap();
        }
    });
    let proxy = proxy(upstream, "").await;
    for number in 0..50 {
        let told = send(proxy.address, post(&format!("tap-{number}"), "seat")).await;
        assert_eq!((told.status, told.says()), (201, "executed"), "{number}");
        closes.recv().await.unwrap();
    }
    assert_eq!(proxy.telemetry.get("onlyonce_upstream_lost_on_reused_total", ""), 0);
}

/// Case B100.
#[tokio::test]
async fn a_caller_that_hangs_up_finds_its_answer_later() {
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "").await;
    let mut gone = caller(proxy.address).await;
    let asked = tokio::spawn(async move { gone.send_request(origin(post("tap", "seat"))).await });
    upstream.started.notified().await;
    asked.abort();
    let _ = asked.await;
    upstream.permits.add_permits(1);
    let told = send(proxy.address, post("tap", "seat")).await;
    assert_eq!((told.status, &told.body[..], told.says()), (201, &b"order 1"[..], "replayed"));
    assert_eq!(upstream.runs(), 1);
}

#[tokio::test]
async fn stopping_lets_operations_end_and_records_them() {
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "").await;
    let (address, engine) = (proxy.address, proxy.engine.clone());
    let waiting = tokio::spawn(send(address, post("one", "seat")));
    upstream.started.notified().await;
    let mut gone = caller(address).await;
    let left = tokio::spawn(async move { gone.send_request(origin(post("two", "seat"))).await });
    upstream.started.notified().await;
    left.abort();
    let _ = left.await;
    let stopping = proxy.stopping();
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    upstream.permits.add_permits(2);
    assert_eq!(stopping.await.unwrap().left, 0);
    assert_eq!(waiting.await.unwrap().says(), "executed");
    let page = engine.list(onlyonce::store::Filter::default(), None).await.unwrap();
    let states = page.records.iter().map(|(_, record)| record.state.kind().name());
    assert_eq!(states.collect::<Vec<_>>(), ["completed", "completed"]);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "[limits]\ndrain_time = \"20ms\"").await;
    let waiting = tokio::spawn(send(proxy.address, post("one", "seat")));
    upstream.started.notified().await;
    assert_eq!(proxy.stopping().await.unwrap().left, 1);
    waiting.abort();
    upstream.permits.add_permits(Semaphore::MAX_PERMITS / 2);
}
