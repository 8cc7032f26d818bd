//! Redis, and a bare client of as many callers: the store's own script, over as many connections,
//! and beside it two commands that compare nothing and note nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onlyonce_core::Floor;
use onlyonce_redis::{Settings, Target};
use onlyonce_testbed::Redis as Server;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, cmd};

use crate::Bench;
use crate::load::{Engines, id};

/// The script of the store.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../redis/src/lua/swap.lua");
/// The states that the store has an index of.
const STATES: [&str; 5] = ["in-flight", "released", "completed", "unknown", "tombstone"];
const BUCKETS: u8 = 64;
/// Connections, as many as the store has, each with its share of the buckets.
const LINKS: usize = 4;

pub(crate) struct Redis {
    engines: Engines,
    links: Vec<MultiplexedConnection>,
    swaps: Arc<Swaps>,
    _server: Server,
}

/// What a bare client needs.
struct Swaps {
    digest: String,
    /// A claim and a completion as the store has written them.
    values: [Vec<u8>; 2],
    next: AtomicU64,
    revision: AtomicU64,
}

pub(crate) async fn start() -> Redis {
    let server = tokio::task::block_in_place(Server::start);
    let url = format!("redis://{}", server.address());
    let target: Target = url.parse().unwrap();
    onlyonce_redis::Redis::init(&target, Floor::NONE).await.unwrap();
    let settings = Settings { key_ahead_max: Duration::from_secs(300) };
    let store = onlyonce_redis::Redis::open(&target, settings).await.unwrap();
    let engines = Engines::on(Arc::new(store)).await;
    let client = redis::Client::open(url).unwrap();
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut links = Vec::new();
    for _ in 0..LINKS {
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        links.push(connecting.await.unwrap());
    }
    let connection = &mut links[0];
    let (claimed, ended) = engines.samples().await;
    let mut values = [Vec::new(), Vec::new()];
    for (value, id) in values.iter_mut().zip([claimed, ended]) {
        let key = record("onlyonce", id);
        *value = cmd("GET").arg(key).query_async(connection).await.unwrap();
        assert!(9 < value.len(), "the store's names of keys are others by now");
    }
    for bucket in 0..BUCKETS {
        let facts = format!("{{bare:{bucket:02x}}}:facts");
        let mut set = cmd("HSET");
        set.arg(facts).arg("revision").arg(&[0_u8; 8][..]);
        set.exec_async(connection).await.unwrap();
    }
    let source = std::fs::read_to_string(SCRIPT).unwrap();
    let mut load = cmd("SCRIPT");
    let digest = load.arg("LOAD").arg(source).query_async(connection).await.unwrap();
    let (next, revision) = (AtomicU64::new(0), AtomicU64::new(1));
    let swaps = Arc::new(Swaps { digest, values, next, revision });
    Redis { engines, links, swaps, _server: server }
}

fn record(prefix: &str, id: [u8; 16]) -> String {
    let name: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{{prefix}:{:02x}}}:{name}", id[0] % BUCKETS)
}

fn link(links: &mut [MultiplexedConnection], id: [u8; 16]) -> &mut MultiplexedConnection {
    &mut links[usize::from(id[0] % BUCKETS) % LINKS]
}

impl Swaps {
    /// A claim, or the completion of one: the call, and the revision of what it writes.
    fn call(&self, id: [u8; 16], expected: Option<u64>) -> (Cmd, u64) {
        let bucket = id[0] % BUCKETS;
        let revision = self.revision.fetch_add(1, Ordering::Relaxed);
        let mut value = self.values[usize::from(expected.is_some())].clone();
        value[..8].copy_from_slice(&revision.to_be_bytes());
        let mut call = cmd("EVALSHA");
        call.arg(&self.digest).arg(2 + STATES.len()).arg(record("bare", id));
        call.arg(format!("{{bare:{bucket:02x}}}:facts"));
        for state in STATES {
            call.arg(format!("{{bare:{bucket:02x}}}:{state}"));
        }
        let expected = expected.map(|revision| revision.to_be_bytes());
        let expected = expected.as_ref().map_or(&[][..], |it| &it[..]);
        call.arg(u64::MAX >> 12).arg(expected).arg(value).arg(&id[..]).arg(revision);
        (call, revision)
    }

    async fn pair(&self, links: &mut [MultiplexedConnection]) {
        let id = id(self.next.fetch_add(1, Ordering::Relaxed));
        let connection = link(links, id);
        let (claim, revision) = self.call(id, None);
        for call in [claim, self.call(id, Some(revision)).0] {
            let (word, _): (String, u64) = call.query_async(connection).await.unwrap();
            assert_eq!(word, "done");
        }
    }

    async fn plain_pair(&self, links: &mut [MultiplexedConnection]) {
        let id = id(self.next.fetch_add(1, Ordering::Relaxed));
        let (key, connection) = (record("plain", id), link(links, id));
        let conditions = ["NX", "XX"];
        for (value, condition) in self.values.iter().zip(conditions) {
            let mut set = cmd("SET");
            set.arg(&key).arg(value).arg(condition).arg("PX").arg(86_400_000);
            set.exec_async(connection).await.unwrap();
        }
    }
}

impl Redis {
    /// Pairs a second of so many callers.
    async fn callers(&self, callers: usize, time: Duration, is_plain: bool) -> f64 {
        let begun = Instant::now();
        let calling = (0..callers).map(|_| {
            let (swaps, mut links) = (Arc::clone(&self.swaps), self.links.clone());
            tokio::spawn(async move {
                let mut pairs = 0_u64;
                while begun.elapsed() < time {
                    if is_plain {
                        swaps.plain_pair(&mut links).await;
                    } else {
                        swaps.pair(&mut links).await;
                    }
                    pairs += 1;
                }
                pairs
            })
        });
        let mut pairs = 0;
        for caller in calling.collect::<Vec<_>>() {
            pairs += caller.await.unwrap();
        }
        pairs as f64 / begun.elapsed().as_secs_f64()
    }
}

impl Bench for Redis {
    fn engines(&self) -> &Engines {
        &self.engines
    }

    async fn commits(&mut self) -> Option<u64> {
        None
    }

    async fn bare(&mut self, callers: usize, _: usize, time: Duration) -> Option<f64> {
        Some(self.callers(callers, time, false).await)
    }

    async fn plain(&mut self, callers: usize, time: Duration) -> Option<f64> {
        Some(self.callers(callers, time, true).await)
    }
}
