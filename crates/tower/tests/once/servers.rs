//! The middleware in real servers on loopback: axum, and hyper without a framework.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use onlyonce::core::Secret;
use onlyonce::store::MemoryStore;
use onlyonce::{Engine, Settings};
use onlyonce_http::{Keys, RoutePolicy};
use onlyonce_tokio::TokioRuntime;
use onlyonce_tower::{OnceLayer, RequestBody};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, service_fn};

use crate::common::Never;

async fn layer() -> OnceLayer {
    let (store, runtime) = (Arc::new(MemoryStore::new()), Arc::new(TokioRuntime::new()));
    let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
    let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
    OnceLayer::new(engine, keys, Arc::new(RoutePolicy::default()))
}

async fn tap(address: std::net::SocketAddr) -> (StatusCode, HeaderMap, Bytes) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/orders")
        .header("host", "shop")
        .header("idempotency-key", "\"tap\"")
        .body(Full::<Bytes>::from("seat"))
        .unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    (head.status, head.headers, body.collect().await.unwrap().to_bytes())
}

async fn three_taps(address: std::net::SocketAddr, runs: &AtomicU32) {
    let first = tap(address).await;
    assert_eq!((first.0, &*first.2), (StatusCode::CREATED, &b"order 1"[..]));
    for _ in 0..2 {
        let again = tap(address).await;
        assert_eq!((again.0, &again.2), (first.0, &first.2));
        assert_eq!(again.1["idempotent-replayed"], "true");
        assert_eq!(again.1["content-length"], "7");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn in_axum_three_taps_run_once() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let order = move || async move {
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        (StatusCode::CREATED, format!("order {number}"))
    };
    let app = Router::new().route("/orders", post(order)).layer(layer().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    three_taps(address, &runs).await;
}

#[tokio::test]
async fn in_a_bare_hyper_server_three_taps_run_once() {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let order = service_fn(move |request: Request<RequestBody<Incoming>>| {
        let counted = Arc::clone(&counted);
        async move {
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "seat");
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let answer = Response::builder().status(201);
            Ok::<_, Never>(answer.body(Full::from(format!("order {number}"))).unwrap())
        }
    });
    let service = TowerToHyperService::new(layer().await.layer(order));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            let serve = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serve);
        }
    });
    three_taps(address, &runs).await;
}
