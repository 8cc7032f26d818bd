//! A message of an outbox, killed at each named place that it passes between the caller's table
//! and the mail server, and back; in each kind of database.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use onlyonce_testbed::{MailRelay, MailSink, MariaDb, Postgres};
use rusqlite::Connection;

use crate::bench::{Place, until};

/// One row of the table of the page: where it is killed. All else is found.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) place: Place,
    /// Where that is, in words.
    killed: &'static str,
}

/// What was found; the same in each kind of database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// What the caller's table says then.
    state: String,
    /// How often the end of the message was said by then.
    ends: usize,
    /// What the table says after the same command again.
    then: String,
    /// How often the server has the message once nothing is left to do.
    in_the_end: usize,
}

/// What stands above the table.
const STORY: &str = "\
    A message is written in a transaction of SQLite, PostgreSQL or MariaDB, and brought from there \
    by `onlyonce mail run --once --outbox URL`. The command that was killed is called again, then \
    one whose probe knows what the server has, until the row has ended. Each row was found in each \
    of the three.";
const TEXT: &str = "From: shop@shop.example\nSubject: Welcome\n\nHello\n";
const ANN: &str = "ann@mail.example";

/// All of them, in the order in which they are passed.
pub(crate) fn rows() -> Vec<Row> {
    let row = |name, says, killed| Row { place: Place { name, says }, killed };
    let swapped = "engine.swap.after";
    vec![
        row("outbox.take.before", &[], "before the row is taken"),
        row("outbox.take.after", &["1"], "after it is taken"),
        row("spool.link.before", &[], "before it is in the spool"),
        row("spool.linked.after", &[], "after it is in the spool"),
        row(swapped, &["Commit {"], "after the mark is written"),
        row("smtp.write.after", &["\".\\r\\n\""], "after the dot"),
        row(swapped, &["Complete {"], "after the answer is written down"),
        row("spool.move.after", &[], "after the file is moved"),
        row("outbox.tell.before", &["Sent"], "before the row is told"),
        row("outbox.tell.after", &["Sent"], "after the row is told"),
    ]
}

/// Where the callers' tables are: a database of its own for each row of the page.
enum Base {
    Sqlite,
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Base {
    /// Makes a database, and names it to the sender.
    fn database(&self, name: &str) -> String {
        match self {
            Self::Sqlite => "sqlite:shop.db".to_owned(),
            Self::Postgres(server) => {
                server.sql("postgres", &format!("CREATE DATABASE {name}"));
                server.url(name)
            }
            Self::MariaDb(server) => {
                server.sql("mysql", &format!("CREATE DATABASE {name}"));
                server.url(name)
            }
        }
    }
}

struct Shop<'a> {
    binary: &'a Path,
    folder: tempfile::TempDir,
    sink: MailSink,
    relay: MailRelay,
    base: &'a Base,
    database: String,
    outbox: String,
}

impl Shop<'_> {
    fn call(&self, words: &[&str], order: &str) -> Output {
        let mut command = Command::new(self.binary);
        command.args(words).current_dir(self.folder.path());
        command.env("ONLYONCE_KILL_AT", self.folder.path().join(order));
        command.env_remove("ONLYONCE_STORE").stdin(Stdio::null()).output().unwrap()
    }

    fn run(&self, more: &[&str], order: &str) -> Output {
        let server = self.relay.address().to_string();
        let words = ["mail", "run", "--once", "--tls", "none", "--server", &server];
        let table = ["--outbox", &self.outbox, "--store", "journal:journal"];
        self.call(&[&words[..], &table, more].concat(), order)
    }

    fn said(&self, command: Output) -> String {
        let error = String::from_utf8_lossy(&command.stderr);
        assert!(command.status.success(), "{}: {error}", command.status);
        String::from_utf8_lossy(&command.stdout).into_owned()
    }

    fn file(&self) -> Connection {
        Connection::open(self.folder.path().join("shop.db")).unwrap()
    }

    /// The caller's own table, and beside it that of messages.
    fn make(&self) {
        let customers = "CREATE TABLE customers (name varchar(255))";
        match self.base {
            Base::Sqlite => self.file().execute_batch(customers).unwrap(),
            Base::Postgres(server) => drop(server.sql(&self.database, customers)),
            Base::MariaDb(server) => drop(server.sql(&self.database, customers)),
        }
        self.said(self.call(&["mail", "outbox", &self.outbox], "none"));
    }

    /// A message, and what it is about, in one transaction.
    fn writes(&self) {
        let customer = "INSERT INTO customers VALUES ('Ann')";
        let text = TEXT.replace('\n', "\\n");
        let values = format!("('welcome', 'shop@shop.example', '{ANN}'");
        match self.base {
            Base::Sqlite => {
                let mut file = self.file();
                let tx = file.transaction().unwrap();
                tx.execute(customer, ()).unwrap();
                let send = format!("INSERT INTO onlyonce_mail_send VALUES {values}, ?1)");
                tx.execute(&send, [TEXT]).unwrap();
                tx.commit().unwrap();
            }
            Base::Postgres(server) => {
                let send = format!("SELECT onlyonce_mail.send{values}, E'{text}')");
                server.sql(&self.database, &format!("BEGIN; {customer}; {send}; COMMIT"));
            }
            Base::MariaDb(server) => {
                let send = format!("CALL onlyonce_mail_send{values}, '{text}')");
                let begin = "START TRANSACTION";
                server.sql(&self.database, &format!("{begin}; {customer}; {send}; COMMIT"));
            }
        }
    }

    fn state(&self) -> String {
        let states = "SELECT state FROM onlyonce_mail";
        match self.base {
            Base::Sqlite => {
                self.file().query_row(&format!("{states}_outbox"), (), |row| row.get(0)).unwrap()
            }
            Base::Postgres(server) => server.sql(&self.database, &format!("{states}.outbox")),
            Base::MariaDb(server) => server.sql(&self.database, &format!("{states}_outbox")),
        }
    }

    /// What the row says, how often the end was said, and how often the server has the message.
    /// A row is believed: what is said to be sent was sent, and once.
    fn found(&self, killed: &str) -> (String, usize, usize) {
        let (state, ends, taken) = (self.state(), self.relay.ends(ANN), self.sink.arrived().len());
        assert!(ends <= 1 && taken <= 1, "{killed}: {ends} ends, taken {taken} times");
        assert!(state != "sent" || taken == 1, "{killed}: the row says that it was sent");
        assert!(state != "waiting" || ends == 0, "{killed}: another sender would send it too");
        (state, ends, taken)
    }
}

/// Plays a row and holds it to what is promised.
fn played(row: Row, number: usize, base: &Base, binary: &Path) -> Found {
    let (folder, sink) = (tempfile::tempdir().unwrap(), MailSink::open());
    let (relay, database) = (MailRelay::to(sink.address()), format!("shop_{number}"));
    let outbox = base.database(&database);
    let shop = Shop { binary, folder, sink, relay, base, database, outbox };
    let killed = row.killed;
    shop.said(shop.call(&["store", "init", "--first", "--store", "journal:journal"], "none"));
    shop.make();
    shop.writes();
    let lines = [&[&*format!("kill {}", row.place.name)], row.place.says].concat().join("\n");
    std::fs::write(shop.folder.path().join("order"), lines).unwrap();
    let died = shop.run(&[], "order");
    let error = String::from_utf8_lossy(&died.stderr);
    assert_eq!(died.status.signal(), Some(9), "{killed}: {} {error}", died.status);
    // What was sent arrives, whoever is gone.
    until("what was ended", || {
        (shop.relay.is_idle() && shop.relay.ends(ANN) == shop.sink.arrived().len()).then_some(())
    });
    let (state, ends, _) = shop.found(killed);
    shop.said(shop.run(&[], "none"));
    let (then, ends_then, taken) = shop.found(killed);
    assert!(then == "sent" || then == "unknown", "{killed}: the row is {then}");
    assert!(then == "sent" || ends_then == ends, "{killed}: what nobody knew was sent again");
    let probe = if 0 < taken { "echo it" } else { "exit 10" };
    let probe = ["--on-unknown", "probe", "--probe", probe, "--probe-absent", "10"];
    until("the end of the row", || {
        shop.said(shop.run(&[&probe[..], &["--settle", "0s", "--late", "0s"]].concat(), "none"));
        (shop.state() == "sent").then_some(())
    });
    let (_, _, in_the_end) = shop.found(killed);
    Found { state, ends, then, in_the_end }
}

/// Plays all rows in each kind of database: the part of the page.
pub(crate) fn section(binary: &Path) -> String {
    let bases =
        [|| Base::Sqlite, || Base::Postgres(Postgres::start()), || Base::MariaDb(MariaDb::start())];
    let all = std::thread::scope(|threads| {
        let all = bases.map(|start| {
            threads.spawn(move || {
                let base = start();
                let rows = rows().into_iter().enumerate();
                rows.map(|(number, row)| played(row, number, &base, binary)).collect::<Vec<_>>()
            })
        });
        all.map(|found| found.join().unwrap())
    });
    let [sqlite, postgres, mariadb] = all;
    assert_eq!((&sqlite, &sqlite), (&postgres, &mariadb), "each kind comes to the same");
    let mut page = format!("\n## A message of an outbox\n\n{STORY}\n\n");
    page += "| killed | the row | the server has | the row after the same command again | ";
    page += "in the end it has |\n";
    page += "|---|---|---|---|---|\n";
    for (row, found) in rows().into_iter().zip(sqlite) {
        let (Found { state, ends, then, in_the_end }, name) = (found, row.place.name);
        let killed = row.killed;
        page += &format!("| {killed} (`{name}`) | {state} | {ends} | {then} | {in_the_end} |\n");
    }
    page
}
