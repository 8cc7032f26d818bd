//! `onlyonce run`, killed at each named place that it passes, and called again.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bench::{Place, until};

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// The effects that there are when all has ended that was started.
    effects: usize,
    /// What whoever calls again gets.
    again: Again,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Runs,
    Replay,
    Unknown,
}

/// What stands above the table.
const STORY: &str = "\
    `onlyonce run` with an SQLite file, around a command that has its effect, writes a line and \
    ends. It is called again with the same key once the command has ended.";
/// The exit code for what nobody knows.
const UNKNOWN: i32 = 192;

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, effects, again| {
        let place = Place { name, says };
        Row { place, killed, effects, again }
    };
    let (claim, note, complete): (&'static [_], &'static [_], &'static [_]) =
        (&["Claim("], &["Note {"], &["Complete {"]);
    vec![
        row("engine.swap.before", claim, "before the claim is written", 0, Again::Runs),
        row("engine.swap.after", claim, "after the claim is granted", 0, Again::Unknown),
        row("command.start.before", &[], "before the command is started", 0, Again::Unknown),
        row("command.start.after", &[], "after the command is started", 1, Again::Unknown),
        row("engine.swap.before", note, "before its number is written", 1, Again::Unknown),
        row("engine.swap.after", note, "after its number is written", 1, Again::Unknown),
        row("command.end.after", &[], "after the command has ended", 1, Again::Unknown),
        row("engine.swap.before", complete, "before its end is written", 1, Again::Unknown),
        row("engine.swap.after", complete, "after its end is written", 1, Again::Replay),
    ]
}

/// A row as it was found.
pub(crate) struct Found {
    row: Row,
    state: String,
    effects_then: usize,
}

/// Plays all rows, and holds each to what is promised.
pub(crate) fn found(binary: &Path) -> Vec<Found> {
    rows().into_iter().map(|row| played(row, binary)).collect()
}

fn played(row: Row, binary: &Path) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = format!("sqlite:{}", path("run.db").display());
    let onlyonce = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.args(arguments).env_remove("ONLYONCE_STORE").current_dir(folder.path());
        command.stdin(Stdio::null()).output().unwrap()
    };
    assert!(onlyonce(&["store", "init", "--first", "--store", &store]).status.success());
    let run = |order: &Path| {
        let mut command = Command::new(binary);
        command.args(["run", "--key", "key", "--store", &store, "--"]);
        command.args(["sh", "-c", "echo x >> effects; echo out"]).current_dir(folder.path());
        command.env("ONLYONCE_KILL_AT", order).stdin(Stdio::null()).output().unwrap()
    };
    let effects = || std::fs::read_to_string(path("effects")).map_or(0, |it| it.lines().count());
    let lines = [&[&*format!("kill {}", row.place.name)], row.place.says].concat().join("\n");
    std::fs::write(path("order"), lines).unwrap();
    let Output { status, stderr, .. } = run(&path("order"));
    let (killed, stderr) = (row.killed, String::from_utf8_lossy(&stderr).into_owned());
    assert_eq!(status.signal(), Some(9), "{killed}: {status} {stderr}");
    until("the effects", || (effects() == row.effects).then_some(()));
    // It waits for whatever still runs.
    let Output { status, stdout, stderr } = run(&path("none"));
    let stderr = String::from_utf8_lossy(&stderr);
    let again = match status.code() {
        Some(0) if row.effects == 0 => Again::Runs,
        Some(0) => Again::Replay,
        Some(UNKNOWN) => Again::Unknown,
        _ => panic!("{killed}: {status} {stderr}"),
    };
    assert_eq!(again, row.again, "{killed}: {stderr}");
    assert_eq!(stdout, if again == Again::Unknown { &b""[..] } else { b"out\n" }, "{killed}");
    let effects_then = effects();
    assert_eq!(effects_then, if again == Again::Runs { 1 } else { row.effects }, "{killed}");
    let listed = onlyonce(&["keys", "list", "--json", "--store", &store]).stdout;
    let key: serde_json::Value = serde_json::from_slice(&listed).unwrap();
    let state = key["state"].as_str().unwrap().to_owned();
    Found { row, state, effects_then }
}

/// The part of the page.
pub(crate) fn section(found: &[Found]) -> String {
    let mut page = format!("\n## A command\n\n{STORY}\n\n");
    page += "| killed | effects | the same key again | effects then | the record then |\n";
    page += "|---|---|---|---|---|\n";
    for Found { row: Row { place, killed, effects, again }, state, effects_then } in found {
        let again = match again {
            Again::Runs => "runs",
            Again::Replay => "is given the output",
            Again::Unknown => "is told that nobody knows (192)",
        };
        let name = place.name;
        page +=
            &format!("| {killed} (`{name}`) | {effects} | {again} | {effects_then} | {state} |\n");
    }
    page
}
