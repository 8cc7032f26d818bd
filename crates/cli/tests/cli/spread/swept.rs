//! Keys with two records among others whose time is over.

use super::*;

/// How many keys there are; about half of them move, and then have two records.
const KEYS: usize = 120;
/// More than a pass leaves of a store that refuses all it is asked.
const TWICE_MIN: usize = 33;

/// How many keys have two records.
fn twice(set: &str) -> usize {
    let said = store("rebalance", set, &["--at-rest"]).failed(7);
    let (before, _) = said.split_once(" keys have two records").unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// However many keys a person must choose for, the answers of all others are taken away when their
/// time is over; and those keys are named as before.
#[test]
fn keys_with_two_records_keep_no_other_from_being_swept() {
    let folder = Folder::empty();
    let [a, b] = ["a.db", "b.db"].map(|name| sqlite(&folder, name));
    let set = file(&folder, "stores", &[&a]);
    store("init", &set, &["--first"]).done();
    let upstream = Upstream::open();
    let short = folder.write("short.toml", "[policy]\nretention = \"1ms\"\n");
    let proxy = Proxy::start_with(&set, &upstream, &["--config", &short]);
    for key in 0..KEYS {
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
    let ids = views(&set).into_iter().map(|view| view["id"].as_str().unwrap().to_owned());
    let ids: Vec<String> = ids.collect();
    let erase = &|id: &str| {
        onlyonce(["keys", "erase", id, "--store", &set, "--why", "asked for"]).done();
    };
    thread::scope(|scope| {
        for some in ids.chunks(KEYS / CALLERS) {
            scope.spawn(move || some.iter().for_each(|id| erase(id)));
        }
    });
    copy_file(&copy, &file);
    let many = twice(&set);
    assert!((TWICE_MIN..KEYS).contains(&many), "{many}");
    // One that begins looks at all that is over.
    let proxy = Proxy::start_with(&set, &upstream, &["--config", &short]);
    until("all others are swept", || {
        let left = views(&set).iter().filter(|view| view["state"] == "completed").count();
        (left == many).then_some(())
    });
    proxy.stop();
    assert_eq!(twice(&set), many);
    assert_eq!(upstream.effects(), KEYS);
}
