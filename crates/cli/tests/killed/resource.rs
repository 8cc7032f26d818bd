//! `onlyonce apply`, killed at each named place that it passes, and called again.

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
    /// How many there are then.
    there: usize,
    next: Next,
}

/// What the next apply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Makes,
    Unknown,
    Finds,
    Has,
}

/// What stands above the table.
const STORY: &str = "\
    `onlyonce apply` of a plan with one resource, which scripts look for and make. It is applied \
    again, and then, with the word that nothing can come late any more, until it is ready.";

/// What is made is a line of a file.
const PLAN: &str = r#"
name = "shop"
[[resource]]
key = "web"
kind = "command"
check = 'grep -q "^$ONLYONCE_MARKER " made || exit 10; echo $ONLYONCE_NAME'
create = 'echo "$ONLYONCE_MARKER web" >> made'
receiver = { settle = "1d", late = "0s" }
"#;

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, there, next| {
        let place = Place { name, says };
        Row { place, killed, there, next }
    };
    let (claim, commit, complete): (&'static [_], &'static [_], &'static [_]) =
        (&["Claim("], &["Commit {"], &["Complete {"]);
    // Of a swap that took place, and not of one that was lost.
    let (claimed, committed, completed): (&'static [_], &'static [_], &'static [_]) =
        (&["Claim(", ", Done)"], &["Commit {", ", Done)"], &["Complete {", ", Done)"]);
    let (before, after) = ("engine.swap.before", "engine.swap.after");
    vec![
        row(before, claim, "before the claim is written", 0, Next::Makes),
        row(after, claimed, "after the claim is granted", 0, Next::Makes),
        row("resource.look.after", &[], "after it was looked for", 0, Next::Makes),
        row(before, commit, "before the mark is written", 0, Next::Makes),
        row(after, committed, "after the mark is written", 0, Next::Unknown),
        row("resource.create.before", &[], "before it is asked for", 0, Next::Unknown),
        row("resource.create.after", &[], "after it was made", 1, Next::Finds),
        row(before, complete, "before its id is written", 1, Next::Finds),
        row(after, completed, "after its id is written", 1, Next::Has),
    ]
}

/// A row as it was found.
pub(crate) struct Found {
    row: Row,
    in_the_end: usize,
}

/// Plays all rows, and holds each to what is promised.
pub(crate) fn found(binary: &Path) -> Vec<Found> {
    rows().into_iter().map(|row| played(row, binary)).collect()
}

fn played(row: Row, binary: &Path) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("shop.toml"), PLAN).unwrap();
    std::fs::write(path("made"), "").unwrap();
    let apply = |order: &Path| {
        let mut command = Command::new(binary);
        command.args(["apply", "shop.toml"]).current_dir(folder.path());
        command.env("ONLYONCE_KILL_AT", order).stdin(Stdio::null()).output().unwrap()
    };
    let made = || std::fs::read_to_string(path("made")).unwrap().lines().count();
    let lines = [&[&*format!("kill {}", row.place.name)], row.place.says].concat().join("\n");
    std::fs::write(path("order"), lines).unwrap();
    let Output { status, stderr, .. } = apply(&path("order"));
    let (killed, stderr) = (row.killed, String::from_utf8_lossy(&stderr).into_owned());
    assert_eq!(status.signal(), Some(9), "{killed}: {status} {stderr}");
    assert_eq!(made(), row.there, "{killed}");
    let Output { status, stdout, .. } = apply(&path("none"));
    let said = String::from_utf8_lossy(&stdout).into_owned();
    let next = match (status.code(), row.there) {
        (Some(5), _) => Next::Unknown,
        (Some(0), _) if said.contains("found by its marker") => Next::Finds,
        (Some(0), 0) => Next::Makes,
        (Some(0), _) => Next::Has,
        _ => panic!("{killed}: {status} {said}"),
    };
    assert_eq!(next, row.next, "{killed}: {said}");
    std::fs::write(path("shop.toml"), PLAN.replace("1d", "1ms")).unwrap();
    until("an apply that ends well", || apply(&path("none")).status.success().then_some(()));
    assert_eq!(made(), 1, "{killed}");
    Found { row, in_the_end: made() }
}

/// The part of the page.
pub(crate) fn section(found: &[Found]) -> String {
    let mut page = format!("\n## A resource\n\n{STORY}\n\n");
    page += "| killed | there are | the next apply | in the end there are |\n";
    page += "|---|---|---|---|\n";
    for Found { row: Row { place, killed, there, next }, in_the_end } in found {
        let next = match next {
            Next::Makes => "makes it",
            Next::Unknown => "says that nobody knows, and a later one makes it",
            Next::Finds => "finds it by its marker",
            Next::Has => "has it recorded",
        };
        let name = place.name;
        page += &format!("| {killed} (`{name}`) | {there} | {next} | {in_the_end} |\n");
    }
    page
}
