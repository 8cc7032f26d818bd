//! The same on stores that several processes have open, each with a key file of its own.

use onlyonce_testbed::Postgres;

use super::{is_on_disk, key_file};
use crate::caller::order;
use crate::process::{Folder, Proxy, Ran, onlyonce};
use crate::shared::Shared;
use crate::upstream::Upstream;

fn keys(store: &str, arguments: &[&str]) -> Ran {
    onlyonce(["keys"].iter().chain(arguments).chain(&["--store", store]))
}

fn processes_with_other_keys_agree_or_are_refused(store: &Shared) {
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let (upstream, url) = (Upstream::open(), &*store.url);
    let file = |name: &str, keys: &[&str]| key_file(&store.folder, name, keys);
    let (old, new) = (file("old", &[&one]), file("new", &[&two]));
    let (before, after) = (file("before", &[&one, &two]), file("after", &[&two, &one]));
    let start = |file: &str| Proxy::start_with(url, &upstream, &["--key-file", file]);
    let without = Proxy::start_with(url, &upstream, &[]);
    let plain = order("tap-0").send(without.address).ran();

    // The one that began without keys takes no encrypted answer for one.
    let first = start(&old);
    let answer = order("tap-1").send(first.address).ran();
    order("tap-1").send(without.address).is_problem(500, "record-damaged");
    assert_eq!(order("tap-0").send(first.address).replayed(), plain);
    assert!(!is_on_disk(&store.folder.path("."), answer.body.as_ref()));
    without.stop();

    // Whoever lacks a key that answers may need does not begin, and has changed nothing.
    let api = upstream.url();
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &api, "--store", url];
    let told = onlyonce(proxy).failed(3);
    assert!(told.contains("--key-file"), "{told}");
    let told = onlyonce(proxy.iter().chain(&["--key-file", &new])).failed(3);
    assert!(told.contains("is not in it"), "{told}");
    let told = keys(url, &["list"]).failed(3);
    assert!(told.contains("--key-file"), "{told}");
    first.stop();

    // All learn of the new key before the first one encrypts with it: then all read all.
    let (both, latest) = (start(&before), start(&after));
    let second = order("tap-2").send(latest.address).ran();
    let third = order("tap-3").send(both.address).ran();
    for proxy in [&both, &latest] {
        let answers = [&plain, &answer, &second, &third];
        for (number, answer) in answers.into_iter().enumerate() {
            let told = order(&format!("tap-{number}")).send(proxy.address).replayed();
            assert_eq!(told, *answer, "tap-{number}");
        }
    }
    let told = onlyonce(proxy.iter().chain(&["--key-file", &old])).failed(3);
    assert!(told.contains("is not in it"), "{told}");

    // While the old key may be in use it is not said to be free.
    let told = keys(url, &["encryption", "--renew", "--key-file", &after]).done();
    assert!(told.contains("a process may still encrypt with"), "{told}");
    assert!(told.contains("keep it until that is sure"), "{told}");
    let told = onlyonce(proxy.iter().chain(&["--key-file", &new])).failed(3);
    assert!(told.contains("is not in it"), "{told}");
    let listed = keys(url, &["list", "--json", "--key-file", &after]).done();
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert_eq!(upstream.effects(), 4);
}

#[test]
fn processes_with_other_keys_on_one_sqlite_file_agree_or_are_refused() {
    processes_with_other_keys_agree_or_are_refused(&Shared::sqlite());
}

#[test]
fn processes_with_other_keys_on_postgres_agree_or_are_refused() {
    processes_with_other_keys_agree_or_are_refused(&Shared::postgres());
}

#[test]
fn processes_with_other_keys_on_mariadb_agree_or_are_refused() {
    processes_with_other_keys_agree_or_are_refused(&Shared::mariadb());
}

#[test]
fn processes_with_other_keys_on_redis_agree_or_are_refused() {
    processes_with_other_keys_agree_or_are_refused(&Shared::redis());
}

#[test]
fn processes_with_other_keys_on_etcd_agree_or_are_refused() {
    processes_with_other_keys_agree_or_are_refused(&Shared::etcd());
}

/// From a journal, to a store that is shared, and back.
#[test]
fn encrypted_answers_move_with_the_names_of_their_keys() {
    let (upstream, folder, postgres) = (Upstream::open(), Folder::with_store(), Postgres::start());
    let file = key_file(&folder, "keys", &[&"1".repeat(64)]);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--key-file", &file]);
    let answer = order("tap").send(proxy.address).ran();
    proxy.stop();
    let middle = postgres.url("postgres");
    let last = format!("journal:{}", folder.path("last").display());
    for (from, to) in [(folder.store(), &middle), (middle.clone(), &last)] {
        let told = onlyonce(["store", "copy", "--at-rest", &from, to]).done();
        assert!(told.contains("1 records of"), "{told}");
        let told = keys(to, &["list"]).failed(3);
        assert!(told.contains("--key-file"), "{told}");
        let proxy = Proxy::start_with(to, &upstream, &["--key-file", &file]);
        assert_eq!(order("tap").send(proxy.address).replayed(), answer);
        proxy.stop();
    }
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn an_encrypted_store_that_was_put_back_still_needs_its_keys() {
    let (upstream, store) = (Upstream::open(), Shared::sqlite());
    let file = key_file(&store.folder, "keys", &[&"1".repeat(64)]);
    let proxy = Proxy::start_with(&store.url, &upstream, &["--key-file", &file]);
    let answer = order("tap").send(proxy.address).ran();
    proxy.stop();
    let told = onlyonce(["store", "restored", "--at-rest", "--store", &store.url]).done();
    assert!(told.contains("1 records are in"), "{told}");
    let told = keys(&store.url, &["list"]).failed(3);
    assert!(told.contains("--key-file"), "{told}");
    let listed = keys(&store.url, &["list", "--json", "--key-file", &file]).done();
    let id = serde_json::from_str::<serde_json::Value>(&listed).unwrap()["id"].clone();
    let proxy = Proxy::start_with(&store.url, &upstream, &["--key-file", &file]);
    assert_eq!(order("tap").send(proxy.address).replayed(), answer);
    let erase = ["erase", id.as_str().unwrap(), "--why", "asked for", "--key-file", &file];
    keys(&store.url, &erase).done();
    order("tap").send(proxy.address).is_problem(410, "reply-not-kept");
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn the_output_of_commands_is_encrypted() {
    let folder = Folder::empty();
    let file = key_file(&folder, "keys", &[&"1".repeat(64)]);
    let state = folder.path("state").display().to_string();
    let run = |more: &[&str]| {
        let what = ["--key", "k", "--any-dir", "--", "sh", "-c", "echo pin $((4000 + 242))"];
        onlyonce(["run", "--state", &state].iter().chain(more).chain(&what))
    };
    assert_eq!(run(&["--key-file", &file]).done(), "pin 4242\n");
    for file in ["run.db", "run.db-wal"] {
        let bytes = std::fs::read(folder.path("state").join(file)).unwrap_or_default();
        assert!(!bytes.windows(4).any(|it| it == b"4242"), "{file}");
    }
    assert!(run(&[]).failed(195).contains("--key-file"));
    assert_eq!(run(&["--key-file", &file]).done(), "pin 4242\n");
}
