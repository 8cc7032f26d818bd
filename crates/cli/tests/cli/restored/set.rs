//! Several stores as one, all of which were put back, or one of them alone.

use std::fs;
use std::time::Duration;

use super::{Copied, a_store_that_was_put_back_runs_nothing_again, copy_or_remove, restored};
use crate::caller::order;
use crate::process::{Folder, Proxy, onlyonce};
use crate::store::uuid_v7;
use crate::upstream::Upstream;

/// Two files as one store, both of which are copied.
struct Files(Folder);

impl Files {
    /// Their names, with the ends of the files of each.
    const NAMES: [&str; 2] = ["a.db", "b.db"];

    fn new() -> Self {
        let folder = Folder::empty();
        let lines = Self::NAMES.map(|name| format!("sqlite:{}\n", folder.path(name).display()));
        folder.write("stores", &lines.concat());
        Self(folder)
    }

    fn move_each(&self, names: &[&str], from: &str, to: &str) {
        for name in names {
            for end in ["", "-wal", "-shm"] {
                let at = |prefix: &str| self.0.path(&format!("{prefix}{name}{end}"));
                copy_or_remove(&at(from), &at(to));
            }
        }
    }
}

impl Copied for Files {
    fn url(&self) -> String {
        format!("spread:{}", self.0.path("stores").display())
    }

    fn copy(&mut self) {
        self.move_each(&Self::NAMES, "", "copy-");
    }

    fn put_back(&mut self) {
        self.move_each(&Self::NAMES, "copy-", "");
    }
}

#[test]
fn files_of_a_set_that_were_copied_back_run_nothing_again() {
    a_store_that_was_put_back_runs_nothing_again(Files::new());
}

/// Of a set that has grown since, one member is put back from before: it knows an older map, too.
#[test]
fn a_member_of_a_set_that_was_put_back_alone_runs_nothing_with_a_time_again() {
    let (store, upstream) = (Files::new(), Upstream::open());
    let url = store.url();
    // One made a while after the other: within a millisecond they would be the same.
    let made: Vec<_> = (0..60).map(|age| uuid_v7(Duration::from_millis(10 * age))).collect();
    onlyonce(["store", "init", "--first", "--store", &url]).done();
    let run = |url: &str, keys: &[String]| {
        let proxy = Proxy::start_with(url, &upstream, &[]);
        keys.iter().for_each(|key| drop(order(key).send(proxy.address).ran()));
        proxy.stop();
    };
    run(&url, &made[..20]);
    store.move_each(&["a.db"], "", "copy-");
    run(&url, &made[20..40]);
    let lines = fs::read_to_string(store.0.path("stores")).unwrap();
    let joins = format!("{lines}sqlite:{}\n", store.0.path("c.db").display());
    let url = format!("spread:{}", store.0.write("more", &joins));
    onlyonce(["store", "spread", "--store", &url]).done();
    onlyonce(["store", "rebalance", "--at-rest", "--store", &url]).done();
    run(&url, &made[40..]);

    store.move_each(&["a.db"], "copy-", "");
    let said = restored(&url).done();
    assert!(said.contains("a.db knows an older map: if it was put back"), "{said}");
    let told = onlyonce(["doctor", "--store", &url]).done();
    assert!(told.contains("map 3: members 1,2,3"), "{told}");
    let effects = upstream.effects();
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    let answers = made.iter().map(|key| order(key).send(proxy.address));
    let mut statuses: Vec<u16> = answers.map(|answer| answer.status).collect();
    assert_eq!(upstream.effects(), effects, "nothing ran");
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [201, 412], "it is answered as before, or refused");
    proxy.stop();
    let said = restored(&url).done();
    assert!(!said.contains("knows an older map"), "{said}");
}
