//! Bug reports of other products, tried on this one: stores that are away, hang or take no writes,
//! and what a store makes of keys and times.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use onlyonce::core::{
    Fence, Floor, KeyId, Outcome, Policy, Record, Reply, Revision, State, Verdict,
};
use onlyonce::store::{
    BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, StoreErrorKind, Swap,
};
use onlyonce::{Settings, Sweeper};
use onlyonce_journal::Journal;
use onlyonce_proxy::Config;
use tokio::sync::Semaphore;

use crate::common::{
    Proxy, Told, Upstream, nobody, orders, post, proxy, proxy_on, proxy_with, send, upstream,
};

/// How a store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Away {
    /// It is not.
    No,
    /// Its door is shut: nothing happens, and that is certain.
    Refuses,
    /// It takes the question and never answers.
    Hangs,
    /// It fails, and nobody can say how far it got.
    Fails,
    /// It can be read and takes no writes, as on a full disk or for a user without the right.
    TakesNoWrites,
}

/// A store in memory that can be away.
pub(crate) struct Fickle {
    inner: MemoryStore,
    away: Mutex<Away>,
}

impl Fickle {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryStore::new(), away: Mutex::new(Away::No) })
    }

    pub(crate) fn set(&self, away: Away) {
        *self.away.lock().unwrap() = away;
    }

    fn call<'a, T: Send + 'a>(
        &'a self,
        is_write: bool,
        call: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let away = *self.away.lock().unwrap();
        let fails = |kind| Err(StoreError::new(kind, "on purpose"));
        Box::pin(async move {
            match away {
                Away::Refuses => fails(StoreErrorKind::NotApplied),
                Away::Hangs => std::future::pending().await,
                Away::Fails => fails(StoreErrorKind::Unknown),
                Away::TakesNoWrites if is_write => fails(StoreErrorKind::Full),
                Away::No | Away::TakesNoWrites => call.await,
            }
        })
    }
}

impl Store for Fickle {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.call(false, self.inner.get(id))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            // A conflict is found by reading.
            let found = self.call(false, self.inner.get(id)).await?;
            let is_write = found.map(|record| record.revision) == expected;
            self.call(is_write, self.inner.swap(id, expected, next)).await
        })
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        self.call(false, self.inner.floor())
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(true, self.inner.raise_floor(to))
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.call(false, self.inner.revision_max())
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        self.call(false, self.inner.due(due, limit))
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call(true, self.inner.reclaim())
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.call(false, self.inner.list(filter, after))
    }

    fn reply_max(&self) -> usize {
        self.inner.reply_max()
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

const ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:0\"\ntoken = \"0123456789abcdef\"\n";

async fn open() -> Upstream {
    upstream(orders(), Semaphore::MAX_PERMITS).await
}

/// A proxy that waits for its store for a moment only.
async fn hasty(store: &Arc<Fickle>, upstream: &Upstream, more: &str) -> Proxy {
    let settings = Settings { store_wait: Duration::from_millis(50), ..Settings::default() };
    proxy_with(settings, store.clone(), upstream.address, &format!("{ADMIN}{more}")).await
}

async fn tap(proxy: &Proxy) -> Told {
    send(proxy.address, post("tap", "seat")).await
}

async fn keyless(proxy: &Proxy) -> Told {
    let mut request = post("x", "seat");
    request.headers_mut().remove("idempotency-key");
    send(proxy.address, request).await
}

async fn is_ready(proxy: &Proxy) -> bool {
    let request = Request::get("/readyz").header("host", "a");
    let request = request.header("authorization", "Bearer 0123456789abcdef");
    let told = send(proxy.admin.unwrap(), request.body(Full::default()).unwrap()).await;
    assert!([200, 503].contains(&told.status), "{told:?}");
    told.status == 200
}

fn is_away(told: &Told) {
    assert_eq!((told.status, &*told.problem()), (503, "store-unavailable"));
    assert!(told.headers.contains_key("retry-after"));
}

/// Case B77: while the store is away, however it is, a request with a key is refused before
/// anything is sent, and that is to be seen. All others are not concerned.
#[tokio::test]
async fn while_the_store_is_away_keyed_requests_are_refused_and_the_proxy_is_not_ready() {
    for away in [Away::Refuses, Away::Hangs, Away::Fails] {
        let (store, upstream) = (Fickle::new(), open().await);
        let proxy = hasty(&store, &upstream, "").await;
        assert!(is_ready(&proxy).await);
        store.set(away);
        is_away(&tap(&proxy).await);
        assert_eq!(upstream.runs(), 0, "{away:?}");
        assert!(!is_ready(&proxy).await, "{away:?}");
        assert_ne!(proxy.telemetry.get("onlyonce_store_failures_total", ""), 0);
        assert_eq!(proxy.telemetry.get("onlyonce_problems_total", "store-unavailable"), 1);
        let told = keyless(&proxy).await;
        assert_eq!((told.status, told.says(), upstream.runs()), (201, "", 1));
        store.set(Away::No);
        assert!(is_ready(&proxy).await);
        // What was refused had not run.
        assert_eq!(tap(&proxy).await.says(), "executed");
        assert_eq!(tap(&proxy).await.says(), "replayed");
        assert_eq!(upstream.runs(), 2);
    }
}

/// Cases B77 and B145: a route that says so passes requests on, and each says that it was not
/// protected and is counted.
#[tokio::test]
async fn an_open_route_without_its_store_says_of_every_request_that_it_is_unprotected() {
    for away in [Away::Refuses, Away::Hangs, Away::Fails, Away::TakesNoWrites] {
        let (store, upstream) = (Fickle::new(), open().await);
        let proxy = hasty(&store, &upstream, "[policy]\non_store_error = \"open\"").await;
        store.set(away);
        for runs in 1..=2 {
            let told = tap(&proxy).await;
            assert_eq!((told.status, told.says()), (201, "unprotected"), "{away:?}");
            assert_eq!(upstream.runs(), runs);
            let counted = proxy.telemetry.get("onlyonce_requests_total", "unprotected");
            assert_eq!(counted, u64::from(runs), "{away:?}");
        }
        assert_ne!(proxy.telemetry.get("onlyonce_store_failures_total", ""), 0);
    }
}

/// Case B145: a store that takes no writes runs nothing, and is told of even if nobody asks.
#[tokio::test]
async fn a_store_that_takes_no_writes_runs_nothing_and_is_noticed_without_a_request() {
    let (store, upstream) = (Fickle::new(), open().await);
    let proxy = hasty(&store, &upstream, "").await;
    assert_eq!(tap(&proxy).await.says(), "executed");
    store.set(Away::TakesNoWrites);
    let failures = || proxy.telemetry.get("onlyonce_store_failures_total", "");
    assert_eq!(failures(), 0);
    let sweeping = tokio::spawn(Sweeper::new(proxy.engine.clone(), Policy::default()).run());
    while failures() == 0 {
        tokio::task::yield_now().await;
    }
    sweeping.abort();
    is_away(&send(proxy.address, post("another", "seat")).await);
    // What is kept is given.
    assert_eq!(tap(&proxy).await.says(), "replayed");
    assert_eq!(upstream.runs(), 1);
}

/// Case B82: there is no second store that would take a key of the first for a new one.
#[tokio::test]
async fn a_key_of_a_store_that_is_away_is_never_taken_for_a_new_one() {
    for away in [Away::Refuses, Away::Hangs, Away::Fails] {
        let (store, upstream) = (Fickle::new(), open().await);
        let proxy = hasty(&store, &upstream, "").await;
        let first = tap(&proxy).await;
        store.set(away);
        is_away(&tap(&proxy).await);
        store.set(Away::No);
        let again = tap(&proxy).await;
        assert_eq!((again.says(), &again.body), ("replayed", &first.body), "{away:?}");
        assert_eq!(upstream.runs(), 1);
    }
}

/// A store in memory, and a journal in a folder that lives as long as it.
fn stores() -> (Vec<Arc<dyn Store>>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let (settings, start) = (onlyonce_journal::Settings::default(), onlyonce_journal::Start::First);
    let (journal, _) = Journal::open_or_create(&dir, settings, start).unwrap();
    (vec![Arc::new(MemoryStore::new()), Arc::new(journal)], folder)
}

/// Case B80: keys that a lenient comparison would merge are as many operations, in every store.
#[tokio::test]
async fn keys_are_compared_byte_by_byte_in_every_store() {
    let (stores, _folder) = stores();
    for store in stores {
        let upstream = open().await;
        let proxy = proxy_on(store, upstream.address, "").await;
        let keys = [
            "\"Order-A\"",
            "\"order-a\"",
            "\"ORDER-A\"",
            "\"order-a \"",
            "\" order-a\"",
            "\"order-a  \"",
            "\"order_a\"",
            "\"order-a.\"",
            "\"0rder-a\"",
        ];
        for _ in 0..2 {
            for (number, key) in (1..).zip(keys) {
                let told = send(proxy.address, post(key, "seat")).await;
                assert_eq!(told.body, format!("order {number}"), "{key}");
            }
        }
        // Accents and full-width letters are no letters of a key.
        for key in ["\"\u{f6}rder-a\"", "\"\u{ff4f}rder-a\""] {
            let mut request = post("x", "seat");
            let key = http::HeaderValue::from_bytes(key.as_bytes()).unwrap();
            request.headers_mut().insert("idempotency-key", key);
            assert_eq!(send(proxy.address, request).await.problem(), "key-invalid");
        }
        assert_eq!(upstream.runs() as usize, keys.len());
    }
}

/// Case B64: a duration has a unit, and what is stored is the moment that was meant.
#[tokio::test]
async fn a_duration_without_a_unit_is_refused_and_one_with_it_is_what_is_stored() {
    let hour = Duration::from_secs(3_600);
    for (text, kept) in [("24h", 24 * hour), ("24 h", 24 * hour), ("2d", 48 * hour)] {
        let (stores, _folder) = stores();
        for store in stores {
            let upstream = open().await;
            let lines = format!("[policy]\nretention = \"{text}\"");
            let proxy = proxy_on(store, upstream.address, &lines).await;
            tap(&proxy).await;
            let page = proxy.engine.list(Filter::default(), None).await.unwrap();
            let State::Completed { answered_at, retain_until, .. } = page.records[0].1.state else {
                panic!("{page:?}")
            };
            assert_eq!(retain_until.since(answered_at), kept, "{text}");
        }
    }
    let upstream = nobody().await;
    for wrong in ["\"86400\"", "86400", "\"0\"", "0", "\"-1\"", "-1", "\"1.5h\"", "\"10y\""] {
        let text = format!("upstream = \"http://{upstream}\"\n[policy]\nretention = {wrong}\n");
        let error = Config::parse("onlyonce.toml", &text, None).unwrap_err().to_string();
        assert!(error.starts_with("onlyonce.toml:3:13: "), "{error}");
        assert!(error.contains("write one such as \"200ms\""), "{error}");
    }
}

/// Case B25: an answer that says that it happened and cannot be read is no conflict: it has a name
/// of its own, is counted, and nothing runs.
#[tokio::test]
async fn a_kept_answer_that_is_no_answer_is_damage_and_not_a_conflict() {
    let upstream = upstream(Arc::new(|_, _| panic!("it cuts the connection")), 1).await;
    let proxy = proxy(upstream.address, "").await;
    assert_eq!(tap(&proxy).await.problem(), "outcome-unknown");
    let page = proxy.engine.list(Filter::default(), None).await.unwrap();
    let (id, fence): (KeyId, Fence) = (page.records[0].0, page.records[0].1.fence);
    let verdict = Verdict::Happened(Reply::kept(201, "\x07nonsense"));
    let policy = Policy::default();
    let settled = proxy.engine.resolve(id, &policy, fence, verdict, "ann", "seen").await.unwrap();
    assert_eq!(settled.outcome, Outcome::Done);
    for count in 1..=2 {
        let told = tap(&proxy).await;
        assert_eq!((told.status, &*told.problem()), (500, "record-damaged"));
        assert_eq!(proxy.telemetry.get("onlyonce_problems_total", "record-damaged"), count);
    }
    assert_eq!(upstream.runs(), 1);
}

#[tokio::test]
async fn a_route_that_remembers_briefly_does_not_make_another_route_forget() {
    let upstream = upstream(orders(), usize::MAX >> 4).await;
    let lines = "[policy]\nretention = \"1ms\"\nremember = \"1s\"\n[[route]]\npath = \"/long\"\n\
                 [route.policy]\nretention = \"1ms\"\nremember = \"60d\"";
    let proxy = proxy(upstream.address, lines).await;
    let to = |path: &str| {
        let mut request = post("tap", "{}");
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    assert_eq!(send(proxy.address, to("/long")).await.status, 201);
    // The reply is over, and whoever comes next writes that down.
    while send(proxy.address, to("/short")).await.status != 422 {}
    loop {
        let page = proxy.engine.list(Filter::default(), None).await.unwrap();
        let [(_, record)] = &page.records[..] else { panic!("{page:?}") };
        if let State::Tombstone { answered_at, forget_at, .. } = record.state {
            assert_eq!(forget_at, answered_at.plus(Duration::from_secs(60 * 86_400)));
            break;
        }
        assert_eq!(send(proxy.address, to("/short")).await.status, 422);
    }
    assert_eq!(upstream.runs(), 1);
}
