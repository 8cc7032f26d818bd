//! Kept answers that are encrypted: nobody reads them on disk, and everyone gets them again.

mod shared;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::caller::order;
use crate::log;
use crate::process::{Folder, Proxy, contents, onlyonce, until};
use crate::upstream::{Manner, Upstream};

pub(crate) fn key_file(folder: &Folder, name: &str, keys: &[&str]) -> String {
    let path = folder.write(name, &keys.join("\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn is_on_disk(folder: &Path, text: &[u8]) -> bool {
    contents(folder).values().any(|file| file.windows(text.len()).any(|it| it == text))
}

/// Case B71.
#[test]
fn answers_are_encrypted_on_disk_and_replayed_with_the_key_only() {
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let start = |file: &str| Proxy::start_with(&folder.store(), &upstream, &["--key-file", file]);
    let first_file = key_file(&folder, "first", &[&one]);
    let proxy = start(&first_file);
    let first = order("tap").send(proxy.address).ran();
    assert_eq!(order("tap").send(proxy.address).replayed(), first);
    proxy.stop();
    assert!(!is_on_disk(&folder.journal(), first.body.as_ref()), "the answer stands on the disk");

    // Without the key nothing is opened, and a proxy does not begin.
    let (store, url) = (folder.store(), upstream.url());
    let without = ["proxy", "--upstream", &url, "--store", &store];
    let told = onlyonce(without).failed(3);
    assert!(told.contains("--key-file"), "{told}");
    let second_file = key_file(&folder, "second", &[&two]);
    let told = onlyonce(without.iter().chain(&["--key-file", &second_file])).failed(3);
    assert!(told.contains("is not in it"), "{told}");

    // A new key seals, and the old one still opens.
    let both = key_file(&folder, "both", &[&two, &one]);
    let proxy = start(&both);
    assert_eq!(order("tap").send(proxy.address).replayed(), first);
    let second = order("tap-2").send(proxy.address).ran();
    proxy.kill();
    let proxy = start(&both);
    assert_eq!(order("tap-2").send(proxy.address).replayed(), second);
    assert_eq!(upstream.effects(), 2);
}

/// Whoever looks is told which keys the store needs, and what is missing in a file.
#[test]
fn a_doctor_names_the_keys_of_a_store_and_those_that_a_file_lacks() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let store = folder.store();
    let row = |more: &[&str]| {
        let told = onlyonce(["doctor", "--store", &store].iter().chain(more));
        let row = told.out.lines().find(|it| it.starts_with("keys")).unwrap().to_owned();
        (told.code, row)
    };
    let (code, none) = row(&[]);
    assert!(code == Some(0) && none.contains("none"), "{none}");
    let file = key_file(&folder, "first", &[&one]);
    let proxy = Proxy::start_with(&store, &upstream, &["--key-file", &file]);
    order("tap").send(proxy.address).ran();
    let name = needed(&folder.journal()).remove(0);
    for more in [&["--key-file", &file][..], &[]] {
        let (code, said) = row(more);
        assert!(code == Some(0) && said.contains(&name), "{said}");
        let verdict = if more.is_empty() { "cannot be asked" } else { "ok" };
        assert!(said.contains(verdict), "{said}");
    }
    let (code, said) = row(&["--key-file", &key_file(&folder, "second", &[&two])]);
    assert!(code == Some(3) && said.contains("refused"), "{said}");
    assert!(said.contains(&format!("put {name} into")), "{said}");
    proxy.stop();
}

/// The names of the keys that the journal says it needs.
fn needed(journal: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(journal.join("keys")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_key_is_changed_under_load_and_the_old_one_can_be_dropped() {
    const KEYS: usize = 120;
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let start = |file: &str| Proxy::start_with(&folder.store(), &upstream, &["--key-file", file]);
    let encryption = |file: &str, more: &[&str]| {
        let store = folder.store();
        let arguments = ["keys", "encryption", "--store", &store, "--key-file", file];
        onlyonce(arguments.iter().chain(more)).done()
    };
    let tap = |number: usize| order(&format!("tap-{number}"));
    // The first ones are kept as they are, the others with the first key.
    let proxy = Proxy::start(&folder, &upstream);
    let mut first: Vec<_> = (0..10).map(|it| tap(it).send(proxy.address).ran()).collect();
    proxy.stop();
    let old = key_file(&folder, "old", &[&one]);
    let proxy = start(&old);
    first.extend((10..KEYS).map(|it| tap(it).send(proxy.address).ran()));
    until("all encrypted", || (needed(&folder.journal()).len() == 1).then_some(()));
    let told = encryption(&old, &[]);
    assert!(told.contains(&format!("{KEYS}      encrypts what is written")), "{told}");
    proxy.stop();

    // The pass is killed, and taken up while an operation runs.
    let both = key_file(&folder, "both", &[&two, &one]);
    start(&both).kill();
    let proxy = start(&both);
    upstream.manner(Manner::Hold);
    let held = tap(KEYS).begin(proxy.address);
    upstream.began(&format!("tap-{KEYS}"));
    until("all encrypted anew", || (needed(&folder.journal()).len() == 1).then_some(()));
    let told = encryption(&both, &["--renew"]);
    assert!(told.contains("0 answers were encrypted anew"), "{told}");
    assert!(told.contains("can be taken out of the key file"), "{told}");
    upstream.let_go();
    first.push(held.answer().unwrap().ran());
    proxy.stop();

    let new = key_file(&folder, "new", &[&two]);
    let proxy = start(&new);
    for (number, first) in first.iter().enumerate() {
        assert_eq!(tap(number).send(proxy.address).replayed(), *first, "tap-{number}");
    }
    assert_eq!(upstream.effects(), KEYS + 1);
    proxy.stop();
    let told = encryption(&new, &[]);
    assert!(told.contains("no answer needs another key"), "{told}");
}

#[test]
fn answers_that_are_encrypted_anew_are_counted() {
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let old = key_file(&folder, "old", &[&one]);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--key-file", &old]);
    for number in 0..5 {
        order(&format!("tap-{number}")).send(proxy.address).ran();
    }
    proxy.stop();
    let both = key_file(&folder, "both", &[&two, &one]);
    let config = folder.write("proxy.toml", log::CONFIG);
    let arguments = ["--key-file", &both, "--config", &config];
    let proxy = Proxy::start_with(&folder.store(), &upstream, &arguments);
    let counted = "onlyonce_reencrypted_total{kind=\"renewed\"} 5\n";
    until("all counted", || log::metrics(&proxy).contains(counted).then_some(()));
    assert!(log::metrics(&proxy).contains("onlyonce_reencrypted_total{kind=\"unread\"} 0\n"));
}

#[test]
fn a_journal_that_nobody_serves_is_encrypted_by_hand() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let first = order("tap").send(proxy.address).ran();
    proxy.stop();
    let store = folder.store();
    let told = onlyonce(["keys", "encryption", "--store", &store]).failed(1);
    assert!(told.contains("no key file is given"), "{told}");
    let file = key_file(&folder, "keys", &[&"1".repeat(64)]);
    let arguments = ["keys", "encryption", "--store", &store, "--key-file", &file];
    let told = onlyonce(arguments).done();
    assert!(told.contains("plain     1        not encrypted yet"), "{told}");
    let told = onlyonce(arguments.iter().chain(&["--renew"])).done();
    assert!(told.contains("1 answers were encrypted anew"), "{told}");
    assert!(told.contains("no answer needs another key"), "{told}");
    let proxy = Proxy::start_with(&store, &upstream, &["--key-file", &file]);
    assert_eq!(order("tap").send(proxy.address).replayed(), first);
}

#[test]
fn a_backup_knows_which_keys_it_needs() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let file = key_file(&folder, "keys", &[&"1".repeat(64)]);
    let proxy = Proxy::start_with(&folder.store(), &upstream, &["--key-file", &file]);
    let first = order("tap").send(proxy.address).ran();
    let at = |name: &str| folder.path(name).display().to_string();
    let journal = folder.journal().display().to_string();
    onlyonce(["journal", "backup", &journal, &at("backup")]).done();
    proxy.kill();
    onlyonce(["journal", "restore", &at("backup"), &at("restored")]).done();
    onlyonce(["journal", "salvage", &journal, &at("salvaged")]).done();
    for copy in ["restored", "salvaged"] {
        let store = format!("journal:{}", at(copy));
        let told = onlyonce(["keys", "list", "--store", &store]).failed(3);
        assert!(told.contains("--key-file"), "{copy}: {told}");
        let proxy = Proxy::start_with(&store, &upstream, &["--key-file", &file]);
        assert_eq!(order("tap").send(proxy.address).replayed(), first, "{copy}");
    }
    assert_eq!(upstream.effects(), 1);
}

#[test]
fn a_key_file_that_others_can_read_or_that_is_none_is_refused() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let (store, url) = (folder.store(), upstream.url());
    let key = "1".repeat(64);
    let open = folder.write("open", &key);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let short = key_file(&folder, "short", &["1234"]);
    for (file, says) in [(&*open, "others can read it"), (&*short, "line 1"), ("none", "none")] {
        let told = onlyonce(["proxy", "--upstream", &url, "--store", &store, "--key-file", file])
            .failed(2);
        assert!(told.contains(says), "{told}");
    }
}
