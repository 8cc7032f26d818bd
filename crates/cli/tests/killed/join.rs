//! `onlyonce store spread`, killed at each named place that it passes and called again: a store
//! with keys becomes the first member of a set, and two others join it.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::bench::Place;

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// Whether the store is a member then: it is not opened alone any more.
    is_member: bool,
}

/// What stands above the table.
const STORY: &str = "\
    Keys ran in an SQLite file. `onlyonce store spread --at-rest` makes it the first member of a \
    set, and makes the two other stores of the file, which join it; it is killed. Wherever that \
    is, the keys are there: in the store alone, or in a set of it alone. The same command goes on, \
    and `onlyonce store rebalance` moves keys to all three.";

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, is_member| {
        let place = Place { name, says };
        Row { place, killed, is_member }
    };
    let (before, after) = ("spread.seat.before", "spread.seat.after");
    vec![
        row(before, &["1"], "before the store is a member", false),
        row(after, &["1"], "when it is one", true),
        row(before, &["2"], "when the second store is made, and is no member", true),
        row(after, &["2"], "when that is one, before the third store is made", true),
        row(before, &["3"], "when the third store is made, and is no member", true),
        row(after, &["3"], "when all are members", true),
    ]
}

/// Kills it at each place, and calls it again.
fn played(row: Row, binary: &Path) {
    const KEYS: usize = 12;
    let (folder, Row { place, killed, is_member }) = (tempfile::tempdir().unwrap(), row);
    let path = |name: &str| folder.path().join(name);
    let call = |args: &[&str], store: &str, order: &str| {
        let mut command = Command::new(binary);
        command.args(args).args(["--store", store]).current_dir(folder.path());
        command.env("ONLYONCE_KILL_AT", path(order)).stdin(Stdio::null());
        command.output().unwrap()
    };
    let done = |args: &[&str], store: &str| {
        let Output { status, stdout, stderr } = call(args, store, "none");
        let told = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(0), "{killed}: {args:?} {told}");
        String::from_utf8_lossy(&stdout).into_owned()
    };
    let keys = |store| {
        let listed = done(&["keys", "list", "--json"], store);
        let id = |line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string();
        let mut ids: Vec<String> = listed.lines().map(id).collect();
        ids.sort_unstable();
        ids
    };
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write("one", "sqlite:a.db\n");
    write("all", "sqlite:a.db\nsqlite:b.db\nsqlite:c.db\n");
    write("order", &[&[&*format!("kill {}", place.name)], place.says].concat().join("\n"));
    let (alone, one, all) = ("sqlite:a.db", "spread:one", "spread:all");
    done(&["store", "init", "--first"], alone);
    for key in 0..KEYS {
        let key = format!("key-{key}");
        done(&["keys", "seal", "--key", &key, "--scope", "shared", "--why", "sold out"], alone);
    }
    let before = keys(alone);
    assert_eq!(before.len(), KEYS);
    let doomed = call(&["store", "spread", "--at-rest"], all, "order");
    assert_eq!(doomed.status.signal(), Some(9), "{killed}: {doomed:?}");
    let opened = call(&["keys", "list"], alone, "none");
    assert_eq!(opened.status.success(), !is_member, "{killed}: {opened:?}");
    assert_eq!(keys(if is_member { one } else { alone }), before, "{killed}");
    // Somebody may use it as a store of its own until it is a member.
    let again = call(&["store", "spread"], all, "none");
    assert_eq!(again.status.success(), is_member, "{killed}: {again:?}");
    done(&["store", "spread", "--at-rest"], all);
    assert_eq!(keys(all), before, "{killed}");
    let moved = done(&["store", "rebalance", "--at-rest"], all);
    assert!(moved.contains("map 3: members 1,2,3"), "{killed}: {moved}");
    assert_eq!(keys(all), before, "{killed}");
}

/// Plays all rows, and holds each to what is promised: the part of the page.
pub(crate) fn section(binary: &Path) -> String {
    let mut page = format!("\n## A store that becomes several\n\n{STORY}\n\n");
    page += "| killed | the store alone | the same command again |\n|---|---|---|\n";
    for row in rows() {
        played(row, binary);
        let Row { place: Place { name, .. }, killed, is_member } = row;
        let (alone, again) = match is_member {
            true => ("is refused; a set of it is opened", "goes on, without `--at-rest` too"),
            false => ("is opened", "goes on with `--at-rest`"),
        };
        page += &format!("| {killed} (`{name}`) | {alone} | {again} |\n");
    }
    page
}
