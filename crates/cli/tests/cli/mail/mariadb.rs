//! Messages that are written in a transaction of the caller's, in a real MariaDB: what arrives is
//! counted at the mail server.

use std::collections::BTreeMap;

use onlyonce_testbed::{MariaDb, Relay, Way};
use rustix::process::Signal;

use super::{Shop, WELCOME};
use crate::process::{Running, onlyonce, until};

const ANN: &str = "ann@mail.example";

/// A shop whose customers are in a database beside their mail: a user that may write it, and one
/// that may take it.
struct Desk {
    shop: Shop,
    server: MariaDb,
}

impl Desk {
    fn open() -> Self {
        let (shop, server) = (Shop::open(), MariaDb::start());
        server.sql("mysql", "CREATE DATABASE shop");
        for _ in 0..2 {
            let said = onlyonce(["mail", "outbox", &server.url("shop")]).done();
            assert!(said.contains("GRANT EXECUTE ON PROCEDURE onlyonce_mail_send"), "{said}");
        }
        server.sql(
            "shop",
            "CREATE TABLE customers (name varchar(255)) ENGINE=InnoDB;
             CREATE USER sender@'127.0.0.1';
             GRANT SELECT, UPDATE (state, taken_by, taken, said, ended)
             ON shop.onlyonce_mail_outbox TO sender@'127.0.0.1'",
        );
        Self { shop, server }
    }

    fn outbox(&self) -> String {
        format!("mysql://sender@127.0.0.1:{}/shop", self.server.port())
    }

    fn sql(&self, text: &str) -> String {
        self.server.sql("shop", text)
    }

    /// What the application does in one transaction, which ends with this word.
    fn signs_up(&self, key: &str, to: &str, ends: &str) {
        let text = WELCOME.replace('\n', "\\n");
        self.sql(&format!(
            "START TRANSACTION; INSERT INTO customers VALUES ('{to}');
             CALL onlyonce_mail_send('{key}', 'shop@shop.example', '{to}', '{text}'); {ends}"
        ));
    }

    /// How many rows are in each state.
    fn states(&self) -> BTreeMap<String, usize> {
        let said = self.sql("SELECT state, COUNT(*) FROM onlyonce_mail_outbox GROUP BY state");
        let line = |line: &str| {
            let (state, count) = line.split_once('\t').unwrap();
            (state.to_owned(), count.parse().unwrap())
        };
        said.lines().map(line).collect()
    }

    fn runs_on(&self, outbox: &str, more: &[&str]) -> Running {
        self.shop.run(&[&["--outbox", outbox], more].concat())
    }

    fn runs(&self, more: &[&str]) -> Running {
        self.runs_on(&self.outbox(), more)
    }
}

fn counted(states: &[(&str, usize)]) -> BTreeMap<String, usize> {
    states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect()
}

#[test]
fn in_mariadb_a_rollback_leaves_no_mail_and_a_commit_gives_exactly_one() {
    let desk = Desk::open();
    desk.signs_up("welcome/1", ANN, "ROLLBACK");
    assert_eq!(desk.runs(&["--once"]).ended().done(), "");
    assert_eq!((desk.states(), desk.shop.server.ended().len()), (BTreeMap::new(), 0));
    // A caller that does not know how its commit ended does it all again.
    for _ in 0..2 {
        desk.signs_up("welcome/1", ANN, "COMMIT");
        for _ in 0..2 {
            desk.runs(&["--once"]).ended().done();
        }
    }
    assert_eq!(desk.shop.server.ended(), [ANN], "once");
    assert_eq!((desk.states(), desk.shop.counts()), (counted(&[("sent", 1)]), [0, 0, 0, 1, 0]));
    let said = desk.sql("SELECT said FROM onlyonce_mail_outbox");
    assert!(said.contains("4F8A31C2E7"), "{said}");
    desk.signs_up("welcome/2", "no domain@", "COMMIT");
    desk.runs(&["--once"]).ended().done();
    let status = desk.shop.status_with(&["--outbox", &desk.outbox()]);
    let rows = status["outbox"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.map(|it| (it["state"].as_str().unwrap(), &it["rows"])).collect();
    assert_eq!(rows, [("refused", &1.into()), ("sent", &1.into())]);
}

/// Messages come while sender and server are killed again and again, at whatever they do.
#[test]
fn in_mariadb_a_kill_of_the_sender_or_the_server_loses_no_row_and_sends_none_twice() {
    const ROWS: usize = 40;
    let mut desk = Desk::open();
    let mut running = None;
    for number in 0..ROWS {
        desk.signs_up(&format!("welcome/{number}"), &format!("r{number}@mail.example"), "COMMIT");
        if number % 4 == 3 {
            let before = desk.shop.server.ended().len();
            let sender = running.take().unwrap_or_else(|| desk.runs(&["--workers", "2"]));
            // Sometimes in the midst of a message, sometimes before it has sent anything.
            until("something done", || {
                let sent = before < desk.shop.server.ended().len();
                let taken = !desk.states().contains_key("waiting");
                (if number % 8 == 3 { sent } else { taken }).then_some(())
            });
            if number % 16 == 15 {
                desk.server.restart();
                running = Some(sender);
            } else {
                sender.signal(Signal::KILL);
                sender.ended();
            }
        }
    }
    if let Some(sender) = running {
        sender.signal(Signal::TERM);
        sender.ended();
    }
    for _ in 0..2 {
        desk.runs(&["--once"]).ended().done();
    }
    let states = desk.states();
    let count = |state: &str| states.get(state).copied().unwrap_or(0);
    assert_eq!(count("sent") + count("unknown"), ROWS, "{states:?}");
    let ended = desk.shop.server.ended();
    let mut once = ended.clone();
    once.dedup();
    assert_eq!(ended, once, "none twice");
    let sent = desk.sql("SELECT recipient FROM onlyonce_mail_outbox WHERE state = 'sent'");
    assert!(sent.lines().all(|to| ended.iter().any(|it| it == to)), "{states:?}");
    let [queued, sending, unknown, ..] = desk.shop.counts();
    assert_eq!((queued, sending, unknown), (0, 0, count("unknown") as u64));
}

#[test]
fn in_mariadb_a_row_that_a_person_has_let_go_says_so() {
    let desk = Desk::open();
    desk.signs_up("welcome/1", ANN, "COMMIT");
    let says = || desk.sql("SELECT state, said FROM onlyonce_mail_outbox");
    desk.shop.lets_a_row_go(|more| desk.runs(more), says);
}

/// What is in the spool is sent meanwhile, and rows are told later.
#[test]
fn a_connection_to_mariadb_that_is_cut_at_any_byte_costs_no_message_and_sends_none_twice() {
    let desk = Desk::open();
    let relay = Relay::to(desk.server.address());
    let outbox = format!("mysql://sender@{}/shop", relay.address());
    let running = desk.runs_on(&outbox, &[]);
    desk.signs_up("welcome", ANN, "COMMIT");
    until("the first one", || (desk.states() == counted(&[("sent", 1)])).then_some(()));
    for number in 0..12 {
        let way = if number % 2 == 0 { Way::ToServer } else { Way::ToClient };
        relay.cut_after(way, 40 * number);
        desk.signs_up(&format!("welcome/{number}"), &format!("r{number}@mail.example"), "COMMIT");
        desk.shop.add(&format!("news/{number}"), &[&format!("n{number}@mail.example")], WELCOME);
        let news = format!("n{number}@mail.example");
        until("what needs no table", || desk.shop.server.ended().contains(&news).then_some(()));
        relay.mend();
    }
    until("all of them", || (desk.states() == counted(&[("sent", 13)])).then_some(()));
    running.signal(Signal::TERM);
    running.ended().done();
    let ended = desk.shop.server.ended();
    let mut once = ended.clone();
    once.dedup();
    assert_eq!((ended.len(), ended), (25, once));
}

#[test]
fn a_database_without_an_outbox_is_told_with_what_to_do() {
    let desk = Desk::open();
    desk.server.sql("mysql", "CREATE DATABASE empty");
    let told = desk.runs_on(&desk.server.url("empty"), &[]).ended();
    assert!(told.code != Some(0) && told.err.contains("onlyonce mail outbox"), "{told:?}");
    let printed = onlyonce(["mail", "outbox", "--print", "mysql"]).done();
    desk.server.sql("empty", &printed);
    desk.runs_on(&desk.server.url("empty"), &["--once"]).ended().done();
    let told = onlyonce(["mail", "outbox", "mysql://nobody"]);
    assert!(told.err.contains("mysql://USER@HOST/DATABASE"), "{told:?}");
}
