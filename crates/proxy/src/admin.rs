//! The port for operators: metrics, and whether the proxy lives and is ready.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use onlyonce::core::KeyId;
use onlyonce_http::well_known;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::handle::Proxy;

/// How long the store may take to answer whoever asks whether the proxy is ready.
const READY_WAIT: Duration = Duration::from_secs(2);

/// Until it is aborted.
pub(crate) async fn serve(listener: TcpListener, proxy: Arc<Proxy>, draining: Arc<AtomicBool>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (proxy, draining) = (Arc::clone(&proxy), Arc::clone(&draining));
        let service = service_fn(move |request| {
            let (proxy, draining) = (Arc::clone(&proxy), Arc::clone(&draining));
            async move { Ok::<_, Infallible>(answer(&request, &proxy, &draining).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn answer(
    request: &Request<Incoming>,
    proxy: &Proxy,
    draining: &AtomicBool,
) -> Response<Full<Bytes>> {
    let token = proxy.config.admin.as_ref().map(|admin| admin.token.as_str());
    if !token.is_some_and(|token| is_known(request.headers(), token)) {
        let mut answer = text(StatusCode::UNAUTHORIZED, "the token is missing or wrong\n");
        let bearer = HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        return answer;
    }
    match request.uri().path() {
        "/metrics" => text(StatusCode::OK, proxy.telemetry.render()),
        "/livez" => text(StatusCode::OK, "alive\n"),
        "/readyz" if draining.load(Ordering::Acquire) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        // Any key will do: what counts is that the store answers.
        "/readyz" => {
            match timeout(READY_WAIT, proxy.engine.get(KeyId::from_bytes([0; 16]))).await {
                Ok(Ok(_)) => text(StatusCode::OK, "ready\n"),
                Ok(Err(error)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
                Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n"),
            }
        }
        well_known::PATH => {
            let mut answer = text(StatusCode::OK, proxy.document_with_risks().to_string());
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(header::CONTENT_TYPE, json);
            answer
        }
        _ => {
            let all = "there are /metrics, /livez, /readyz and /.well-known/idempotency\n";
            text(StatusCode::NOT_FOUND, all)
        }
    }
}

/// Whether the token is the right one, in a time that does not depend on where it differs.
fn is_known(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    let differing = given.iter().zip(token.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && differing == 0
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}
