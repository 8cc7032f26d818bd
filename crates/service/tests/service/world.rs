//! A running service, its clients, and the shop outside that counts what really happened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onlyonce::store::MemoryStore;
use onlyonce::{Engine, Settings};
use onlyonce_core::Secret;
use onlyonce_listen::Telemetry;
use onlyonce_service::{Config, Drained, Listen, Place};
use onlyonce_tokio::TokioRuntime;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Address, Client};

/// Tokens of the callers in [`CALLERS`].
pub(crate) const ANNA: &str = "token-of-anna-000001";
pub(crate) const BERT: &str = "token-of-bert-000002";
pub(crate) const OLGA: &str = "token-of-olga-000003";

/// Anna has one scope, Bert two, and Olga is an operator. They are known by the digests of their
/// tokens: `printf %s TOKEN | sha256sum`.
pub(crate) const CALLERS: &str = r#"
[[caller]]
name = "anna"
token_sha256 = "ANNA"
scopes = ["orders"]

[[caller]]
name = "bert"
token_sha256 = "BERT"
scopes = ["orders", "mails"]

[[caller]]
name = "olga"
token_sha256 = "OLGA"
operator = true
"#;

/// Two scopes with everything by default.
pub(crate) const SCOPES: &str = "[[scope]]\nname = \"orders\"\n[[scope]]\nname = \"mails\"\n";

/// A scope whose claims lapse soon.
pub(crate) const HASTY: &str = "[[scope]]\nname = \"orders\"\nlease = \"150ms\"\n\
                                skew_max = \"10ms\"\n[[scope]]\nname = \"mails\"\n";

/// How often a condition is looked at, and how many times before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 6_000;

/// A configuration with these scopes for all three callers, on a free port.
pub(crate) fn config(scopes: &str) -> Config {
    use sha2::{Digest as _, Sha256};
    let mut text = format!("listen = \"127.0.0.1:0\"\n{scopes}{CALLERS}");
    for (name, token) in [("ANNA", ANNA), ("BERT", BERT), ("OLGA", OLGA)] {
        let digest: String = Sha256::digest(token).iter().map(|it| format!("{it:02x}")).collect();
        text = text.replace(name, &digest);
    }
    Config::parse("test.toml", &text).unwrap()
}

/// A service that runs.
pub(crate) struct World {
    pub(crate) address: Address,
    pub(crate) telemetry: Arc<Telemetry>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Drained>,
}

impl World {
    pub(crate) async fn start(scopes: &str) -> Self {
        Self::with(config(scopes)).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let unix: Option<PathBuf> = match &config.listen {
            Listen::Tcp(_) => None,
            Listen::Unix(path) => Some(path.clone()),
        };
        let settings = Settings { waiters_max: config.limits.waiters, ..Settings::default() };
        let place = Place::take(config).await.unwrap();
        let telemetry = Arc::new(Telemetry::default());
        let (store, runtime) = (Arc::new(MemoryStore::new()), Arc::new(TokioRuntime::new()));
        let observer = Some(Arc::clone(&telemetry) as Arc<_>);
        let engine = Engine::start(store, runtime, settings, observer).await.unwrap();
        let server = place.serve_with(engine, Secret::from_bytes([7; 32]), Arc::clone(&telemetry));
        let address = match unix {
            Some(path) => Address::Unix(path),
            None => Address::Tcp(server.local_addr().unwrap().unwrap()),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));
        Self { address, telemetry, stop: Some(stop), serving }
    }

    pub(crate) fn client(&self, token: &'static str) -> Client {
        Client { address: self.address.clone(), token: Some(token) }
    }

    pub(crate) fn stranger(&self) -> Client {
        Client { address: self.address.clone(), token: None }
    }

    /// Ends it, and says how that went.
    pub(crate) async fn stop(mut self) -> Drained {
        drop(self.stop.take());
        self.serving.await.unwrap()
    }
}

/// A socket's path in a folder of the test.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("records.sock")
}

/// The shop outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shop(Arc<AtomicUsize>);

impl Shop {
    /// An order is carried out, now.
    pub(crate) fn order(&self) -> Value {
        let number = 7_829 + self.0.fetch_add(1, Ordering::SeqCst);
        json!({ "status": 201, "json": { "order": number } })
    }

    pub(crate) fn orders(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Random bits of an attempt, in a way that tests can read.
pub(crate) fn attempt(number: u32) -> String {
    format!("{number:032x}")
}

/// A claim of a key, as everybody makes it.
pub(crate) fn claim(key: &str, number: u32) -> Value {
    json!({ "scope": "orders", "key": key, "claim_id": attempt(number), "fingerprint": "f" })
}

/// With more members, or other ones.
pub(crate) fn with(mut document: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

/// Claims a key that is free.
pub(crate) async fn granted(client: &Client, key: &str, number: u32) -> u64 {
    let answer = client.post("claim", &claim(key, number)).await.ok();
    assert_eq!(answer["outcome"], "granted", "{answer}");
    answer["fence"].as_u64().unwrap()
}

/// Something said of a claim.
pub(crate) fn of(key: &str, fence: u64) -> Value {
    json!({ "scope": "orders", "key": key, "fence": fence })
}

/// The record of a key, once its state is this.
pub(crate) async fn until_state(client: &Client, key: &str, state: &str) -> Value {
    for _ in 0..LOOKS_MAX {
        let answer = client.post("get", &json!({ "scope": "orders", "key": key })).await;
        if answer.status == 200 && answer.json()["state"] == state {
            return answer.json();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("{key} never became {state}")
}
