//! What a transaction of a caller's does to others that want its key, and to those that do not.

use std::time::Duration;

use futures_util::future::join_all;
use onlyonce_conformance::transactions::release;
use onlyonce_conformance::{block_on, claimed};
use onlyonce_core::{KeyId, Policy, Record, Reply, State, StateKind};
use onlyonce_postgres::{Claimed, TxError};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::until;
use tokio_postgres::IsolationLevel::ReadCommitted;
use tokio_postgres::Transaction;

use crate::common::RUNTIME;
use crate::shop::{DOORS, Door, LEVELS, Shop, Told, begin, connect, now};

/// The shortest claim there is.
const LEASE: Duration = Duration::from_millis(100);

/// Claims a key for so long, and leaves it so; the fence.
async fn claim(shop: &Shop, door: Door, tx: &Transaction<'_>, key: &str) -> Result<i64, TxError> {
    match door {
        Door::Rust => {
            let policy = Policy { lease: LEASE, skew_max: Duration::ZERO, ..Policy::default() };
            match shop.once.claim(tx, &shop.request(key), &policy).await? {
                Claimed::Granted(granted) => Ok(granted.fence().get().try_into().unwrap()),
                Claimed::Replay(_) | Claimed::Refused(_) => panic!("{key} is not granted"),
            }
        }
        Door::Sql => {
            let claim = "SELECT fence FROM onlyonce.claim('orders', $1, $2, lease => '100 ms', \
                         skew_max => '0')";
            let told = tx.query_one(claim, &[&key, &key.as_bytes()]).await;
            told.map(|row| row.get(0)).map_err(|error| shop.once.failed(&error))
        }
    }
}

/// As a completion of a claim that was granted before.
async fn complete(shop: &Shop, door: Door, tx: &Transaction<'_>, key: &str, fence: i64) {
    match door {
        Door::Rust => {
            let fence = onlyonce_core::Fence::new(fence.try_into().unwrap()).unwrap();
            let (id, reply) = (shop.id(key), Reply::kept(201, "done"));
            shop.once.complete(tx, id, fence, reply, &Policy::default()).await.unwrap();
        }
        Door::Sql => {
            let complete = "SELECT onlyonce.complete('orders', $1, $2, 201, 'done')";
            tx.query_one(complete, &[&key, &fence]).await.unwrap();
        }
    }
}

fn await_waiting(shop: &Shop) {
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until("somebody waits", || (shop.sql(waits) != "0").then_some(()));
}

#[test]
fn a_claim_that_has_waited_longer_than_its_lease_has_all_of_it() {
    let shop = Shop::open();
    for door in DOORS {
        let (shop, key) = (&shop, format!("waits-{door:?}"));
        let mut first = RUNTIME.block_on(connect(&shop.url()));
        let first = RUNTIME.block_on(begin(&mut first, ReadCommitted));
        RUNTIME.block_on(claim(shop, door, &first, &key)).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                RUNTIME.block_on(async {
                    let mut client = connect(&shop.url()).await;
                    let tx = begin(&mut client, ReadCommitted).await;
                    let fence = claim(shop, door, &tx, &key).await.unwrap();
                    shop.once.commit(tx).await.unwrap();
                    fence
                })
            });
            await_waiting(shop);
            let over = now().plus(LEASE).plus(LEASE);
            until("its lease would be over", || (over < now()).then_some(()));
            let ended = now();
            RUNTIME.block_on(first.rollback()).unwrap();
            let fence = second.join().unwrap();
            let record = shop.record(&key).unwrap();
            let State::InFlight(flight) = &record.state else { panic!("{record:?}") };
            assert!(ended.plus(LEASE) <= flight.lease_until, "{door:?}: {record:?}");
            assert_eq!(record.fence.get(), u64::try_from(fence).unwrap());
            assert!(ended.as_millis() <= record.fence.get(), "{door:?}: {record:?}");
        });
    }
}

#[test]
fn who_wants_another_key_does_not_wait_for_a_transaction() {
    let shop = Shop::open();
    let mut client = RUNTIME.block_on(connect(&shop.url()));
    let tx = RUNTIME.block_on(begin(&mut client, ReadCommitted));
    RUNTIME.block_on(claim(&shop, Door::Rust, &tx, "held")).unwrap();
    let swap = |id: KeyId, record: Record| {
        let store = shop.store.clone();
        RUNTIME.spawn(async move { store.swap(id, None, Some(record)).await })
    };
    // All in one batch, most likely.
    let same = swap(shop.id("held"), claimed(1));
    let others: Vec<_> =
        (2..40).map(|number| swap(shop.id(&format!("{number}")), claimed(number))).collect();
    for told in RUNTIME.block_on(join_all(others)) {
        assert_eq!(told.unwrap(), Ok(Swap::Done));
    }
    // Again with its key while it still waits: it alone is told that it was not written.
    await_waiting(&shop);
    assert!(!same.is_finished());
    let again = RUNTIME.block_on(swap(shop.id("held"), claimed(41))).unwrap().unwrap_err();
    assert!(again.to_string().contains("another transaction has the key"), "{again}");
    RUNTIME.block_on(shop.once.commit(tx)).unwrap();
    let told = RUNTIME.block_on(same).unwrap();
    assert!(matches!(told, Ok(Swap::Conflict(Some(_)))), "{told:?}");
    let mut found = shop.record("held").unwrap();
    let expected = found.revision;
    found.revision = onlyonce_core::Revision::after(Some(expected), now());
    let swapped = block_on(shop.store.swap(shop.id("held"), Some(expected), Some(found)));
    assert_eq!(swapped, Ok(Swap::Done));
}

#[test]
fn what_a_savepoint_takes_back_did_not_happen() {
    let shop = Shop::open();
    for door in DOORS {
        let key = format!("saved-{door:?}");
        RUNTIME.block_on(async {
            let mut client = connect(&shop.url()).await;
            let tx = begin(&mut client, ReadCommitted).await;
            tx.batch_execute("SAVEPOINT one").await.unwrap();
            let first = claim(&shop, door, &tx, &key).await.unwrap();
            tx.batch_execute("ROLLBACK TO one").await.unwrap();
            let fence = claim(&shop, door, &tx, &key).await.unwrap();
            assert!(first <= fence);
            tx.batch_execute("SAVEPOINT two").await.unwrap();
            complete(&shop, door, &tx, &key, fence).await;
            tx.batch_execute("ROLLBACK TO two").await.unwrap();
            complete(&shop, door, &tx, &key, fence).await;
            tx.execute("INSERT INTO orders VALUES ($1)", &[&key]).await.unwrap();
            shop.once.commit(tx).await.unwrap();

            let tx = begin(&mut client, ReadCommitted).await;
            let half = format!("half-{door:?}");
            let fence = claim(&shop, door, &tx, &half).await.unwrap();
            tx.batch_execute("SAVEPOINT two").await.unwrap();
            complete(&shop, door, &tx, &half, fence).await;
            tx.batch_execute("ROLLBACK TO two").await.unwrap();
            shop.once.commit(tx).await.unwrap();
        });
        let kind = |key: String| shop.record(&key).map(|record| record.state.kind());
        assert_eq!(kind(key), Some(StateKind::Completed));
        assert_eq!(kind(format!("half-{door:?}")), Some(StateKind::InFlight));
    }
    assert_eq!(shop.counts(), (2, 2));
}

/// What a caller has put in the way of names that the functions use.
#[test]
fn the_functions_use_their_own_tables_and_the_servers_functions_whatever_a_caller_makes() {
    let shop = Shop::open();
    let hostile = "
        CREATE SCHEMA hostile;
        CREATE FUNCTION hostile.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1';
        CREATE FUNCTION hostile.int4send(int) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
        CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql
          AS $$ SELECT '2001-01-01'::timestamptz $$;
        CREATE TEMP TABLE records (LIKE onlyonce.records);
        CREATE TEMP TABLE store AS SELECT true AS only_row, 2 AS version, ''::bytea AS secret;
        SET search_path = hostile, pg_temp, pg_catalog, public;";
    let told = RUNTIME.block_on(async {
        let mut client = connect(&shop.url()).await;
        client.batch_execute(hostile).await.unwrap();
        let mut told = Vec::new();
        for door in [Door::Sql, Door::Rust, Door::Sql] {
            told.push(shop.order(door, &mut client, ReadCommitted, "hostile").await.unwrap());
        }
        told
    });
    let Told::Ran(content) = &told[0] else { panic!("{told:?}") };
    assert!(told[1..].iter().all(|it| *it == Told::Replayed(content.clone())), "{told:?}");
    assert_eq!(shop.counts(), (1, 1));
    let record = shop.record("hostile").unwrap();
    assert!(now().since(onlyonce_core::Timestamp::from_millis(record.fence.get())) < LEASE * 600);
}

/// An answer that only the Rust API keeps.
#[test]
fn an_answer_that_is_too_large_for_the_functions_is_told_as_one() {
    let shop = Shop::open();
    RUNTIME.block_on(async {
        let mut client = connect(&shop.url()).await;
        let tx = begin(&mut client, ReadCommitted).await;
        let (request, policy) = (shop.request("large"), Policy::default());
        let claim = shop.once.claim(&tx, &request, &policy).await.unwrap();
        let Claimed::Granted(granted) = claim else { panic!("it is the first") };
        granted.complete(Reply::kept(201, vec![7; 2 << 20])).await.unwrap();
        shop.once.commit(tx).await.unwrap();
        let ask = "SELECT FROM onlyonce.claim('orders', 'large', 'large')";
        let error = client.query(ask, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "54000");
        assert!(error.as_db_error().unwrap().detail().unwrap().contains("answered before"));
    });
}

/// With the rights that the pages name, and no others.
#[test]
fn a_role_with_the_rights_of_the_page_claims_by_the_rust_api() {
    let shop = Shop::open();
    shop.sql(
        "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app;
         GRANT ALL ON orders, visits TO app;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO app;
         GRANT SELECT, UPDATE ON SEQUENCE onlyonce.noted TO app",
    );
    RUNTIME.block_on(release(&shop, "released"));
    let url = shop.url().replace("postgres@", "app@");
    RUNTIME.block_on(async {
        let mut client = connect(&url).await;
        for (at, key) in ["new", "released"].into_iter().enumerate() {
            let first = shop.order(Door::Rust, &mut client, LEVELS[at + 1], key).await.unwrap();
            let Told::Ran(content) = first else { panic!("it is the first") };
            let again = shop.order(Door::Rust, &mut client, ReadCommitted, key).await.unwrap();
            assert_eq!(again, Told::Replayed(content));
        }
    });
    assert_eq!(shop.counts(), (2, 2));
}
