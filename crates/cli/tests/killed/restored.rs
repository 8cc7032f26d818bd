//! `onlyonce store restored`, killed at each named place that it passes, and called again.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::bench::Place;

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// Whether the store carries the mark then, and no command uses it.
    marked: bool,
}

/// What stands above the table.
const STORY: &str = "\
    A command of `onlyonce run` was free to run again when its SQLite file was copied, and another \
    had ended. Then the first one ran, the file was lost, and the copy was put in its place. \
    `onlyonce store restored` is killed, and called again; then both commands are asked for again.";

/// The exit code for what nobody knows.
const UNKNOWN: i32 = 192;

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, marked| {
        let place = Place { name, says };
        Row { place, killed, marked }
    };
    let restore: &'static [_] = &["Restore {"];
    vec![
        row("restored.floor.before", &[], "before the floor is raised", true),
        row("restored.floor.after", &[], "after the floor is durable", true),
        row("engine.swap.before", restore, "before what was free is made unknown", true),
        row("engine.swap.after", restore, "after it is durably unknown", true),
        row("restored.mark.before", &[], "before the store's mark is taken away", true),
        row("restored.mark.after", &[], "after the mark is gone", false),
    ]
}

/// Plays all rows, and holds each to what is promised.
pub(crate) fn section(binary: &Path) -> String {
    let mut page = format!("\n## A store that was put back\n\n{STORY}\n\n");
    page += "| killed | the store then | once it is called again | effects |\n|---|---|---|---|\n";
    for row in rows() {
        let effects = played(row, binary);
        let Row { place: Place { name, .. }, killed, marked } = row;
        let then = if marked { "is refused" } else { "can be used" };
        page += &format!(
            "| {killed} (`{name}`) | {then} | the first is unknown (192), the other is given its \
             output | {effects} |\n"
        );
    }
    page
}

/// How many effects there are in the end.
fn played(row: Row, binary: &Path) -> usize {
    let Row { place, killed, marked } = row;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let store = format!("sqlite:{}", path("run.db").display());
    let onlyonce = |arguments: &[&str]| -> Output {
        let mut command = Command::new(binary);
        command.args(arguments).args(["--store", &store]).current_dir(folder.path());
        command.env_remove("ONLYONCE_STORE").env("ONLYONCE_KILL_AT", path("order"));
        command.stdin(Stdio::null()).output().unwrap()
    };
    let run = |key: &str| {
        let script = "test -e go || exit 7; echo x >> effects; echo out";
        let mut command = Command::new(binary);
        command.args(["run", "--key", key, "--retry-exit", "7", "--store", &store]);
        command.args(["--", "sh", "-c", script]).current_dir(folder.path());
        let ran = command.stdin(Stdio::null()).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let effects = || fs::read_to_string(path("effects")).map_or(0, |it| it.lines().count());
    let copy = |from: &str, to: &str| {
        for end in ["", "-wal", "-shm"] {
            let (from, to) = (path(&format!("{from}{end}")), path(&format!("{to}{end}")));
            let _ = fs::remove_file(&to);
            if from.exists() {
                fs::copy(from, to).unwrap();
            }
        }
    };
    let (out, none) = ("out\n".to_owned(), String::new());
    assert!(onlyonce(&["store", "init", "--first"]).status.success());
    assert_eq!(run("free"), (Some(7), none.clone()));
    fs::write(path("go"), "").unwrap();
    assert_eq!(run("kept"), (Some(0), out.clone()));
    copy("run.db", "copy.db");
    assert_eq!(run("free"), (Some(0), out.clone()));
    copy("copy.db", "run.db");

    let lines = [&[&*format!("kill {}", place.name)], place.says].concat().join("\n");
    fs::write(path("order"), lines).unwrap();
    let ended = onlyonce(&["store", "restored", "--at-rest"]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.signal(), Some(9), "{killed}: {said}");
    fs::remove_file(path("order")).unwrap();
    let listed = onlyonce(&["keys", "list"]);
    assert_eq!(listed.status.code(), Some(if marked { 3 } else { 0 }), "{killed}");
    if marked {
        let told = String::from_utf8_lossy(&listed.stderr);
        assert!(told.contains("onlyonce store restored --at-rest"), "{killed}: {told}");
        let doctor = String::from_utf8_lossy(&onlyonce(&["doctor"]).stdout).into_owned();
        assert!(doctor.contains("restoring"), "{killed}: {doctor}");
        assert_ne!(run("free").0, Some(0), "{killed}");
    }
    assert!(onlyonce(&["store", "restored", "--at-rest"]).status.success(), "{killed}");
    assert_eq!(run("free"), (Some(UNKNOWN), none), "{killed}");
    assert_eq!(run("kept"), (Some(0), out), "{killed}");
    assert_eq!(effects(), 2, "{killed}");
    effects()
}
