//! Redis keeps what every store promises, as one server and as a cluster.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use onlyonce_conformance::{Damages, StoreBuilder, Tells, claimed, id};
use onlyonce_core::{Floor, KeyId};
use onlyonce_redis::Redis;
use onlyonce_store::{Filter, Store as _, Swap};
use onlyonce_testbed::RedisCluster;

use common::{RUNTIME, Server, init, open};

/// A server that each builder starts, and that is killed and started again.
#[derive(Default)]
struct Servers(Mutex<Vec<Server>>);

impl StoreBuilder for Servers {
    type Store = Redis;

    fn fresh(&self) -> Redis {
        let server = Server::start();
        init(&server.url(), Floor::NONE);
        let store = open(&server.url());
        self.0.lock().unwrap().push(server);
        store
    }

    /// The server is killed as well as the process that used it.
    fn after_crash(&self, store: Redis) -> Redis {
        drop(store);
        let mut servers = self.0.lock().unwrap();
        let server = servers.last_mut().unwrap();
        server.redis.restart();
        open(&server.url())
    }

    fn has_clock(&self) -> bool {
        true
    }
}

impl Damages for Servers {
    fn damage(&self, _store: &Redis, id: KeyId) {
        let servers = self.0.lock().unwrap();
        let bucket = id.as_bytes()[0] % 64;
        let key = format!("{{onlyonce:{bucket:02x}}}:{id}");
        let redis = &servers.last().unwrap().redis;
        assert_eq!(redis.ask(&["SETRANGE", &key, "40", "spoiled"]).chars().next(), Some(':'));
    }
}

impl Tells for Servers {
    fn beside(&self, _store: &Redis) -> Redis {
        open(&self.0.lock().unwrap().last().unwrap().url())
    }
}

onlyonce_conformance::conformance_suite!(Servers::default());
onlyonce_conformance::durable_suite!(Servers::default());
onlyonce_conformance::damage_suite!(Servers::default());
onlyonce_conformance::notice_suite!(Servers::default());

/// Three masters, which all cases share: a store of its own for each, since it takes a cluster
/// seconds to come together.
struct Cluster {
    cluster: Mutex<RedisCluster>,
    stores: AtomicU32,
}

impl Cluster {
    fn start() -> Self {
        Self { cluster: Mutex::new(RedisCluster::start()), stores: AtomicU32::new(0) }
    }

    fn url(&self) -> String {
        let mut cluster = self.cluster.lock().unwrap();
        let number = self.stores.load(Ordering::Relaxed);
        // It is found by any node, and by others if one does not answer.
        let one = cluster.nodes()[number as usize % 3].address();
        format!("redis+cluster://127.0.0.1:1,{one}?prefix=case-{number}")
    }
}

impl StoreBuilder for Cluster {
    type Store = Redis;

    fn fresh(&self) -> Redis {
        self.stores.fetch_add(1, Ordering::Relaxed);
        init(&self.url(), Floor::NONE);
        open(&self.url())
    }

    fn after_crash(&self, store: Redis) -> Redis {
        drop(store);
        {
            let mut cluster = self.cluster.lock().unwrap();
            cluster.nodes().iter_mut().for_each(onlyonce_testbed::Redis::restart);
            onlyonce_testbed::until("the cluster is whole", || cluster.is_whole().then_some(()));
        }
        open(&self.url())
    }

    fn has_clock(&self) -> bool {
        true
    }
}

impl Tells for Cluster {
    /// Found by the same prefix.
    fn beside(&self, _store: &Redis) -> Redis {
        open(&self.url())
    }
}

/// One test, but every case.
#[test]
fn a_cluster_keeps_all_of_it() {
    let cluster = Cluster::start();
    for (name, case) in onlyonce_conformance::each_case!(as_cases, cluster) {
        println!("{name}");
        case(&cluster);
    }
    for (name, case) in onlyonce_conformance::each_durable_case!(as_cases, cluster) {
        println!("{name}");
        case(&cluster);
    }
}

/// Its nodes tell each other only of what somebody waits for.
#[test]
fn a_cluster_tells_those_who_wait_for_keys_of_any_of_its_nodes() {
    let cluster = Cluster::start();
    for (name, case) in onlyonce_conformance::each_notice_case!(as_cases, cluster) {
        println!("{name}");
        case(&cluster);
    }
}

/// Two stores with different prefixes share a server without seeing each other.
#[test]
fn stores_of_different_prefixes_do_not_see_each_other() {
    let server = Server::start();
    let urls = ["a", "b"].map(|prefix| format!("{}?prefix={prefix}", server.url()));
    urls.iter().for_each(|url| init(url, Floor::NONE));
    let [one, other] = urls.map(|url| open(&url));
    assert_ne!(one.secret().as_bytes(), other.secret().as_bytes());
    common::claim(&one, 1);
    assert_eq!(RUNTIME.block_on(one.count(None)).unwrap(), 1);
    assert_eq!(RUNTIME.block_on(other.count(None)).unwrap(), 0);
}

/// Entries of the index that end at the same moment are listed once each, also when the one at the
/// end of a page is gone by the next.
#[test]
fn entries_of_one_moment_are_listed_once() {
    let server = Server::start();
    init(&server.url(), Floor::NONE);
    let store = open(&server.url());
    // All of one bucket, or hardly any two would have the same moment in one index.
    let ids: Vec<_> = (0..5_000).map(id).filter(|id| id.as_bytes()[0] % 64 == 7).collect();
    assert!(50 < ids.len());
    let record = claimed(1);
    for id in &ids {
        let swap = store.swap(*id, None, Some(record.clone()));
        assert_eq!(RUNTIME.block_on(swap).unwrap(), Swap::Done);
    }
    let (mut listed, mut after, mut deleted) = (Vec::new(), None, 0);
    loop {
        let page = RUNTIME.block_on(store.list(Filter { state: None, limit: 3 }, after)).unwrap();
        listed.extend(page.records.iter().map(|(id, _)| *id));
        let Some(next) = page.next else { break };
        if listed.len() % 2 == 0 {
            let last = listed[listed.len() - 1];
            let swap = store.swap(last, Some(record.revision), None);
            assert_eq!(RUNTIME.block_on(swap).unwrap(), Swap::Done);
            deleted += 1;
        }
        after = Some(next);
    }
    assert!(5 < deleted);
    let mut expect = ids;
    expect.sort_unstable();
    assert_eq!(listed, expect);
}
