//! A shop that counts what it does, and can hold its answers back or hang up.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::process::until;

/// How the shop treats the next requests. It has an effect each time, and then:
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It answers, with so many bytes at least.
    Answer(usize),
    /// It answers once it is let go.
    Hold,
    /// It cuts the connection.
    Cut,
}

/// The shop, closed when it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shop: Arc<Shop>,
    _runtime: Runtime,
}

struct Shop {
    /// The key of each effect, in their order.
    effects: Mutex<Vec<String>>,
    manner: Mutex<Manner>,
    held: Semaphore,
}

impl Upstream {
    pub(crate) fn open() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shop = Arc::new(Shop {
            effects: Mutex::default(),
            manner: Mutex::new(Manner::Answer(0)),
            held: Semaphore::new(0),
        });
        runtime.spawn(serve(listener, Arc::clone(&shop)));
        Self { address, shop, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many effects it had.
    pub(crate) fn effects(&self) -> usize {
        self.shop.effects.lock().unwrap().len()
    }

    /// How many effects it had under a key.
    pub(crate) fn effects_of(&self, key: &str) -> usize {
        self.shop.effects.lock().unwrap().iter().filter(|it| *it == key).count()
    }

    /// Waits for an effect under a key.
    pub(crate) fn began(&self, key: &str) {
        until("an effect", || (0 < self.effects_of(key)).then_some(()));
    }

    pub(crate) fn manner(&self, manner: Manner) {
        *self.shop.manner.lock().unwrap() = manner;
    }

    /// Lets one held answer go.
    pub(crate) fn let_go(&self) {
        self.shop.held.add_permits(1);
    }
}

async fn serve(listener: TcpListener, shop: Arc<Shop>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shop = Arc::clone(&shop);
        let service = service_fn(move |request: Request<Incoming>| {
            let shop = Arc::clone(&shop);
            async move { shop.effect(request).await }
        });
        tokio::spawn(async move {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = serving.await;
        });
    }
}

impl Shop {
    /// An error here cuts the connection.
    async fn effect(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let key = request.headers().get("idempotency-key");
        let key = key.map_or("none", |key| key.to_str().unwrap()).trim_matches('"').to_owned();
        request.into_body().collect().await.map_err(io::Error::other)?;
        let number = {
            let mut effects = self.effects.lock().unwrap();
            effects.push(key.clone());
            effects.len()
        };
        let manner = *self.manner.lock().unwrap();
        let padding = match manner {
            Manner::Answer(size) => "x".repeat(size),
            Manner::Hold => {
                self.held.acquire().await.map_err(io::Error::other)?.forget();
                String::new()
            }
            Manner::Cut => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let answer = Response::builder().status(201).header("x-shop", number);
        let body = format!("effect {number} of {key};{padding}");
        answer.body(body.into()).map_err(io::Error::other)
    }
}
