//! Several databases as one store: what is known in one of them is known to all who use them, and
//! nothing runs twice while keys move from one to another.

mod swept;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use onlyonce_testbed::{Etcd, MariaDb, Postgres, Redis};
use serde_json::Value;

use crate::caller::{Answer, order};
use crate::process::{Folder, Proxy, Ran, Running, onlyonce, until};
use crate::store::uuid_v7;
use crate::upstream::{Manner, Upstream};

/// A file with a line for each of these stores, and its address.
fn file(folder: &Folder, name: &str, stores: &[&str]) -> String {
    let lines = stores.join("\n");
    format!("spread:{}", folder.write(name, &format!("# our stores\n\n{lines}\n")))
}

fn sqlite(folder: &Folder, name: &str) -> String {
    format!("sqlite:{}", folder.path(name).display())
}

fn store(command: &str, url: &str, more: &[&str]) -> Ran {
    onlyonce(["store", command, "--store", url].iter().chain(more))
}

fn views(store: &str) -> Vec<Value> {
    let listed = onlyonce(["keys", "list", "--json", "--store", store]).done();
    listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the doctor says of the map.
fn map(url: &str) -> String {
    let told = onlyonce(["doctor", "--json", "--store", url]).done();
    let mut checks = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let set = checks.find(|check| check["check"] == "set").unwrap();
    set["says"].as_str().unwrap().to_owned()
}

#[test]
fn several_databases_are_one_store_and_none_is_opened_alone() {
    let folder = Folder::empty();
    let [a, b, c] = ["a.db", "b.db", "c.db"].map(|name| sqlite(&folder, name));
    let set = file(&folder, "stores", &[&a, &b, &c]);
    store("init", &set, &["--first"]).done();
    assert_eq!(map(&set), "map 1: members 1,2,3");
    let upstream = Upstream::open();
    let proxy = Proxy::start_with(&set, &upstream, &[]);
    let kept: Vec<_> =
        (0..30).map(|key| order(&format!("tap-{key}")).send(proxy.address).ran()).collect();
    proxy.stop();
    // In another order they are the same.
    let turned = file(&folder, "turned", &[&c, &a, &b]);
    let proxy = Proxy::start_with(&turned, &upstream, &[]);
    for (key, kept) in kept.iter().enumerate() {
        assert_eq!(order(&format!("tap-{key}")).send(proxy.address).replayed(), *kept);
    }
    assert_eq!((upstream.effects(), views(&set).len()), (30, 30));
    proxy.stop();
    let url = upstream.url();
    for alone in [&a, &b, &c] {
        let args = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", alone];
        let said = onlyonce(args).failed(3);
        assert!(said.contains("one of several stores"), "{said}");
        let said = onlyonce(["doctor", "--store", alone]).failed(3);
        assert!(said.contains("mark"), "{said}");
    }
    let part = file(&folder, "part", &[&a, &c]);
    let said = onlyonce(["keys", "list", "--store", &part]).failed(3);
    assert!(said.contains("member 2 of the set is not named"), "{said}");
}

#[test]
fn a_file_of_stores_that_cannot_be_one_is_refused_by_line() {
    let folder = Folder::empty();
    let one = sqlite(&folder, "a.db");
    let cases: [(&[&str], &str); 5] = [
        (&[], "it names no store"),
        (&[&one, "journal:x"], "line 4: a set is of databases"),
        (&[&one, "redis://127.0.0.1:1"], "line 4: a set has one kind of store, and this is redis"),
        (&[&one, &one], "line 4: "),
        (&[&one, "x"], "line 4: it must be journal:DIR"),
    ];
    for (number, (lines, text)) in cases.iter().enumerate() {
        let set = file(&folder, &format!("stores-{number}"), lines);
        let said = store("init", &set, &[]).failed(2);
        assert!(said.contains(text), "{said}");
    }
    let other = sqlite(&folder, "b.db");
    store("init", &one, &["--first"]).done();
    store("init", &other, &["--first"]).done();
    let set = file(&folder, "two", &[&one, &other]);
    let said = onlyonce(["keys", "list", "--store", &set]).failed(3);
    assert!(said.contains("it belongs to no set"), "{said}");
    let said = store("spread", &set, &[]).failed(2);
    assert!(said.contains("--at-rest"), "{said}");
    let said = store("spread", &set, &["--at-rest"]).failed(1);
    assert!(said.contains("which cannot join a set"), "{said}");
    // Nobody takes a seat away, so a store that was refused has none.
    for alone in [&one, &other] {
        onlyonce(["keys", "list", "--store", alone]).done();
    }
    let [c, d] = ["c.db", "d.db"].map(|name| sqlite(&folder, name));
    store("init", &file(&folder, "other", &[&d]), &["--first"]).done();
    store("spread", &file(&folder, "own", &[&one]), &["--at-rest"]).done();
    let said = store("spread", &file(&folder, "mixed", &[&one, &d, &c]), &[]).failed(1);
    assert!(said.contains("a member of another set"), "{said}");
    assert!(!folder.path("c.db").exists(), "it was made a member of one of them");
}

/// Three stores of one server, by their names.
fn three(url: impl Fn(&str) -> String) -> [String; 3] {
    ["a", "b", "c"].map(url)
}

/// One store with keys, the others join, the first one leaves: each key is answered as before.
fn grows_and_moves_on(folder: &Folder, stores: &[String; 3]) {
    let [a, b, c] = stores.each_ref().map(String::as_str);
    store("init", a, &["--first"]).done();
    let upstream = Upstream::open();
    let proxy = Proxy::start_with(a, &upstream, &[]);
    let kept: Vec<_> =
        (0..40).map(|key| order(&format!("tap-{key}")).send(proxy.address).ran()).collect();
    upstream.manner(Manner::Cut);
    order("lost").send(proxy.address).is_problem(502, "outcome-unknown");
    upstream.manner(Manner::Answer(0));
    proxy.stop();
    let effects = upstream.effects();
    let set = file(folder, "stores", &[a, b, c]);
    store("spread", &set, &["--at-rest"]).done();
    assert_eq!(map(&set), "map 1: members 1");
    let answers_as_before = |members: &str| {
        assert!(map(&set).ends_with(members), "{}", map(&set));
        let proxy = Proxy::start_with(&set, &upstream, &[]);
        assert!(proxy.hello().contains("1 outcomes are unknown"), "{}", proxy.hello());
        for (key, kept) in kept.iter().enumerate() {
            assert_eq!(order(&format!("tap-{key}")).send(proxy.address).replayed(), *kept);
        }
        order("lost").send(proxy.address).is_problem(409, "outcome-unknown");
        assert_eq!(upstream.effects(), effects);
        assert_eq!(views(&set).len(), kept.len() + 1);
        proxy.stop();
    };
    answers_as_before("members 1");
    let said = store("rebalance", &set, &["--at-rest"]).done();
    assert!(said.contains("map 3: members 1,2,3"), "{said}");
    answers_as_before("members 1,2,3");
    store("rebalance", &set, &["--at-rest", "--without", a]).done();
    answers_as_before("members 2,3");
    let rest = file(folder, "rest", &[b, c]);
    assert_eq!(views(&rest).len(), kept.len() + 1);
    // Nothing to do is done at once.
    store("rebalance", &rest, &[]).done();
}

#[test]
fn a_file_becomes_several_and_each_key_is_answered_as_before() {
    let folder = Folder::empty();
    grows_and_moves_on(&folder, &three(|name| sqlite(&folder, name)));
}

#[test]
fn a_database_in_postgres_becomes_several_and_each_key_is_answered_as_before() {
    let server = Postgres::start();
    let stores = three(|name| {
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        server.url(name)
    });
    grows_and_moves_on(&Folder::empty(), &stores);
}

#[test]
fn a_database_in_mariadb_becomes_several_and_each_key_is_answered_as_before() {
    let server = MariaDb::start();
    let stores = three(|name| {
        server.sql("mysql", &format!("CREATE DATABASE {name}"));
        server.url(name)
    });
    grows_and_moves_on(&Folder::empty(), &stores);
}

#[test]
fn an_etcd_becomes_several_and_each_key_is_answered_as_before() {
    let server = Etcd::start();
    let at = server.address();
    let stores = three(|name| format!("etcd://{at}?prefix={name}&accept=single"));
    grows_and_moves_on(&Folder::empty(), &stores);
}

#[test]
fn a_redis_becomes_several_and_each_key_is_answered_as_before() {
    let server = Redis::start();
    let stores = three(|name| format!("redis://{}?prefix={name}", server.address()));
    grows_and_moves_on(&Folder::empty(), &stores);
}

/// Who ask at once.
const CALLERS: usize = 4;

/// What three proxies said of keys while these moved.
#[derive(Default)]
struct Told {
    /// Answered, with this.
    answered: BTreeMap<String, Vec<u8>>,
    /// Refused by the proxy that does not name the member that joined.
    refused: BTreeSet<String>,
    /// Not recorded: nobody knows of them.
    lapsed: BTreeSet<String>,
}

impl Told {
    fn note(&mut self, key: String, answer: Answer, by_old: bool) {
        match answer.status {
            201 => {
                let first = self.answered.entry(key).or_insert_with(|| answer.body.clone());
                assert_eq!(*first, answer.body, "another answer");
            }
            503 if by_old => _ = self.refused.insert(key),
            503 => {}
            _ => {
                let text = String::from_utf8_lossy(&answer.body);
                assert!(text.contains("\"cause\":\"lapsed\""), "{answer:?}");
                self.lapsed.insert(key);
            }
        }
    }

    /// What the proxy of before has refused, or could not record, lives in the member that it does
    /// not name.
    fn check(&self, old: &Proxy, upstream: &Upstream) {
        let many = self.lapsed.len();
        assert!(many <= CALLERS, "more than it had at one moment: {:?}", self.lapsed);
        for key in &self.lapsed {
            assert!(!self.answered.contains_key(key), "{key} was answered, and then not known");
            // It may have been refused before it sent anything.
            assert!(upstream.effects_of(key) <= 1, "effects of {key}");
        }
        let doubted: Vec<&String> = self.refused.union(&self.lapsed).collect();
        assert!(!doubted.is_empty(), "it does not name the member that joined");
        let refused = refused(&doubted, old);
        assert_eq!(refused, doubted, "refused, and lives in a member that it names");
    }
}

/// Which of these keys a proxy refuses; it answers all others. It tries for a while before it does,
/// so many are asked for at once.
fn refused<'a>(keys: &[&'a String], proxy: &Proxy) -> Vec<&'a String> {
    let is_refused = |key: &str| {
        let answer = order(key).send(proxy.address);
        assert!([201, 503].contains(&answer.status), "{answer:?}");
        answer.status == 503
    };
    let ask = |some: &[&'a String]| {
        let refused: Vec<bool> = thread::scope(|scope| {
            let asks = some.iter().map(|key| scope.spawn(move || is_refused(key)));
            let asks: Vec<_> = asks.collect();
            asks.into_iter().map(|ask| ask.join().unwrap()).collect()
        });
        some.iter().zip(refused).filter(|(_, it)| *it).map(|(key, _)| *key).collect::<Vec<_>>()
    };
    keys.chunks(32).flat_map(ask).collect()
}

/// Three proxies: one that follows the map, one that begins during the move, and one that does not
/// name the store that joins. Whatever they are asked meanwhile runs at most once. The last one is
/// refused the keys that go to that store once it sees the map: what it runs of them at that moment
/// it cannot record. All others go on.
#[test]
fn proxies_with_different_maps_run_each_key_once_while_keys_move() {
    let folder = Folder::empty();
    let [a, b, c] = ["a.db", "b.db", "c.db"].map(|name| sqlite(&folder, name));
    let before = file(&folder, "before", &[&a, &b]);
    let whole = file(&folder, "whole", &[&a, &b, &c]);
    store("init", &before, &["--first"]).done();
    store("spread", &whole, &[]).done();
    let upstream = Upstream::open();
    let old = Proxy::start_with(&before, &upstream, &[]);
    let follows = Proxy::start_with(&whole, &upstream, &[]);
    for key in 0..50 {
        order(&format!("early-{key}")).send(old.address).ran();
    }
    let rebalance = Running::start(["store", "rebalance", "--store", &whole]);
    until("a move", || map(&whole).contains("moving from 1,2").then_some(()));
    let new = Proxy::start_with(&whole, &upstream, &[]);
    let addresses = [old.address, follows.address, new.address];
    let (number, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let told = Mutex::new(Told::default());
    let ended_well = thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let turn = number.fetch_add(1, Ordering::Relaxed);
                    // Each key is asked for at all of them, near each other, and one of before too.
                    let keys = [format!("late-{}", turn / 6), format!("early-{}", turn % 50)];
                    for key in keys {
                        let at = addresses[turn % 3];
                        let mut answer = order(&key).settle(at);
                        if answer.status == 503 {
                            // It may have been told of the map while it looked for the key's home.
                            answer = order(&key).settle(at);
                        }
                        told.lock().unwrap().note(key, answer, at == old.address);
                    }
                }
            });
        }
        let ended_well = rebalance.ended();
        ended.store(true, Ordering::Relaxed);
        ended_well
    });
    let said = ended_well.done();
    assert!(said.contains("map 3: members 1,2,3"), "{said}");
    let told = told.into_inner().unwrap();
    assert!(50 < told.answered.len(), "{} keys", told.answered.len());
    told.check(&old, &upstream);
    let early: Vec<String> = (0..50).map(|key| format!("early-{key}")).collect();
    let elsewhere = refused(&early.iter().collect::<Vec<_>>(), &old).len();
    assert!(0 < elsewhere && elsewhere < early.len() / 2, "{elsewhere} of a third of them");
    for (key, body) in &told.answered {
        assert_eq!(upstream.effects_of(key), 1, "effects of {key}");
        assert_eq!(order(key).send(new.address).body, *body);
        assert_eq!(order(key).send(follows.address).body, *body);
        assert_eq!(upstream.effects_of(key), 1, "effects of {key}");
    }
    new.stop();
    follows.stop();
    old.stop();
}

/// A file of SQLite with its log, copied while nobody has it.
fn copy_file(from: &Path, to: &Path) {
    for end in ["", "-wal"] {
        let named = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        if named(from).exists() {
            fs::copy(named(from), named(to)).unwrap();
        } else if named(to).exists() {
            fs::remove_file(named(to)).unwrap();
        }
    }
}

/// A member is put back in the middle of a move, to where a key had not moved yet: nobody can know
/// which of its records counts, and a person says it.
#[test]
fn a_key_that_has_two_records_is_named_and_a_person_says_which_counts() {
    for side in ["old", "new"] {
        let folder = Folder::empty();
        let [a, b] = ["a.db", "b.db"].map(|name| sqlite(&folder, name));
        let set = file(&folder, "stores", &[&a]);
        store("init", &set, &["--first"]).done();
        let upstream = Upstream::open();
        let proxy = Proxy::start_with(&set, &upstream, &[]);
        for key in 0..8 {
            order(&format!("tap-{key}")).send(proxy.address).ran();
        }
        proxy.stop();
        let set = file(&folder, "stores", &[&a, &b]);
        store("spread", &set, &[]).done();
        let waits = Running::start(["store", "rebalance", "--store", &set]);
        until("keys move", || map(&set).contains("from").then_some(()));
        drop(waits);
        let (file, copy) = (folder.path("a.db"), folder.path("copy.db"));
        copy_file(&file, &copy);
        // Each key is changed, and so it moves if it is to.
        let ids: Vec<String> =
            views(&set).iter().map(|view| view["id"].as_str().unwrap().to_owned()).collect();
        for id in &ids {
            onlyonce(["keys", "erase", id, "--store", &set, "--why", "asked for"]).done();
        }
        copy_file(&copy, &file);

        let said = store("rebalance", &set, &["--at-rest"]).failed(7);
        assert!(said.contains("have two records"), "{said}");
        let twice: Vec<&String> = ids.iter().filter(|id| said.contains(*id)).collect();
        assert!(!twice.is_empty() && twice.len() < ids.len(), "{said}");
        let choose = |id: &str, more: &[&str]| {
            onlyonce(["store", "choose", id, "--store", &set].iter().chain(more))
        };
        let other = ids.iter().find(|id| !twice.contains(id)).unwrap();
        assert!(choose(other, &[]).failed(1).contains("has no two records"));
        for id in &twice {
            let shown = choose(id, &[]).done();
            assert!(shown.contains("old: member 1") && shown.contains("bytes kept"), "{shown}");
            assert!(shown.contains("new: member 2") && shown.contains("was erased"), "{shown}");
            assert!(shown.contains("runs authorised") && shown.contains("same status"), "{shown}");
            // A choice is about the two that were shown.
            choose(id, &["--keep", side]).failed(2);
            let other = choose(id, &["--keep", side, "--of", "1,2"]).failed(1);
            let (_, of) = shown.split_once("with --of ").unwrap();
            let (of, _) = of.split_once(';').unwrap();
            assert!(other.contains("not those of --of") && other.contains(of), "{other}");
            assert_eq!(choose(id, &[]).done(), shown, "nothing was changed");
            let named = ["--keep", side, "--of", of, "--why", "looked", "--by", "anna"];
            choose(id, &named).done();
            let got = onlyonce(["keys", "get", id, "--store", &set]).done();
            let about = got.lines().find(|line| line.starts_with("about")).unwrap();
            assert_eq!(about.contains("the answer was erased"), side == "new", "{got}");
            // What it was chosen over.
            assert!(got.contains("(fence ") && got.contains("answered with 201"), "{got}");
            assert!(got.contains("by anna: that of member") && got.contains("looked"), "{got}");
        }
        store("rebalance", &set, &["--at-rest"]).done();
        assert_eq!(views(&set).len(), ids.len());
        assert!(map(&set).contains("map 3"), "{}", map(&set));
    }
}

/// A member is away for longer than anything that was read of it counts: its keys are refused and
/// do not run, those of the other member go on, new ones with a time too, and afterwards every key
/// runs that did not.
#[test]
fn a_member_that_is_away_for_half_a_minute_holds_up_no_key_of_the_other() {
    let folder = Folder::empty();
    let (one, mut two) = (Postgres::start(), Postgres::start());
    let set = file(&folder, "stores", &[&one.url("postgres"), &two.url("postgres")]);
    store("init", &set, &["--first"]).done();
    let upstream = Upstream::open();
    let proxy = Proxy::start_with(&set, &upstream, &[]);
    order("before").send(proxy.address).ran();
    two.kill();
    let (begun, mut told, mut ran_late) = (now(), Vec::new(), false);
    // For longer than a floor that was read counts for a grant.
    while !ran_late {
        let passed = now() - begun;
        assert!(passed < Duration::from_secs(50), "no key of the other member runs any more");
        let number = told.len();
        let key = if number % 2 == 0 { uuid_v7(Duration::ZERO) } else { format!("tap-{number}") };
        let answer = order(&key).send(proxy.address);
        let kept = match answer.status {
            201 => Some(answer.ran()),
            503 => None,
            _ => panic!("{answer:?}"),
        };
        ran_late = kept.is_some() && Duration::from_secs(33) < passed;
        told.push((key, kept));
        thread::sleep(Duration::from_millis(50));
    }
    let ran = told.iter().filter(|(_, kept)| kept.is_some()).count();
    assert!(0 < ran && ran < told.len(), "{ran} of {}", told.len());
    assert_eq!(upstream.effects(), ran + 1, "what was refused did not run");
    two.restart();
    until("it is there again", || {
        let answer = order("after").send(proxy.address);
        (answer.status == 201).then_some(())
    });
    for (key, kept) in &told {
        let answer = until("an answer", || {
            Some(order(key).send(proxy.address)).filter(|it| it.status != 503)
        });
        match kept {
            Some(kept) => assert_eq!(answer.replayed(), *kept),
            None => drop(answer.ran()),
        }
        assert_eq!(upstream.effects_of(key), 1, "effects of {key}");
    }
    proxy.stop();
}

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap()
}
