//! Duplicates that wait in another process than the first request runs in: the store tells them, on
//! each real server that can; where it cannot, that is said, and they look by themselves.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::store::{BoxFuture, Store, StoreError};
use onlyonce::{
    Answer, Claimed, Engine, EngineEvent, Observer, Ran, Request, Settings, Ticket, direct,
};
use onlyonce_core::{Fingerprint, Floor, KeyId, Phase, Policy, Record, Reply};
use onlyonce_etcd::Etcd;
use onlyonce_postgres::Postgres;
use onlyonce_redis::Redis;
use onlyonce_spread::{Given, Spread};
use onlyonce_testbed::{PgBouncer, Relay};
use onlyonce_tokio::TokioRuntime;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::caller::order;
use crate::log::{self, CONFIG};
use crate::process::{Folder, Proxy, onlyonce, until};
use crate::shared::Shared;
use crate::upstream::{Manner, Upstream};

const HOUR: Duration = Duration::from_secs(3_600);
/// Duplicates that wait at once.
const EACH: usize = 20;

/// A store that counts how often a record is looked at.
struct Counted {
    inner: Arc<dyn Store>,
    gets: AtomicUsize,
}

impl Store for Counted {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let found = self.inner.get(id).await;
            // Not before: what ends until then may be what it finds.
            self.gets.fetch_add(1, SeqCst);
            found
        })
    }

    onlyonce_conformance::hands_on!(
        inner: swap, floor, clock, raise_floor, revision_max, due, list, notices, reply_max,
            is_exclusive
    );
}

/// What a process is told of notices.
#[derive(Default)]
struct Log(Mutex<Vec<EngineEvent>>);

impl Observer for Log {
    fn on(&self, event: &EngineEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A process's worth: an engine with a store of its own.
struct Node {
    engine: Engine,
    store: Arc<Counted>,
    log: Arc<Log>,
}

impl Node {
    /// One that looks by itself this often.
    fn open(on: &Runtime, inner: Arc<dyn Store>, poll_every: Duration) -> Self {
        let store = Arc::new(Counted { inner, gets: AtomicUsize::new(0) });
        let (log, settings) =
            (Arc::new(Log::default()), Settings { poll_every, ..Settings::default() });
        let engine = on.block_on(async {
            let runtime = Arc::new(TokioRuntime::new());
            Engine::start(store.clone(), runtime, settings, Some(log.clone())).await.unwrap()
        });
        Self { engine, store, log }
    }

    fn count(&self, is: impl Fn(&EngineEvent) -> bool) -> usize {
        self.log.0.lock().unwrap().iter().filter(|event| is(event)).count()
    }

    fn await_flow(&self, times: usize) {
        until("notices flow", || {
            (times <= self.count(|event| *event == EngineEvent::NoticesFlow)).then_some(())
        });
    }

    fn noticed(&self) -> usize {
        self.count(|event| matches!(event, EngineEvent::Noticed { .. }))
    }

    fn lost(&self) -> Option<String> {
        let why = |event: &EngineEvent| {
            let EngineEvent::NoticesLost { why } = event else { return None };
            Some(why.clone())
        };
        self.log.0.lock().unwrap().iter().find_map(why)
    }

    fn gets(&self) -> usize {
        self.store.gets.load(SeqCst)
    }

    fn claim(&self, on: &Runtime, key: u8) -> Ticket {
        let (request, policy) = (request(key), Policy::default());
        let claim = self.engine.claim(&request, &policy, Phase::Committing);
        match on.block_on(claim).unwrap() {
            Claimed::Granted(ticket) => ticket,
            Claimed::Refused(acted) => panic!("{acted:?}"),
        }
    }

    /// Duplicates, once all of them have looked. None of them may run.
    fn wait_here(&self, on: &Runtime, key: u8) -> Vec<JoinHandle<Answer>> {
        let before = self.gets();
        let wait = || {
            let engine = self.engine.clone();
            on.spawn(async move {
                let run = direct(|_| async { Ran::Happened(Reply::kept(500, "a second run")) });
                engine.once(&request(key), &Policy::default(), HOUR, run).await.unwrap()
            })
        };
        let waiting = (0..EACH).map(|_| wait()).collect();
        until("all of them have looked", || (before + EACH <= self.gets()).then_some(()));
        waiting
    }
}

fn request(key: u8) -> Request {
    Request::new(KeyId::from_bytes([key; 16]), Fingerprint::new(1, [1; 32]))
}

fn confirmed(key: u8) -> Reply {
    Reply::kept(201, format!("order {key}"))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn all_are_answered(on: &Runtime, waiting: Vec<JoinHandle<Answer>>, key: u8) {
    for one in waiting {
        assert_eq!(on.block_on(one).unwrap(), Answer::Replayed(confirmed(key)));
    }
}

/// Nobody would look again within an hour.
fn a_duplicate_elsewhere_is_told(on: &Runtime, stores: [Arc<dyn Store>; 2]) {
    let [there, here] = stores.map(|store| Node::open(on, store, HOUR));
    here.await_flow(1);
    there.await_flow(1);
    for key in 1..=5 {
        let ticket = there.claim(on, key);
        let before = here.gets();
        let waiting = here.wait_here(on, key);
        on.block_on(ticket.complete(confirmed(key))).unwrap();
        all_are_answered(on, waiting, key);
        let looks = here.gets() - before - EACH;
        assert!((1..=2).contains(&looks), "{looks} looks for {EACH} who wait");
    }
    assert_eq!((here.noticed(), there.noticed()), (5, 0));
}

/// The line of those who wait is cut while the other process goes on.
fn what_is_missed_while_cut_off_is_looked_at_later(
    on: &Runtime,
    [there, here]: [Arc<dyn Store>; 2],
    relay: &Relay,
) {
    let [there, here] = [there, here].map(|store| Node::open(on, store, HOUR));
    here.await_flow(1);
    let ticket = there.claim(on, 1);
    let waiting = here.wait_here(on, 1);
    relay.cut();
    until("it is noticed", || here.lost());
    on.block_on(ticket.complete(confirmed(1))).unwrap();
    assert!(waiting.iter().all(|one| !one.is_finished()));
    relay.mend();
    all_are_answered(on, waiting, 1);
    // And it goes on as before.
    here.await_flow(2);
    there.await_flow(1);
    let ticket = there.claim(on, 2);
    let waiting = here.wait_here(on, 2);
    on.block_on(ticket.complete(confirmed(2))).unwrap();
    all_are_answered(on, waiting, 2);
    assert_eq!(here.noticed(), 2);
}

fn without_notices_they_look_by_themselves(
    on: &Runtime,
    [there, here]: [Arc<dyn Store>; 2],
) -> String {
    let there = Node::open(on, there, HOUR);
    let here = Node::open(on, here, Duration::from_millis(20));
    let why = until("it is said", || here.lost());
    let ticket = there.claim(on, 1);
    let waiting = here.wait_here(on, 1);
    let before = here.gets();
    until("they look", || (before + 3 * EACH <= here.gets()).then_some(()));
    on.block_on(ticket.complete(confirmed(1))).unwrap();
    all_are_answered(on, waiting, 1);
    assert_eq!((here.noticed(), here.count(|it| *it == EngineEvent::NoticesFlow)), (0, 0));
    why
}

fn postgres(on: &Runtime, urls: [String; 2]) -> [Arc<dyn Store>; 2] {
    on.block_on(Postgres::init(urls[0].parse().unwrap(), Floor::NONE)).unwrap();
    urls.map(|url| -> Arc<dyn Store> {
        Arc::new(on.block_on(Postgres::open(url.parse().unwrap())).unwrap())
    })
}

fn redis(on: &Runtime, urls: [String; 2]) -> [Arc<dyn Store>; 2] {
    on.block_on(Redis::init(&urls[0].parse().unwrap(), Floor::NONE)).unwrap();
    urls.map(|url| -> Arc<dyn Store> {
        let settings = onlyonce_redis::Settings::default();
        Arc::new(on.block_on(Redis::open(&url.parse().unwrap(), settings)).unwrap())
    })
}

fn etcd(on: &Runtime, urls: [String; 2]) -> [Arc<dyn Store>; 2] {
    on.block_on(Etcd::init(&urls[0].parse().unwrap(), Floor::NONE)).unwrap();
    urls.map(|url| -> Arc<dyn Store> {
        Arc::new(on.block_on(Etcd::open(&url.parse().unwrap())).unwrap())
    })
}

#[test]
fn a_duplicate_elsewhere_is_told_by_postgres() {
    let (server, on) = (onlyonce_testbed::Postgres::start(), runtime());
    let url = server.url("postgres");
    a_duplicate_elsewhere_is_told(&on, postgres(&on, [url.clone(), url]));
}

#[test]
fn a_duplicate_elsewhere_is_told_by_redis() {
    let (server, on) = (onlyonce_testbed::Redis::start(), runtime());
    let url = format!("redis://{}", server.address());
    a_duplicate_elsewhere_is_told(&on, redis(&on, [url.clone(), url]));
}

#[test]
fn a_duplicate_elsewhere_is_told_by_etcd() {
    let (server, on) = (onlyonce_testbed::Etcd::start(), runtime());
    let url = format!("etcd://{}?accept=single", server.address());
    a_duplicate_elsewhere_is_told(&on, etcd(&on, [url.clone(), url]));
}

/// Databases of these addresses as one store, as two processes open it.
fn set(on: &Runtime, urls: &[String]) -> [Arc<dyn Store>; 2] {
    let folder = Folder::empty();
    let file = format!("spread:{}", folder.write("stores", &urls.join("\n")));
    onlyonce(["store", "init", "--first", "--store", &file]).done();
    [opened(on, urls), opened(on, urls)]
}

fn opened(on: &Runtime, urls: &[String]) -> Arc<dyn Store> {
    let given = urls.iter().map(|url| {
        let (store, secret): (Arc<dyn Store>, _) = if url.starts_with("redis:") {
            let settings = onlyonce_redis::Settings::default();
            let redis = on.block_on(Redis::open(&url.parse().unwrap(), settings)).unwrap();
            (Arc::new(redis.clone()), redis.secret().clone())
        } else {
            let postgres = on.block_on(Postgres::open(url.parse().unwrap())).unwrap();
            (Arc::new(postgres.clone()), postgres.secret().clone())
        };
        Given { name: url.clone(), store, secret }
    });
    let clock = on.block_on(async { TokioRuntime::new() });
    let steady = Arc::new(move || onlyonce::Runtime::steady(&clock));
    Arc::new(on.block_on(Spread::open(given.collect(), steady)).unwrap())
}

#[test]
fn a_duplicate_elsewhere_is_told_by_whichever_member_of_a_set_has_the_key() {
    let (server, redis, on) =
        (onlyonce_testbed::Postgres::start(), onlyonce_testbed::Redis::start(), runtime());
    let names = ["a", "b", "c"];
    for name in names {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    a_duplicate_elsewhere_is_told(&on, set(&on, &names.map(|name| server.url(name))));
    let urls = names.map(|name| format!("redis://{}?prefix={name}", redis.address()));
    a_duplicate_elsewhere_is_told(&on, set(&on, &urls));
}

#[test]
fn what_is_missed_while_cut_off_from_a_member_of_a_set_is_looked_at_later() {
    let (server, on) = (onlyonce_testbed::Postgres::start(), runtime());
    let relay = Relay::to(server.address());
    let names = ["a", "b"];
    for name in names {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
    let [there, _] = set(&on, &names.map(|name| server.url(name)));
    let by_relay = names.map(|name| format!("postgres://postgres@{}/{name}", relay.address()));
    let here = opened(&on, &by_relay);
    what_is_missed_while_cut_off_is_looked_at_later(&on, [there, here], &relay);
}

#[test]
fn what_is_missed_while_cut_off_from_postgres_is_looked_at_later() {
    let (server, on) = (onlyonce_testbed::Postgres::start(), runtime());
    let relay = Relay::to(server.address());
    let by_relay = format!("postgres://postgres@{}/postgres", relay.address());
    let stores = postgres(&on, [server.url("postgres"), by_relay]);
    what_is_missed_while_cut_off_is_looked_at_later(&on, stores, &relay);
}

#[test]
fn what_is_missed_while_cut_off_from_redis_is_looked_at_later() {
    let (server, on) = (onlyonce_testbed::Redis::start(), runtime());
    let relay = Relay::to(server.address());
    let urls = [server.address(), relay.address()].map(|at| format!("redis://{at}"));
    let stores = redis(&on, urls);
    what_is_missed_while_cut_off_is_looked_at_later(&on, stores, &relay);
}

#[test]
fn what_is_missed_while_cut_off_from_etcd_is_looked_at_later() {
    let (server, on) = (onlyonce_testbed::Etcd::start(), runtime());
    let relay = Relay::to(server.address());
    let urls = [server.address(), relay.address()].map(|at| format!("etcd://{at}?accept=single"));
    let stores = etcd(&on, urls);
    what_is_missed_while_cut_off_is_looked_at_later(&on, stores, &relay);
}

#[test]
fn behind_a_pooler_that_lets_nobody_listen_they_look_by_themselves_and_the_doctor_says_so() {
    let (server, on) = (onlyonce_testbed::Postgres::start(), runtime());
    let pooler = PgBouncer::before(&server);
    let url = pooler.url("postgres");
    let stores = postgres(&on, [server.url("postgres"), url.clone()]);
    let why = without_notices_they_look_by_themselves(&on, stores);
    assert!(why.contains("a pooler hands out connections by the transaction"), "{why}");
    let told = onlyonce(["doctor", "--store", &url]).done();
    let line = told.lines().find(|line| line.starts_with("notices")).unwrap();
    assert!(line.contains("none: a pooler") && line.contains("ok"), "{line}");
    let told = onlyonce(["doctor", "--store", &server.url("postgres")]).done();
    assert!(told.lines().any(|line| line.starts_with("notices  ") && line.contains("come")));
}

#[test]
fn who_may_not_publish_in_redis_looks_by_himself() {
    let (server, on) = (onlyonce_testbed::Redis::start(), runtime());
    server.ask(&["ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", "resetchannels"]);
    let at = server.address();
    let urls = [format!("redis://{at}"), format!("redis://app:word@{at}")];
    let stores = redis(&on, urls);
    let why = without_notices_they_look_by_themselves(&on, stores);
    assert!(why.to_lowercase().contains("permission"), "{why}");
}

#[test]
fn a_proxy_counts_what_it_was_told_and_says_whether_notices_flow() {
    let (store, upstream) = (Shared::postgres(), Upstream::open());
    let config = store.folder.write("proxy.toml", &CONFIG.replace("50ms", "60s"));
    let start = || Proxy::start_with(&store.url, &upstream, &["--config", &config]);
    let (there, here) = (start(), start());
    for proxy in [&there, &here] {
        let flows = || log::metrics(proxy).contains("onlyonce_notices_flow 1\n").then_some(());
        until("notices flow", flows);
    }
    upstream.manner(Manner::Hold);
    let mut asked = 0..100;
    // Who looks just when it has ended needs no word of it.
    let (page, told) = loop {
        let keys: Vec<String> = asked.by_ref().take(5).map(|key| format!("tap-{key}")).collect();
        let first: Vec<_> = keys.iter().map(|key| order(key).begin(there.address)).collect();
        keys.iter().for_each(|key| upstream.began(key));
        let second: Vec<_> = keys.iter().map(|key| order(key).begin(here.address)).collect();
        let running = "onlyonce_requests_running 5\n";
        until("all of them are there", || log::metrics(&here).contains(running).then_some(()));
        keys.iter().for_each(|_| upstream.let_go());
        for (first, second) in first.into_iter().zip(second) {
            assert_eq!(second.answer().unwrap().replayed(), first.answer().unwrap().ran());
        }
        assert_eq!(upstream.effects(), asked.start);
        let page = log::metrics(&here);
        let told = page.lines().find_map(|line| line.strip_prefix("onlyonce_noticed_total "));
        if let Some(told) = told.map(|told| told.parse::<usize>().unwrap()) {
            break (page, told);
        }
        assert!(asked.start < asked.end, "{page}");
    };
    assert!((1..=asked.start).contains(&told), "{page}");
    assert!(page.contains("onlyonce_notices_flow 1\n"), "{page}");
}
