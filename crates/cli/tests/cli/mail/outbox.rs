//! Messages that are written in a transaction of the caller's, in a real PostgreSQL: what arrives
//! is counted at the mail server.

use std::collections::BTreeMap;

use onlyonce_testbed::Postgres;
use rustix::process::Signal;

use super::{Shop, WELCOME};
use crate::process::{Running, onlyonce, until};

const ANN: &str = "ann@mail.example";

/// A database with an outbox, a role that may write to it and one that may take from it.
struct Desk {
    server: Postgres,
}

impl Desk {
    fn open() -> Self {
        let server = Postgres::start();
        for _ in 0..2 {
            let said = onlyonce(["mail", "outbox", &server.url("postgres")]).done();
            assert!(said.contains("GRANT EXECUTE ON FUNCTION onlyonce_mail.send"), "{said}");
        }
        server.sql(
            "postgres",
            "CREATE ROLE app LOGIN; CREATE ROLE sender LOGIN;
             CREATE TABLE customers (name text); GRANT ALL ON customers TO app;
             GRANT USAGE ON SCHEMA onlyonce_mail TO app, sender;
             GRANT EXECUTE ON FUNCTION onlyonce_mail.send TO app;
             GRANT EXECUTE ON FUNCTION onlyonce_mail.take, onlyonce_mail.ours, onlyonce_mail.tell,
             onlyonce_mail.counts TO sender",
        );
        Self { server }
    }

    fn url(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/postgres", self.server.port())
    }

    fn sql(&self, text: &str) -> String {
        self.server.sql("postgres", text)
    }

    /// What the application does in one transaction, which ends with this word.
    fn signs_up(&self, key: &str, to: &str, ends: &str) -> String {
        let send = send(key, to, WELCOME);
        self.sql(&format!(
            "SET ROLE app; BEGIN; INSERT INTO customers VALUES ('{to}'); {send}; {ends}"
        ))
    }

    /// How many rows are in each state.
    fn states(&self) -> BTreeMap<String, usize> {
        let said = self.sql("SELECT state, count(*) FROM onlyonce_mail.outbox GROUP BY state");
        let line = |line: &str| {
            let (state, count) = line.split_once('|').unwrap();
            (state.to_owned(), count.parse().unwrap())
        };
        said.lines().map(line).collect()
    }

    fn runs(&self, shop: &Shop, more: &[&str]) -> Running {
        let outbox = self.url("sender");
        shop.run(&[&["--outbox", &outbox], more].concat())
    }
}

fn send(key: &str, to: &str, text: &str) -> String {
    let text = text.replace('\n', "\\n");
    format!("SELECT onlyonce_mail.send('{key}', 'shop@shop.example', '{to}', E'{text}')")
}

fn counted(states: &[(&str, usize)]) -> BTreeMap<String, usize> {
    states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect()
}

#[test]
fn a_rollback_leaves_no_mail_and_a_commit_gives_exactly_one() {
    let (desk, shop) = (Desk::open(), Shop::open());
    desk.signs_up("welcome/1", ANN, "ROLLBACK");
    assert_eq!(desk.runs(&shop, &["--once"]).ended().done(), "");
    assert_eq!((desk.states(), shop.server.ended().len()), (BTreeMap::new(), 0));

    assert_eq!(desk.signs_up("welcome/1", ANN, "COMMIT"), "t");
    // A caller that does not know how its commit ended says it again.
    assert_eq!(desk.sql(&format!("SET ROLE app; {}", send("welcome/1", ANN, WELCOME))), "f");
    for _ in 0..3 {
        desk.runs(&shop, &["--once"]).ended().done();
    }
    assert_eq!(shop.server.ended(), [ANN], "once");
    assert_eq!((desk.states(), shop.counts()), (counted(&[("sent", 1)]), [0, 0, 0, 1, 0]));
    let said = desk.sql("SELECT said FROM onlyonce_mail.outbox");
    assert!(said.contains("4F8A31C2E7"), "{said}");
}

#[test]
fn another_message_needs_another_key_and_what_cannot_be_sent_is_told_in_its_row() {
    let (desk, shop) = (Desk::open(), Shop::open());
    desk.signs_up("welcome/1", ANN, "COMMIT");
    let again = |text: &str| {
        let call = send("welcome/1", ANN, text);
        let take = "EXCEPTION WHEN unique_violation THEN RAISE NOTICE 'x'; RETURN;";
        let call = call.replace("SELECT", "PERFORM");
        let block = format!("DO $do$ BEGIN {call}; RAISE 'taken'; {take} END $do$");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            desk.server.load("postgres", &format!("SET ROLE app;\n{block};\n"));
        }))
    };
    assert!(again("From: shop@shop.example\n\nOther\n").is_ok(), "refused as a unique violation");
    assert!(again(WELCOME).is_err(), "the same message is no violation");
    desk.signs_up("news/1", "ann@", "COMMIT");
    desk.sql(&format!("SET ROLE app; {}", send("news/2", ANN, "no header\n\n")));
    desk.runs(&shop, &["--once"]).ended().done();
    assert_eq!(shop.server.ended(), [ANN]);
    assert_eq!(desk.states(), counted(&[("refused", 2), ("sent", 1)]));
    let said = desk.sql("SELECT said FROM onlyonce_mail.outbox WHERE key = 'news/1'");
    assert!(said.contains("nothing was sent: recipient"), "{said}");
    let said = desk.sql("SELECT said FROM onlyonce_mail.outbox WHERE key = 'news/2'");
    assert!(said.contains("line 1"), "{said}");
}

/// Messages come while a sender runs that is killed again and again, at whatever it does.
#[test]
fn a_sender_of_an_outbox_that_is_killed_loses_no_row_and_sends_none_twice() {
    const ROWS: usize = 60;
    let (desk, shop) = (Desk::open(), Shop::open());
    let mut kills = 0;
    for number in 0..ROWS {
        let ends = if number % 3 == 2 { "ROLLBACK" } else { "COMMIT" };
        desk.signs_up(&format!("welcome/{number}"), &format!("r{number}@mail.example"), ends);
        if number % 6 == 5 {
            let before = shop.server.ended().len();
            let running = desk.runs(&shop, &["--workers", "2"]);
            // Sometimes in the midst of a message, sometimes before it has taken anything.
            if kills % 2 == 0 {
                until("a message that is sent", || {
                    (before < shop.server.ended().len()).then_some(())
                });
            } else {
                until("a row that is taken", || {
                    (!desk.states().contains_key("waiting")).then_some(())
                });
            }
            running.signal(Signal::KILL);
            running.ended();
            kills += 1;
        }
    }
    desk.runs(&shop, &["--once"]).ended().done();
    desk.runs(&shop, &["--once"]).ended().done();
    let states = desk.states();
    let count = |state: &str| states.get(state).copied().unwrap_or(0);
    assert_eq!(count("sent") + count("unknown"), ROWS / 3 * 2, "{states:?}");
    let ended = shop.server.ended();
    let mut once = ended.clone();
    once.dedup();
    assert_eq!(ended, once, "none twice");
    let sent = desk.sql("SELECT recipient FROM onlyonce_mail.outbox WHERE state = 'sent'");
    assert!(sent.lines().all(|to| ended.iter().any(|it| it == to)), "{states:?}");
    let rolled_back = |number: usize| ended.contains(&format!("r{number}@mail.example"));
    assert!(!(2..ROWS).step_by(3).any(rolled_back), "{ended:?}");
    let [queued, sending, unknown, ..] = shop.counts();
    assert_eq!((queued, sending, unknown), (0, 0, count("unknown") as u64));
}

#[test]
fn a_row_that_a_person_has_let_go_says_so() {
    let (desk, shop) = (Desk::open(), Shop::open());
    desk.signs_up("welcome/1", ANN, "COMMIT");
    let says = || desk.sql("SELECT state, said FROM onlyonce_mail.outbox");
    shop.lets_a_row_go(|more| desk.runs(&shop, more), says);
}

/// Else its rows would be told nothing, one after the other.
#[test]
fn functions_of_an_older_outbox_are_refused_with_what_to_do() {
    let (desk, shop) = (Desk::open(), Shop::open());
    let made = onlyonce(["mail", "outbox", "--print"]).done();
    desk.server.load("postgres", &made.replace("'unknown', 'taken', ", "'unknown', "));
    let told = shop.run(&["--outbox", &desk.url("sender")]).ended();
    assert!(told.failed(6).contains("`onlyonce mail outbox` makes them anew"));
}

/// Case B108. The sender with the records knows what was sent; another one has other records.
#[test]
fn two_senders_with_stores_of_their_own_share_an_outbox_and_send_each_row_once() {
    let (desk, first_shop, second_shop) = (Desk::open(), Shop::open(), Shop::open());
    for number in 0..20 {
        desk.signs_up("news", &format!("r{number}@mail.example"), "COMMIT");
    }
    let first = desk.runs(&first_shop, &["--once"]);
    let second = desk.runs(&second_shop, &["--once"]);
    first.ended().done();
    second.ended().done();
    let (one, two) = (first_shop.server.ended(), second_shop.server.ended());
    assert_eq!(one.len() + two.len(), 20);
    assert!(!one.iter().any(|it| two.contains(it)), "{one:?} {two:?}");
    assert_eq!(desk.states(), counted(&[("sent", 20)]));
    desk.signs_up("later", ANN, "COMMIT");
    // What another sender has taken is told apart from what nobody has.
    let status = first_shop.status_with(&["--outbox", &desk.url("sender")]);
    let rows = status["outbox"].as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|it| (it["state"].as_str().unwrap(), it["elsewhere"] == true, &it["rows"]))
        .collect();
    let [ours, theirs, new] = [one.len(), two.len(), 1].map(serde_json::Value::from);
    let all = [("sent", true, &theirs), ("sent", false, &ours), ("waiting", false, &new)];
    let all: Vec<_> = all.into_iter().filter(|(_, _, count)| **count != 0).collect();
    assert_eq!(rows, all);
}

#[test]
fn a_database_that_is_away_keeps_no_message_of_the_spool_waiting() {
    let (mut desk, shop) = (Desk::open(), Shop::open());
    let running = desk.runs(&shop, &[]);
    desk.signs_up("welcome/1", ANN, "COMMIT");
    until("the first message", || (shop.server.ended().len() == 1).then_some(()));
    until("its row", || (desk.states() == counted(&[("sent", 1)])).then_some(()));
    desk.server.kill();
    shop.add("welcome/2", &["bob@mail.example"], WELCOME).done();
    until("the second message", || (shop.server.ended().len() == 2).then_some(()));
    desk.server.restart();
    desk.signs_up("welcome/3", "carl@mail.example", "COMMIT");
    until("the third message", || (shop.server.ended().len() == 3).then_some(()));
    running.signal(Signal::TERM);
    let out = running.ended().done();
    assert!(out.contains("the outbox waits: "), "{out}");
    assert_eq!(desk.states(), counted(&[("sent", 2)]));
}

#[test]
fn a_table_that_is_not_there_or_not_ours_is_told_with_what_to_do() {
    let (server, shop) = (Postgres::start(), Shop::open());
    let told = shop.run(&["--outbox", &server.url("postgres")]).ended();
    assert!(told.code != Some(0) && told.err.contains("onlyonce mail outbox"), "{told:?}");
    let desk = Desk::open();
    let told = shop.run(&["--outbox", &desk.url("app")]).ended();
    assert!(told.code != Some(0) && told.err.contains("GRANT EXECUTE"), "{told:?}");
    let printed = onlyonce(["mail", "outbox", "--print"]).done();
    assert!(printed.contains("CREATE OR REPLACE FUNCTION onlyonce_mail.send"), "{printed}");
}
