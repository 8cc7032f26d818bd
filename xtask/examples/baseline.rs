//! The servers that the benchmark compares with, on hyper and with no idempotency at all.
//!
//! `baseline upstream` and `baseline memory` answer every request with 1 KiB, `baseline proxy
//! URL` streams to an upstream and back. Each takes a free port and prints
//! `listening on http://127.0.0.1:PORT`. They are run by `cargo xtask bench`.

#![allow(clippy::print_stdout, reason = "the port is told on standard output")]

use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING};
use hyper::http::uri::{Authority, Scheme};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Body = BoxBody<Bytes, hyper::Error>;
type Failure = Box<dyn Error + Send + Sync>;

/// What belongs to one connection and is not forwarded.
const HOP_BY_HOP: [HeaderName; 4] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING];
/// How much every answer carries.
const ANSWER: [u8; 1024] = [b'a'; 1024];

/// How many requests were answered; `GET /runs` tells.
static RUNS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "one of it is made")]
enum Role {
    /// Reads the request to its end, then answers.
    Answer,
    Forward(Client<HttpConnector, Incoming>, Authority),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let role = match words.as_slice() {
        ["upstream" | "memory"] => Role::Answer,
        ["proxy", upstream] => {
            let upstream: Uri = upstream.parse()?;
            let authority = upstream.authority().cloned().ok_or("the upstream has no host")?;
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            Role::Forward(Client::builder(TokioExecutor::new()).build(connector), authority)
        }
        _ => return Err("usage: baseline upstream | memory | proxy URL".into()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let role = role.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| serve(role.clone(), request));
            // A connection that breaks is the client's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn serve(role: Role, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let answered = match role {
        Role::Answer => answer(request).await,
        Role::Forward(client, authority) => forward(client, authority, request).await,
    };
    Ok(answered.unwrap_or_else(|_| {
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    if request.uri().path() == "/runs" {
        return Ok(Response::new(full(RUNS.load(Ordering::Relaxed).to_string().into())));
    }
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    RUNS.fetch_add(1, Ordering::Relaxed);
    Ok(Response::new(full(Bytes::from_static(&ANSWER))))
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    authority: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let host = HeaderValue::from_str(authority.as_str())?;
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts)?;
    for name in HOP_BY_HOP {
        request.headers_mut().remove(name);
    }
    request.headers_mut().insert(HOST, host);
    let mut response = client.request(request).await?;
    for name in HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    Ok(response.map(BodyExt::boxed))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
