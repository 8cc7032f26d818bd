//! `onlyonce journal backup` and `restore`: what was answered is answered again, and nothing runs
//! of which nobody can know whether it ran.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::caller::{Kept, order};
use crate::process::{Folder, Proxy, Ran, contents, onlyonce, onlyonce_in};
use crate::store::uuid_v7;
use crate::upstream::{Manner, Upstream};

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

fn backup(folder: &Folder, to: &str) -> Ran {
    onlyonce(["journal", "backup", &text(folder.journal()), &text(folder.path(to))])
}

fn restore(folder: &Folder, from: &str, to: &str) -> Ran {
    onlyonce(["journal", "restore", &text(folder.path(from)), &text(folder.path(to))])
}

fn store(folder: &Folder, name: &str) -> String {
    format!("journal:{}", text(folder.path(name)))
}

/// Lets callers end, also when a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A caller that orders under new keys until it is told to end, and what it was answered.
fn load(proxy: &Proxy, ends: &AtomicBool, caller: u32) -> Vec<(String, Kept)> {
    let keys = (0..).map(|number| format!("load-{caller}-{number}"));
    let keys = keys.take_while(|_| !ends.load(Ordering::Relaxed));
    keys.map(|key| {
        let answer = order(&key).send(proxy.address).ran();
        (key, answer)
    })
    .collect()
}

#[test]
fn a_backup_under_load_is_restored_and_runs_nothing_twice() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let answered: Vec<(String, Kept)> = (0..20)
        .map(|number| format!("before-{number}"))
        .map(|key| (key.clone(), order(&key).send(proxy.address).ran()))
        .collect();
    let timed = uuid_v7(Duration::from_secs(1));
    let timed_answer = order(&timed).send(proxy.address).ran();
    upstream.manner(Manner::Hold);
    let held = order("held").begin(proxy.address);
    upstream.began("held");
    upstream.manner(Manner::Answer(2_000));

    let ends = AtomicBool::new(false);
    let loaded = std::thread::scope(|scope| {
        let _ending = Ending(&ends);
        let (proxy, ends) = (&proxy, &ends);
        let callers = [0, 1, 2].map(|caller| scope.spawn(move || load(proxy, ends, caller)));
        upstream.began("load-0-5");
        let said = backup(&folder, "backup");
        upstream.began("load-1-30");
        ends.store(true, Ordering::Relaxed);
        let loaded = callers.into_iter().flat_map(|it| it.join().unwrap());
        let loaded: Vec<(String, Kept)> = loaded.collect();
        assert!(said.done().contains("onlyonce journal restore"));
        loaded
    });
    // It went on, and has more than the backup: this one is known to nobody but the upstream.
    let later = uuid_v7(Duration::ZERO);
    order(&later).send(proxy.address).ran();
    upstream.let_go();
    held.answer().unwrap().ran();
    proxy.stop();
    onlyonce(["journal", "check", &text(folder.path("backup"))]).done();

    let before = contents(&folder.path("backup"));
    let effects = upstream.effects();
    let said = restore(&folder, "backup", "restored").done();
    assert!(said.contains("keys without a time"), "{said}");
    assert!(contents(&folder.path("backup")) == before, "restoring changed the backup");
    let proxy = Proxy::start_with(&store(&folder, "restored"), &upstream, &[]);
    for (key, answer) in answered.iter().chain([&(timed.clone(), timed_answer)]) {
        assert_eq!(&order(key).send(proxy.address).replayed(), answer, "{key}");
        assert_eq!(upstream.effects_of(key), 1);
    }
    order("held").send(proxy.address).is_problem(409, "outcome-unknown");
    order(&later).send(proxy.address).is_problem(412, "key-expired");
    assert_eq!(upstream.effects(), effects, "nothing ran");

    // Of those during the backup some are in it: as they were answered, or in doubt.
    let mut known = 0;
    for (key, answer) in &loaded {
        let again = order(key).send(proxy.address);
        match again.says() {
            "replayed" => assert_eq!(&again.replayed(), answer),
            "unknown" => again.is_problem(409, "outcome-unknown"),
            _ => {
                // Without a time it cannot be told from a new one, as the documents say.
                again.ran();
                continue;
            }
        }
        known += 1;
    }
    assert!(5 <= known && known <= loaded.len(), "{known} of {}", loaded.len());
}

#[test]
fn a_stopped_store_is_backed_up_and_restored_too() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let answer = order("tap").send(proxy.address).ran();
    upstream.manner(Manner::Hold);
    let _held = order("held").begin(proxy.address);
    upstream.began("held");
    proxy.kill();
    backup(&folder, "backup").done();
    for (from, to) in [("backup", "one"), ("journal", "two")] {
        let said = restore(&folder, from, to).done();
        assert!(said.contains("2 records are in "), "{said}");
        assert!(said.contains("; 1 of them are unknown now"), "{said}");
        let proxy = Proxy::start_with(&store(&folder, to), &upstream, &[]);
        assert_eq!(order("tap").send(proxy.address).replayed(), answer);
        order("held").send(proxy.address).is_problem(409, "outcome-unknown");
        assert_eq!(upstream.effects(), 2);
    }
}

#[test]
fn a_backup_is_no_store_before_it_is_restored() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    backup(&folder, "backup").done();
    let before = contents(&folder.path("backup"));
    let (url, store) = (upstream.url(), store(&folder, "backup"));
    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", &store];
    let dir = text(folder.path("backup"));
    let again = text(folder.path("again"));
    for arguments in
        [&proxy[..], &["keys", "list", "--store", &store], &["journal", "backup", &dir, &again]]
    {
        let told = onlyonce(arguments).failed(3);
        assert!(told.contains(&format!("onlyonce journal restore {dir}")), "{told}");
    }
    onlyonce(["store", "init", "--first", "--store", &store]).failed(1);
    std::fs::remove_file(folder.path("backup").join("lock")).unwrap();
    assert!(contents(&folder.path("backup")) == before, "it was changed");
    assert!(!folder.path("again").exists());
}

#[test]
fn what_exists_is_never_overwritten() {
    for is_running in [true, false] {
        let (upstream, folder) = (Upstream::open(), Folder::with_store());
        let proxy = is_running.then(|| Proxy::start(&folder, &upstream));
        backup(&folder, "backup").done();
        let before = contents(&folder.path("backup"));
        std::fs::create_dir(folder.path("empty")).unwrap();
        for to in ["backup", "empty", "journal", "journal/backup"] {
            let told = backup(&folder, to).failed(1);
            assert!(told.contains("nothing was changed"), "{told}");
        }
        for to in ["backup", "empty", "journal"] {
            restore(&folder, "backup", to).failed(1);
        }
        assert!(contents(&folder.path("backup")) == before);
        assert_eq!(std::fs::read_dir(folder.path("empty")).unwrap().count(), 0);
        if let Some(proxy) = proxy {
            restore(&folder, "journal", "new").failed(3);
            order("tap").send(proxy.address).ran();
        }
        backup(&folder, "no/where").failed(3);
        restore(&folder, "gone", "new").failed(3);
        assert!(!folder.path("new").exists());
    }
}

#[test]
fn a_relative_name_is_one_of_the_caller_s_folder() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let _proxy = Proxy::start(&folder, &upstream);
    let there = folder.path("elsewhere");
    std::fs::create_dir(&there).unwrap();
    onlyonce_in(&there, ["journal", "backup", "../journal", "today"]).done();
    assert!(there.join("today/format").exists());
}

#[test]
fn a_script_is_told_nothing_of_how_far_a_command_is() {
    let folder = Folder::with_store();
    let (journal, store) = (folder.journal().display().to_string(), folder.store());
    let at = |name: &str| folder.path(name).display().to_string();
    for command in [
        &["journal", "check", &journal][..],
        &["journal", "backup", &journal, &at("backup")],
        &["journal", "restore", &at("backup"), &at("restored")],
        &["journal", "salvage", &journal, &at("salvaged")],
        &["keys", "list", "--store", &store],
    ] {
        let ran = onlyonce(command);
        assert_eq!((ran.code, &*ran.err), (Some(0), ""), "{command:?}");
    }
}
