//! Several proxies on one store that processes share: what one does counts for all of them, and
//! what a dead one has left is told from what a living one is at.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;

use onlyonce_testbed::{EtcdCluster, MariaDb, PgBouncer, Postgres, Redis};
use rustix::process::Signal;
use serde_json::Value;

use crate::caller::{Answer, order};
use crate::process::{Folder, Proxy, Ran, onlyonce};
use crate::upstream::{Manner, Upstream};

/// How many ask for a key at once.
const AT_ONCE: usize = 50;
/// How many keys; `ONLYONCE_DUPLICATES` says another number.
fn keys() -> usize {
    let asked = std::env::var("ONLYONCE_DUPLICATES").ok();
    asked.map_or(20, |asked| asked.parse().unwrap())
}

/// What keeps a store's server running.
#[allow(dead_code, reason = "held until the test ends")]
enum Server {
    None,
    Postgres(Postgres),
    Pooled(PgBouncer, Postgres),
    MariaDb(MariaDb),
    Redis(Redis),
    Etcd(EtcdCluster),
}

/// A store that processes share.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) url: String,
    _server: Server,
}

impl Shared {
    pub(crate) fn sqlite() -> Self {
        let folder = Folder::empty();
        let url = format!("sqlite:{}", folder.path("once.db").display());
        Self::made(folder, url, Server::None)
    }

    /// The same, not made yet.
    pub(crate) fn empty_sqlite() -> Self {
        let folder = Folder::empty();
        let url = format!("sqlite:{}", folder.path("once.db").display());
        Self { folder, url, _server: Server::None }
    }

    pub(crate) fn postgres() -> Self {
        let server = Postgres::start();
        let url = server.url("postgres");
        Self::made(Folder::empty(), url, Server::Postgres(server))
    }

    /// Behind a pooler that gives out connections by the transaction.
    fn pooled() -> Self {
        let server = Postgres::start();
        let pooler = PgBouncer::before(&server);
        let url = pooler.url("postgres");
        Self::made(Folder::empty(), url, Server::Pooled(pooler, server))
    }

    pub(crate) fn mariadb() -> Self {
        let server = MariaDb::start();
        server.sql("mysql", "CREATE DATABASE shop");
        let url = server.url("shop");
        Self::made(Folder::empty(), url, Server::MariaDb(server))
    }

    pub(crate) fn redis() -> Self {
        let server = Redis::start();
        let url = format!("redis://{}", server.address());
        Self::made(Folder::empty(), url, Server::Redis(server))
    }

    pub(crate) fn etcd() -> Self {
        let mut cluster = EtcdCluster::start();
        let members = cluster.members().iter().map(|member| member.address().to_string());
        let url = format!("etcd://{}", members.collect::<Vec<_>>().join(","));
        Self::made(Folder::empty(), url, Server::Etcd(cluster))
    }

    fn made(folder: Folder, url: String, server: Server) -> Self {
        onlyonce(["store", "init", "--first", "--store", &url]).done();
        Self { folder, url, _server: server }
    }

    fn proxy(&self, upstream: &Upstream, more: &[&str]) -> Proxy {
        Proxy::start_with(&self.url, upstream, more)
    }

    fn keys(&self, arguments: &[&str]) -> Ran {
        onlyonce(["keys"].iter().chain(arguments).chain(&["--store", &self.url]))
    }

    /// The one key in this state: its id and fence.
    fn only(&self, state: &str) -> (String, String) {
        let listed = self.keys(&["list", "--state", state, "--json"]).done();
        let views: Vec<Value> =
            listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [view] = &views[..] else { panic!("{listed}") };
        (view["id"].as_str().unwrap().to_owned(), view["fence"].to_string())
    }
}

/// All fifty ask at the same moment.
fn duplicates_spread_over_four_proxies_run_once(store: &Shared) {
    let upstream = Upstream::open();
    let proxies: Vec<Proxy> = (0..4).map(|_| store.proxy(&upstream, &[])).collect();
    let addresses: Vec<SocketAddr> = proxies.iter().map(|proxy| proxy.address).collect();
    let keys = keys();
    for key in 0..keys {
        let (key, together) = (format!("tap-{key}"), Barrier::new(AT_ONCE));
        let ask = |caller: usize| {
            together.wait();
            order(&key).settle(addresses[caller % 4])
        };
        let answers: Vec<Answer> = thread::scope(|scope| {
            let ask = &ask;
            let asking = (0..AT_ONCE).map(|caller| scope.spawn(move || ask(caller)));
            let asking: Vec<_> = asking.collect();
            asking.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert_eq!(upstream.effects_of(&key), 1, "effects of {key}");
        let said = |what| answers.iter().filter(|it| it.says() == what).count();
        assert_eq!((said("executed"), said("replayed")), (1, AT_ONCE - 1), "{key}: {answers:?}");
        assert!(answers.iter().all(|it| it.body == answers[0].body), "{key}");
    }
    assert_eq!(upstream.effects(), keys);
    proxies.into_iter().for_each(Proxy::stop);
}

fn what_a_killed_proxy_has_left_is_unknown_at_once(store: &Shared) {
    let upstream = Upstream::open();
    let (first, second) = (store.proxy(&upstream, &[]), store.proxy(&upstream, &[]));
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(first.address);
    upstream.began("tap");
    // It lives, and so does its claim.
    let (id, _) = store.only("in-flight");
    first.kill();
    assert!(begun.answer().is_err(), "nobody has told its caller anything");

    order("tap").send(second.address).is_problem(409, "outcome-unknown");
    let shown = store.keys(&["get", &id]).done();
    assert!(shown.contains("state             unknown"), "{shown}");
    assert!(shown.contains("holder-died"), "{shown}");
    assert_eq!(upstream.effects(), 1);

    // Somebody has looked, while the other proxy goes on.
    upstream.manner(Manner::Answer(0));
    let (_, fence) = store.only("unknown");
    store.keys(&["resolve", &id, "--fence", &fence, "--did-not-happen", "--why", "looked"]).done();
    let answer = order("tap").send(second.address).ran();
    assert_eq!(order("tap").send(second.address).replayed(), answer);
    assert_eq!(upstream.effects(), 2);
}

fn a_frozen_proxy_is_not_taken_for_dead(store: &Shared) {
    let upstream = Upstream::open();
    let config = store.folder.write("proxy.toml", "[policy]\nwait = \"300ms\"\n");
    let more = ["--config", config.as_str()];
    let (first, second) = (store.proxy(&upstream, &more), store.proxy(&upstream, &more));
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(first.address);
    upstream.began("tap");
    first.signal(Signal::STOP);
    let told = order("tap").send(second.address);
    told.is_problem(409, "request-in-progress");
    let (id, _) = store.only("in-flight");
    first.signal(Signal::CONT);
    upstream.let_go();
    let answer = begun.answer().unwrap().ran();
    assert_eq!(order("tap").settle(second.address).replayed(), answer);
    let shown = store.keys(&["get", &id]).done();
    assert!(!shown.contains("holder-died"), "{shown}");
    assert_eq!(upstream.effects(), 1);
}

fn operators_see_and_change_what_running_proxies_use(store: &Shared) {
    let upstream = Upstream::open();
    let proxy = store.proxy(&upstream, &[]);
    assert!(proxy.hello().contains(&format!("records in {}", store.url)), "{}", proxy.hello());
    let answer = order("tap").by("Bearer anna").send(proxy.address).ran();
    let shown = store.keys(&["get", "--key", "tap", "-H", "Authorization: Bearer anna"]).done();
    assert!(shown.contains("state             completed"), "{shown}");
    assert_eq!(order("tap").by("Bearer anna").send(proxy.address).replayed(), answer);

    store.keys(&["seal", "--key", "later", "--why", "cancelled"]).done();
    order("later").send(proxy.address).is_problem(410, "key-sealed");
    assert_eq!(upstream.effects(), 1);
    assert_eq!(store.keys(&["list", "--json"]).done().lines().count(), 2);
    proxy.kill();
    let proxy = store.proxy(&upstream, &[]);
    assert_eq!(order("tap").by("Bearer anna").send(proxy.address).replayed(), answer);
}

/// Case B01.
#[test]
fn duplicates_spread_over_four_proxies_on_one_sqlite_file_run_once() {
    duplicates_spread_over_four_proxies_run_once(&Shared::sqlite());
}

#[test]
fn what_a_killed_proxy_has_left_in_an_sqlite_file_is_unknown_at_once() {
    what_a_killed_proxy_has_left_is_unknown_at_once(&Shared::sqlite());
}

#[test]
fn a_frozen_proxy_on_an_sqlite_file_is_not_taken_for_dead() {
    a_frozen_proxy_is_not_taken_for_dead(&Shared::sqlite());
}

#[test]
fn operators_see_and_change_what_running_proxies_on_an_sqlite_file_use() {
    operators_see_and_change_what_running_proxies_use(&Shared::sqlite());
}

/// Case B01.
#[test]
fn duplicates_spread_over_four_proxies_on_one_postgres_run_once() {
    duplicates_spread_over_four_proxies_run_once(&Shared::postgres());
}

#[test]
fn duplicates_spread_over_four_proxies_behind_a_pooler_run_once() {
    duplicates_spread_over_four_proxies_run_once(&Shared::pooled());
}

#[test]
fn what_a_killed_proxy_has_left_in_postgres_is_unknown_at_once() {
    what_a_killed_proxy_has_left_is_unknown_at_once(&Shared::postgres());
}

#[test]
fn a_frozen_proxy_on_postgres_is_not_taken_for_dead() {
    a_frozen_proxy_is_not_taken_for_dead(&Shared::postgres());
}

#[test]
fn operators_see_and_change_what_running_proxies_on_postgres_use() {
    operators_see_and_change_what_running_proxies_use(&Shared::postgres());
}

/// Case B01.
#[test]
fn duplicates_spread_over_four_proxies_on_one_mariadb_run_once() {
    duplicates_spread_over_four_proxies_run_once(&Shared::mariadb());
}

#[test]
fn what_a_killed_proxy_has_left_in_mariadb_is_unknown_at_once() {
    what_a_killed_proxy_has_left_is_unknown_at_once(&Shared::mariadb());
}

#[test]
fn a_frozen_proxy_on_mariadb_is_not_taken_for_dead() {
    a_frozen_proxy_is_not_taken_for_dead(&Shared::mariadb());
}

#[test]
fn operators_see_and_change_what_running_proxies_on_mariadb_use() {
    operators_see_and_change_what_running_proxies_use(&Shared::mariadb());
}

/// Case B01.
#[test]
fn duplicates_spread_over_four_proxies_on_one_redis_run_once() {
    duplicates_spread_over_four_proxies_run_once(&Shared::redis());
}

#[test]
fn what_a_killed_proxy_has_left_in_redis_is_unknown_at_once() {
    what_a_killed_proxy_has_left_is_unknown_at_once(&Shared::redis());
}

#[test]
fn a_frozen_proxy_on_redis_is_not_taken_for_dead() {
    a_frozen_proxy_is_not_taken_for_dead(&Shared::redis());
}

#[test]
fn operators_see_and_change_what_running_proxies_on_redis_use() {
    operators_see_and_change_what_running_proxies_use(&Shared::redis());
}

/// Case B01.
#[test]
fn duplicates_spread_over_four_proxies_on_one_etcd_run_once() {
    duplicates_spread_over_four_proxies_run_once(&Shared::etcd());
}

#[test]
fn what_a_killed_proxy_has_left_in_etcd_is_unknown_at_once() {
    what_a_killed_proxy_has_left_is_unknown_at_once(&Shared::etcd());
}

#[test]
fn a_frozen_proxy_on_etcd_is_not_taken_for_dead() {
    a_frozen_proxy_is_not_taken_for_dead(&Shared::etcd());
}

#[test]
fn operators_see_and_change_what_running_proxies_on_etcd_use() {
    operators_see_and_change_what_running_proxies_use(&Shared::etcd());
}

#[test]
fn a_shared_store_is_never_made_by_the_way_and_its_refusal_names_what_makes_it() {
    let (upstream, folder) = (Upstream::open(), Folder::empty());
    let file = folder.path("once.db");
    let (store, url) = (format!("sqlite:{}", file.display()), upstream.url());
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", &store];
    for arguments in [&proxy[..], &["keys", "list", "--store", &store]] {
        let told = onlyonce(arguments).failed(3);
        let make = format!("onlyonce store init --first --store {store}");
        assert!(told.contains(&make) && told.contains("nothing was changed"), "{told}");
        assert!(!file.exists());
    }
    let made = onlyonce(["store", "init", "--store", &store]).done();
    assert!(made.contains("secret") && made.contains("strict"), "{made}");
    let told = onlyonce(["store", "init", "--first", "--store", &store]).failed(1);
    assert!(told.contains("there is a store already"), "{told}");
    // As after the loss of another: an old key may have run.
    let proxy = Proxy::start_with(&store, &upstream, &[]);
    let old = crate::store::uuid_v7(std::time::Duration::from_secs(60));
    order(&old).send(proxy.address).is_problem(412, "key-expired");
    assert_eq!(upstream.effects(), 0);
}

#[test]
fn what_does_not_apply_to_a_shared_store_is_refused_by_name() {
    let (upstream, store) = (Upstream::open(), Shared::sqlite());
    let url = upstream.url();
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", &store.url];
    let told = onlyonce(proxy.iter().chain(&["--disk-max", "100"])).failed(2);
    assert!(told.contains("--disk-max is for a journal"), "{told}");
}

#[test]
fn a_proxy_whose_file_is_replaced_ends_and_says_why() {
    let (upstream, store) = (Upstream::open(), Shared::sqlite());
    let proxy = store.proxy(&upstream, &[]);
    order("tap").send(proxy.address).ran();
    let file = store.folder.path("once.db");
    std::fs::rename(&file, store.folder.path("moved.db")).unwrap();
    let begun = order("tap-2").begin(proxy.address);
    let told = proxy.ended().failed(4);
    assert!(told.contains("moved, removed or replaced"), "{told}");
    drop(begun);
    assert_eq!(upstream.effects(), 1);
}
