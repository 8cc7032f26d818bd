//! Claims and completions in the caller's own transaction: what happens, happens with its record.

use std::time::Duration;

use futures_util::future::{join, join_all};
use mysql_async::Conn;
use mysql_async::IsolationLevel::{self, ReadCommitted, RepeatableRead};
use mysql_async::prelude::Queryable as _;
use onlyonce_conformance::transactions::{Ask, release, uuid};
use onlyonce_conformance::{block_on, claimed};
use onlyonce_core::{Floor, Policy, Reply, StateKind, Timestamp};
use onlyonce_mysql::{Claimed, TxErrorKind};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::until;

use crate::common::{RUNTIME, transactions};
use crate::shop::{
    DOORS, Door, LEVELS, Shop, Told, begin, claim, connect, connect_counting_all, now,
};

/// Orders until it is told something that is no error to be sent again after.
async fn ordered_on(
    shop: &Shop,
    conn: &mut Conn,
    door: Door,
    level: IsolationLevel,
    key: &str,
) -> Told {
    for _ in 0..200 {
        match shop.order(door, conn, level, key).await {
            Ok(told) => return told,
            Err(error) => assert!(error.is_retryable() && !error.may_have_happened(), "{error}"),
        }
    }
    panic!("two hundred times in vain");
}

async fn ordered(shop: &Shop, door: Door, level: IsolationLevel, key: &str) -> Told {
    let mut conn = connect(&shop.url()).await;
    let told = ordered_on(shop, &mut conn, door, level, key).await;
    conn.disconnect().await.unwrap();
    told
}

onlyonce_conformance::transaction_suite!(|case| RUNTIME.block_on(case), Shop::open());
onlyonce_conformance::cut_suite!(|case| RUNTIME.block_on(case), Shop::open());

/// Two at once on connections that count rows which were left as they are, as some libraries have
/// them: the one that waited must not take the other's row for its own.
#[test]
fn who_has_waited_is_told_the_answer_also_where_rows_that_stay_are_counted() {
    let shop = Shop::open();
    for (door, level) in DOORS.into_iter().flat_map(|it| LEVELS.map(|l| (it, l))) {
        let key = format!("{door:?}-{level:?}");
        let order = async || {
            let mut conn = connect_counting_all(&shop.url()).await;
            let told = ordered_on(&shop, &mut conn, door, level, &key).await;
            conn.disconnect().await.unwrap();
            told
        };
        RUNTIME.block_on(join_all((0..4).map(|_| order())));
    }
    assert_eq!(shop.counts(), (8, 8));
}

/// Whatever the isolation: under the loosest one what is not committed yet can be seen.
#[test]
fn an_answer_is_told_once_it_is_committed_and_not_if_it_is_taken_back() {
    let shop = Shop::open();
    for (door, level) in DOORS.into_iter().flat_map(|it| LEVELS.map(|l| (it, l))) {
        let (key, shop) = (&format!("{door:?}-{level:?}"), &shop);
        let before = shop.counts().0;
        let mut first = RUNTIME.block_on(connect(&shop.url()));
        let mut tx = RUNTIME.block_on(begin(&mut first, ReadCommitted));
        let told = RUNTIME.block_on(shop.by_rust(&mut tx, Ask::at(0, key))).unwrap();
        assert!(matches!(told, Told::Ran(_)));
        std::thread::scope(|scope| {
            let second = scope.spawn(move || RUNTIME.block_on(ordered(shop, door, level, key)));
            await_waiting_or(shop, || second.is_finished());
            RUNTIME.block_on(tx.rollback()).unwrap();
            let told = second.join().unwrap();
            assert!(matches!(told, Told::Ran(_)), "{door:?} {level:?}: {told:?}");
        });
        RUNTIME.block_on(first.disconnect()).unwrap();
        assert_eq!(shop.counts().0, before + 1);
    }
}

/// A deadlock whose error was not heeded, or a statement that commits by itself: what follows is in
/// no transaction, and is not taken for one.
#[test]
fn a_transaction_that_has_ended_before_completes_nothing_and_is_not_committed() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut conn = connect(&shop.url()).await;
        for door in DOORS {
            let key = format!("{door:?}");
            let mut tx = begin(&mut conn, ReadCommitted).await;
            let request = shop.request(&key);
            let granted = shop.once.claim(&mut tx, &request, &Policy::default()).await.unwrap();
            let Claimed::Granted(granted) = granted else { panic!("it is the first") };
            tx.query_drop("ROLLBACK").await.unwrap();
            let error = if door == Door::Rust {
                granted.complete(&mut tx, Reply::kept(201, "")).await.unwrap_err()
            } else {
                let fence = granted.fence().get();
                let complete =
                    format!("CALL onlyonce_complete('orders', '{key}', {fence}, 201, '', NULL)");
                let error = tx.query_drop(complete).await.unwrap_err();
                shop.once.failed(&error)
            };
            assert_eq!(error.kind(), TxErrorKind::NotExecuted, "{error}");
            assert!(error.to_string().contains("transaction"), "{error}");
            let error = shop.once.commit(tx).await.unwrap_err();
            assert_eq!(error.kind(), TxErrorKind::Unknown, "{error}");
        }
        let alone = "CALL onlyonce_claim('orders', 'alone', '', NULL, @o, @f, @s, @c, @w, @x)";
        let error = conn.query_drop(alone).await.unwrap_err();
        assert!(error.to_string().contains("START TRANSACTION"), "{error}");
        // Where each statement begins one by itself, there is one.
        conn.query_drop(format!("SET autocommit = 0; {alone}; ROLLBACK")).await.unwrap();
        conn.disconnect().await.unwrap();
    });
    assert_eq!(shop.counts(), (0, 0));
    assert_eq!(shop.sql("SELECT COUNT(*) FROM onlyonce_records"), "0");
}

/// Case B114.
#[test]
fn a_server_that_is_killed_under_load_has_as_many_orders_as_records() {
    let mut shop = Shop::open();
    let (url, server) = (shop.url(), shop.server.server().id().to_string());
    let caller = async |shop: &Shop, caller: usize| {
        let mut conn = connect(&url).await;
        for step in 0..5_000 {
            let (door, level) = (DOORS[caller % 2], LEVELS[step % LEVELS.len()]);
            // Two callers want each key.
            let key = format!("{}-{step}", caller / 2);
            match shop.order(door, &mut conn, level, &key).await {
                Err(error) if !error.is_retryable() => panic!("{error}"),
                Err(_) if conn.ping().await.is_err() => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            RUNTIME.block_on(join_all((0..8).map(|number| caller(&shop, number))));
        });
        until("orders", || (20 < shop.counts().0).then_some(()));
        let kill = std::process::Command::new("kill").args(["-9", &server]).status();
        assert!(kill.unwrap().success());
        work.join().unwrap();
    });
    shop.server.restart();
    let (orders, records) = shop.counts();
    assert_eq!(orders, records);
    let distinct = shop.sql("SELECT COUNT(DISTINCT name) FROM orders");
    assert_eq!(distinct, orders.to_string());
}

fn is_expired(told: &Told) -> bool {
    matches!(told, Told::Refused(it) if it.eq_ignore_ascii_case("expired"))
}

/// What a sweeper does that has waited: the floor is above the key's time, and its record is gone.
fn forget(shop: &Shop, key: &str, time: Timestamp) {
    block_on(shop.store.raise_floor(Floor::at(time.plus_millis(1)))).unwrap();
    shop.sql(&format!("DELETE FROM onlyonce_records WHERE id = x'{}'", shop.id(key)));
}

#[test]
fn a_key_that_was_forgotten_during_a_transaction_is_expired_and_not_new() {
    let (shop, mut time) = (Shop::open(), now().minus(Duration::from_secs(60)));
    for (door, level) in DOORS.into_iter().flat_map(|door| LEVELS.map(|level| (door, level))) {
        time = time.plus_millis(10);
        let key = uuid(time);
        let orders = shop.counts().0 + 1;
        let first = RUNTIME.block_on(ordered(&shop, door, level, &key));
        assert!(matches!(first, Told::Ran(_)));
        let mut conn = RUNTIME.block_on(connect(&shop.url()));
        let mut tx = RUNTIME.block_on(begin(&mut conn, level));
        // Under the stricter levels it sees what was there then, from here on. Under the strictest
        // a row that is read is locked, so one of another table is.
        RUNTIME.block_on(tx.query_drop("SELECT COUNT(*) FROM orders")).unwrap();
        forget(&shop, &key, time);
        let told = match door {
            Door::Rust => {
                let (request, policy) = (shop.request(&key), Policy::default());
                let claim = RUNTIME.block_on(shop.once.claim(&mut tx, &request, &policy)).unwrap();
                // A snapshot that still shows the answer may tell it.
                matches!(claim, Claimed::Refused(_) | Claimed::Replay(_))
            }
            Door::Sql => {
                let (outcome, ..) = RUNTIME.block_on(claim(&mut tx, &key)).unwrap();
                ["expired", "replay"].contains(&outcome.as_str())
            }
        };
        assert!(told, "{door:?} {level:?}");
        RUNTIME.block_on(tx.rollback()).unwrap();
        RUNTIME.block_on(conn.disconnect()).unwrap();
        let again = RUNTIME.block_on(ordered(&shop, door, level, &key));
        assert!(is_expired(&again), "{door:?} {level:?}: {again:?}");
        assert_eq!(shop.counts().0, orders);
        assert_eq!(shop.record(&key), None);
    }
}

/// The snapshot shows neither the record, which was made and forgotten since, nor the floor.
#[test]
fn a_key_that_came_and_went_after_the_snapshot_is_expired_and_not_new() {
    let (shop, mut time) = (Shop::open(), now().minus(Duration::from_secs(60)));
    for door in DOORS {
        time = time.plus_millis(10);
        let key = uuid(time);
        let mut conn = RUNTIME.block_on(connect(&shop.url()));
        let mut tx = RUNTIME.block_on(begin(&mut conn, RepeatableRead));
        RUNTIME.block_on(tx.query_drop("SELECT COUNT(*) FROM orders")).unwrap();
        let first = RUNTIME.block_on(ordered(&shop, door, RepeatableRead, &key));
        assert!(matches!(first, Told::Ran(_)));
        forget(&shop, &key, time);
        let outcome = RUNTIME.block_on(async {
            if door == Door::Rust {
                let request = shop.request(&key);
                let claim = shop.once.claim(&mut tx, &request, &Policy::default()).await.unwrap();
                let Claimed::Refused(outcome) = claim else { panic!("it is not to run") };
                return format!("{outcome:?}").to_lowercase();
            }
            claim(&mut tx, &key).await.unwrap().0
        });
        assert_eq!(outcome, "expired", "{door:?}");
        RUNTIME.block_on(shop.once.commit(tx)).unwrap();
        RUNTIME.block_on(conn.disconnect()).unwrap();
        assert_eq!(shop.record(&key), None);
    }
}

/// Until somebody waits for another transaction.
fn await_waiting(shop: &Shop) {
    await_waiting_or(shop, || false);
}

fn await_waiting_or(shop: &Shop, ended: impl Fn() -> bool) {
    let waiting = || transactions(|sql| shop.sql(sql), "LOCK WAIT");
    until("somebody waits", || (ended() || waiting() == "1").then_some(()));
}

/// The record is deleted, and the floor raised, while the claim waits to see what becomes of it.
#[test]
fn the_floor_is_read_after_the_record_was_found_missing() {
    let (shop, mut time) = (Shop::open(), now());
    for door in DOORS {
        time = time.plus_millis(10);
        let (key, shop) = (&uuid(time), &shop);
        // It is to be changed, so the claim waits for it.
        RUNTIME.block_on(release(shop, key));
        let mut sweeper = RUNTIME.block_on(connect(&shop.url()));
        std::thread::scope(|scope| {
            let mut tx = RUNTIME.block_on(begin(&mut sweeper, ReadCommitted));
            let delete = format!("DELETE FROM onlyonce_records WHERE id = x'{}'", shop.id(key));
            RUNTIME.block_on(tx.query_drop(delete)).unwrap();
            let claim =
                scope.spawn(move || RUNTIME.block_on(ordered(shop, door, ReadCommitted, key)));
            await_waiting(shop);
            block_on(shop.store.raise_floor(Floor::at(time.plus_millis(1)))).unwrap();
            RUNTIME.block_on(tx.commit()).unwrap();
            let told = claim.join().unwrap();
            assert!(is_expired(&told), "{door:?}: {told:?}");
        });
        RUNTIME.block_on(sweeper.disconnect()).unwrap();
        assert_eq!(shop.counts().0, 0);
    }
}

/// Two transactions that want two keys in either order: the server ends one of them.
#[test]
fn a_deadlock_is_told_as_what_did_not_happen_and_may_be_sent_again() {
    let shop = Shop::open();
    let policy = Policy::default();
    RUNTIME.block_on(async {
        let (mut one, mut two) = (connect(&shop.url()).await, connect(&shop.url()).await);
        let (mut one, mut two) =
            (begin(&mut one, ReadCommitted).await, begin(&mut two, ReadCommitted).await);
        let (left, right) = (shop.request("left"), shop.request("right"));
        for (tx, request) in [(&mut one, &left), (&mut two, &right)] {
            let claim = shop.once.claim(tx, request, &policy).await.unwrap();
            assert!(matches!(claim, Claimed::Granted(_)));
        }
        let mine = shop.once.claim(&mut one, &right, &policy);
        let theirs = shop.once.claim(&mut two, &left, &policy);
        let (mine, theirs) = join(mine, theirs).await;
        // The server has undone the whole of one of them, so that the other one goes on.
        let mut errors = [mine.err(), theirs.err()].into_iter().flatten();
        let error = errors.next().unwrap();
        assert_eq!(errors.next(), None);
        assert_eq!(error.kind(), TxErrorKind::Again);
        assert!(
            error.to_string().starts_with("it did not happen; send it again with the same key")
        );
        assert!(error.to_string().contains("1213"), "{error}");
    });
}

#[test]
fn a_duplicate_that_waits_longer_than_its_session_may_is_told_to_send_it_again() {
    let shop = Shop::open();
    let (request, policy) = (shop.request("long"), Policy::default());
    RUNTIME.block_on(async {
        let (mut one, mut two) = (connect(&shop.url()).await, connect(&shop.url()).await);
        let mut one = begin(&mut one, ReadCommitted).await;
        let granted = shop.once.claim(&mut one, &request, &policy).await.unwrap();
        two.query_drop("SET SESSION innodb_lock_wait_timeout = 0").await.unwrap();
        for door in DOORS {
            let error = shop.order(door, &mut two, ReadCommitted, "long").await.unwrap_err();
            assert_eq!(error.kind(), TxErrorKind::Again, "{error}");
        }
        let Claimed::Granted(granted) = granted else { panic!("it is the first") };
        granted.complete(&mut one, Reply::kept(201, "done")).await.unwrap();
        shop.once.commit(one).await.unwrap();
        for door in DOORS {
            let told = shop.order(door, &mut two, ReadCommitted, "long").await.unwrap();
            assert_eq!(told, Told::Replayed("done".to_owned()));
        }
        two.disconnect().await.unwrap();
    });
}

/// The lease counts from the end of the wait, and not from before it.
#[test]
fn a_claim_that_has_waited_has_its_whole_lease() {
    let shop = Shop::open();
    for door in DOORS {
        let (key, shop) = (&format!("{door:?}"), &shop);
        let mut first = RUNTIME.block_on(connect(&shop.url()));
        let mut tx = RUNTIME.block_on(begin(&mut first, ReadCommitted));
        let request = shop.request(key);
        let granted = RUNTIME.block_on(shop.once.claim(&mut tx, &request, &Policy::default()));
        assert!(matches!(granted, Ok(Claimed::Granted(_))));
        let ended = std::thread::scope(|scope| {
            let second = scope.spawn(move || {
                RUNTIME.block_on(async {
                    let mut conn = connect(&shop.url()).await;
                    let mut tx = begin(&mut conn, ReadCommitted).await;
                    if door == Door::Rust {
                        let policy = Policy::default();
                        let claim = shop.once.claim(&mut tx, &shop.request(key), &policy).await;
                        assert!(matches!(claim, Ok(Claimed::Granted(_))));
                    } else {
                        assert_eq!(claim(&mut tx, key).await.unwrap().0, "granted");
                    }
                    shop.once.commit(tx).await.unwrap();
                    conn.disconnect().await.unwrap();
                });
            });
            await_waiting(shop);
            let begun = now();
            until("it has waited", || (begun.plus_millis(300) <= now()).then_some(()));
            let ended = now();
            RUNTIME.block_on(tx.rollback()).unwrap();
            second.join().unwrap();
            ended
        });
        RUNTIME.block_on(first.disconnect()).unwrap();
        let fence = shop.record(key).unwrap().fence.get();
        assert!(ended.as_millis() <= fence, "{door:?}: {fence} is before {ended:?}");
    }
}

#[test]
fn other_processes_on_the_store_wait_for_a_transaction_and_see_all_of_it() {
    let shop = Shop::open();
    let (request, policy) = (shop.request("shared"), Policy::default());
    let mut conn = RUNTIME.block_on(connect(&shop.url()));
    let mut tx = RUNTIME.block_on(begin(&mut conn, ReadCommitted));
    let granted = RUNTIME.block_on(shop.once.claim(&mut tx, &request, &policy)).unwrap();
    let Claimed::Granted(granted) = granted else { panic!("it is the first") };
    // What is in flight is not seen before its end.
    assert_eq!(shop.record("shared"), None);
    let (store, id) = (shop.store.clone(), request.id);
    let swap = std::thread::spawn(move || block_on(store.swap(id, None, Some(claimed(1)))));
    await_waiting(&shop);
    RUNTIME.block_on(granted.complete(&mut tx, Reply::kept(201, "ours"))).unwrap();
    RUNTIME.block_on(shop.once.commit(tx)).unwrap();
    RUNTIME.block_on(conn.disconnect()).unwrap();
    let Swap::Conflict(Some(found)) = swap.join().unwrap().unwrap() else {
        panic!("it is taken");
    };
    assert_eq!(found.state.kind(), StateKind::Completed);
    let max = block_on(shop.store.revision_max()).unwrap();
    assert_eq!(max, found.revision.get());
}

/// InnoDB shows a transaction before it is synced. Who is told of it writes too, so that its own
/// commit is synced after that; and callers that are open at once do not wait for each other there.
#[test]
fn a_replay_is_committed_after_what_it_tells_of() {
    let shop = Shop::open();
    let syncs = || shop.sql("SELECT SUM(syncs) FROM onlyonce_revisions").parse::<u64>().unwrap();
    RUNTIME.block_on(async {
        let mut conn = connect(&shop.url()).await;
        shop.order(Door::Rust, &mut conn, ReadCommitted, "told").await.unwrap();
        let mut held = connect(&shop.url()).await;
        let mut open = begin(&mut held, ReadCommitted).await;
        claim(&mut open, "held").await.unwrap();
        for door in DOORS {
            let before = syncs();
            let told = shop.order(door, &mut conn, ReadCommitted, "told").await.unwrap();
            assert!(matches!(told, Told::Replayed(_)));
            assert!(before < syncs(), "{door:?}");
        }
        open.rollback().await.unwrap();
        conn.disconnect().await.unwrap();
        held.disconnect().await.unwrap();
    });
}

#[test]
fn a_transaction_elsewhere_and_a_key_from_the_future_are_refused_and_say_so() {
    let shop = Shop::open();
    let other = Shop::open();
    RUNTIME.block_on(async {
        let mut conn = connect(&other.url()).await;
        let mut tx = begin(&mut conn, ReadCommitted).await;
        let claim = shop.once.claim(&mut tx, &shop.request("lost"), &Policy::default()).await;
        let error = claim.err().unwrap();
        assert_eq!(error.kind(), TxErrorKind::NotExecuted);
        assert!(error.to_string().contains("another store"), "{error}");
        let ahead = other.request(&uuid(now().plus_millis(302_000)));
        let error = other.once.claim(&mut tx, &ahead, &Policy::default()).await.err().unwrap();
        assert!(error.to_string().contains("five minutes ahead"), "{error}");
        tx.rollback().await.unwrap();
        conn.disconnect().await.unwrap();
    });
}

/// A server that could lose what is told takes no claim.
#[test]
fn a_server_that_does_not_sync_takes_no_claim_at_either_door() {
    let shop = Shop::open();
    shop.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 2");
    RUNTIME.block_on(async {
        let mut conn = connect(&shop.url()).await;
        for door in DOORS {
            let error = shop.order(door, &mut conn, ReadCommitted, "lost").await.unwrap_err();
            assert_eq!(error.kind(), TxErrorKind::NotExecuted);
            assert!(error.to_string().contains("innodb_flush_log_at_trx_commit"), "{error}");
        }
        conn.disconnect().await.unwrap();
    });
    assert_eq!(shop.counts(), (0, 0));
}
