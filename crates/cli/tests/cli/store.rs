//! Making a store, and who may have it.

use std::time::{Duration, SystemTime};

use crate::caller::order;
use crate::process::{Folder, Proxy, contents, onlyonce};
use crate::upstream::Upstream;

fn init(folder: &Folder, more: &[&str]) -> crate::process::Ran {
    let store = folder.store();
    let arguments = ["store", "init", "--store", &store];
    onlyonce(arguments.iter().chain(more))
}

/// A UUIDv7 (RFC 9562 section 5.7) made this long ago.
pub(crate) fn uuid_v7(ago: Duration) -> String {
    let time = SystemTime::UNIX_EPOCH.elapsed().unwrap() - ago;
    let time = format!("{:012x}", time.as_millis());
    format!("{}-{}-7c11-8c55-2f6b8a4d1e90", &time[..8], &time[8..])
}

#[test]
fn a_store_is_made_once_and_making_it_again_is_refused_and_changes_nothing() {
    for first in [&[][..], &["--first"]] {
        let folder = Folder::empty();
        let said = init(&folder, first).done();
        let place = format!("made a journal in {}", folder.journal().display());
        assert!(said.contains(&place), "{said}");
        assert_eq!(said.contains("strict"), first.is_empty(), "{said}");
        assert!(said.contains("secret"), "{said}");

        let before = contents(&folder.journal());
        for again in [&[][..], &["--first"]] {
            let told = init(&folder, again).failed(1);
            assert!(told.contains("there is a journal already"), "{told}");
            assert!(told.contains("nothing was changed"), "{told}");
            assert!(contents(&folder.journal()) == before, "making it again changed it");
        }
    }
}

#[test]
fn only_a_first_store_trusts_keys_that_are_older_than_itself() {
    let upstream = Upstream::open();
    let key = uuid_v7(Duration::from_secs(60));
    let folder = Folder::empty();
    init(&folder, &[]).done();
    let proxy = Proxy::start(&folder, &upstream);
    order(&key).send(proxy.address).is_problem(412, "key-expired");
    assert_eq!(upstream.effects(), 0);

    let folder = Folder::empty();
    init(&folder, &["--first"]).done();
    let proxy = Proxy::start(&folder, &upstream);
    order(&key).send(proxy.address).ran();
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn a_store_that_is_not_there_is_named_with_how_to_make_it() {
    let folder = Folder::empty();
    let store = folder.store();
    let told = onlyonce(["keys", "list", "--store", &store]).failed(3);
    assert!(told.contains(&format!("onlyonce store init --first --store {store}")), "{told}");
    assert!(!folder.journal().exists());
}

/// Case B137: the binary has no store that forgets, so nobody runs several copies of it on one by
/// mistake.
#[test]
fn there_is_no_store_in_memory_to_run_several_copies_on() {
    let folder = Folder::empty();
    for store in ["memory", "memory:", ":memory:", ""] {
        let start = ["proxy", "--listen", "127.0.0.1:0", "--upstream", "http://a"];
        let told =
            crate::process::onlyonce_in(&folder.path(""), start.iter().chain(&["--store", store]));
        let told = told.failed(2);
        assert!(told.contains("journal:"), "{told}");
        assert!(contents(&folder.path("")).is_empty(), "{store:?}: something was made");
    }
}

/// Case B86.
#[test]
fn a_second_proxy_on_a_journal_is_refused_and_names_the_one_that_has_it() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let answer = order("tap").send(proxy.address).ran();

    let (url, store, dir) = (upstream.url(), folder.store(), folder.journal());
    let second = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", &store];
    let check = ["journal", "check", dir.to_str().unwrap()];
    for arguments in [&second[..], &["store", "init", "--store", &store], &check] {
        let told = onlyonce(arguments).failed(3);
        assert!(told.contains(&format!("process {} has this journal", proxy.pid())), "{told}");
        assert!(told.contains("nothing was changed"), "{told}");
    }
    assert_eq!(order("tap").send(proxy.address).replayed(), answer);
    order("tap 2").send(proxy.address).is_problem(400, "key-invalid");
    order("tap-2").send(proxy.address).ran();
    assert_eq!(upstream.effects(), 2);
}
