//! `onlyonce mail add` and `run`, killed at each named place that they pass, and called again.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use onlyonce_testbed::{MailRelay, MailSink};

use crate::bench::{Place, until};

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// Whether adding the message dies, and not sending it.
    adding: bool,
    /// How often the end of the message was said by then.
    ends: usize,
    next: Next,
}

/// What comes of the same command again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Adds,
    HasIt,
    Sends,
    Unknown,
    Moves,
    Nothing,
}

/// What stands above the table.
const STORY: &str = "\
    A message to one recipient is taken in by `onlyonce mail add` and handed to a mail server by \
    `onlyonce mail run --once`. The command that was killed is called again, then a sender whose \
    probe knows what the server has, until nothing waits.";
const TEXT: &str = "From: shop@shop.example\nSubject: Welcome\n\nHello\n";
const ANN: &str = "ann@mail.example";

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |adding| {
        move |name, says, killed, ends, next| {
            let place = Place { name, says };
            Row { place, killed, adding, ends, next }
        }
    };
    let (add, run) = (row(true), row(false));
    let (before, after) = ("engine.swap.before", "engine.swap.after");
    let (write, wrote, read) = ("smtp.write.before", "smtp.write.after", "smtp.answer.after");
    let (claim, commit, complete): (&'static [_], &'static [_], &'static [_]) =
        (&["Claim("], &["Commit {"], &["Complete {"]);
    let end: &'static [_] = &["\".\\r\\n\""];
    vec![
        add("spool.write.before", &[], "before the message is written", 0, Next::Adds),
        add("spool.sync.before", &[], "before it is synced", 0, Next::Adds),
        add("spool.link.before", &[], "before it has its name", 0, Next::Adds),
        add("spool.link.after", &[], "after it has its name", 0, Next::HasIt),
        add("spool.linked.after", &[], "after the folder is synced", 0, Next::HasIt),
        run(before, claim, "before the claim is written", 0, Next::Sends),
        run(after, claim, "after the claim is granted", 0, Next::Sends),
        run(read, &["code: 220"], "after the greeting", 0, Next::Sends),
        run(write, &["EHLO"], "before `EHLO`", 0, Next::Sends),
        run(wrote, &["EHLO"], "after `EHLO`", 0, Next::Sends),
        run(write, &["MAIL"], "before `MAIL`", 0, Next::Sends),
        run(wrote, &["MAIL"], "after `MAIL`", 0, Next::Sends),
        run(write, &["RCPT"], "before `RCPT`", 0, Next::Sends),
        run(wrote, &["RCPT"], "after `RCPT`", 0, Next::Sends),
        run(write, &["DATA"], "before `DATA`", 0, Next::Sends),
        run(wrote, &["DATA"], "after `DATA`", 0, Next::Sends),
        run(read, &["code: 354"], "after the answer to `DATA`", 0, Next::Sends),
        run(write, &["Hello"], "before the content", 0, Next::Sends),
        run(wrote, &["Hello"], "after the content", 0, Next::Sends),
        run(before, commit, "before the mark is written", 0, Next::Sends),
        run(after, commit, "after the mark is written", 0, Next::Unknown),
        run(write, end, "before the dot", 0, Next::Unknown),
        run(wrote, end, "after the dot", 1, Next::Unknown),
        run(read, &["esc: [2, 0, 0]"], "after the answer to the dot", 1, Next::Unknown),
        run(before, complete, "before the answer is written down", 1, Next::Unknown),
        run(after, complete, "after the answer is written down", 1, Next::Moves),
        run("spool.move.before", &[], "before the file is moved", 1, Next::Moves),
        run("spool.move.after", &[], "after the file is moved", 1, Next::Nothing),
        run("spool.moved.after", &[], "after both folders are synced", 1, Next::Nothing),
    ]
}

/// A row as it was found.
struct Found {
    row: Row,
    state: String,
    in_the_end: usize,
}

struct Shop<'a> {
    binary: &'a Path,
    folder: tempfile::TempDir,
    sink: MailSink,
    relay: MailRelay,
}

impl Shop<'_> {
    fn call(&self, words: &[&str], more: &[OsString], order: &str) -> Output {
        let mut command = Command::new(self.binary);
        command.args(words).args(more).current_dir(self.folder.path());
        command.env("ONLYONCE_KILL_AT", self.folder.path().join(order));
        command.env_remove("ONLYONCE_STORE").stdin(Stdio::null()).output().unwrap()
    }

    fn add(&self, order: &str) -> Output {
        let words = ["mail", "add", "--key", "welcome", "--from", "shop@shop.example"];
        self.call(&words, &["--to".into(), ANN.into(), "mail.eml".into()], order)
    }

    fn run(&self, more: &[&str], order: &str) -> Output {
        let server = self.relay.address().to_string();
        let words = ["mail", "run", "--once", "--tls", "none", "--server", &server];
        let more: Vec<OsString> = more.iter().map(Into::into).collect();
        self.call(&words, &[&more[..], &store()].concat(), order)
    }

    /// How often the server has the message.
    fn taken(&self) -> usize {
        self.sink.arrived().len()
    }

    fn said(&self, command: Output) -> String {
        let error = String::from_utf8_lossy(&command.stderr);
        assert!(command.status.success(), "{}: {error}", command.status);
        String::from_utf8_lossy(&command.stdout).into_owned()
    }
}

fn store() -> [OsString; 2] {
    ["--store".into(), "journal:journal".into()]
}

fn played(row: Row, binary: &Path) -> Found {
    let (folder, sink) = (tempfile::tempdir().unwrap(), MailSink::open());
    let relay = MailRelay::to(sink.address());
    let (shop, killed) = (Shop { binary, folder, sink, relay }, row.killed);
    std::fs::write(shop.folder.path().join("mail.eml"), TEXT).unwrap();
    shop.said(shop.call(&["store", "init", "--first"], &store(), "none"));
    let lines = [&[&*format!("kill {}", row.place.name)], row.place.says].concat().join("\n");
    std::fs::write(shop.folder.path().join("order"), lines).unwrap();
    let died = if row.adding {
        shop.add("order")
    } else {
        shop.said(shop.add("none"));
        shop.run(&[], "order")
    };
    let error = String::from_utf8_lossy(&died.stderr);
    assert_eq!(died.status.signal(), Some(9), "{killed}: {} {error}", died.status);
    // What was sent arrives, whoever is gone.
    until("the end", || (shop.relay.ends(ANN) == row.ends).then_some(()));
    until("what was ended", || (shop.taken() == row.ends).then_some(()));
    let listed = shop.said(shop.call(&["keys", "list", "--json"], &store(), "none"));
    let state = serde_json::from_str::<serde_json::Value>(&listed).ok();
    let state = state.and_then(|it| Some(it["state"].as_str()?.to_owned()));
    let next = if row.adding {
        let said = shop.said(shop.add("none"));
        if said.starts_with("added") { Next::Adds } else { Next::HasIt }
    } else {
        let said = shop.said(shop.run(&[], "none"));
        match said.split_once(' ').map(|(word, _)| word) {
            Some("unknown") => Next::Unknown,
            Some("sent") if row.ends == 0 => Next::Sends,
            Some("sent") => Next::Moves,
            None => Next::Nothing,
            Some(_) => panic!("{killed}: {said}"),
        }
    };
    assert_eq!(next, row.next, "{killed}");
    let probe = if 0 < shop.taken() { "echo it" } else { "exit 10" };
    let probe = ["--on-unknown", "probe", "--probe", probe, "--probe-absent", "10"];
    until("a queue with nothing in it", || {
        shop.said(shop.run(&[&probe[..], &["--settle", "0s", "--late", "0s"]].concat(), "none"));
        let mut queue = std::fs::read_dir(shop.folder.path().join("onlyonce-mail/queue")).unwrap();
        queue.next().is_none().then_some(())
    });
    assert_eq!(shop.taken(), 1, "{killed}");
    let state = state.unwrap_or_else(|| "none".to_owned());
    Found { row, state, in_the_end: shop.taken() }
}

/// Plays all rows, and holds each to what is promised: the part of the page.
pub(crate) fn section(binary: &Path) -> String {
    let mut page = format!("\n## A message\n\n{STORY}\n\n");
    page += "| killed | the server has | the record then | the same command again | ";
    page += "in the end it has |\n";
    page += "|---|---|---|---|---|\n";
    for row in rows() {
        let Found { row, state, in_the_end } = played(row, binary);
        let Row { place, killed, ends, next, .. } = row;
        let next = match next {
            Next::Adds => "takes it in",
            Next::HasIt => "has it already",
            Next::Sends => "sends it",
            Next::Unknown => "says that nobody knows, and sends nothing",
            Next::Moves => "knows that it was sent, and moves its file",
            Next::Nothing => "has nothing to do",
        };
        let name = place.name;
        page += &format!("| {killed} (`{name}`) | {ends} | {state} | {next} | {in_the_end} |\n");
    }
    page
}
