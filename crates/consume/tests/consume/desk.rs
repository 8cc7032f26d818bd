//! What the tests share: an inbox, and an outside world that has a line for each run.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::store::{MemoryStore, Store};
use onlyonce::{Attempt, Engine, Ran, Run, direct};
use onlyonce_consume::{Inbox, Message, Settings, Settled};
use onlyonce_core::{Key, Policy, Record, Reply, Secret};
use onlyonce_tokio::TokioRuntime;
use tempfile::TempDir;

pub(crate) fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

pub(crate) async fn engine(store: Arc<dyn Store>) -> Engine {
    let runtime = Arc::new(TokioRuntime::new());
    Engine::start(store, runtime, onlyonce::Settings::default(), None).await.unwrap()
}

/// A file with a line for each run.
#[derive(Clone)]
pub(crate) struct Outside {
    file: PathBuf,
    _folder: Arc<TempDir>,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("runs");
        Self { file, _folder: Arc::new(folder) }
    }

    pub(crate) fn happens(&self, what: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file).unwrap();
        file.write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    /// What has happened, in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        lines(&self.file)
    }

    pub(crate) fn times(&self, what: &str) -> usize {
        self.lines().iter().filter(|it| *it == what).count()
    }
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// What a handler does with a message whose effect has happened.
type Manner = Box<dyn FnMut(&str) -> Ran + Send>;

/// A handler that counts, then ends as it is told.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) outside: Outside,
    manner: Arc<Mutex<Manner>>,
    pause: Arc<Mutex<Duration>>,
    begun: Arc<AtomicUsize>,
}

impl Hand {
    pub(crate) fn new() -> Self {
        let manner: Manner = Box::new(|body| Ran::Happened(reply(body)));
        Self {
            outside: Outside::new(),
            manner: Arc::new(Mutex::new(manner)),
            pause: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// From now on runs end so.
    pub(crate) fn ends(&self, manner: impl FnMut(&str) -> Ran + Send + 'static) {
        *self.manner.lock().unwrap() = Box::new(manner);
    }

    /// From now on runs take this long.
    pub(crate) fn takes(&self, pause: Duration) {
        *self.pause.lock().unwrap() = pause;
    }

    /// How many runs were begun.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// The effect of a message: a line of what it says.
    pub(crate) fn effect(&self, message: &Message) -> impl Run + use<> {
        let (hand, body) = (self.clone(), String::from_utf8_lossy(&message.body).into_owned());
        direct(move |_: Attempt| async move {
            hand.begun.fetch_add(1, Ordering::SeqCst);
            let pause = *hand.pause.lock().unwrap();
            tokio::time::sleep(pause).await;
            hand.outside.happens(&body);
            (hand.manner.lock().unwrap())(&body)
        })
    }
}

pub(crate) fn reply(body: &str) -> Reply {
    Reply::kept(200, format!("done: {body}"))
}

/// A consumer without a broker.
pub(crate) struct Desk {
    pub(crate) inbox: Inbox,
    pub(crate) hand: Hand,
    pub(crate) store: Arc<dyn Store>,
}

impl Desk {
    pub(crate) async fn open(settings: Settings) -> Self {
        Self::on(Arc::new(MemoryStore::new()), settings).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, settings: Settings) -> Self {
        let engine = engine(Arc::clone(&store)).await;
        let inbox = Inbox::new(engine, secret(), "orders", settings).unwrap();
        Self { inbox, hand: Hand::new(), store }
    }

    pub(crate) async fn with(policy: Policy) -> Self {
        Self::open(Settings { policy, ..Settings::default() }).await
    }

    pub(crate) async fn take(&self, message: Message) -> Settled {
        let hand = self.hand.clone();
        let handler = move |message: &Arc<Message>| hand.effect(message);
        self.inbox.take(Arc::new(message), &handler).await.unwrap()
    }

    pub(crate) async fn record(&self, key: &str) -> Record {
        let id = self.inbox.id(&Key::new(key.to_owned()).unwrap());
        self.inbox.engine().get(id).await.unwrap().unwrap()
    }
}

/// A message that is named like its content.
pub(crate) fn message(name: &str) -> Message {
    Message { body: name.into(), id: Some(name.into()), ..Message::default() }
}

pub(crate) fn again(name: &str) -> Message {
    Message { redelivered: true, ..message(name) }
}

/// Done, earlier or now.
pub(crate) fn done(name: &str, replayed: bool) -> Settled {
    Settled::Done { reply: reply(name), replayed }
}
