//! Claims and completions in the caller's own transaction: what happens, happens with its record.

use onlyonce_conformance::transactions::uuid;
use onlyonce_conformance::{block_on, claimed};
use onlyonce_core::{Floor, Outcome, Policy, Reply, StateKind, Timestamp};
use onlyonce_postgres::{Claimed, TxErrorKind};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::until;
use tokio_postgres::IsolationLevel::ReadCommitted;

use crate::common::RUNTIME;
use crate::shop::{DOORS, Door, LEVELS, Shop, Told, begin, connect, now};

/// Orders until it is told something that is no error to be sent again after.
async fn ordered(
    shop: &Shop,
    door: Door,
    level: tokio_postgres::IsolationLevel,
    key: &str,
) -> Told {
    let mut client = connect(&shop.url()).await;
    for _ in 0..100 {
        match shop.order(door, &mut client, level, key).await {
            Ok(told) => return told,
            Err(error) => assert!(error.is_retryable() && !error.may_have_happened(), "{error}"),
        }
    }
    panic!("a hundred times in vain");
}

onlyonce_conformance::transaction_suite!(|case| RUNTIME.block_on(case), Shop::open());
onlyonce_conformance::cut_suite!(|case| RUNTIME.block_on(case), Shop::open());

/// The server would answer the commit as if it were one.
#[test]
fn a_transaction_in_which_a_statement_has_failed_is_not_committed() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut client = connect(&shop.url()).await;
        let tx = begin(&mut client, ReadCommitted).await;
        let request = shop.request("failed");
        let claim = shop.once.claim(&tx, &request, &Policy::default()).await.unwrap();
        assert!(matches!(claim, Claimed::Granted(_)));
        tx.execute("SELECT 1 / 0", &[]).await.unwrap_err();
        let error = shop.once.commit(tx).await.unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::Again, "{error}");
    });
    assert_eq!(shop.record("failed"), None);
    let told = RUNTIME.block_on(ordered(&shop, Door::Rust, ReadCommitted, "failed"));
    assert!(matches!(told, Told::Ran(_)), "{told:?}");
    assert_eq!(shop.counts(), (1, 1));
}

#[test]
fn a_server_that_is_killed_under_load_has_as_many_orders_as_records() {
    let mut shop = Shop::open();
    let (url, server) = (shop.url(), shop.server.server().id().to_string());
    let caller = async |shop: &Shop, caller: usize| {
        let mut client = connect(&url).await;
        for step in 0..2_000 {
            let (door, level) = (DOORS[caller % 2], LEVELS[step % 3]);
            // Two callers want each key.
            let key = format!("{}-{step}", caller / 2);
            match shop.order(door, &mut client, level, &key).await {
                Err(error) if !error.is_retryable() => panic!("{error}"),
                Err(_) if client.is_closed() => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let callers = (0..8).map(|number| caller(&shop, number));
            RUNTIME.block_on(futures_util::future::join_all(callers))
        });
        until("orders", || (20 < shop.counts().0).then_some(()));
        let kill = std::process::Command::new("kill").args(["-9", &server]).status();
        assert!(kill.unwrap().success());
        work.join().unwrap();
    });
    shop.server.restart();
    let (orders, records) = shop.counts();
    assert_eq!(orders, records);
    let distinct = shop.sql("SELECT count(DISTINCT key) FROM orders");
    assert_eq!(distinct, orders.to_string());
}

/// The server has committed, waits for a standby, and is told to end the connection: it says so by
/// an error, and the order is there all the same.
#[test]
fn an_error_with_which_the_server_ends_a_connection_does_not_say_that_nothing_happened() {
    let shop = Shop::open();
    let wait = |name: &str| {
        shop.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
        shop.sql("SELECT pg_reload_conf()");
    };
    wait("nobody");
    until("it waits for standbys", || {
        (shop.sql("SHOW synchronous_standby_names") == "nobody").then_some(())
    });
    std::thread::scope(|scope| {
        let ordering = scope.spawn(|| {
            RUNTIME.block_on(async {
                let mut client = connect(&shop.url()).await;
                shop.order(Door::Rust, &mut client, ReadCommitted, "lost").await
            })
        });
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE wait_event = 'SyncRep'";
        until("its commit waits", || (shop.sql(end) != "0").then_some(()));
        let error = ordering.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::Unknown, "{error}");
        assert!(error.to_string().starts_with("it happened whole or not at all"), "{error}");
    });
    assert_eq!(shop.counts(), (1, 1));
    wait("");
    let told = RUNTIME.block_on(ordered(&shop, Door::Rust, ReadCommitted, "lost"));
    assert!(matches!(told, Told::Replayed(_)), "{told:?}");
}

/// What a sweeper does that has waited: the floor is above the key's time, and its record is gone.
fn forget(shop: &Shop, key: &str, time: Timestamp) {
    block_on(shop.store.raise_floor(Floor::at(time.plus_millis(1)))).unwrap();
    shop.sql(&format!("DELETE FROM onlyonce.records WHERE id = '\\x{}'", shop.id(key)));
}

#[test]
fn a_key_that_was_forgotten_during_a_transaction_is_expired_and_not_new() {
    let (shop, mut time) = (Shop::open(), now());
    for (door, level) in DOORS.into_iter().flat_map(|door| LEVELS.map(|level| (door, level))) {
        time = time.plus_millis(10);
        let key = uuid(time);
        let orders = shop.counts().0 + 1;
        let first = RUNTIME.block_on(ordered(&shop, door, level, &key));
        assert!(matches!(first, Told::Ran(_)));
        let mut client = RUNTIME.block_on(connect(&shop.url()));
        let tx = RUNTIME.block_on(begin(&mut client, level));
        // Under the stricter levels it sees what was there then, from here on.
        RUNTIME.block_on(tx.query_one("SELECT count(*) FROM orders", &[])).unwrap();
        forget(&shop, &key, time);
        let told = match door {
            Door::Rust => {
                let (request, policy) = (shop.request(&key), Policy::default());
                let claim = RUNTIME.block_on(shop.once.claim(&tx, &request, &policy));
                claim.map(|it| matches!(it, Claimed::Refused(Outcome::Expired)))
            }
            Door::Sql => {
                let claim = "SELECT outcome = 'expired' FROM onlyonce.claim('orders', $1, $2)";
                let row = RUNTIME.block_on(tx.query_one(claim, &[&key, &key.as_bytes()]));
                row.map(|row| row.get(0)).map_err(|error| shop.once.failed(&error))
            }
        };
        let at = format!("{door:?} {level:?}: {told:?}");
        match &told {
            Ok(expired) => assert!(matches!(level, ReadCommitted) && *expired, "{at}"),
            Err(error) => {
                assert!(
                    error.kind() == TxErrorKind::Again && !matches!(level, ReadCommitted),
                    "{at}"
                )
            }
        }
        drop(tx);
        let again = RUNTIME.block_on(ordered(&shop, door, level, &key));
        assert!(
            matches!(&again, Told::Refused(it) if it.eq_ignore_ascii_case("expired")),
            "{again:?}"
        );
        assert_eq!(shop.counts().0, orders, "{at}");
        assert_eq!(shop.record(&key), None, "{at}");
    }
}

/// The record is deleted, and the floor raised, while the claim waits to see what becomes of it.
#[test]
fn the_floor_is_read_after_the_record_was_found_missing() {
    let (shop, mut time) = (Shop::open(), now());
    for door in DOORS {
        time = time.plus_millis(10);
        let (key, shop) = (&uuid(time), &shop);
        let orders = shop.counts().0 + 1;
        RUNTIME.block_on(ordered(shop, door, ReadCommitted, key));
        let mut sweeper = RUNTIME.block_on(connect(&shop.url()));
        std::thread::scope(|scope| {
            let tx = RUNTIME.block_on(begin(&mut sweeper, ReadCommitted));
            let delete = format!("DELETE FROM onlyonce.records WHERE id = '\\x{}'", shop.id(key));
            RUNTIME.block_on(tx.batch_execute(&delete)).unwrap();
            let claim =
                scope.spawn(move || RUNTIME.block_on(ordered(shop, door, ReadCommitted, key)));
            await_waiting(shop);
            block_on(shop.store.raise_floor(Floor::at(time.plus_millis(1)))).unwrap();
            RUNTIME.block_on(tx.commit()).unwrap();
            let told = claim.join().unwrap();
            let expired = matches!(&told, Told::Refused(it) if it.eq_ignore_ascii_case("expired"));
            assert!(expired, "{door:?}: {told:?}");
        });
        assert_eq!(shop.counts().0, orders);
    }
}

/// Until somebody waits for another transaction.
fn await_waiting(shop: &Shop) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until("somebody waits", || (shop.sql(waits) == "1").then_some(()));
}

/// Two transactions that want two keys in either order: the server ends one of them.
#[test]
fn a_deadlock_is_told_as_what_did_not_happen_and_may_be_sent_again() {
    let shop = Shop::open();
    let policy = Policy::default();
    RUNTIME.block_on(async {
        let (mut one, mut two) = (connect(&shop.url()).await, connect(&shop.url()).await);
        let (one, two) =
            (begin(&mut one, ReadCommitted).await, begin(&mut two, ReadCommitted).await);
        let (left, right) = (shop.request("left"), shop.request("right"));
        for (tx, request) in [(&one, &left), (&two, &right)] {
            let claim = shop.once.claim(tx, request, &policy).await.unwrap();
            assert!(matches!(claim, Claimed::Granted(_)));
        }
        let mine = shop.once.claim(&one, &right, &policy);
        let theirs = shop.once.claim(&two, &left, &policy);
        let (mine, theirs) = futures_util::future::join(mine, theirs).await;
        // The server has undone the whole of one of them, so that the other one goes on.
        let mut errors = [mine.err(), theirs.err()].into_iter().flatten();
        let error = errors.next().unwrap();
        assert_eq!(errors.next(), None);
        assert_eq!(error.kind(), TxErrorKind::Again);
        assert!(
            error.to_string().starts_with("it did not happen; send it again with the same key")
        );
        assert!(error.to_string().contains("40P01"), "{error}");
    });
}

#[test]
fn a_duplicate_that_waits_longer_than_its_transaction_may_is_told_to_send_it_again() {
    let shop = Shop::open();
    let (request, policy) = (shop.request("long"), Policy::default());
    RUNTIME.block_on(async {
        let (mut one, mut two) = (connect(&shop.url()).await, connect(&shop.url()).await);
        let one = begin(&mut one, ReadCommitted).await;
        let granted = shop.once.claim(&one, &request, &policy).await.unwrap();
        for setting in ["lock_timeout", "statement_timeout"] {
            let two = begin(&mut two, ReadCommitted).await;
            two.batch_execute(&format!("SET LOCAL {setting} = '50ms'")).await.unwrap();
            let error = shop.once.claim(&two, &request, &policy).await.err().unwrap();
            assert_eq!(error.kind(), TxErrorKind::Again, "{error}");
        }
        let Claimed::Granted(granted) = granted else { panic!("it is the first") };
        granted.complete(Reply::kept(201, "done")).await.unwrap();
        shop.once.commit(one).await.unwrap();
        let two = begin(&mut two, ReadCommitted).await;
        let claim = shop.once.claim(&two, &request, &policy).await.unwrap();
        assert!(matches!(claim, Claimed::Replay(reply) if reply == Reply::kept(201, "done")));
    });
}

#[test]
fn other_processes_on_the_store_wait_for_a_transaction_and_see_all_of_it() {
    let shop = Shop::open();
    let (request, policy) = (shop.request("shared"), Policy::default());
    let mut client = RUNTIME.block_on(connect(&shop.url()));
    let tx = RUNTIME.block_on(begin(&mut client, ReadCommitted));
    let granted = RUNTIME.block_on(shop.once.claim(&tx, &request, &policy)).unwrap();
    let Claimed::Granted(granted) = granted else { panic!("it is the first") };
    // What is in flight is not seen before its end.
    assert_eq!(shop.record("shared"), None);
    let (store, id) = (shop.store.clone(), request.id);
    let swap = std::thread::spawn(move || block_on(store.swap(id, None, Some(claimed(1)))));
    await_waiting(&shop);
    RUNTIME.block_on(granted.complete(Reply::kept(201, "ours"))).unwrap();
    RUNTIME.block_on(shop.once.commit(tx)).unwrap();
    let Swap::Conflict(Some(found)) = swap.join().unwrap().unwrap() else {
        panic!("it is taken");
    };
    assert_eq!(found.state.kind(), StateKind::Completed);
    let max = block_on(shop.store.revision_max()).unwrap();
    assert_eq!(max, found.revision.get());
}

#[test]
fn an_answer_is_durable_although_the_caller_commits_without_waiting() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut client = connect(&shop.url()).await;
        client.batch_execute("SET synchronous_commit = off").await.unwrap();
        for (door, key) in [(Door::Rust, "rust"), (Door::Sql, "sql")] {
            let tx = begin(&mut client, ReadCommitted).await;
            if door == Door::Rust {
                let claim = shop.once.claim(&tx, &shop.request(key), &Policy::default()).await;
                let Ok(Claimed::Granted(granted)) = claim else { panic!("it is the first") };
                granted.complete(Reply::kept(201, "")).await.unwrap();
            } else {
                let claim = "SELECT fence FROM onlyonce.claim('orders', 'sql', '')";
                let fence: i64 = tx.query_one(claim, &[]).await.unwrap().get(0);
                let complete = "SELECT onlyonce.complete('orders', 'sql', $1, 201, '')";
                tx.execute(complete, &[&fence]).await.unwrap();
            }
            let set = tx.query_one("SHOW synchronous_commit", &[]).await.unwrap();
            assert_eq!(set.get::<_, &str>(0), "on");
            shop.once.commit(tx).await.unwrap();
            let set = client.query_one("SHOW synchronous_commit", &[]).await.unwrap();
            assert_eq!(set.get::<_, &str>(0), "off", "{key}");
        }
    });
}

#[test]
fn a_transaction_elsewhere_and_a_key_from_the_future_are_refused_and_say_so() {
    let (shop, other) = (Shop::open(), Shop::open());
    RUNTIME.block_on(async {
        let mut client = connect(&other.url()).await;
        let tx = begin(&mut client, ReadCommitted).await;
        let claim = shop.once.claim(&tx, &shop.request("lost"), &Policy::default()).await;
        let error = claim.err().unwrap();
        assert_eq!(error.kind(), TxErrorKind::NotExecuted);
        assert!(error.to_string().contains("another store"), "{error}");
        drop(tx);
        let tx = begin(&mut client, ReadCommitted).await;
        let ahead = other.request(&uuid(now().plus(std::time::Duration::from_secs(301))));
        let error = other.once.claim(&tx, &ahead, &Policy::default()).await.err().unwrap();
        assert!(error.to_string().contains("five minutes ahead"), "{error}");
    });
}
