//! Messages that are written in a transaction of SQLite: what arrives is counted at the mail
//! server.

use std::collections::BTreeMap;
use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;

use super::{Shop, WELCOME};
use crate::process::{Ran, Running, onlyonce, until};

/// Of a file, in units of 512 bytes, where nothing larger can be written.
const SMALL: u64 = 4_096;

/// A shop whose customers are in a file beside their mail.
struct Desk {
    shop: Shop,
    outbox: String,
}

impl Desk {
    fn open() -> Self {
        let shop = Shop::open();
        let outbox = format!("sqlite:{}", shop.folder.path("shop.db").display());
        let desk = Self { shop, outbox };
        desk.table().execute_batch("CREATE TABLE customers (name TEXT)").unwrap();
        for _ in 0..2 {
            let said = onlyonce(["mail", "outbox", &desk.outbox]).done();
            assert!(said.contains("INSERT INTO onlyonce_mail_send"), "{said}");
        }
        desk
    }

    fn table(&self) -> Connection {
        let table = Connection::open(self.shop.folder.path("shop.db")).unwrap();
        table.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        table
    }

    /// What the application does in one transaction, which ends with this word.
    fn signs_up(&self, key: &str, to: &str, text: &str, ends: &str) {
        let table = self.table();
        table.execute_batch("BEGIN").unwrap();
        table.execute("INSERT INTO customers VALUES (?1)", [to]).unwrap();
        let send = "INSERT INTO onlyonce_mail_send (key, sender, recipient, message) \
                    VALUES (?1, 'shop@shop.example', ?2, ?3)";
        table.execute(send, [key, to, text]).unwrap();
        table.execute_batch(ends).unwrap();
    }

    /// How many rows are in each state.
    fn states(&self) -> BTreeMap<String, u64> {
        let table = self.table();
        let count = "SELECT state, count(*) FROM onlyonce_mail_outbox GROUP BY state";
        let mut counted = table.prepare(count).unwrap();
        let rows = counted.query_map((), |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
        rows.unwrap().map(|it| it.map(|(state, rows)| (state, rows as u64)).unwrap()).collect()
    }

    fn runs(&self, more: &[&str]) -> Running {
        self.shop.run(&[&["--outbox", &self.outbox], more].concat())
    }

    fn runs_once(&self) -> String {
        self.runs(&["--once"]).ended().done()
    }

    /// A sender that can write no file larger than [`SMALL`].
    fn runs_on_a_small_disk(&self) -> Ran {
        let script = format!("trap '' XFSZ; ulimit -f {SMALL}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_onlyonce")]);
        command.args(self.shop.arguments()).args(["--once", "--outbox", &self.outbox]);
        Running::spawn(&mut command).ended()
    }

    /// What the status says of the rows.
    fn rows(&self) -> BTreeMap<String, u64> {
        let status = self.shop.status_with(&["--outbox", &self.outbox]);
        let row = |row: &serde_json::Value| {
            assert_eq!(row["elsewhere"], false, "{row}");
            (row["state"].as_str().unwrap().to_owned(), row["rows"].as_u64().unwrap())
        };
        status["outbox"].as_array().unwrap().iter().map(row).collect()
    }
}

fn counted(states: &[(&str, u64)]) -> BTreeMap<String, u64> {
    states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect()
}

#[test]
fn in_sqlite_a_rollback_leaves_no_mail_and_a_commit_gives_exactly_one() {
    let desk = Desk::open();
    desk.signs_up("welcome/1", "ann@mail.example", WELCOME, "ROLLBACK");
    assert_eq!(desk.runs_once(), "");
    assert_eq!((desk.states(), desk.rows()), (BTreeMap::new(), BTreeMap::new()));
    // A caller that does not know how its commit ended does it all again.
    for _ in 0..2 {
        desk.signs_up("welcome/1", "ann@mail.example", WELCOME, "COMMIT");
        assert_eq!(desk.rows().values().sum::<u64>(), 1, "one row");
        for _ in 0..2 {
            desk.runs_once();
        }
    }
    assert_eq!(desk.shop.server.ended(), ["ann@mail.example"], "once");
    assert_eq!((desk.rows(), desk.shop.counts()), (counted(&[("sent", 1)]), [0, 0, 0, 1, 0]));
    let said = "SELECT said FROM onlyonce_mail_outbox";
    let said: String = desk.table().query_row(said, (), |row| row.get(0)).unwrap();
    assert!(said.contains("4F8A31C2E7"), "{said}");
    desk.signs_up("welcome/2", "no domain@", WELCOME, "COMMIT");
    desk.runs_once();
    assert_eq!(desk.rows(), counted(&[("refused", 1), ("sent", 1)]));
}

/// Messages come while a sender runs that is killed again and again, at whatever it does.
#[test]
fn in_sqlite_a_sender_that_is_killed_loses_no_row_and_sends_none_twice() {
    const ROWS: u64 = 40;
    let desk = Desk::open();
    for number in 0..ROWS {
        let to = format!("r{number}@mail.example");
        desk.signs_up(&format!("welcome/{number}"), &to, WELCOME, "COMMIT");
        if number % 4 == 3 {
            let before = desk.shop.server.ended().len();
            let running = desk.runs(&["--workers", "2"]);
            // Sometimes in the midst of a message, sometimes before it has sent anything.
            until("something done", || {
                let sent = before < desk.shop.server.ended().len();
                let taken = !desk.states().contains_key("waiting");
                (if number % 8 == 3 { sent } else { taken }).then_some(())
            });
            running.signal(Signal::KILL);
            running.ended();
        }
    }
    desk.runs_once();
    desk.runs_once();
    let rows = desk.rows();
    let count = |state: &str| rows.get(state).copied().unwrap_or(0);
    assert_eq!(count("sent") + count("unknown"), ROWS, "{rows:?}");
    let ended = desk.shop.server.ended();
    let mut once = ended.clone();
    once.dedup();
    assert_eq!(ended, once, "none twice");
    assert!(count("sent") <= ended.len() as u64, "{rows:?}");
    let [queued, sending, unknown, ..] = desk.shop.counts();
    assert_eq!((queued, sending, unknown), (0, 0, count("unknown")));
}

#[test]
fn in_sqlite_a_row_that_a_person_has_let_go_says_so() {
    let desk = Desk::open();
    desk.signs_up("welcome/1", "ann@mail.example", WELCOME, "COMMIT");
    let says = || {
        let says = "SELECT state || coalesce(said, '') FROM onlyonce_mail_outbox";
        desk.table().query_row(says, (), |row| row.get(0)).unwrap()
    };
    desk.shop.lets_a_row_go(|more| desk.runs(more), says);
}

/// A disk on which the sender can neither write that a row is its own nor a message.
#[test]
fn a_sender_with_no_room_sends_nothing_of_an_outbox_that_it_would_not_know_of() {
    let desk = Desk::open();
    let large = format!("{WELCOME}{}", "large\n".repeat(SMALL as usize * 512 / 5));
    desk.signs_up("welcome/1", "ann@mail.example", &large, "COMMIT");
    desk.signs_up("welcome/2", "bob@mail.example", WELCOME, "COMMIT");
    for _ in 0..2 {
        let ran = desk.runs_on_a_small_disk();
        assert!(ran.code != Some(0) && ran.code.is_some(), "{ran:?}");
        assert!(ran.err.contains("nothing is sent twice"), "{ran:?}");
        let sent = desk.states().get("sent").copied().unwrap_or(0);
        assert_eq!(desk.shop.server.ended().len() as u64, sent, "{ran:?}");
    }
    for _ in 0..2 {
        desk.runs_once();
    }
    assert_eq!(desk.states(), counted(&[("sent", 2)]));
    assert_eq!(desk.shop.server.ended(), ["ann@mail.example", "bob@mail.example"]);
}

#[test]
fn a_file_without_an_outbox_is_told_with_what_to_do() {
    let shop = Shop::open();
    let file = shop.folder.path("none.db");
    let outbox = format!("sqlite:{}", file.display());
    let told = shop.run(&["--outbox", &outbox]).ended();
    assert!(told.code != Some(0) && told.err.contains("none.db"), "{told:?}");
    assert!(!onlyonce(["mail", "outbox", &outbox]).err.is_empty());
    assert!(!file.exists(), "a name with a mistake makes no file");
    drop(Connection::open(&file).unwrap().execute_batch("CREATE TABLE customers (name)"));
    let told = shop.run(&["--outbox", &outbox]).ended();
    assert!(told.code != Some(0) && told.err.contains("onlyonce mail outbox"), "{told:?}");
    let printed = onlyonce(["mail", "outbox", "--print", "sqlite"]).done();
    assert!(printed.contains("CREATE VIEW onlyonce_mail_send"), "{printed}");
}
