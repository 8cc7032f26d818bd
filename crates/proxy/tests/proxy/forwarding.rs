//! Messages pass through whole, in both versions of HTTP, and odd ones do no harm.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::common::{caller2, orders, post, proxy, raw, read, send, upstream};

#[tokio::test]
async fn between_all_versions_of_http_a_request_arrives_as_it_was() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    for (scheme, version) in [("http", Version::HTTP_11), ("h2c", Version::HTTP_2)] {
        let line = format!("upstream = \"{scheme}://{}\"", upstream.address);
        let proxy = proxy(upstream.address, &line).await;
        for two in [false, true] {
            let key = format!("{scheme}-{two}");
            let told = if two {
                let mut caller = caller2(proxy.address).await;
                read(caller.send_request(post(&key, "seat 1")).await.unwrap()).await
            } else {
                send(proxy.address, post(&key, "seat 1")).await
            };
            assert_eq!((told.status, told.says()), (201, "executed"));
            let seen = upstream.seen(upstream.runs() as usize - 1);
            assert_eq!((seen.version, &seen.body[..]), (version, &b"seat 1"[..]));
            assert!(seen.uri.ends_with("/orders?x=1"), "{}", seen.uri);
            assert_eq!(seen.headers["idempotency-key"], key.as_str());
            assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
            assert_eq!(seen.headers["x-forwarded-proto"], "http");
            assert_eq!(seen.headers["x-forwarded-host"], "shop");
            assert_eq!(seen.headers["via"], if two { "2 onlyonce" } else { "1.1 onlyonce" });
            if version == Version::HTTP_11 {
                assert_eq!(seen.headers["host"], "shop");
            }
        }
    }
}

#[tokio::test]
async fn fields_of_one_connection_end_there() {
    let answering = Arc::new(|_: u32, _: &crate::common::Seen| {
        Response::builder()
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("x-end", "2")
            .body(Full::<Bytes>::default())
            .unwrap()
    });
    let upstream = upstream(answering, Semaphore::MAX_PERMITS).await;
    let proxy = proxy(upstream.address, "").await;
    let request = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close, x-mine\r\nx-mine: 1\r\n\
        keep-alive: 5\r\nproxy-authorization: secret\r\n\
        x-yours: 2\r\ncontent-length: 0\r\n\r\n";
    let answer = raw(proxy.address, request).await;
    assert!(answer.contains("x-end: 2") && !answer.contains("x-hop"), "{answer}");
    let seen = upstream.seen(0);
    assert_eq!(seen.headers["x-yours"], "2");
    for name in ["x-mine", "keep-alive", "proxy-authorization"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn trailers_travel_both_ways_and_are_replayed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut bytes, mut all) = ([0; 4096], Vec::new());
        while !all.ends_with(b"x-sum: 1\r\n\r\n") {
            let read = stream.read(&mut bytes).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&bytes[..read]);
        }
        let answer =
            b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n\
            2\r\nok\r\n0\r\nx-end: 9\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        String::from_utf8(all).unwrap()
    });
    let proxy = proxy(upstream, "").await;
    let request = || {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let frames = [
            Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from("seat"))),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        Request::post("http://shop/orders")
            .header("idempotency-key", "tap")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(StreamBody::new(Frames(frames.into_iter())).boxed())
            .unwrap()
    };
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut caller, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake::<_, http_body_util::combinators::BoxBody<Bytes, std::io::Error>>(TokioIo::new(
            stream,
        ))
        .await
        .unwrap();
    tokio::spawn(connection);
    let first = read(caller.send_request(request()).await.unwrap()).await;
    assert_eq!(first.trailers.as_ref().unwrap()["x-end"], "9");
    let again = read(caller.send_request(request()).await.unwrap()).await;
    assert_eq!(
        (again.says(), &again.body, &again.trailers),
        ("replayed", &first.body, &first.trailers)
    );
    assert!(asked.await.unwrap().contains("x-sum: 1"));
}

/// Frames that are there already, as a stream.
struct Frames<I>(I);

impl<I: Iterator + Unpin> futures_util::Stream for Frames<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_is_wanted() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let proxy = proxy(upstream.address, "").await;
    let head = "POST /orders HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\
        connection: close\r\n";
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(format!("{head}idempotency-key: tap\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = [0; 25];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"seat").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    // What is refused by its head is refused without its body.
    let bad = raw(proxy.address, format!("{head}idempotency-key: \"\r\n\r\n").as_bytes()).await;
    assert!(bad.starts_with("HTTP/1.1 400"), "{bad}");
    assert_eq!(upstream.runs(), 1);
}

#[tokio::test]
async fn ambiguous_messages_are_refused_and_never_forwarded() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let proxy = proxy(upstream.address, "").await;
    for odd in [
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: +4\r\n",
        "content-length: 4, 5\r\n",
        "transfer-encoding: xchunked\r\n",
        "bad name: x\r\ncontent-length: 4\r\n",
        "x: a\0b\r\ncontent-length: 4\r\n",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: tap\r\n{odd}\r\nseat");
        let answer = raw(proxy.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{odd:?}: {answer}");
    }
    assert_eq!(upstream.runs(), 0);
    // Both lengths at once: RFC 9112 section 6.3 lets the coding win, and the length must not
    // travel on.
    let both = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\
        transfer-encoding: chunked\r\n\r\n4\r\nseat\r\n0\r\n\r\n";
    let answer = raw(proxy.address, both.as_bytes()).await;
    if upstream.runs() == 1 {
        let seen = upstream.seen(0);
        assert_eq!(&seen.body[..], b"seat");
        assert_ne!(
            seen.headers.contains_key("content-length"),
            seen.headers.contains_key("transfer-encoding")
        );
    } else {
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
}

#[tokio::test]
async fn heads_and_bodies_have_limits() {
    let upstream = upstream(orders(), Semaphore::MAX_PERMITS).await;
    let lines = "[limits]\nhead_bytes = \"16KiB\"\nhead_fields = 20\n[policy]\nbody_max = 100";
    let proxy = proxy(upstream.address, lines).await;
    let request = |more: &str, body: &str| {
        format!(
            "POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: tap\r\nconnection: close\r\n{more}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let long = request(&format!("x: {}\r\n", "a".repeat(20_000)), "");
    let many: String = (0..30).map(|at| format!("x-{at}: 1\r\n")).collect();
    for (text, status) in
        [(long, "431"), (request(&many, ""), "431"), (request("", &"b".repeat(101)), "413")]
    {
        let answer = raw(proxy.address, text.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    assert_eq!(upstream.runs(), 0);
    let fits = raw(proxy.address, request("", &"b".repeat(100)).as_bytes()).await;
    assert!(fits.starts_with("HTTP/1.1 201"), "{fits}");
}

#[tokio::test]
async fn an_upgrade_is_joined_end_to_end_but_not_with_a_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        let asked = String::from_utf8_lossy(&bytes[..read]).to_ascii_lowercase();
        assert!(
            asked.contains("upgrade: websocket") && asked.contains("connection: upgrade"),
            "{asked}"
        );
        let answer = b"HTTP/1.1 101 Agreed\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let read = stream.read(&mut bytes).await.unwrap();
        stream.write_all(&bytes[..read]).await.unwrap();
    });
    let proxy = proxy(upstream, "").await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n";
    let refused = raw(
        proxy.address,
        format!("{head}idempotency-key: tap\r\ncontent-length: 0\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(refused.contains("upgrade-refused"), "{refused}");
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut bytes, mut all) = ([0; 1024], Vec::new());
    while !all.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0);
        all.extend_from_slice(&bytes[..read]);
    }
    assert!(all.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&all));
    stream.write_all(b"ping").await.unwrap();
    let read = stream.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..read], b"ping");
}

#[tokio::test]
async fn no_other_protocol_goes_around_the_proxy() {
    let (upstream, runs) = crate::common::rude(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    )
    .await;
    let shop = upstream_of_orders().await;
    let (rude, proxy) = (proxy(upstream, "").await, proxy(shop.address, "").await);
    let twice = ["h2c\r\nupgrade: websocket", "websocket\r\nupgrade: h2c"];
    for asked in ["h2c", "websocket, h2c"].into_iter().chain(twice) {
        let request = format!(
            "GET /orders HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\n\
             upgrade: {asked}\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
        );
        let answer = raw(proxy.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        let seen = shop.seen(shop.runs() as usize - 1);
        for name in ["upgrade", "http2-settings"] {
            assert!(!seen.headers.contains_key(name), "{asked}: {name}");
        }
        // Who agrees to what it was not asked for makes no tunnel either.
        let answer = raw(rude.address, request.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
    }
    // Nor does who is asked for one protocol and agrees to another.
    let asked = b"GET /orders HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\n\
                  upgrade: websocket\r\n\r\n";
    let answer = raw(rude.address, asked).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(runs.load(std::sync::atomic::Ordering::SeqCst), 5);
}

async fn upstream_of_orders() -> crate::common::Upstream {
    upstream(orders(), Semaphore::MAX_PERMITS).await
}
