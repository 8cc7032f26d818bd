//! A real server, and what a publisher and an operator do with it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{self, Context};
use async_nats::{ConnectOptions, HeaderMap};
use onlyonce_consume::{Message, Told};
use onlyonce_nats::{Jet, NatsError, Streams};
use onlyonce_testbed::Nats;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::desk::Desk;

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many messages were sent.
static SENT: AtomicUsize = AtomicUsize::new(0);

/// A server with the stream `orders`.
pub(crate) struct Stream {
    pub(crate) server: Nats,
    /// How its publisher speaks to it.
    options: ConnectOptions,
}

impl Stream {
    pub(crate) async fn start() -> Self {
        Self::started(Nats::start, ConnectOptions::new()).await
    }

    pub(crate) async fn started(
        start: impl FnOnce() -> Nats + Send + 'static,
        options: ConnectOptions,
    ) -> Self {
        let server = tokio::task::spawn_blocking(start).await.unwrap();
        let stream = Self { server, options };
        let subjects = vec!["orders.>".to_owned()];
        let config = Config { name: "orders".to_owned(), subjects, ..Config::default() };
        stream.context().await.create_stream(config).await.unwrap();
        stream
    }

    pub(crate) fn restart(&mut self) {
        tokio::task::block_in_place(|| self.server.restart());
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://localhost:{}", self.server.address().port())
    }

    async fn context(&self) -> Context {
        jetstream::new(self.options.clone().connect(self.url()).await.unwrap())
    }

    /// Sends messages: an id, which the server need not know, and a body.
    pub(crate) async fn send(&self, all: &[(&str, &str)]) {
        let context = self.context().await;
        for (key, body) in all {
            let mut headers = HeaderMap::new();
            if !key.is_empty() {
                headers.insert("order", *key);
            }
            // The server takes a second one of the same id for a duplicate, for two minutes.
            let number = SENT.fetch_add(1, Ordering::SeqCst);
            headers.insert("Nats-Msg-Id", format!("m-{number}").as_str());
            let body = body.as_bytes().to_vec().into();
            context.publish_with_headers("orders.new", headers, body).await.unwrap().await.unwrap();
        }
    }

    /// How many messages lie in a stream.
    pub(crate) async fn count(&self, stream: &str) -> u64 {
        let found = self.context().await.get_stream(stream).await.unwrap();
        found.cached_info().state.messages
    }

    /// How many deliveries the server waits for a word about.
    pub(crate) async fn unacknowledged(&self) -> usize {
        let found = self.context().await.get_stream("orders").await.unwrap();
        found.consumer_info("warehouse").await.unwrap().num_ack_pending
    }

    /// The headers of the first message in a stream.
    pub(crate) async fn first(&self, stream: &str) -> HeaderMap {
        let found = self.context().await.get_stream(stream).await.unwrap();
        let first = found.cached_info().state.first_sequence;
        found.get_raw_message(first).await.unwrap().headers
    }
}

/// Streams whose pauses are short.
pub(crate) fn streams() -> Streams {
    let pauses = [100, 300].map(Duration::from_millis).to_vec();
    let pause = Duration::from_millis(100);
    Streams { pauses, pause, ..Streams::of("orders", "warehouse") }
}

/// A consumer that runs until it is stopped.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), NatsError>>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Running {
    pub(crate) fn start(desk: &Desk, jet: &Jet) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (hand, inbox, jet) = (desk.hand.clone(), desk.inbox.clone(), jet.clone());
        let telling = Arc::clone(&told);
        let ended = tokio::spawn(async move {
            let handler = Arc::new(move |message: &Arc<Message>| hand.effect(message));
            let tell = move |it| telling.lock().unwrap().push(it);
            let stopped = async { drop(stopped.await) };
            jet.run(&inbox, &handler, stopped, tell).await
        });
        Self { stop, ended, told }
    }

    pub(crate) fn count(&self, is: impl Fn(&Told) -> bool) -> usize {
        self.told.lock().unwrap().iter().filter(|it| is(it)).count()
    }

    pub(crate) async fn stop(self) -> Vec<Told> {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// Looks until it is so; fails the test after three minutes.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    async move {
        for _ in 0..9_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("never: {what}")
    }
}
