//! A message of an outbox, killed at each named place that it passes between the caller's table
//! and the mail server, and back.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use onlyonce_testbed::{MailRelay, MailSink};
use rusqlite::Connection;

use crate::bench::{Place, until};

/// One row of the table of the page.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
    /// What the caller's table says then.
    state: &'static str,
    /// How often the end of the message was said by then.
    ends: usize,
    /// What the table says after the same command again.
    then: &'static str,
}

/// What stands above the table.
const STORY: &str = "\
    A message is written in a transaction of SQLite, and brought from there by `onlyonce mail run \
    --once --outbox sqlite:FILE`. The command that was killed is called again, then one whose \
    probe knows what the server has, until the row has ended.";
const TEXT: &str = "From: shop@shop.example\nSubject: Welcome\n\nHello\n";
const ANN: &str = "ann@mail.example";

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed, state, ends, then| {
        let place = Place { name, says };
        Row { place, killed, state, ends, then }
    };
    let (commit, complete, end): (&'static [_], &'static [_], &'static [_]) =
        (&["Commit {"], &["Complete {"], &["\".\\r\\n\""]);
    let swapped = "engine.swap.after";
    let (takes, tells) = ("outbox.take.before", "outbox.tell.before");
    let (took, told) = ("outbox.take.after", "outbox.tell.after");
    let (written, moved) = ("after the answer is written down", "after the file is moved");
    vec![
        row(takes, &[], "before the row is taken", "waiting", 0, "sent"),
        row(took, &["1"], "after it is taken", "taken", 0, "sent"),
        row("spool.link.before", &[], "before it is in the spool", "taken", 0, "sent"),
        row("spool.linked.after", &[], "after it is in the spool", "taken", 0, "sent"),
        row(swapped, commit, "after the mark is written", "taken", 0, "unknown"),
        row("smtp.write.after", end, "after the dot", "taken", 1, "unknown"),
        row(swapped, complete, written, "taken", 1, "sent"),
        row("spool.move.after", &[], moved, "taken", 1, "sent"),
        row(tells, &["Sent"], "before the row is told", "taken", 1, "sent"),
        row(told, &["Sent"], "after the row is told", "sent", 1, "sent"),
    ]
}

struct Shop<'a> {
    binary: &'a Path,
    folder: tempfile::TempDir,
    sink: MailSink,
    relay: MailRelay,
}

impl Shop<'_> {
    fn call(&self, words: &[&str], order: &str) -> Output {
        let mut command = Command::new(self.binary);
        command.args(words).args(["--store", "journal:journal"]).current_dir(self.folder.path());
        command.env("ONLYONCE_KILL_AT", self.folder.path().join(order));
        command.env_remove("ONLYONCE_STORE").stdin(Stdio::null()).output().unwrap()
    }

    fn run(&self, more: &[&str], order: &str) -> Output {
        let server = self.relay.address().to_string();
        let words = ["mail", "run", "--once", "--tls", "none", "--server", &server];
        self.call(&[&words[..], &["--outbox", "sqlite:shop.db"], more].concat(), order)
    }

    fn said(&self, command: Output) -> String {
        let error = String::from_utf8_lossy(&command.stderr);
        assert!(command.status.success(), "{}: {error}", command.status);
        String::from_utf8_lossy(&command.stdout).into_owned()
    }

    fn table(&self) -> Connection {
        Connection::open(self.folder.path().join("shop.db")).unwrap()
    }

    fn state(&self) -> String {
        let state = "SELECT state FROM onlyonce_mail_outbox";
        self.table().query_row(state, (), |row| row.get(0)).unwrap()
    }

    /// How often the server has the message.
    fn taken(&self) -> usize {
        self.sink.arrived().len()
    }
}

fn played(row: Row, binary: &Path) -> usize {
    let (folder, sink) = (tempfile::tempdir().unwrap(), MailSink::open());
    let relay = MailRelay::to(sink.address());
    let (shop, killed) = (Shop { binary, folder, sink, relay }, row.killed);
    shop.said(shop.call(&["store", "init", "--first"], "none"));
    shop.table().execute_batch("CREATE TABLE customers (name TEXT)").unwrap();
    let mut made = Command::new(binary);
    made.args(["mail", "outbox", "sqlite:shop.db"]).current_dir(shop.folder.path());
    shop.said(made.output().unwrap());
    let mut table = shop.table();
    let tx = table.transaction().unwrap();
    tx.execute("INSERT INTO customers VALUES ('Ann')", ()).unwrap();
    let send = "INSERT INTO onlyonce_mail_send VALUES ('welcome', 'shop@shop.example', ?1, ?2)";
    tx.execute(send, [ANN, TEXT]).unwrap();
    tx.commit().unwrap();
    drop(table);
    let lines = [&[&*format!("kill {}", row.place.name)], row.place.says].concat().join("\n");
    std::fs::write(shop.folder.path().join("order"), lines).unwrap();
    let died = shop.run(&[], "order");
    let error = String::from_utf8_lossy(&died.stderr);
    assert_eq!(died.status.signal(), Some(9), "{killed}: {} {error}", died.status);
    // What was sent arrives, whoever is gone.
    until("the end", || (shop.relay.ends(ANN) == row.ends).then_some(()));
    until("what was ended", || (shop.taken() == row.ends).then_some(()));
    assert_eq!(shop.state(), row.state, "{killed}");
    shop.said(shop.run(&[], "none"));
    assert_eq!(shop.state(), row.then, "{killed}");
    let probe = if 0 < shop.taken() { "echo it" } else { "exit 10" };
    let probe = ["--on-unknown", "probe", "--probe", probe, "--probe-absent", "10"];
    until("the end of the row", || {
        shop.said(shop.run(&[&probe[..], &["--settle", "0s", "--late", "0s"]].concat(), "none"));
        (shop.state() == "sent").then_some(())
    });
    assert_eq!(shop.taken(), 1, "{killed}");
    shop.taken()
}

/// Plays all rows, and holds each to what is promised: the part of the page.
pub(crate) fn section(binary: &Path) -> String {
    let mut page = format!("\n## A message of an outbox\n\n{STORY}\n\n");
    page += "| killed | the row | the server has | the row after the same command again | ";
    page += "in the end it has |\n";
    page += "|---|---|---|---|---|\n";
    for row in rows() {
        let in_the_end = played(row, binary);
        let Row { place, killed, state, ends, then } = row;
        let name = place.name;
        page += &format!("| {killed} (`{name}`) | {state} | {ends} | {then} | {in_the_end} |\n");
    }
    page
}
