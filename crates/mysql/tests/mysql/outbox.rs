//! The table of messages that callers write in transactions of their own, and what a sender is
//! given of it.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_core::Timestamp;
use onlyonce_mysql::{Address, Outbox};
use onlyonce_store::outbox::{Outbox as _, Posted, Told};
use onlyonce_store::{OpenError, StoreErrorKind};
use onlyonce_testbed::{MariaDb as Server, Relay, Way, until};

use crate::common::{RUNTIME, database};
use crate::shop::connect;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const WELCOME: [&str; 4] = ["welcome", "shop@shop.example", "ann@mail.example", "From: x\n\nHi\n"];
const CUSTOMER: &str = "number BIGINT AUTO_INCREMENT PRIMARY KEY, name TEXT";
const SEND: &str = "CALL onlyonce_mail_send(?, ?, ?, ?)";

struct Desk {
    server: Server,
    name: String,
}

impl Desk {
    fn open() -> Self {
        let server = Server::start();
        let name = database(&server);
        server.sql(&name, &format!("CREATE TABLE customers ({CUSTOMER}) ENGINE=InnoDB"));
        let desk = Self { server, name };
        for _ in 0..2 {
            RUNTIME.block_on(Outbox::install(desk.address(&desk.url()))).unwrap();
        }
        desk
    }

    fn url(&self) -> String {
        self.server.url(&self.name)
    }

    fn address(&self, url: &str) -> Address {
        url.parse().unwrap()
    }

    fn sql(&self, text: &str) -> String {
        self.server.sql(&self.name, text)
    }

    fn open_as(&self, url: &str, who: &str) -> Result<Outbox, OpenError> {
        RUNTIME.block_on(Outbox::open(self.address(url), who.to_owned()))
    }

    fn sender(&self, who: &str) -> Outbox {
        self.open_as(&self.url(), who).unwrap()
    }

    fn caller(&self) -> Conn {
        RUNTIME.block_on(connect(&self.url()))
    }

    fn sends(&self, key: &str) {
        let [_, from, to, text] = WELCOME;
        send(&mut self.caller(), [key, from, to, text]).unwrap();
    }

    fn states(&self) -> Vec<String> {
        let states = self.sql("SELECT state FROM onlyonce_mail_outbox ORDER BY number");
        states.lines().map(str::to_owned).collect()
    }
}

fn send(caller: &mut Conn, [key, from, to, text]: [&str; 4]) -> Result<(), mysql_async::Error> {
    RUNTIME.block_on(caller.exec_drop(SEND, (key, from, to, text)))
}

fn say(caller: &mut Conn, text: &str) {
    RUNTIME.block_on(caller.query_drop(text)).unwrap();
}

fn take(sender: &Outbox, most: usize) -> Vec<Posted> {
    RUNTIME.block_on(sender.take(NOW, most)).unwrap()
}

fn ours(sender: &Outbox, after: i64) -> Vec<Posted> {
    RUNTIME.block_on(sender.ours(after, 9)).unwrap()
}

fn tell(sender: &Outbox, number: i64, told: Told, said: &str) {
    RUNTIME.block_on(sender.tell(number, told, said)).unwrap();
}

fn keys(rows: &[Posted]) -> Vec<&str> {
    rows.iter().map(|it| &*it.key).collect()
}

/// Case B107. A message that is not committed is nobody's, and holds up no other.
#[test]
fn a_message_is_there_once_it_is_committed_and_never_after_a_rollback() {
    let desk = Desk::open();
    let (sender, mut caller) = (desk.sender("one"), desk.caller());
    for ends in ["ROLLBACK", "COMMIT"] {
        say(&mut caller, "START TRANSACTION");
        say(&mut caller, "INSERT INTO customers (name) VALUES ('Ann')");
        let number = "SELECT LAST_INSERT_ID()";
        let before: Option<u64> = RUNTIME.block_on(caller.query_first(number)).unwrap();
        send(&mut caller, WELCOME).unwrap();
        let after: Option<u64> = RUNTIME.block_on(caller.query_first(number)).unwrap();
        assert_eq!(before, after, "the caller's own number");
        desk.sends(ends);
        assert_eq!(keys(&take(&sender, 9)), [ends], "the other is not committed");
        say(&mut caller, ends);
    }
    let taken = take(&sender, 9);
    let [posted] = &taken[..] else { panic!("{taken:?}") };
    let [key, from, to, text] = WELCOME;
    assert_eq!((&*posted.key, &*posted.sender, &*posted.recipient), (key, from, to));
    assert_eq!((&*posted.message, posted.taken), (text.as_bytes(), NOW));
    assert!(NOW < posted.posted, "by the server's clock");
    assert_eq!(desk.sql("SELECT COUNT(*) FROM customers"), "1");
}

#[test]
fn the_same_again_changes_nothing_and_another_message_is_refused_at_any_isolation() {
    let desk = Desk::open();
    let (sender, mut caller) = (desk.sender("one"), desk.caller());
    send(&mut caller, WELCOME).unwrap();
    let row = take(&sender, 9).remove(0);
    tell(&sender, row.number, Told::Sent, "queued");
    let [key, from, to, _] = WELCOME;
    for level in ["READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        say(&mut caller, &format!("SET TRANSACTION ISOLATION LEVEL {level}"));
        say(&mut caller, "START TRANSACTION");
        send(&mut caller, WELCOME).unwrap();
        let other = send(&mut caller, [key, from, to, "From: x\n\nOther\n"]).unwrap_err();
        assert!(other.to_string().contains("another message"), "{level}: {other}");
        assert!(matches!(&other, mysql_async::Error::Server(it) if it.code == 1062), "{other}");
        assert!(send(&mut caller, [key, "other@shop.example", to, WELCOME[3]]).is_err());
        say(&mut caller, "COMMIT");
        assert_eq!(desk.states(), ["sent"], "{level}: it would be sent again");
    }
    // What a collation would take for the same is another message, or another recipient.
    for (key, to) in [("welcome ", to), ("Welcome", to), (key, "Ann@mail.example")] {
        send(&mut caller, [key, from, to, "From: x\n\nOther\n"]).unwrap();
    }
    assert_eq!(take(&sender, 9).len(), 3);
}

/// The second one waits for the first, and is told what that comes to.
#[test]
fn of_two_that_write_at_once_under_one_key_one_is_told_of_the_other() {
    let desk = Desk::open();
    let (mut one, mut two) = (desk.caller(), desk.caller());
    say(&mut one, "START TRANSACTION");
    send(&mut one, WELCOME).unwrap();
    let [key, from, to, _] = WELCOME;
    let waiting = std::thread::spawn(move || send(&mut two, [key, from, to, "From: x\n\nOther\n"]));
    let locks = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    until("it waits", || (desk.sql(locks) == "1").then_some(()));
    say(&mut one, "COMMIT");
    assert!(waiting.join().unwrap().unwrap_err().to_string().contains("another message"));
    assert_eq!(desk.states(), ["waiting"]);
}

#[test]
fn what_is_no_message_is_refused_where_it_is_written() {
    let desk = Desk::open();
    let mut caller = desk.caller();
    let [key, from, to, text] = WELCOME;
    let (long, far) = ("k".repeat(256), format!("{}@mail.example", "a".repeat(320)));
    for (key, from, to) in [
        ("", from, to),
        ("  ", from, to),
        ("ü", from, to),
        ("a\n", from, to),
        (&*long, from, to),
        (key, "shop", to),
        (key, from, "ann"),
        (key, from, &*far),
    ] {
        let refused = send(&mut caller, [key, from, to, text]).unwrap_err();
        assert!(refused.to_string().contains("onlyonce: "), "{key:?} {from} {to}: {refused}");
    }
    let none = caller.exec_drop(SEND, (key, from, to, None::<String>));
    assert!(RUNTIME.block_on(none).is_err());
    assert_eq!(desk.states(), [""; 0]);
    // Bytes are a message too, in whatever characters.
    let bytes = b"From: x\n\nGr\xFC\xDFe \x00\n".to_vec();
    RUNTIME.block_on(caller.exec_drop(SEND, (key, from, to, bytes.clone()))).unwrap();
    assert_eq!(take(&desk.sender("one"), 9)[0].message, bytes);
}

#[test]
fn a_row_is_given_to_one_sender_and_its_last_word_stays() {
    let desk = Desk::open();
    let (one, two) = (desk.sender("one"), desk.sender("two"));
    ["a", "b", "c"].iter().for_each(|key| desk.sends(key));
    let first = take(&one, 2);
    assert_eq!(keys(&first), ["a", "b"], "the oldest, and no more than asked for");
    assert_eq!(keys(&take(&two, 9)), ["c"]);
    assert_eq!(take(&one, 9), []);
    // A sender that was killed is told again what is its own, and nothing else.
    let again = desk.sender("one");
    assert_eq!(ours(&again, i64::MIN), first);
    assert_eq!(keys(&ours(&again, first[0].number)), ["b"]);
    for row in &first {
        tell(&two, row.number, Told::Sent, "it is not theirs");
    }
    assert_eq!(desk.states(), ["taken"; 3]);
    let [a, b] = [first[0].number, first[1].number];
    for (told, is_unknown) in [(Told::Unknown, true), (Told::Taken, false), (Told::Unknown, true)] {
        tell(&again, a, told, "lost");
        let doubts = ours(&again, i64::MIN).into_iter().map(|it| (it.key, it.is_unknown));
        let both = [("a".to_owned(), is_unknown), ("b".to_owned(), false)];
        assert_eq!(doubts.collect::<Vec<_>>(), both, "somebody may find out");
    }
    tell(&again, a, Told::Sent, "it's found: 'ü' \\");
    tell(&again, b, Told::Refused, "no such user");
    tell(&again, b, Told::Sent, "late");
    assert_eq!(desk.states(), ["sent", "refused", "taken"]);
    let said = desk.sql(
        "SELECT said = 'it''s found: ''ü'' \\\\', ended IS NULL \
                         FROM onlyonce_mail_outbox WHERE `key` = 'a'",
    );
    assert_eq!(said, "1\t0");
    assert_eq!(ours(&again, i64::MIN), []);
    let counts = RUNTIME.block_on(again.counts()).unwrap();
    let counts: Vec<_> = counts.iter().map(|it| (&*it.state, it.is_ours, it.rows)).collect();
    assert_eq!(counts, [("refused", true, 1), ("sent", true, 1), ("taken", false, 1)]);
}

#[test]
fn the_number_of_a_row_that_was_deleted_is_no_other_rows() {
    let mut desk = Desk::open();
    desk.sends("a");
    let old = take(&desk.sender("one"), 9)[0].number;
    desk.sql("DELETE FROM onlyonce_mail_outbox");
    desk.server.restart();
    let sender = desk.sender("one");
    desk.sends("b");
    take(&sender, 9);
    tell(&sender, old, Told::Sent, "late");
    assert_eq!(desk.states(), ["taken"]);
}

/// The rows are ours or nobody's, and those that are ours are told to whoever asks again.
#[test]
fn a_call_that_is_cut_off_loses_no_row_and_gives_none_to_two() {
    let desk = Desk::open();
    let relay = Relay::to(desk.server.address());
    let url = format!("mysql://root@{}/{}", relay.address(), desk.name);
    let (sender, other) = (desk.open_as(&url, "one").unwrap(), desk.sender("two"));
    // How much is said and answered when nothing is cut.
    desk.sends("first");
    let passed = || [Way::ToServer, Way::ToClient].map(|way| relay.passed(way));
    let before = passed();
    assert_eq!(take(&sender, 9).len(), 1);
    let whole = passed();
    let mut all = Vec::new();
    for (way, at) in [(Way::ToServer, 0), (Way::ToClient, 1)] {
        let bytes = whole[at] - before[at];
        for part in [0, bytes / 3, bytes / 2, bytes - 12, bytes - 1] {
            let key = format!("{at}-{part}");
            desk.sends(&key);
            relay.cut_after(way, part);
            let cut = RUNTIME.block_on(sender.take(NOW, 9)).unwrap_err();
            assert_eq!(cut.kind(), StoreErrorKind::Unknown, "{cut}");
            relay.mend();
            let is_new = |it: &Posted| !all.contains(&it.number) && it.key != "first";
            let found =
                until("it is reached again", || RUNTIME.block_on(sender.ours(i64::MIN, 99)).ok());
            let mut found: Vec<Posted> = found.into_iter().filter(is_new).collect();
            if found.is_empty() {
                found = take(&sender, 9);
            }
            assert_eq!(keys(&found), [&*key], "{way:?} after {part} bytes");
            assert_eq!(take(&other, 9), [], "{way:?} after {part} bytes");
            all.push(found[0].number);
        }
    }
    assert!(desk.states().iter().all(|it| it == "taken"));
}

#[test]
fn users_need_no_right_on_messages_and_are_told_which_they_need() {
    let desk = Desk::open();
    let name = &desk.name;
    desk.sql(&format!(
        "CREATE USER app@localhost; CREATE USER app@'127.0.0.1'; CREATE USER sender@'127.0.0.1';
         GRANT EXECUTE ON PROCEDURE {name}.onlyonce_mail_send TO app@'127.0.0.1';
         GRANT SELECT, UPDATE (state, taken_by, taken, said, ended)
         ON {name}.onlyonce_mail_outbox TO sender@'127.0.0.1'"
    ));
    let as_user = |user: &str| format!("mysql://{user}@127.0.0.1:{}/{name}", desk.server.port());
    let mut app = RUNTIME.block_on(connect(&as_user("app")));
    send(&mut app, WELCOME).unwrap();
    for denied in ["SELECT * FROM onlyonce_mail_outbox", "DELETE FROM onlyonce_mail_outbox"] {
        assert!(RUNTIME.block_on(app.query_drop(denied)).is_err(), "{denied}");
    }
    let refused = desk.open_as(&as_user("app"), "one").err().unwrap().to_string();
    assert!(refused.contains("GRANT SELECT, UPDATE (state"), "{refused}");
    let sender = desk.open_as(&as_user("sender"), "one").unwrap();
    let row = take(&sender, 9).remove(0);
    tell(&sender, row.number, Told::Sent, "queued");
    assert_eq!(RUNTIME.block_on(sender.counts()).unwrap().len(), 1);
    let mut conn = RUNTIME.block_on(connect(&as_user("sender")));
    let rewrite = "UPDATE onlyonce_mail_outbox SET message = 'x', `key` = 'y'";
    assert!(RUNTIME.block_on(conn.query_drop(rewrite)).is_err());
    // Made anew, it leaves the rights as they are.
    RUNTIME.block_on(Outbox::install(desk.address(&desk.url()))).unwrap();
    send(&mut app, WELCOME).unwrap();
}

#[test]
fn a_server_without_a_table_or_that_loses_what_it_has_confirmed_is_refused() {
    let desk = Desk::open();
    let none = database(&desk.server);
    let missing = desk.open_as(&desk.server.url(&none), "one").err().unwrap().to_string();
    assert!(missing.contains("onlyonce mail outbox"), "{missing}");
    desk.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    let loses = desk.open_as(&desk.url(), "one").err().unwrap().to_string();
    assert!(loses.contains("innodb_flush_log_at_trx_commit"), "{loses}");
}
