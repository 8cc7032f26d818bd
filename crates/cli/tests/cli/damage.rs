//! A journal with damage in it is never served; what can be read of it is saved elsewhere.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::caller::{Kept, order};
use crate::process::{Folder, Proxy, Running, contents, onlyonce};
use crate::upstream::{Manner, Upstream};

const KEYS: usize = 12;

fn key(number: usize) -> String {
    format!("tap-{number}")
}

/// A stopped store with some answers in it.
fn filled(upstream: &Upstream) -> (Folder, Vec<Kept>) {
    let folder = Folder::with_store();
    let proxy = Proxy::start(&folder, upstream);
    upstream.manner(Manner::Answer(500));
    let answers = (0..KEYS).map(|number| order(&key(number)).send(proxy.address).ran()).collect();
    proxy.stop();
    (folder, answers)
}

/// Flips a few bytes in the middle of what is kept for a key; says in which file, and where.
fn damage(journal: &Path, key: &str) -> (PathBuf, usize) {
    let path = journal.join("0000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let kept = format!("of {key};xxxx");
    let at = bytes.windows(kept.len()).position(|it| it == kept.as_bytes()).unwrap() + kept.len();
    for byte in &mut bytes[at..at + 8] {
        *byte ^= 0xff;
    }
    std::fs::write(&path, bytes).unwrap();
    (path, at)
}

/// The offset that a finding about this file names.
fn offset(text: &str, file: &Path) -> usize {
    let place = format!("{} at byte ", file.display());
    let from = text.find(&place).unwrap_or_else(|| panic!("no {place} in {text}")) + place.len();
    text[from..].split(':').next().unwrap().parse().unwrap()
}

#[test]
fn a_whole_journal_has_no_findings() {
    let (folder, _) = filled(&Upstream::open());
    let dir = folder.journal().display().to_string();
    let before = contents(&folder.journal());
    let said = onlyonce(["journal", "check", &dir]).done();
    assert!(!said.contains("damage"), "{said}");
    assert!(said.contains("1 segments, "), "{said}");
    assert!(contents(&folder.journal()) == before, "looking changed it");

    let told = onlyonce(["journal", "check", &folder.path("gone").display().to_string()]).failed(3);
    assert!(told.contains("there is no journal here"), "{told}");
    assert!(!folder.path("gone").exists());
}

/// Case B25.
#[test]
fn damage_is_named_with_file_and_offset_and_never_served() {
    let upstream = Upstream::open();
    let (folder, _) = filled(&upstream);
    let (file, at) = damage(&folder.journal(), &key(5));
    let before = contents(&folder.journal());

    let (dir, store, url) =
        (folder.journal().display().to_string(), folder.store(), upstream.url());
    let check = onlyonce(["journal", "check", &dir]);
    let found = offset(&check.out, &file);
    assert!(found <= at && at < found + 2_000, "{at}: {}", check.out);
    let told = check.failed(1);
    assert!(told.contains("onlyonce journal salvage"), "{told}");

    let proxy = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", &store];
    for arguments in [&proxy[..], &["keys", "list", "--store", &store]] {
        let told = onlyonce(arguments).failed(3);
        assert_eq!(offset(&told, &file), found, "{told}");
        assert!(told.contains("onlyonce journal check"), "{told}");
    }
    assert!(contents(&folder.journal()) == before, "looking changed it");
    assert_eq!(upstream.effects(), KEYS);
}

/// Case B25.
#[test]
fn a_salvaged_store_replays_what_was_not_damaged_and_runs_nothing_twice() {
    let upstream = Upstream::open();
    let (folder, answers) = filled(&upstream);
    let (file, at) = damage(&folder.journal(), &key(5));
    let before = contents(&folder.journal());
    let (from, to) = (folder.journal().display().to_string(), folder.path("saved"));
    let to_text = to.display().to_string();
    let said = onlyonce(["journal", "salvage", &from, &to_text]).done();
    let lost = offset(&said, &file);
    assert!(lost <= at && at < lost + 2_000, "{at}: {said}");
    assert!(said.contains(&format!("{KEYS} records are in {to_text}; 1 of them")), "{said}");
    assert!(contents(&folder.journal()) == before, "salvaging changed the damaged one");

    let saved = contents(&to);
    onlyonce(["journal", "salvage", &from, &to_text]).failed(1);
    assert!(contents(&to) == saved, "a second salvage changed the first");
    onlyonce(["journal", "check", &to_text]).done();

    let proxy = Proxy::start_with(&format!("journal:{to_text}"), &upstream, &[]);
    assert!(proxy.hello().contains("1 outcomes are unknown"), "{}", proxy.hello());
    for (number, answer) in answers.iter().enumerate() {
        let again = order(&key(number)).send(proxy.address);
        if number == 5 {
            again.is_problem(409, "outcome-unknown");
        } else {
            assert_eq!(&again.replayed(), answer);
        }
    }
    assert_eq!(upstream.effects(), KEYS);
}

/// Where a process has it, that is said. One that was killed has left its socket there.
#[test]
fn a_journal_that_a_process_has_is_not_salvaged_and_one_whose_process_was_killed_is() {
    let (upstream, folder) = (Upstream::open(), Folder::with_store());
    let proxy = Proxy::start(&folder, &upstream);
    let ran = order("tap").send(proxy.address).ran();
    let (from, to) = (folder.journal().display().to_string(), folder.path("saved"));
    let to_text = to.display().to_string();
    let told = onlyonce(["journal", "salvage", &from, &to_text]).failed(3);
    assert!(told.contains(&format!("process {} has this journal", proxy.pid())), "{told}");
    assert!(!to.exists() && !folder.path("saved.new").exists());
    assert_eq!(order("tap").send(proxy.address).replayed(), ran);
    proxy.kill();
    assert!(folder.journal().join("admin.sock").exists());
    let said = onlyonce(["journal", "salvage", &from, &to_text]).done();
    assert!(said.contains("1 records are in"), "{said}");
    let proxy = Proxy::start_with(&format!("journal:{to_text}"), &upstream, &[]);
    assert_eq!(order("tap").send(proxy.address).replayed(), ran);
    assert_eq!(upstream.effects(), 1);
}

/// A torn write at the end, which nobody was told of, is no damage.
#[test]
fn a_torn_end_is_cut_and_what_was_confirmed_is_replayed() {
    let upstream = Upstream::open();
    let (folder, answers) = filled(&upstream);
    let path = folder.journal().join("0000000001.log");
    let mut bytes = std::fs::read(&path).unwrap();
    // A segment is full of zeros where nothing was written yet.
    let end = bytes[..1 << 20].iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes[end + 4..end + 40].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();

    let dir = folder.journal().display().to_string();
    let said = onlyonce(["journal", "check", &dir]).done();
    assert!(said.contains("note: "), "{said}");
    let proxy = Proxy::start(&folder, &upstream);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(&order(&key(number)).send(proxy.address).replayed(), answer);
    }
    proxy.stop();
    let said = onlyonce(["journal", "check", &dir]).done();
    assert!(!said.contains("note: "), "{said}");
    assert_eq!(upstream.effects(), KEYS);
}

#[test]
fn without_its_secret_a_store_is_not_opened() {
    let upstream = Upstream::open();
    let (folder, answers) = filled(&upstream);
    let secret = folder.journal().join("secret");
    let kept = std::fs::read_to_string(&secret).unwrap();
    let (store, url) = (folder.store(), upstream.url());
    let start = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", &store];
    let other = "0123456789abcdef".repeat(4);
    for wrong in [None, Some(""), Some(other.as_str())] {
        match wrong {
            None => std::fs::remove_file(&secret).unwrap(),
            Some(text) => std::fs::write(&secret, text).unwrap(),
        }
        let proxy = Running::start(start).ended();
        let told = proxy.failed(3);
        assert!(told.contains(&secret.display().to_string()), "{told}");
    }
    std::fs::write(&secret, kept).unwrap();
    let proxy = Proxy::start(&folder, &upstream);
    assert_eq!(order(&key(0)).send(proxy.address).replayed(), answers[0]);
    proxy.signal(Signal::TERM);
    proxy.ended().done();
    assert_eq!(upstream.effects(), KEYS);
}
