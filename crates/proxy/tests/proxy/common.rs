//! An upstream that counts, the proxy before it, and callers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use onlyonce::core::Secret;
use onlyonce::store::{MemoryStore, Store};
use onlyonce::{Engine, Settings};
use onlyonce_http::Keys;
use onlyonce_proxy::{Config, Drained, Server, Telemetry};
use onlyonce_tokio::TokioRuntime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;

/// What the upstream saw of a request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) version: Version,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An upstream in HTTP/1.1 and HTTP/2.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    runs: Arc<AtomicU32>,
    seen: Arc<Mutex<Vec<Seen>>>,
    pub(crate) started: Arc<Notify>,
    /// A run waits for one of these.
    pub(crate) permits: Arc<Semaphore>,
    serving: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) type Answering = Arc<dyn Fn(u32, &Seen) -> Response<Full<Bytes>> + Send + Sync>;

/// Answers 201 with the number of the run.
pub(crate) fn orders() -> Answering {
    Arc::new(|number, _| {
        let answer = Response::builder().status(201).header("x-shop", "yes");
        answer.body(Full::from(format!("order {number}"))).unwrap()
    })
}

pub(crate) async fn upstream(answering: Answering, permits: usize) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (runs, seen): (Arc<AtomicU32>, Arc<Mutex<Vec<Seen>>>) = Default::default();
    let (started, permits) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(permits)));
    let parts = (Arc::clone(&runs), Arc::clone(&seen), Arc::clone(&started), Arc::clone(&permits));
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (parts, answering) = (parts.clone(), Arc::clone(&answering));
            let service = service_fn(move |request: Request<Incoming>| {
                let ((runs, seen, started, permits), answering) =
                    (parts.clone(), Arc::clone(&answering));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap();
                    let one = Seen {
                        version: head.version,
                        uri: head.uri.to_string(),
                        headers: head.headers,
                        body: body.to_bytes(),
                    };
                    let number = runs.fetch_add(1, Ordering::SeqCst) + 1;
                    seen.lock().unwrap().push(one.clone());
                    started.notify_one();
                    permits.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(answering(number, &one))
                }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Upstream { address, runs, seen, started, permits, serving }
}

impl Upstream {
    pub(crate) fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self, at: usize) -> Seen {
        self.seen.lock().unwrap()[at].clone()
    }
}

/// A free port with nothing behind it.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// An upstream that reads a request, answers these bytes and closes the connection, each time.
pub(crate) async fn rude(answer: &'static str) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut bytes = [0; 65_536];
                if 0 < stream.read(&mut bytes).await.unwrap_or(0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            });
        }
    });
    (address, runs)
}

/// A proxy that serves until it is stopped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) engine: Engine,
    pub(crate) telemetry: Arc<Telemetry>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Drained>,
}

impl Proxy {
    /// Tells it to stop and returns what it will have come to.
    pub(crate) fn stopping(self) -> JoinHandle<Drained> {
        self.stop.send(()).unwrap();
        self.serving
    }
}

/// A proxy to `upstream`, with more lines of configuration.
pub(crate) async fn proxy(upstream: SocketAddr, more: &str) -> Proxy {
    proxy_on(Arc::new(MemoryStore::new()), upstream, more).await
}

/// The same on a store.
pub(crate) async fn proxy_on(store: Arc<dyn Store>, upstream: SocketAddr, more: &str) -> Proxy {
    proxy_with(Settings::default(), store, upstream, more).await
}

/// The same with other settings.
pub(crate) async fn proxy_with(
    settings: Settings,
    store: Arc<dyn Store>,
    upstream: SocketAddr,
    more: &str,
) -> Proxy {
    let text = if more.contains("upstream =") {
        format!("listen = \"127.0.0.1:0\"\n{more}")
    } else {
        format!("listen = \"127.0.0.1:0\"\nupstream = \"http://{upstream}\"\n{more}")
    };
    let config = Config::parse("test.toml", &text, None).unwrap_or_else(|it| panic!("{it}"));
    let runtime = Arc::new(TokioRuntime::new());
    let telemetry = Arc::new(Telemetry::default());
    let observer = Some(Arc::clone(&telemetry) as Arc<_>);
    let engine = Engine::start(store, runtime, settings, observer).await.unwrap();
    let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
    let server = Server::bind(config, engine.clone(), keys, Arc::clone(&telemetry)).await.unwrap();
    let (address, admin) = (server.local_addr().unwrap(), server.admin_addr());
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.serve(async {
        if stopped.await.is_err() {
            // The test is over, and so is its runtime.
            std::future::pending::<()>().await;
        }
    }));
    Proxy { address, admin, engine, telemetry, stop, serving }
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Told {
    pub(crate) fn says(&self) -> &str {
        self.headers.get("idempotency-status").map_or("", |it| it.to_str().unwrap())
    }

    pub(crate) fn problem(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

pub(crate) async fn read(answer: Response<Incoming>) -> Told {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Told { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers }
}

/// A caller's connection of HTTP/1.1.
pub(crate) async fn caller(proxy: SocketAddr) -> http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(proxy).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A caller's connection of HTTP/2 over plain TCP.
pub(crate) async fn caller2(proxy: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(proxy).await.unwrap();
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn post(key: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post("http://shop/orders?x=1")
        .header("host", "shop")
        .header("idempotency-key", key)
        .header("content-type", "text/plain")
        .body(Full::from(body))
        .unwrap()
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(proxy: SocketAddr, request: Request<Full<Bytes>>) -> Told {
    read(caller(proxy).await.send_request(origin(request)).await.unwrap()).await
}

/// As HTTP/1.1 writes it: the path alone.
pub(crate) fn origin(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
    request
}

/// Sends these bytes and returns all that comes back until the proxy closes.
pub(crate) async fn raw(proxy: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
