//! Kept answers that are encrypted: nobody reads them on disk, and everyone gets them again.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::caller::order;
use crate::process::{Folder, Proxy, contents, onlyonce};
use crate::upstream::Upstream;

fn key_file(folder: &Folder, name: &str, keys: &[&str]) -> String {
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
