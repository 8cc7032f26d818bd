//! Connections that are cut, closed or held, and rows that others hold: what an error says is true,
//! and nothing takes place by half.

use onlyonce_conformance::{answered, block_on, claimed, id};
use onlyonce_mysql::Mysql;
use onlyonce_store::{Store as _, StoreErrorKind, Swap};
use onlyonce_testbed::{MariaDb as Server, Relay, Way, until};

use crate::common::{RUNTIME, claim, database, end_connections, init, open_as, transactions};

/// A server, a store in it, and a relay in front of it.
fn behind_relay() -> (Server, Relay, String, Mysql) {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let relay = Relay::to(server.address());
    let store = open_as(&format!("mysql://root@{}/{name}", relay.address())).unwrap();
    (server, relay, name, store)
}

#[test]
fn an_answer_that_is_lost_is_unknown_and_the_claim_is_there() {
    let (server, relay, name, store) = behind_relay();
    claim(&store, 1);
    relay.lose(Way::ToClient);
    let error = std::thread::scope(|scope| {
        let swapping = scope.spawn(|| block_on(store.swap(id(2), None, Some(claimed(2)))));
        let rows = "SELECT COUNT(*) FROM onlyonce_records";
        until("it is committed", || (server.sql(&name, rows) == "2").then_some(()));
        relay.break_off();
        swapping.join().unwrap().unwrap_err()
    });
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    relay.mend();
    let found = until("it is reached again", || block_on(store.get(id(2))).ok());
    assert_eq!(found, Some(claimed(2)));
    let again = block_on(store.swap(id(2), None, Some(claimed(3)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(2))));
}

/// All but the last bytes of the text arrive, and with them every statement but the commit.
#[test]
fn a_swap_that_is_cut_on_its_way_takes_place_whole_or_not_at_all() {
    let (server, relay, name, store) = behind_relay();
    claim(&store, 1);
    let before = relay.passed(Way::ToServer);
    claim(&store, 2);
    let text = relay.passed(Way::ToServer) - before;
    for (number, bytes) in [(3, 10), (4, text / 2), (5, text - 4)] {
        claim(&store, 10 + number);
        relay.cut_after(Way::ToServer, bytes);
        let error = block_on(store.swap(id(number), None, Some(claimed(number)))).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
        relay.mend();
        let found = until("it is reached again", || block_on(store.get(id(number))).ok());
        assert_eq!(found, None, "{number}");
    }
    assert_eq!(server.sql(&name, "SELECT COUNT(*) FROM onlyonce_records"), "5");
}

/// A server that stands still finds in its socket what was sent meanwhile when it goes on, however
/// long the caller has been gone.
#[test]
fn a_swap_that_comes_too_late_does_not_take_place() {
    let (server, _relay, name, store) = behind_relay();
    claim(&store, 1);
    server.server().freeze();
    let error = block_on(store.swap(id(2), None, Some(claimed(2)))).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    server.server().thaw();
    let inserts = || {
        let told = server.sql(&name, "SHOW GLOBAL STATUS LIKE 'Com_insert'");
        told.split('\t').nth(1).unwrap().parse::<u64>().unwrap()
    };
    // One made the store's row, one its slots, one the first claim.
    until("the server has come to it", || (4 <= inserts()).then_some(()));
    let open = || transactions(|sql| server.sql(&name, sql), "%");
    until("it has ended it", || (open() == "0").then_some(()));
    assert_eq!(until("it answers", || block_on(store.get(id(2))).ok()), None);
    claim(&store, 2);
}

#[test]
fn connections_that_the_server_has_closed_are_made_anew() {
    let (server, _relay, _, store) = behind_relay();
    claim(&store, 1);
    end_connections(&server);
    // Whether this one was taken nobody can tell who only sees the connection end.
    let first = block_on(store.swap(id(2), None, Some(claimed(2))));
    if let Err(error) = first {
        assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
    }
    claim(&store, 3);
    end_connections(&server);
    let found = until("it is read again", || block_on(store.get(id(3))).ok());
    assert_eq!(found, Some(claimed(3)));
}

/// Its own statement has been carried out by then, and it is one after it that waits.
#[test]
fn a_swap_that_waits_too_long_for_somebody_is_refused_and_nothing_of_it_is_left() {
    let (server, _relay, name, store) = behind_relay();
    claim(&store, 1);
    std::thread::scope(|scope| {
        let held = "START TRANSACTION; SELECT revision FROM onlyonce_revisions FOR UPDATE; \
                    DO SLEEP(60)";
        let (server, name) = (&server, &name);
        let holding = scope.spawn(move || {
            // It is killed before its minute is over.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.sql(name, held)))
        });
        let sleeping = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'";
        let holder =
            until("it is held", || Some(server.sql(name, sleeping)).filter(|id| !id.is_empty()));
        let error = block_on(store.swap(id(2), None, Some(claimed(2)))).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NotApplied, "{error}");
        server.sql(name, &format!("KILL {holder}"));
        assert!(holding.join().unwrap().is_err());
    });
    claim(&store, 3);
    assert_eq!(block_on(store.get(id(2))).unwrap(), None);
    assert_eq!(server.sql(&name, "SELECT COUNT(*) FROM onlyonce_records"), "2");
}

/// One that is there, and one that is being made.
#[test]
fn who_has_a_key_keeps_no_other_key_waiting_for_its_end() {
    let (server, _relay, name, store) = behind_relay();
    claim(&store, 1);
    let theirs = [1, 2];
    let held = format!(
        "START TRANSACTION; SELECT revision FROM onlyonce_records WHERE id = x'{}' FOR UPDATE; \
         INSERT INTO onlyonce_records (id, revision, state, due_at, record) \
         VALUES (x'{}', 1, 1, 0, ''); DO SLEEP(60)",
        id(1),
        id(2)
    );
    std::thread::scope(|scope| {
        let (server, name) = (&server, &name);
        let holding = scope.spawn(move || {
            // It is killed before its minute is over.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.sql(name, &held)))
        });
        let sleeping = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'";
        let holder =
            until("it is held", || Some(server.sql(name, sleeping)).filter(|id| !id.is_empty()));
        let first = Some(claimed(1).revision);
        let swaps = (1..30)
            .map(|it| store.swap(id(it), first.filter(|_| it == 1), Some(claimed(it + 100))));
        let told = block_on(futures_util::future::join_all(swaps));
        server.sql(name, &format!("KILL {holder}"));
        assert!(holding.join().unwrap().is_err());
        for (key, told) in (1..30).zip(told) {
            match told {
                Err(error) if theirs.contains(&key) => {
                    assert_eq!(error.kind(), StoreErrorKind::NotApplied, "{error}");
                    assert!(error.to_string().contains("another transaction"), "{error}");
                }
                told => assert_eq!((told, theirs.contains(&key)), (Ok(Swap::Done), false), "{key}"),
            }
        }
    });
    assert_eq!(block_on(store.get(id(1))), Ok(Some(claimed(1))));
    claim(&store, 2);
}

/// What a transaction demands of its statements stands in that which notes its revision.
#[test]
fn where_no_revision_can_be_noted_nobody_knows_what_was_written() {
    let (server, _relay, name, store) = behind_relay();
    claim(&store, 1);
    server.sql(&name, "DELETE FROM onlyonce_revisions");
    let together = (2..10).map(|it| store.swap(id(it), None, Some(claimed(it))));
    let told = block_on(futures_util::future::join_all(together));
    let errors: Vec<_> = told.into_iter().map(Result::unwrap_err).collect();
    assert_eq!(errors[0].kind(), StoreErrorKind::Unknown, "{errors:?}");
    // Those that come after it find it at the door.
    let unknown = errors.iter().filter(|it| it.kind() == StoreErrorKind::Unknown).count();
    assert!(errors.iter().all(|it| it.to_string().contains("onlyonce_revisions")), "{errors:?}");
    let rows = server.sql(&name, "SELECT COUNT(*) FROM onlyonce_records");
    assert_eq!(rows, (1 + unknown).to_string());
    // It says so at the door, and is made again.
    let url = server.url(&name);
    assert!(open_as(&url).err().unwrap().to_string().contains("onlyonce store migrate"));
    assert_eq!(RUNTIME.block_on(Mysql::renew_rows(url.parse().unwrap())), Ok(64));
    claim(&open_as(&url).unwrap(), 20);
}

/// The server ends the lighter one of two that wait for each other, which is ours.
#[test]
fn a_deadlock_with_somebody_else_is_tried_again() {
    let (server, _relay, name, store) = behind_relay();
    let one = claimed(1);
    claim(&store, 1);
    server.sql(&name, "CREATE TABLE heavy (number int PRIMARY KEY) ENGINE=InnoDB");
    // We have changed the record by then, and wait for what it has locked.
    let script = format!(
        "START TRANSACTION; SELECT revision FROM onlyonce_revisions FOR UPDATE; \
         INSERT INTO heavy SELECT seq FROM seq_1_to_1000; DO SLEEP(2); \
         SELECT revision FROM onlyonce_records WHERE id = x'{}' FOR UPDATE; COMMIT",
        id(1)
    );
    std::thread::scope(|scope| {
        let (server, name) = (&server, &name);
        let other = scope.spawn(move || server.sql(name, &script));
        let sleeping = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep'";
        until("it holds them", || (!server.sql(name, sleeping).is_empty()).then_some(()));
        let two = answered(&one, 2, "order");
        let swap = store.swap(id(1), Some(one.revision), Some(two.clone()));
        assert_eq!(block_on(swap).unwrap(), Swap::Done);
        other.join().unwrap();
        assert_eq!(block_on(store.get(id(1))).unwrap(), Some(two));
    });
}
