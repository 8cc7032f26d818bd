//! Shared stores that are put back from an older copy of themselves, by what their servers bring
//! for it: what can be known to have run since runs no second time.

mod set;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onlyonce_testbed::{Etcd, MariaDb, Postgres, Redis};
use serde_json::{Value, json};

use crate::caller::order;
use crate::process::{Folder, Proxy, Ran, Service, onlyonce, until};
use crate::service::{ask, claim, token};
use crate::shared::Shared;
use crate::store::uuid_v7;
use crate::upstream::{Manner, Upstream};

fn restored(store: &str) -> Ran {
    onlyonce(["store", "restored", "--at-rest", "--store", store, "--by", "anna"])
}

fn keys(store: &str, arguments: &[&str]) -> Ran {
    onlyonce(["keys"].iter().chain(arguments).chain(&["--store", store]))
}

fn views(store: &str, state: &str) -> Vec<Value> {
    let listed = keys(store, &["list", "--state", state, "--json"]).done();
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Settles what nobody knows, so that it may run.
fn free(store: &str, key: &str) {
    let shown = keys(store, &["get", "--key", key]).done();
    let fence = shown.lines().find_map(|line| line.strip_prefix("fence ")).unwrap().trim();
    let verdict = ["--did-not-happen", "--why", "seen"];
    let resolve = ["resolve", "--key", key, "--fence", fence];
    keys(store, &[&resolve[..], &verdict].concat()).done();
}

/// A store, and the way to make a copy of it and to put that back.
trait Copied {
    fn url(&self) -> String;
    /// Copies it. No process uses it.
    fn copy(&mut self);
    /// Puts the copy in its place.
    fn put_back(&mut self);
}

struct File(Shared);

impl File {
    /// The files of the database, and of its copy.
    fn files(&self) -> Vec<(PathBuf, PathBuf)> {
        let at = |name: String| self.0.folder.path(&name);
        let pair = |end: &str| (at(format!("once.db{end}")), at(format!("copy.db{end}")));
        ["", "-wal", "-shm"].map(pair).to_vec()
    }
}

fn copy_or_remove(from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    if from.exists() {
        fs::copy(from, to).unwrap();
    }
}

impl Copied for File {
    fn url(&self) -> String {
        self.0.url.clone()
    }

    fn copy(&mut self) {
        self.files().iter().for_each(|(file, copy)| copy_or_remove(file, copy));
    }

    fn put_back(&mut self) {
        self.files().iter().for_each(|(file, copy)| copy_or_remove(copy, file));
    }
}

struct Dumped(Postgres, String);

impl Copied for Dumped {
    fn url(&self) -> String {
        self.0.url("postgres")
    }

    fn copy(&mut self) {
        self.1 = self.0.dump("postgres", "onlyonce");
    }

    fn put_back(&mut self) {
        self.0.sql("postgres", "DROP SCHEMA onlyonce CASCADE");
        self.0.load("postgres", &self.1);
    }
}

/// A MariaDB whose tables are copied to another database, as a dump holds them.
struct Tables(MariaDb);

impl Tables {
    fn start() -> Self {
        let server = MariaDb::start();
        server.sql("mysql", "CREATE DATABASE shop; CREATE DATABASE copied");
        Self(server)
    }

    fn each(&self, statements: impl Fn(&str) -> String) {
        let tables = ["onlyonce_records", "onlyonce_revisions", "onlyonce_store"];
        self.0.sql("mysql", &tables.map(statements).concat());
    }
}

impl Copied for Tables {
    fn url(&self) -> String {
        self.0.url("shop")
    }

    fn copy(&mut self) {
        self.each(|it| format!("CREATE TABLE copied.{it} AS SELECT * FROM shop.{it};"));
    }

    fn put_back(&mut self) {
        self.each(|it| {
            format!("DELETE FROM shop.{it}; INSERT INTO shop.{it} SELECT * FROM copied.{it};")
        });
    }
}

/// A Redis whose append-only files are copied.
struct Appended(Redis, Folder);

fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|it| it.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

impl Copied for Appended {
    fn url(&self) -> String {
        format!("redis://{}", self.0.address())
    }

    fn copy(&mut self) {
        self.0.kill();
        copy_folder(&self.0.folder().join("appendonlydir"), &self.1.path("copy"));
        self.0.restart();
    }

    fn put_back(&mut self) {
        self.0.kill();
        copy_folder(&self.1.path("copy"), &self.0.folder().join("appendonlydir"));
        self.0.restart();
    }
}

/// An etcd whose snapshot is put back into a new cluster.
struct Snapped(Etcd, Folder);

impl Copied for Snapped {
    fn url(&self) -> String {
        format!("etcd://{}?accept=single", self.0.address())
    }

    fn copy(&mut self) {
        self.0.snapshot(&self.1.path("snapshot"));
    }

    fn put_back(&mut self) {
        self.0 = Etcd::from_snapshot(&self.1.path("snapshot"));
    }
}

/// What was asked for, and how often it ran, before the store was lost.
struct Lost {
    upstream: Upstream,
    answer: crate::caller::Kept,
    /// A key with a time that first ran after the copy was made.
    timed: String,
}

/// Keys in every state, a copy, and what ran after it.
fn lost(store: &mut impl Copied) -> Lost {
    let (url, upstream) = (store.url(), Upstream::open());
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    let answer = order("answered").send(proxy.address).ran();
    upstream.manner(Manner::Cut);
    for key in ["free", "doubtful"] {
        order(key).send(proxy.address).is_problem(502, "outcome-unknown");
    }
    free(&url, "free");
    upstream.manner(Manner::Hold);
    let begun = order("running").begin(proxy.address);
    upstream.began("running");
    proxy.kill();
    drop(begun);
    store.copy();

    // It goes on, and what was open is settled and runs.
    upstream.manner(Manner::Answer(0));
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    order("running").send(proxy.address).is_problem(409, "outcome-unknown");
    for key in ["running", "doubtful"] {
        free(&url, key);
    }
    let timed = uuid_v7(Duration::ZERO);
    for key in ["running", "free", "doubtful", "untimed", &timed] {
        order(key).send(proxy.address).ran();
    }
    proxy.stop();
    Lost { upstream, answer, timed }
}

fn a_store_that_was_put_back_runs_nothing_again(mut store: impl Copied) {
    onlyonce(["store", "init", "--first", "--store", &store.url()]).done();
    let Lost { upstream, answer, timed } = lost(&mut store);
    store.put_back();
    let url = store.url();
    let ran = restored(&url);
    assert_eq!(ran.err, "", "a script is told nothing of how far it is");
    let said = ran.done();
    assert!(said.contains("4 records are in "), "{said}");
    assert!(said.contains("; 2 of them were running or free and are unknown now"), "{said}");
    assert!(said.contains("beware: keys without a time"), "{said}");

    let unknown = views(&url, "unknown");
    assert_eq!(unknown.len(), 3, "{unknown:?}");
    let told = unknown.iter().map(Value::to_string).filter(|view| view.contains("anna"));
    assert_eq!(told.count(), 3, "who, in the history of each: {unknown:?}");
    let effects = upstream.effects();
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    assert_eq!(order("answered").send(proxy.address).replayed(), answer);
    for key in ["running", "free", "doubtful"] {
        order(key).send(proxy.address).is_problem(409, "outcome-unknown");
    }
    order(&timed).send(proxy.address).is_problem(412, "key-expired");
    assert_eq!(upstream.effects(), effects, "nothing ran");
    // Without a time it cannot be told from a new one, as the documents say.
    order("untimed").send(proxy.address).ran();
    // Somebody has looked.
    free(&url, "running");
    order("running").send(proxy.address).ran();
    proxy.stop();
    onlyonce(["doctor", "--store", &url]).done();

    // To say it again is harmless.
    let said = restored(&url).done();
    assert!(said.contains("5 records") && said.contains("; 0 of them"), "{said}");
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    assert_eq!(order("answered").send(proxy.address).replayed(), answer);
    proxy.stop();
}

#[test]
fn an_sqlite_file_that_was_copied_back_runs_nothing_again() {
    a_store_that_was_put_back_runs_nothing_again(File(Shared::empty_sqlite()));
}

#[test]
fn a_dump_that_was_loaded_into_postgres_runs_nothing_again() {
    a_store_that_was_put_back_runs_nothing_again(Dumped(Postgres::start(), String::new()));
}

#[test]
fn tables_of_a_dump_that_were_put_back_in_mariadb_run_nothing_again() {
    a_store_that_was_put_back_runs_nothing_again(Tables::start());
}

#[test]
fn append_only_files_that_were_copied_back_to_redis_run_nothing_again() {
    a_store_that_was_put_back_runs_nothing_again(Appended(Redis::start(), Folder::empty()));
}

#[test]
fn a_snapshot_of_etcd_in_a_new_cluster_runs_nothing_again() {
    a_store_that_was_put_back_runs_nothing_again(Snapped(Etcd::start(), Folder::empty()));
}

/// The refusal of a store from a snapshot names the way out, and nothing else opens it.
#[test]
fn a_snapshot_of_etcd_is_refused_until_it_was_made_safe() {
    let mut store = Snapped(Etcd::start(), Folder::empty());
    onlyonce(["store", "init", "--first", "--store", &store.url()]).done();
    keys(&store.url(), &["seal", "--key", "tap", "--why", "cancelled"]).done();
    store.copy();
    store.put_back();
    let url = store.url();
    let told = keys(&url, &["list"]).failed(3);
    assert!(told.contains("made in another cluster"), "{told}");
    assert!(told.contains(&format!("onlyonce store restored --store {url}")), "{told}");
    let ran = onlyonce(["doctor", "--store", &url]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.out.contains("onlyonce store restored"), "{}", ran.out);
    restored(&url).done();
    assert!(keys(&url, &["list"]).done().contains("completed"));
}

#[test]
fn a_store_that_may_be_in_use_is_left_as_it_is() {
    let (store, upstream) = (Shared::sqlite(), Upstream::open());
    let told = onlyonce(["store", "restored", "--store", &store.url]).failed(2);
    assert!(told.contains("--at-rest"), "{told}");
    let proxy = Proxy::start_with(&store.url, &upstream, &[]);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    let told = restored(&store.url).failed(1);
    assert!(told.contains("a process has a claim of it until 20"), "{told}");
    upstream.manner(Manner::Answer(0));
    upstream.let_go();
    let answer = begun.answer().unwrap().ran();
    // Its floor is as it was, and no mark is left.
    order(&uuid_v7(Duration::from_secs(60))).send(proxy.address).ran();
    proxy.stop();
    restored(&store.url).done();
    let proxy = Proxy::start_with(&store.url, &upstream, &[]);
    assert_eq!(order("tap").send(proxy.address).replayed(), answer);
    order(&uuid_v7(Duration::from_secs(61))).send(proxy.address).is_problem(412, "key-expired");
    proxy.stop();

    let folder = Folder::with_store();
    let told = restored(&folder.store()).failed(2);
    let dir = folder.journal().display().to_string();
    assert!(told.contains(&format!("onlyonce journal restore {dir} NEW")), "{told}");
}

/// Who holds a claim through the record service lives elsewhere, and may end it at the store that
/// was put back.
#[test]
fn who_lives_elsewhere_completes_what_was_made_unknown() {
    let mut store = File(Shared::sqlite());
    let token = token(&store.0.folder);
    let serve = |url: &str| {
        Service::start(&["--listen", "127.0.0.1:0", "--token-file", &token, "--store", url])
    };
    let service = serve(&store.url());
    let (_, granted) = ask(&service.url, "claim", &claim("order", 1));
    service.stop();
    store.copy();
    store.put_back();
    restored(&store.url()).done();
    let service = serve(&store.url());
    let said = |verb: &str, more: Value| {
        let mut said = json!({ "key": "order", "fence": granted["fence"] });
        said.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask(&service.url, verb, &said)
    };
    // Another attempt may have been granted since the copy was made: that this one sent nothing
    // frees nothing.
    assert_eq!(said("release", json!({})).0, 409);
    assert_eq!(views(&store.url(), "unknown").len(), 1);
    let (status, told) = said("complete", json!({ "reply": { "status": 201, "json": 7 } }));
    assert_eq!(status, 200, "{told}");
    assert_eq!(views(&store.url(), "completed").len(), 1);
    service.stop();
}

#[test]
fn what_cannot_be_read_is_named_and_all_else_is_made_safe() {
    let mut store = Dumped(Postgres::start(), String::new());
    let url = store.url();
    onlyonce(["store", "init", "--first", "--store", &url]).done();
    let upstream = Upstream::open();
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    upstream.manner(Manner::Cut);
    for key in ["one", "two"] {
        order(key).send(proxy.address).is_problem(502, "outcome-unknown");
        free(&url, key);
    }
    proxy.stop();
    let id = views(&url, "released")[0]["id"].as_str().unwrap().to_owned();
    let spoil = "UPDATE onlyonce.records SET record = set_byte(record, 9, get_byte(record, 9) # 1)";
    store.0.sql("postgres", &format!("{spoil} WHERE id = '\\x{id}'"));
    store.copy();
    store.put_back();
    let told = restored(&url).failed(7);
    assert!(told.contains(&id) && told.contains("checksum"), "{told}");
    assert!(told.contains("can be used"), "{told}");
    let effects = upstream.effects();
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    let mut problems: Vec<String> =
        ["one", "two"].map(|key| order(key).send(proxy.address).problem()).to_vec();
    problems.sort();
    assert_eq!(problems, ["outcome-unknown", "record-damaged"]);
    assert_eq!(upstream.effects(), effects);
    proxy.stop();
}

/// What is done with a store that was moved, or into which a copy was begun, a doctor tells.
#[test]
fn a_doctor_tells_of_a_store_that_was_moved_or_is_not_whole() {
    let (folder, upstream) = (Folder::with_store(), Upstream::open());
    let (from, etcd) = (folder.store(), Etcd::start());
    let to = format!("etcd://{}?accept=single", etcd.address());
    let mark = |store: &str| {
        let ran = onlyonce(["doctor", "--store", store]);
        let row = ran.out.lines().find(|line| line.starts_with("mark ")).unwrap().to_owned();
        (ran.code, row)
    };
    let is_clean = |store: &str| {
        let (code, row) = mark(store);
        assert!(code == Some(0) && row.contains("none") && row.contains("ok"), "{code:?}: {row}");
    };
    let proxy = Proxy::start(&folder, &upstream);
    is_clean(&from);
    upstream.manner(Manner::Answer(1_500_000));
    order("large").send(proxy.address).ran();
    proxy.stop();
    is_clean(&from);
    // It is too large for the other store, which was begun.
    onlyonce(["store", "copy", &from, &to]).failed(7);
    is_clean(&from);
    let (code, row) = mark(&to);
    let says = format!("`onlyonce store copy {from} {to}` goes on; if that was given up, delete");
    assert!(code == Some(3) && row.contains("refused") && row.contains(&says), "{row}");

    keys(&from, &["erase", "--key", "large", "--why", "asked for"]).done();
    onlyonce(["store", "copy", &from, &to]).done();
    is_clean(&to);
    let (code, row) = mark(&from);
    assert!(code == Some(3) && row.contains(&format!("--store {to}")), "{row}");
    let told = onlyonce(["doctor", "--json", "--store", &from]).out;
    let mut checks = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let check = checks.next_back().unwrap();
    assert_eq!((&check["check"], &check["says"]), (&json!("mark"), &json!("left")), "{check}");
    // A journal in use has none, or nobody could use it.
    let proxy = Proxy::start_with(&to, &upstream, &[]);
    until("a proxy", || order("large").send(proxy.address).header("idempotency-status").map(drop));
    is_clean(&to);
    proxy.stop();
    // What has moved is not made usable by another name.
    restored(&to).done();
    let sqlite = format!("sqlite:{}", folder.path("once.db").display());
    onlyonce(["store", "copy", "--at-rest", &to, &sqlite]).done();
    let told = restored(&to).failed(3);
    assert!(told.contains("its records were moved to"), "{told}");
}
