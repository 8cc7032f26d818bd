//! The table of messages that callers write in transactions of their own, and what a sender is
//! given of it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::PathBuf;

use onlyonce_core::Timestamp;
use onlyonce_sqlite::{OUTBOX, Outbox, Posted};
use onlyonce_store::StoreErrorKind;
use onlyonce_store::outbox::Told;
use rusqlite::{Connection, Params};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const SEND: &str =
    "INTO onlyonce_mail_send (key, sender, recipient, message) VALUES (?1, ?2, ?3, ?4)";
const WELCOME: [&str; 4] = ["welcome", "shop@shop.example", "ann@mail.example", "From: x\n\nHi\n"];

struct Desk {
    _folder: TempDir,
    file: PathBuf,
    caller: Connection,
}

impl Desk {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.db");
        let caller = Connection::open(&file).unwrap();
        caller.execute_batch("CREATE TABLE customers (name TEXT)").unwrap();
        for _ in 0..2 {
            Outbox::install(&file).unwrap();
        }
        Self { _folder: folder, file, caller }
    }

    fn send(&self, how: &str, values: impl Params) -> rusqlite::Result<usize> {
        self.caller.execute(&format!("{how} {SEND}"), values)
    }

    fn sends(&self, key: &str) {
        let [_, sender, to, text] = WELCOME;
        self.send("INSERT", [key, sender, to, text]).unwrap();
    }

    fn sender(&self, who: &str) -> Outbox {
        Outbox::open(&self.file, who.to_owned()).unwrap()
    }

    fn states(&self) -> Vec<String> {
        let sql = "SELECT state FROM onlyonce_mail_outbox ORDER BY number";
        let mut asked = self.caller.prepare(sql).unwrap();
        asked.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

fn keys(rows: &[Posted]) -> Vec<&str> {
    let mut keys: Vec<_> = rows.iter().map(|it| &*it.key).collect();
    keys.sort_unstable();
    keys
}

/// Case B107.
#[test]
fn a_message_is_there_once_it_is_committed_and_never_after_a_rollback() {
    let desk = Desk::open();
    let mut sender = desk.sender("one");
    for ends in ["ROLLBACK", "COMMIT"] {
        desk.caller.execute_batch("BEGIN; INSERT INTO customers VALUES ('Ann')").unwrap();
        desk.send("INSERT", WELCOME).unwrap();
        let before = sender.take(NOW, 9).unwrap();
        assert_eq!(before, [], "{ends}: it is not committed");
        desk.caller.execute_batch(ends).unwrap();
    }
    let taken = sender.take(NOW, 9).unwrap();
    let [posted] = &taken[..] else { panic!("{taken:?}") };
    let [key, from, to, text] = WELCOME;
    assert_eq!((&*posted.key, &*posted.sender, &*posted.recipient), (key, from, to));
    assert_eq!((&*posted.message, posted.taken), (text.as_bytes(), NOW));
    let customers = "SELECT count(*) FROM customers";
    assert_eq!(desk.caller.query_row(customers, (), |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn the_outbox_is_the_file_that_is_there_now() {
    let (mut desk, new) = (Desk::open(), Desk::open());
    let mut sender = desk.sender("one");
    new.sends("another");
    std::fs::rename(&new.file, &desk.file).unwrap();
    assert_eq!(keys(&sender.take(NOW, 9).unwrap()), ["another"]);
    std::fs::remove_file(&desk.file).unwrap();
    let gone = sender.take(NOW, 9).unwrap_err();
    assert_eq!(gone.kind(), StoreErrorKind::NotApplied);
    desk.caller = Connection::open(&desk.file).unwrap();
    desk.caller.execute_batch(OUTBOX).unwrap();
    desk.sends("a third");
    assert_eq!(keys(&sender.take(NOW, 9).unwrap()), ["a third"]);
}

#[test]
fn the_same_again_changes_nothing_and_another_message_is_refused_whatever_the_statement_says() {
    let desk = Desk::open();
    let mut sender = desk.sender("one");
    desk.send("INSERT", WELCOME).unwrap();
    let row = sender.take(NOW, 9).unwrap().remove(0);
    sender.tell(row.number, Told::Sent, "queued").unwrap();
    for how in ["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "REPLACE"] {
        desk.send(how, WELCOME).unwrap();
        assert_eq!(desk.states(), ["sent"], "{how}: it would be sent again");
        let [key, from, to, _] = WELCOME;
        let other = desk.send(how, [key, from, to, "From: x\n\nOther\n"]).unwrap_err();
        assert!(other.to_string().contains("another message"), "{how}: {other}");
        assert_eq!(desk.states(), ["sent"], "{how}");
    }
    assert_eq!(sender.take(NOW, 9).unwrap(), []);
}

#[test]
fn what_is_no_message_is_refused_where_it_is_written() {
    let desk = Desk::open();
    let [key, from, to, text] = WELCOME;
    let long = "k".repeat(256);
    for (key, from, to) in [
        ("", from, to),
        ("  ", from, to),
        ("ü", from, to),
        ("a\nb", from, to),
        (&*long, from, to),
        (key, "shop", to),
        (key, from, "ann"),
    ] {
        let refused = desk.send("INSERT", [key, from, to, text]).unwrap_err();
        assert!(refused.to_string().contains("onlyonce: "), "{key:?} {from} {to}: {refused}");
    }
    assert!(desk.send("INSERT", (key, from, to, None::<String>)).is_err());
    assert!(desk.send("INSERT", (key, from, to, 7)).is_err());
    assert_eq!(desk.states(), [""; 0]);
    // Bytes are a message too, in whatever characters.
    desk.send("INSERT", (key, from, to, b"From: x\n\nGr\xFC\xDFe\n")).unwrap();
    assert_eq!(desk.sender("one").take(NOW, 9).unwrap()[0].message, b"From: x\n\nGr\xFC\xDFe\n");
}

#[test]
fn a_row_is_given_to_one_sender_and_its_last_word_stays() {
    let desk = Desk::open();
    let (mut one, mut two) = (desk.sender("one"), desk.sender("two"));
    ["a", "b", "c"].iter().for_each(|key| desk.sends(key));
    let first = one.take(NOW, 2).unwrap();
    assert_eq!(keys(&first), ["a", "b"], "the oldest, and no more than asked for");
    assert_eq!(keys(&two.take(NOW, 9).unwrap()), ["c"]);
    assert_eq!(one.take(NOW, 9).unwrap(), []);
    // A sender that was killed is told again what is its own, and nothing else.
    let mut again = desk.sender("one");
    assert_eq!(keys(&again.ours(i64::MIN, 9).unwrap()), ["a", "b"]);
    assert_eq!(keys(&again.ours(first[0].number.min(first[1].number), 9).unwrap()), ["b"]);
    for row in &first {
        two.tell(row.number, Told::Sent, "it is not theirs").unwrap();
    }
    assert_eq!(desk.states(), ["taken"; 3]);
    let of = |key: &str| first.iter().find(|it| it.key == key).unwrap().number;
    let doubts = |sender: &mut Outbox| {
        let ours = sender.ours(i64::MIN, 9).unwrap();
        ours.into_iter().map(|it| (it.key, it.is_unknown)).collect::<Vec<_>>()
    };
    for (told, is_unknown) in [(Told::Unknown, true), (Told::Taken, false), (Told::Unknown, true)] {
        again.tell(of("a"), told, "lost").unwrap();
        let ours = [("a".to_owned(), is_unknown), ("b".to_owned(), false)];
        assert_eq!(doubts(&mut again), ours, "somebody may find out");
    }
    again.tell(of("a"), Told::Sent, "found").unwrap();
    again.tell(of("b"), Told::Refused, "no such user").unwrap();
    again.tell(of("b"), Told::Sent, "late").unwrap();
    assert_eq!(desk.states(), ["sent", "refused", "taken"]);
    assert_eq!(again.ours(i64::MIN, 9).unwrap(), []);
    let counts = again.counts().unwrap();
    let counts: Vec<_> = counts.iter().map(|it| (&*it.state, it.is_ours, it.rows)).collect();
    assert_eq!(counts, [("refused", true, 1), ("sent", true, 1), ("taken", false, 1)]);
}

/// Somebody who may write into the file writes into the table itself.
#[test]
fn a_row_that_is_odd_holds_up_no_other() {
    let desk = Desk::open();
    for (key, posted) in [("odd", "datetime('now')"), ("odder", "1.5")] {
        let table = "onlyonce_mail_outbox (key, sender, recipient, message, posted)";
        let row = format!("('{key}', x'ff', 1, 2, {posted})");
        desk.caller.execute_batch(&format!("INSERT INTO {table} VALUES {row}")).unwrap();
    }
    desk.sends("a");
    let mut sender = desk.sender("one");
    assert_eq!(sender.counts().unwrap().iter().map(|it| it.rows).sum::<u64>(), 3);
    assert_eq!(keys(&sender.take(NOW, 9).unwrap()), ["a", "odd", "odder"]);
}

#[test]
fn the_number_of_a_row_that_was_deleted_is_no_other_rows() {
    let desk = Desk::open();
    let mut sender = desk.sender("one");
    desk.sends("a");
    let old = sender.take(NOW, 9).unwrap()[0].number;
    desk.caller.execute("DELETE FROM onlyonce_mail_outbox", ()).unwrap();
    desk.sends("b");
    sender.take(NOW, 9).unwrap();
    sender.tell(old, Told::Sent, "late").unwrap();
    assert_eq!(desk.states(), ["taken"]);
}

/// A disk on which the caller's transaction has no room: it says so, and nothing is to be sent.
#[test]
fn on_a_full_disk_a_message_is_written_with_its_change_or_not_at_all() {
    let desk = Desk::open();
    let pages: i64 = desk.caller.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
    let limit = format!("PRAGMA max_page_count = {}", pages + 2);
    desk.caller.query_row(&limit, (), |row| row.get::<_, i64>(0)).unwrap();
    desk.caller.execute_batch("BEGIN; INSERT INTO customers VALUES ('Ann')").unwrap();
    let [key, from, to, _] = WELCOME;
    let full = desk.send("INSERT", (key, from, to, "x".repeat(100_000))).unwrap_err();
    assert_eq!(full.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
    // SQLite may have undone the transaction by itself.
    let _ = desk.caller.execute_batch("ROLLBACK");
    assert_eq!(desk.sender("one").take(NOW, 9).unwrap(), []);
    let customers = "SELECT count(*) FROM customers";
    assert_eq!(desk.caller.query_row(customers, (), |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[test]
fn a_file_that_is_not_there_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.db");
    assert!(Outbox::install(&file).is_err());
    assert!(Outbox::open(&file, "one".to_owned()).is_err());
    assert!(!file.exists());
    drop(Connection::open(&file).unwrap());
    let Err(missing) = Outbox::open(&file, "one".to_owned()) else { panic!("there is no table") };
    assert!(missing.to_string().contains("onlyonce mail outbox"), "{missing}");
}
