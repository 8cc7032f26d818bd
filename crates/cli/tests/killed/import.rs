//! `onlyonce resources import` of a resource whose record does not say which it is, killed at each
//! named place that it passes, and called again. How often it was made is counted where it is.

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
    /// Whether an apply knows its id then.
    is_known: bool,
}

/// What stands above the table.
const STORY: &str = "\
    A resource that nobody can look for was made, and its record does not say which it is. \
    `onlyonce resources import` says so, is killed, and is called again after an apply. In the end \
    an apply has it with that id, and it was made once.";

const PLAN: &str = r#"
name = "shop"
[[resource]]
key = "web"
kind = "command"
create = 'echo "$ONLYONCE_MARKER web" >> made; kill -9 $$'
"#;

/// How its making was settled by other means, without an id.
const REPLY: &str = "HTTP/1.1 201 Created\n\nit is there";
const STORE: &str = "sqlite:shop.onlyonce/records.db";

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, is_known| {
        let place = Place { name, says };
        Row { place, killed, is_known }
    };
    let (before, after) = ("engine.swap.before", "engine.swap.after");
    vec![
        row(before, &["Claim("], "before the claim of the next generation is written", false),
        row(after, &["Claim(", ", Done)"], "after it is granted", false),
        row(before, &["Complete {"], "before the id is written", false),
        row(after, &["Complete {", ", Done)"], "after the id is written", false),
        row(before, &["Erase"], "before the record without an id is forgotten", false),
        row(after, &["Erase", ", Done)"], "after it is forgotten", true),
    ]
}

/// Kills it at each place, and calls it again.
fn played(row: Row, binary: &Path) {
    let (folder, killed) = (tempfile::tempdir().unwrap(), row.killed);
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let lines = [&[&*format!("kill {}", row.place.name)], row.place.says].concat().join("\n");
    write("shop.toml", PLAN);
    write("reply.http", REPLY);
    write("order", &lines);
    let call = |args: &[&str], order: &str| {
        let mut command = Command::new(binary);
        command.args(args).current_dir(folder.path()).stdin(Stdio::null());
        command.env("ONLYONCE_KILL_AT", folder.path().join(order)).output().unwrap()
    };
    let apply = || {
        let Output { status, stdout, .. } = call(&["apply", "shop.toml"], "none");
        (status.code(), String::from_utf8_lossy(&stdout).into_owned())
    };
    assert_eq!(apply().0, Some(5), "{killed}");
    let unknown = ["keys", "list", "--state", "unknown", "--json", "--store", STORE];
    let doubt: Value = serde_json::from_slice(&call(&unknown, "none").stdout).unwrap();
    let (id, fence) = (doubt["id"].as_str().unwrap(), doubt["fence"].to_string());
    let settle = ["keys", "resolve", id, "--fence", &fence, "--happened", "reply.http"];
    let settled = call(&[&settle[..], &["--why", "seen", "--store", STORE]].concat(), "none");
    assert!(settled.status.success(), "{killed}: {settled:?}");

    let import = ["resources", "import", "shop.toml", "web", "--id", "web-7"];
    let Output { status, stderr, .. } = call(&import, "order");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.signal(), Some(9), "{killed}: {status} {stderr}");
    let (code, said) = apply();
    let is_known = code == Some(0) && said.contains("web-7");
    assert!(is_known || (code == Some(7) && said.contains("no-id")), "{killed}: {code:?} {said}");
    assert_eq!(is_known, row.is_known, "{killed}: {said}");
    for _ in 0..2 {
        let again = call(&import, "none");
        assert!(again.status.success(), "{killed}: {again:?}");
        let (code, said) = apply();
        assert!(code == Some(0) && said.contains("web-7"), "{killed}: {code:?} {said}");
    }
    let made = std::fs::read_to_string(folder.path().join("made")).unwrap();
    assert_eq!(made.lines().count(), 1, "{killed}");
}

/// Plays all rows, and holds each to what is promised: the part of the page.
pub(crate) fn section(binary: &Path) -> String {
    let mut page = format!("\n## A resource that is imported\n\n{STORY}\n\n");
    page += "| killed | an apply then | the next `resources import` | it was made |\n";
    page += "|---|---|---|---|\n";
    for row in rows() {
        played(row, binary);
        let Row { place: Place { name, .. }, killed, is_known } = row;
        let apply = if is_known { "has it" } else { "says that its record does not say which" };
        page += &format!("| {killed} (`{name}`) | {apply} | is done | once |\n");
    }
    page
}
