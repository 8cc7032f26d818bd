//! Moving a store: what was known at the old place is known at the new one, nothing runs again, and
//! at no moment can both be used.

use std::time::Duration;

use onlyonce_testbed::{EtcdCluster, MariaDb, Postgres, Redis};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::caller::{Kept, order};
use crate::process::{Folder, Proxy, Ran, Running, Service, contents, onlyonce, until};
use crate::service::{ask, claim, token};
use crate::shared::Shared;
use crate::store::uuid_v7;
use crate::upstream::{Manner, Upstream};

fn copy(from: &str, to: &str, more: &[&str]) -> Ran {
    onlyonce(["store", "copy", from, to].iter().chain(more))
}

fn sqlite(folder: &Folder, name: &str) -> String {
    format!("sqlite:{}", folder.path(name).display())
}

/// Several stores as one.
fn set(folder: &Folder, name: &str, stores: &[String]) -> String {
    format!("spread:{}", folder.write(name, &stores.join("\n")))
}

fn keys(store: &str, arguments: &[&str]) -> Ran {
    onlyonce(["keys"].iter().chain(arguments).chain(&["--store", store]))
}

/// All that is known of all keys, in the order of their ids.
fn listed(store: &str) -> Vec<Value> {
    let listed = keys(store, &["list", "--json"]).done();
    let mut views: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    views.sort_by_key(|view| view["id"].to_string());
    views
}

fn states(views: &[Value]) -> Vec<&str> {
    let mut states: Vec<&str> = views.iter().map(|view| view["state"].as_str().unwrap()).collect();
    states.sort_unstable();
    states.dedup();
    states
}

/// What a shop's callers were told.
struct Told {
    upstream: Upstream,
    large: Kept,
    annas: Kept,
    /// The fence of the claim that a program has.
    claim: Value,
}

/// A journal with keys in every state, made by those who make them.
fn fill(folder: &Folder) -> Told {
    let store = folder.store();
    onlyonce(["store", "init", "--store", &store]).done();
    let upstream = Upstream::open();
    let short = folder.write("short.toml", "[policy]\nretention = \"1ms\"\n");
    let proxy = Proxy::start_with(&store, &upstream, &["--config", &short]);
    order("short").send(proxy.address).ran();
    proxy.stop();
    // One that begins looks at all that is over.
    let proxy = Proxy::start(folder, &upstream);
    until("a tombstone", || states(&listed(&store)).contains(&"tombstone").then_some(()));
    upstream.manner(Manner::Answer(100_000));
    let large = order("tap").send(proxy.address).ran();
    upstream.manner(Manner::Answer(0));
    let annas = order("tap").by("Bearer anna").send(proxy.address).ran();
    order("erased").send(proxy.address).ran();
    keys(&store, &["erase", "--key", "erased", "--why", "asked for"]).done();
    keys(&store, &["seal", "--key", "sealed", "--why", "cancelled"]).done();
    upstream.manner(Manner::Cut);
    for key in ["lost", "free"] {
        order(key).send(proxy.address).is_problem(502, "outcome-unknown");
    }
    upstream.manner(Manner::Answer(0));
    let fence = fence(&store, "free");
    let free = ["resolve", "--key", "free", "--fence", &fence, "--did-not-happen", "--why", "seen"];
    keys(&store, &free).done();
    proxy.stop();
    let service = serve(folder, &store);
    let mut asked = claim("order", 1);
    asked["lease_ms"] = json!(600_000);
    let (_, granted) = ask(&service.url, "claim", &asked);
    assert_eq!(granted["outcome"], "granted", "{granted}");
    service.stop();
    Told { upstream, large, annas, claim: granted["fence"].clone() }
}

fn serve(folder: &Folder, store: &str) -> Service {
    let token = token(folder);
    Service::start(&["--listen", "127.0.0.1:0", "--token-file", &token, "--store", store])
}

fn fence(store: &str, key: &str) -> String {
    let shown = keys(store, &["get", "--key", key]).done();
    let line = shown.lines().find(|line| line.starts_with("fence ")).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// That a proxy at this place answers as one at the old place would, and runs nothing.
fn answers_as_before(store: &str, told: &Told) {
    let effects = told.upstream.effects();
    let proxy = Proxy::start_with(store, &told.upstream, &[]);
    let at = proxy.address;
    assert!(order("tap").send(at).replayed() == told.large, "another answer");
    assert_eq!(order("tap").by("Bearer anna").send(at).replayed(), told.annas);
    assert_eq!(order("tap").of("toaster").send(at).status, 422);
    order("lost").send(at).is_problem(409, "outcome-unknown");
    order("sealed").send(at).is_problem(410, "key-sealed");
    order("erased").send(at).is_problem(410, "reply-not-kept");
    order("short").send(at).is_problem(410, "reply-not-kept");
    order(&uuid_v7(Duration::from_secs(600))).send(at).is_problem(412, "key-expired");
    assert_eq!(told.upstream.effects(), effects);
    proxy.stop();
}

/// That no command uses the store any more, and that each says why.
fn is_refused(store: &str, why: &str) {
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", "http://a", "--store", store];
    let run = ["run", "--key", "k", "--store", store, "--", "true"];
    let list = ["keys", "list", "--store", store];
    for arguments in [&proxy[..], &list] {
        let said = onlyonce(arguments).failed(3);
        assert!(said.contains(why), "{said}");
    }
    assert_ne!(onlyonce(run).code, Some(0));
}

#[test]
fn a_store_moves_through_every_kind_and_answers_as_before_and_the_old_place_is_refused() {
    let folder = Folder::empty();
    let told = fill(&folder);
    let postgres = Postgres::start();
    let mariadb = MariaDb::start();
    mariadb.sql("mysql", "CREATE DATABASE shop");
    let redis = Redis::start();
    let mut etcd = EtcdCluster::start();
    let members: Vec<String> =
        etcd.members().iter().map(|member| member.address().to_string()).collect();
    let files = ["a.db", "b.db", "c.db"].map(|name| sqlite(&folder, name));
    let parts = ["a", "b"].map(|name| format!("redis://{}?prefix={name}", redis.address()));
    let places = [
        sqlite(&folder, "once.db"),
        set(&folder, "files", &files),
        postgres.url("postgres"),
        mariadb.url("shop"),
        format!("redis://{}", redis.address()),
        set(&folder, "parts", &parts),
        format!("etcd://{}", members.join(",")),
        format!("journal:{}", folder.path("again").display()),
    ];
    let mut from = folder.store();
    let known = listed(&from);
    let all = ["completed", "in-flight", "released", "tombstone", "unknown"];
    assert_eq!(states(&known), all);
    for to in &places {
        let at_rest: &[&str] = if from.starts_with("journal:") { &[] } else { &["--at-rest"] };
        let said = copy(&from, to, at_rest).done();
        assert!(said.contains(&format!("{} records", known.len())), "{said}");
        assert_eq!(listed(to), known, "{from} to {to}");
        answers_as_before(to, &told);
        assert_eq!(listed(to), known, "{to}");
        is_refused(&from, "its records were moved to");
        // To say it again is harmless, also when the new place is used.
        copy(&from, to, at_rest).done();
        let told = copy(&from, to, &["--give-up"]).failed(3);
        assert!(told.contains("its records were moved to"), "{told}");
        from.clone_from(to);
    }
    // Who had a claim ends it at the new place, and what was free runs under a later fence.
    let service = serve(&folder, &from);
    let done =
        json!({ "key": "order", "fence": told.claim, "reply": { "status": 201, "json": 7 } });
    assert_eq!(ask(&service.url, "complete", &done).0, 200);
    service.stop();
    let before: u64 = fence(&from, "free").parse().unwrap();
    let proxy = Proxy::start_with(&from, &told.upstream, &[]);
    order("free").send(proxy.address).ran();
    proxy.stop();
    assert!(before < fence(&from, "free").parse().unwrap());
}

#[test]
fn a_copy_that_is_killed_at_any_moment_never_leaves_two_stores_and_goes_on_when_said_again() {
    let (folder, upstream) = (Folder::with_store(), Upstream::open());
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Answer(2_000));
    for number in 0..100 {
        order(&format!("tap-{number}")).send(proxy.address).ran();
    }
    proxy.stop();
    let (mut from, known) = (folder.store(), listed(&folder.store()));
    for round in 0..3_u64 {
        let file = sqlite(&folder, &format!("{round}.db"));
        let more = sqlite(&folder, &format!("{round}-more.db"));
        // To a file, from there to several as one, and back to a file.
        let to = if round == 1 { set(&folder, "set", &[file, more]) } else { file };
        let mut killed = 0;
        loop {
            let running = Running::start(["store", "copy", "--at-rest", &from, &to]);
            until("a copy that has begun", || {
                folder.path(&format!("{round}.db")).exists().then_some(())
            });
            std::thread::sleep(Duration::from_millis(7 * (killed + round)));
            running.signal(Signal::KILL);
            let done = running.ended().code == Some(0);
            let (old, new) = (keys(&from, &["list"]).code, keys(&to, &["list", "--json"]));
            if new.code == Some(0) && !new.out.is_empty() {
                assert_eq!(old, Some(3), "both stores can be used");
                assert_eq!(new.out.lines().count(), known.len());
            }
            if done || killed == 8 {
                break;
            }
            killed += 1;
        }
        copy(&from, &to, &["--at-rest"]).done();
        assert_eq!(listed(&to), known);
        is_refused(&from, "its records were moved to");
        from = to;
    }
    let proxy = Proxy::start_with(&from, &upstream, &[]);
    for number in 0..100 {
        order(&format!("tap-{number}")).send(proxy.address).replayed();
    }
    proxy.stop();
    assert_eq!(upstream.effects(), 100);
}

#[test]
fn a_copy_without_room_leaves_no_store_in_use_and_can_be_given_up_or_gone_on_with() {
    let (folder, upstream) = (Folder::with_store(), Upstream::open());
    let from = folder.store();
    std::fs::create_dir(folder.path("old")).unwrap();
    for (name, bytes) in contents(&folder.journal()) {
        std::fs::write(folder.path("old").join(name), bytes).unwrap();
    }
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Answer(100_000));
    for number in 0..60 {
        order(&format!("tap-{number}")).send(proxy.address).ran();
    }
    proxy.stop();
    let redis = Redis::start();
    let to = format!("redis://{}", redis.address());
    let memory = redis.info("memory");
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let room = (used.trim().parse::<u64>().unwrap() + (2 << 20)).to_string();
    assert!(redis.ask(&["CONFIG", "SET", "maxmemory", &room]).contains("OK"));

    let told = copy(&from, &to, &[]).failed(7);
    assert!(told.contains("neither store can be used now"), "{told}");
    is_refused(&from, "its records are being moved to");
    is_refused(&to, "are in it yet");
    let other = copy(&from, &sqlite(&folder, "other.db"), &[]).failed(3);
    assert!(other.contains("its records are being moved to"), "{other}");

    copy(&from, &to, &["--give-up"]).done();
    is_refused(&to, "are in it yet");
    let proxy = Proxy::start(&folder, &upstream);
    upstream.manner(Manner::Answer(0));
    order("tap-0").send(proxy.address).replayed();
    order("later").send(proxy.address).ran();
    keys(&from, &["erase", "--key", "tap-1", "--why", "asked for"]).done();
    proxy.stop();

    assert!(redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).contains("OK"));
    // An old state of the old store that was put back does not know what is at the new place.
    let known = listed(&from);
    let (journal, aside) = (folder.journal(), folder.path("aside"));
    std::fs::rename(&journal, &aside).unwrap();
    std::fs::rename(folder.path("old"), &journal).unwrap();
    let told = copy(&from, &to, &[]).failed(7);
    assert!(told.contains("is not the same in"), "{told}");
    is_refused(&to, "are in it yet");
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::rename(&aside, &journal).unwrap();

    copy(&from, &to, &[]).done();
    assert_eq!(listed(&to), known);
    is_refused(&from, "its records were moved to");
    assert_eq!(upstream.effects(), 61);
}

#[test]
fn a_store_that_may_be_in_use_is_not_moved() {
    let (store, upstream) = (Shared::sqlite(), Upstream::open());
    let to = sqlite(&store.folder, "new.db");
    let told = copy(&store.url, &to, &[]).failed(2);
    assert!(told.contains("--at-rest"), "{told}");

    let proxy = Proxy::start_with(&store.url, &upstream, &[]);
    upstream.manner(Manner::Hold);
    let begun = order("tap").begin(proxy.address);
    upstream.began("tap");
    let told = copy(&store.url, &to, &["--at-rest"]).failed(1);
    assert!(told.contains("a process has a claim of it until 20"), "{told}");
    proxy.kill();
    drop(begun);
    // It was not given up: its process is found dead, and then it can be moved.
    let proxy = Proxy::start_with(&store.url, &upstream, &[]);
    order("tap").send(proxy.address).is_problem(409, "outcome-unknown");
    proxy.stop();
    copy(&store.url, &to, &["--at-rest"]).done();
    assert_eq!(states(&listed(&to)), ["unknown"]);

    let folder = Folder::with_store();
    let proxy = Proxy::start(&folder, &upstream);
    let told = copy(&folder.store(), &sqlite(&folder, "new.db"), &["--at-rest"]).failed(3);
    assert!(told.contains(&format!("process {} has this journal", proxy.pid())), "{told}");
}

#[test]
fn a_copy_goes_to_a_new_place_only_and_changes_nothing_when_it_is_refused() {
    let (store, other) = (Shared::sqlite(), Shared::sqlite());
    for store in [&store, &other] {
        keys(&store.url, &["seal", "--key", "tap", "--why", "cancelled"]).done();
    }
    let known = (listed(&store.url), listed(&other.url));
    let told = copy(&store.url, &other.url, &["--at-rest"]).failed(1);
    assert!(told.contains("there is a store already"), "{told}");
    copy(&store.url, &store.url, &["--at-rest"]).failed(2);
    let told = copy(&store.url, &other.url, &["--give-up"]).failed(1);
    assert!(told.contains("no copy of it was begun"), "{told}");
    assert_eq!((listed(&store.url), listed(&other.url)), known);
}

#[test]
fn a_set_whose_keys_move_and_one_that_names_the_other_store_are_not_copied() {
    let folder = Folder::empty();
    let [a, b, other] = ["a.db", "b.db", "other.db"].map(|name| sqlite(&folder, name));
    let one = set(&folder, "one", std::slice::from_ref(&a));
    let both = set(&folder, "both", &[a.clone(), b]);
    onlyonce(["store", "init", "--first", "--store", &one]).done();
    keys(&one, &["seal", "--key", "tap", "--why", "cancelled"]).done();
    for (from, to) in [(&one, &a), (&a, &one), (&one, &both)] {
        let told = copy(from, to, &["--at-rest"]).failed(2);
        assert!(told.contains(&format!("{a} is in FROM and in TO")), "{told}");
    }
    onlyonce(["store", "spread", "--store", &both]).done();
    let moving = Running::start(["store", "rebalance", "--store", &both]);
    until("a move", || {
        let told = onlyonce(["doctor", "--store", &both]).out;
        told.contains("moving from").then_some(())
    });
    drop(moving);
    let told = copy(&both, &other, &["--at-rest"]).failed(1);
    assert!(told.contains("keys move from member to member"), "{told}");
    assert!(told.contains(&format!("store rebalance --at-rest --store {both}")), "{told}");
    let restored = ["store", "restored", "--at-rest", "--store", &both];
    let told = onlyonce(restored).failed(1);
    assert!(told.contains("keys move from member to member"), "{told}");
    onlyonce(["store", "rebalance", "--at-rest", "--store", &both]).done();
    onlyonce(restored).done();
    copy(&both, &other, &["--at-rest"]).done();
    assert_eq!(states(&listed(&other)), ["completed"]);
    let told = onlyonce(["store", "rebalance", "--store", &both]).failed(3);
    assert!(told.contains("its records were moved to"), "{told}");
}

#[test]
fn what_cannot_be_read_is_named_before_the_old_store_is_given_up() {
    let (folder, postgres) = (Folder::empty(), Postgres::start());
    let from = postgres.url("postgres");
    onlyonce(["store", "init", "--first", "--store", &from]).done();
    for key in ["a", "b"] {
        keys(&from, &["seal", "--key", key, "--why", "cancelled"]).done();
    }
    let id = listed(&from)[0]["id"].as_str().unwrap().to_owned();
    let spoil = "UPDATE onlyonce.records SET record = set_byte(record, 9, get_byte(record, 9) # 1)";
    postgres.sql("postgres", &format!("{spoil} WHERE id = '\\x{id}'"));
    let told = copy(&from, &folder.store(), &["--at-rest"]).failed(1);
    assert!(told.contains(&id) && told.contains("checksum"), "{told}");
    assert!(!folder.journal().exists());
    keys(&from, &["seal", "--key", "c", "--why", "cancelled"]).done();
}
