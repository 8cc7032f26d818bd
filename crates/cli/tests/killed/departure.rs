//! `onlyonce resources destroy`, killed at each named place that it passes, and called again. How
//! often its script has run is counted where it runs; and what is left of a file, in its folder.

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
    /// Whether the script has run by then.
    ran: bool,
    apply: Apply,
    next: Next,
}

/// What an apply says that comes between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Apply {
    Has,
    Unknown,
    Gone,
}

/// What the next one says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Does,
    Unknown,
    Finds,
    Has,
}

/// What stands above the table.
const STORY: &str = "\
    `onlyonce resources destroy` of a resource that an apply has made. An apply is tried, which \
    makes nothing; then it is called again, and then, with the word that nothing can come late \
    any more, until it is gone. No apply makes it again after that.";

/// What is destroyed is a line of a file. That it is asked for is a line of another one.
const PLAN: &str = r#"
name = "shop"
[[resource]]
key = "web"
kind = "command"
check = 'grep -q "^$ONLYONCE_MARKER " made || exit 10; echo $ONLYONCE_NAME'
create = 'echo "$ONLYONCE_MARKER web" >> made'
destroy = 'echo $ONLYONCE_ID >> ended; grep -v "^$ONLYONCE_MARKER " made > left; mv left made'
receiver = { settle = "1d", late = "0s" }
"#;

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, ran, apply, next| {
        let place = Place { name, says };
        Row { place, killed, ran, apply, next }
    };
    let undone = |name, says, killed| row(name, says, killed, false, Apply::Has, Next::Does);
    let doubt = |name, says, killed| row(name, says, killed, false, Apply::Unknown, Next::Unknown);
    let done = |name, says, killed| row(name, says, killed, true, Apply::Unknown, Next::Finds);
    let (before, after) = ("engine.swap.before", "engine.swap.after");
    vec![
        undone(before, &["Claim("], "before the claim is written"),
        undone(after, &["Claim(", ", Done)"], "after the claim is granted"),
        undone("resource.look.after", &[], "after it was looked for"),
        undone(before, &["Note {"], "before it is noted that it was seen"),
        undone(after, &["Note {", ", Done)"], "after that is noted"),
        undone(before, &["Commit {"], "before the mark is written"),
        undone(after, &["Commit {", ", Conflict("], "after the store has said that it is noted"),
        doubt(after, &["Commit {", ", Done)"], "after the mark is written"),
        doubt("resource.destroy.before", &[], "before it is destroyed"),
        done("resource.destroy.after", &[], "after it was destroyed"),
        done(before, &["Complete {"], "before that it is gone is written"),
        row(
            after,
            &["Complete {", ", Done)"],
            "after that it is gone is written",
            true,
            Apply::Gone,
            Next::Has,
        ),
    ]
}

/// What stands above the second table.
const FILE_STORY: &str = "\
    The same of a file. It is called again until the file is gone. When it is forgotten the next \
    apply makes it again, as it was.";

const FILE: &str = r#"
name = "shop"
[[resource]]
key = "web"
kind = "file"
inputs = { path = "web", content = "port = 80" }
"#;

/// One row of that table.
#[derive(Clone, Copy)]
pub(crate) struct FileRow {
    pub(crate) place: Place,
    killed: &'static str,
    /// Whether it is there then, and how many names beside it.
    left: (bool, usize),
}

/// All of them.
pub(crate) fn file_rows() -> Vec<FileRow> {
    let row = |name, killed, left| FileRow { place: Place { name, says: &[] }, killed, left };
    vec![
        row("resource.destroy.before", "before it is removed", (true, 1)),
        row("resource.hide.after", "after it was hidden", (false, 2)),
        row("resource.destroy.after", "after it was removed", (false, 0)),
    ]
}

/// A plan in its folder, and who works with it.
struct Desk<'a> {
    folder: tempfile::TempDir,
    binary: &'a Path,
}

impl<'a> Desk<'a> {
    fn open(binary: &'a Path, plan: &str) -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap(), binary };
        desk.write("shop.toml", plan);
        desk.write("made", "");
        desk.write("ended", "");
        desk
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn lines(&self, name: &str) -> usize {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap().lines().count()
    }

    /// Calls it; it is killed where a file of this name says.
    fn call(&self, args: &[&str], order: &str) -> Output {
        let mut command = Command::new(self.binary);
        command.args(args).current_dir(self.folder.path());
        command.env("ONLYONCE_KILL_AT", self.folder.path().join(order)).stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Calls it, and sees it killed there.
    fn killed(&self, args: &[&str], place: Place, killed: &str) {
        let lines = [&[&*format!("kill {}", place.name)], place.says].concat().join("\n");
        self.write("order", &lines);
        let Output { status, stderr, .. } = self.call(args, "order");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.signal(), Some(9), "{killed}: {status} {stderr}");
    }

    fn apply(&self) -> (Option<i32>, String) {
        let Output { status, stdout, .. } = self.call(&["apply", "shop.toml"], "none");
        (status.code(), String::from_utf8_lossy(&stdout).into_owned())
    }
}

/// Kills it at each place of a file.
fn played_file(row: FileRow, binary: &Path) {
    let (desk, FileRow { killed, .. }) = (Desk::open(binary, FILE), row);
    assert_eq!(desk.apply().0, Some(0));
    let destroy = ["resources", "destroy", "shop.toml", "web", "--id", "web", "--why", "closed"];
    desk.killed(&destroy, row.place, killed);
    let names = std::fs::read_dir(desk.folder.path()).unwrap();
    let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
    let beside = names.filter(|name| name.starts_with(".web.")).count();
    let file = desk.folder.path().join("web");
    assert_eq!((file.exists(), beside), row.left, "{killed}");
    let (code, said) = desk.apply();
    assert_eq!((code, file.exists()), (Some(5), row.left.0), "{killed}: {said}");
    until("a destroy that ends well", || {
        desk.call(&destroy, "none").status.success().then_some(())
    });
    assert_eq!((file.exists(), desk.apply().0), (false, Some(7)), "{killed}");
    let forget = desk.call(&["resources", "forget", "shop.toml", "web", "--why", "open"], "none");
    assert!(forget.status.success(), "{killed}: {forget:?}");
    assert_eq!(desk.apply().0, Some(0), "{killed}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "port = 80", "{killed}");
}

/// Kills it at each place, and calls it until it is gone. Its script has then run once.
fn played(row: Row, binary: &Path) {
    let (desk, killed) = (Desk::open(binary, PLAN), row.killed);
    let (_, made) = desk.apply();
    let id = made.split(' ').nth(2).unwrap().trim_end_matches(':').to_owned();
    let destroy = ["resources", "destroy", "shop.toml", "web", "--id", &id, "--why", "closed"];
    desk.killed(&destroy, row.place, killed);
    let (ran, there) = (usize::from(row.ran), usize::from(!row.ran));
    assert_eq!((desk.lines("ended"), desk.lines("made")), (ran, there), "{killed}");

    let apply = match desk.apply() {
        (Some(0), _) => Apply::Has,
        (Some(5), said) if said.contains("whether it was destroyed") => Apply::Unknown,
        (Some(7), said) if said.starts_with("destroyed web ") => Apply::Gone,
        other => panic!("{killed}: {other:?}"),
    };
    assert_eq!(apply, row.apply, "{killed}");
    assert_eq!((desk.lines("ended"), desk.lines("made")), (ran, there), "{killed}: by an apply");

    let Output { status, stderr, .. } = desk.call(&destroy, "none");
    let next = match (status.code(), desk.lines("ended") - ran) {
        (Some(5), 0) => Next::Unknown,
        (Some(0), 1) => Next::Does,
        // The apply before it already knew that it is gone.
        (Some(0), 0) if apply == Apply::Gone => Next::Has,
        (Some(0), 0) => Next::Finds,
        _ => panic!("{killed}: {status} {}", String::from_utf8_lossy(&stderr)),
    };
    assert_eq!(next, row.next, "{killed}");

    desk.write("shop.toml", &PLAN.replace("1d", "1ms"));
    until("a destroy that ends well", || {
        desk.call(&destroy, "none").status.success().then_some(())
    });
    assert_eq!((desk.lines("ended"), desk.lines("made")), (1, 0), "{killed}: in the end");
    let (code, said) = desk.apply();
    assert_eq!(code, Some(7), "{killed}: {said}");
    assert_eq!(desk.lines("made"), 0, "{killed}: an apply has made it again");
}

/// Plays all rows, and holds each to what is promised: the part of the page.
pub(crate) fn section(binary: &Path) -> String {
    let mut page = format!("\n## A resource that is destroyed\n\n{STORY}\n\n");
    page += "| killed | its `destroy` has run | an apply then | the next `resources destroy` | ";
    page += "in the end it has run |\n|---|---|---|---|---|\n";
    for row in rows() {
        played(row, binary);
        let Row { place: Place { name, .. }, killed, ran, .. } = row;
        let ran = if ran { "once" } else { "never" };
        let (apply, next) = (row.apply.says(), row.next.says());
        page += &format!("| {killed} (`{name}`) | {ran} | {apply} | {next} | once |\n");
    }
    page += &format!("\n## A file that is removed\n\n{FILE_STORY}\n\n");
    page += "| killed | the file | names beside it | in the end |\n|---|---|---|---|\n";
    for row in file_rows() {
        played_file(row, binary);
        let FileRow { place: Place { name, .. }, killed, left: (is_there, beside) } = row;
        let there = if is_there { "is there" } else { "is gone" };
        page += &format!("| {killed} (`{name}`) | {there} | {beside} | is gone |\n");
    }
    page
}

impl Apply {
    const fn says(self) -> &'static str {
        match self {
            Self::Has => "has it as it was",
            Self::Unknown => "says that nobody knows whether it was destroyed",
            Self::Gone => "says that it was destroyed",
        }
    }
}

impl Next {
    const fn says(self) -> &'static str {
        match self {
            Self::Does => "destroys it",
            Self::Unknown => "says that nobody knows, and a later one destroys it",
            Self::Finds => "finds that it is gone",
            Self::Has => "has it recorded",
        }
    }
}
