//! Claims and completions in the caller's own transaction: what happens, happens with its record.

use onlyonce_conformance::{block_on, claimed};
use onlyonce_core::{Fence, Floor, Outcome, Policy, Reply, StateKind, Timestamp};
use onlyonce_postgres::{Claimed, TxError, TxErrorKind};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{Relay, Way, until};
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

/// Cases B83 and B88. Whatever the isolation, at whichever door, and whether the key is new or was
/// released by an engine.
#[test]
fn fifty_at_once_with_one_key_run_it_once_and_all_get_its_answer() {
    let shop = Shop::open();
    let mut orders = 0;
    for (level, is_new) in LEVELS.into_iter().flat_map(|it| [(it, true), (it, false)]) {
        orders += 1;
        let key = format!("order-{orders}");
        if !is_new {
            shop.release(&key);
        }
        let told = RUNTIME.block_on(futures_util::future::join_all(
            (0..50).map(|caller| ordered(&shop, DOORS[caller % 2], level, &key)),
        ));
        let ran = |told: &Told| match told {
            Told::Ran(content) => Some(content.clone()),
            Told::Replayed(_) | Told::Refused(_) => None,
        };
        let ran: Vec<String> = told.iter().filter_map(ran).collect();
        assert_eq!(ran.len(), 1, "{told:?}");
        let replayed = Told::Replayed(ran[0].clone());
        assert_eq!(told.iter().filter(|it| **it == replayed).count(), 49, "{told:?}");
        assert_eq!(shop.counts(), (orders, orders));
    }
}

/// Case B83. A duplicate, then its answer, then something else, and all of it is committed.
#[test]
fn a_transaction_goes_on_after_a_duplicate() {
    let shop = Shop::open();
    for (at, (door, level)) in DOORS.into_iter().flat_map(|it| LEVELS.map(|l| (it, l))).enumerate()
    {
        RUNTIME.block_on(async {
            let key = format!("order-{at}");
            let mut client = connect(&shop.url()).await;
            let Told::Ran(first) = shop.order(door, &mut client, level, &key).await.unwrap() else {
                panic!("it runs");
            };
            let tx = begin(&mut client, level).await;
            let request = shop.request(&key);
            let again = shop.once.claim(&tx, &request, &Policy::default()).await.unwrap();
            let Claimed::Replay(reply) = again else { panic!("it was answered") };
            assert_eq!(reply, Reply::kept(201, first));
            tx.execute("CREATE TABLE IF NOT EXISTS visits (n int)", &[]).await.unwrap();
            tx.execute("INSERT INTO visits VALUES (1)", &[]).await.unwrap();
            shop.once.commit(tx).await.unwrap();
        });
        assert_eq!(shop.sql("SELECT count(*) FROM visits"), (at + 1).to_string());
    }
    assert_eq!(shop.counts(), (6, 6));
}

#[test]
fn what_is_rolled_back_has_left_no_record_and_runs_the_next_time() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut client = connect(&shop.url()).await;
        for key in ["dropped", "failed"] {
            let tx = begin(&mut client, ReadCommitted).await;
            let request = shop.request(key);
            let claim = shop.once.claim(&tx, &request, &Policy::default()).await.unwrap();
            assert!(matches!(claim, Claimed::Granted(_)));
            if key == "failed" {
                tx.execute("SELECT 1 / 0", &[]).await.unwrap_err();
                // The server would answer the commit as if it were one.
                let error = shop.once.commit(tx).await.unwrap_err();
                assert_eq!(error.kind(), TxErrorKind::Again, "{error}");
            }
        }
    });
    for key in ["dropped", "failed"] {
        assert_eq!(shop.record(key), None);
        let told = RUNTIME.block_on(ordered(&shop, Door::Rust, ReadCommitted, key));
        assert!(matches!(told, Told::Ran(_)), "{told:?}");
    }
    assert_eq!(shop.counts(), (2, 2));
}

/// It must not run again by itself, since nobody has said that it did not happen.
#[test]
fn a_claim_that_is_committed_without_its_answer_becomes_unknown_and_never_free() {
    let shop = Shop::open();
    let (request, policy) = (shop.request("half"), Policy::default());
    RUNTIME.block_on(async {
        let mut client = connect(&shop.url()).await;
        let tx = begin(&mut client, ReadCommitted).await;
        let claim = shop.once.claim(&tx, &request, &policy).await.unwrap();
        assert!(matches!(claim, Claimed::Granted(_)));
        tx.execute("INSERT INTO orders VALUES ('half')", &[]).await.unwrap();
        shop.once.commit(tx).await.unwrap();
        for says in ["InFlight", "OutcomeUnknown"] {
            if says == "OutcomeUnknown" {
                shop.age("half", policy.lease + policy.skew_max).await;
            }
            let tx = begin(&mut client, ReadCommitted).await;
            let claim = shop.once.claim(&tx, &request, &policy).await.unwrap();
            let Claimed::Refused(outcome) = claim else { panic!("it is not to run") };
            assert!(format!("{outcome:?}").starts_with(says), "{outcome:?}");
            shop.once.commit(tx).await.unwrap();
        }
    });
    let kind = shop.record("half").map(|record| record.state.kind());
    assert_eq!(kind, Some(StateKind::Unknown));
}

/// The connection is cut after every few bytes that go either way, the commit and its answer among
/// them. Whoever was cut off asks again.
#[test]
fn a_connection_that_is_cut_anywhere_leaves_the_order_and_its_record_or_neither() {
    let shop = Shop::open();
    let (mut whole, mut unknown) = (0, 0);
    for door in DOORS {
        for way in [Way::ToServer, Way::ToClient] {
            let relay = Relay::to(shop.server.address());
            let url = format!("postgres://postgres@{}/{}", relay.address(), shop.name);
            let try_once = |key: String| -> Result<Told, TxError> {
                let connecting =
                    async { tokio_postgres::connect(&url, tokio_postgres::NoTls).await };
                RUNTIME.block_on(async {
                    let (mut client, connection) =
                        connecting.await.map_err(|error| shop.once.failed(&error))?;
                    tokio::spawn(connection);
                    shop.order(door, &mut client, ReadCommitted, &key).await
                })
            };
            let before = relay.passed(way);
            try_once(format!("{door:?}-{way:?}-all")).unwrap();
            let bytes = relay.passed(way) - before;
            whole += 1;
            for left in (0..=bytes).rev().step_by(bytes / 11) {
                let key = format!("{door:?}-{way:?}-{left}");
                relay.mend();
                relay.cut_after(way, left.max(1));
                let first = try_once(key.clone());
                let counts = shop.counts();
                assert_eq!(counts.0, counts.1, "{key}: {first:?}");
                match &first {
                    Ok(_) => assert_eq!(counts.0, whole + 1, "{key}"),
                    Err(error) if error.may_have_happened() => unknown += 1,
                    Err(_) => assert_eq!(counts.0, whole, "{key}: {first:?}"),
                }
                let second = RUNTIME.block_on(ordered(&shop, door, ReadCommitted, &key));
                let ran = matches!(second, Told::Ran(_));
                assert_eq!(ran, counts.0 == whole, "{key}: {first:?}, then {second:?}");
                whole += 1;
                assert_eq!(shop.counts(), (whole, whole), "{key}");
            }
        }
    }
    assert!(0 < unknown, "no answer to a commit was lost");
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

/// A UUIDv7 of that time.
fn uuid(time: Timestamp) -> String {
    let hex = format!("{:012x}", time.as_millis());
    format!("{}-{}-7000-8000-000000000000", &hex[..8], &hex[8..])
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

/// A claim of an engine, completed with the order: whoever comes with an older claim, or a second
/// time, takes its order back.
#[test]
fn a_claim_from_outside_completes_once_and_only_if_it_is_the_latest() {
    let shop = Shop::open();
    let policy = Policy::default();
    let id = shop.id("outside");
    let first = claimed(1);
    assert_eq!(block_on(shop.store.swap(id, None, Some(first.clone()))).unwrap(), Swap::Done);
    let say = async |fence, kind: Option<TxErrorKind>| {
        let mut client = connect(&shop.url()).await;
        let tx = begin(&mut client, ReadCommitted).await;
        tx.execute("INSERT INTO orders VALUES ('outside')", &[]).await.unwrap();
        let reply = Reply::kept(201, "done");
        match shop.once.complete(&tx, id, fence, reply, &policy).await {
            Ok(()) => {
                assert_eq!(kind, None);
                shop.once.commit(tx).await.unwrap();
            }
            Err(error) => assert_eq!(Some(error.kind()), kind, "{error}"),
        }
    };
    RUNTIME.block_on(async {
        for other in [first.fence.get() - 1, first.fence.get() + 1] {
            say(Fence::new(other).unwrap(), Some(TxErrorKind::Fenced)).await;
        }
        say(first.fence, None).await;
        // The same answer under the same fence is another order all the same.
        say(first.fence, Some(TxErrorKind::Fenced)).await;
    });
    assert_eq!(shop.counts(), (1, 1));
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
