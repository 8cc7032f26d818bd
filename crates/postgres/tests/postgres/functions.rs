//! The functions for other languages: who may call them, what they refuse, and that both doors lead
//! to the same records.

use onlyonce_conformance::{block_on, claimed};
use onlyonce_postgres::Postgres;
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{PgBouncer, Postgres as Server, until};
use tokio_postgres::IsolationLevel::ReadCommitted;
use tokio_postgres::error::DbError;

use crate::common::{RUNTIME, database, init, open_as};
use crate::shop::{Door, Shop, Told, connect};

fn refused(shop: &Shop, statement: &str) -> DbError {
    RUNTIME.block_on(async {
        let client = connect(&shop.url()).await;
        let error = client.query(statement, &[]).await.unwrap_err();
        error.as_db_error().unwrap().clone()
    })
}

#[test]
fn every_outcome_is_told_and_nothing_is_an_error_that_is_none() {
    let shop = Shop::open();
    let ask = |call: &str| {
        let select = "SELECT concat_ws(' ', outcome, status, convert_from(content, 'UTF8'), cause)";
        shop.sql(&format!("{select} FROM onlyonce.claim({call})"))
    };
    assert_eq!(ask("'shop', 'a', 'one', lease => '100 ms', skew_max => '0'"), "granted");
    assert_eq!(ask("'shop', 'a', 'two'"), "mismatch");
    assert_eq!(ask("'shop', 'a', 'one', skew_max => '1 h'"), "in-flight");
    until("the lease is over", || {
        let told = ask("'shop', 'a', 'one', skew_max => '0'");
        (told == "outcome-unknown lapsed").then_some(())
    });
    assert_eq!(ask("'other', 'a', 'one'"), "granted");
    // The doubt is run again where every change is in a transaction that completes it.
    let again = "SELECT fence FROM onlyonce.claim('shop', 'a', 'one', on_unknown => 'retry')";
    let fence = shop.sql(again);
    let complete = |what: &str| format!("SELECT onlyonce.complete('shop', 'a', {fence}, {what})");
    shop.sql(&complete("201, 'done'"));
    assert_eq!(ask("'shop', 'a', 'one'"), "replay 201 done");
    let error = refused(&shop, &complete("201, 'done'"));
    assert_eq!(error.code().code(), "OO001");
    assert!(error.detail().unwrap().contains("did not happen in this transaction"), "{error:?}");
    assert!(error.hint().unwrap().contains("Roll back"), "{error:?}");
    let kept = "SELECT fence FROM onlyonce.claim('shop', 'b', '')";
    let fence = shop.sql(kept);
    let large = format!("'shop', 'b', {fence}, 200, decode(repeat('00', 1048577), 'hex')");
    shop.sql(&format!("SELECT onlyonce.complete({large})"));
    assert_eq!(ask("'shop', 'b', ''"), "gone 200");
}

#[test]
fn a_call_that_is_wrong_says_what_is_wrong_and_that_nothing_happened() {
    let shop = Shop::open();
    let long = "x".repeat(256);
    for (call, says) in [
        ("claim('s', '', '')".to_owned(), "printable ASCII"),
        ("claim('s', '  ', '')".to_owned(), "printable ASCII"),
        ("claim('s', E'a\\n', '')".to_owned(), "printable ASCII"),
        ("claim('s', 'ä', '')".to_owned(), "printable ASCII"),
        (format!("claim('s', '{long}', '')"), "printable ASCII"),
        ("claim('s', NULL, '')".to_owned(), "printable ASCII"),
        ("claim(repeat('s', 1025), 'a', '')".to_owned(), "scope"),
        ("claim('s', 'a', NULL)".to_owned(), "request is missing"),
        ("claim('s', 'a', '', on_unknown => 'perhaps')".to_owned(), "hold or retry"),
        ("claim('s', 'a', '', lease => NULL)".to_owned(), "lease must be"),
        ("claim('s', 'a', '', lease => '99 ms')".to_owned(), "lease must be"),
        ("claim('s', 'a', '', lease => '100 years')".to_owned(), "lease must be"),
        ("claim('s', 'a', '', skew_max => '-1 h')".to_owned(), "skew_max must be"),
        ("claim('s', 'a', '', skew_max => NULL)".to_owned(), "skew_max must be"),
        ("claim('s', 'a', '', remember => '-1 d')".to_owned(), "remember must be"),
        ("complete('s', 'a', 1, 201, '', retention => '-1 s')".to_owned(), "retention must be"),
        ("complete('s', 'a', 1, 201, '', retention => '101 years')".to_owned(), "retention must"),
        ("complete('s', 'a', 1, 201, '', skew_max => '2 h')".to_owned(), "skew_max must be"),
        ("claim('s', 'FFFFFFFF-FFFF-7000-8000-000000000000', '')".to_owned(), "ahead"),
        ("complete('s', 'a', NULL, 201, '')".to_owned(), "fence and status"),
        ("complete('s', 'a', 1, 65536, '')".to_owned(), "fence and status"),
    ] {
        let error = refused(&shop, &format!("SELECT onlyonce.{call}"));
        assert_eq!(error.code().code(), "22023", "{call}: {error:?}");
        assert!(error.message().contains(says), "{call}: {error:?}");
        assert!(error.detail().unwrap().contains("did not happen"), "{call}: {error:?}");
        assert!(error.hint().is_some(), "{call}: {error:?}");
    }
    let error = refused(&shop, "SELECT onlyonce.complete('s', 'a', 1, 201, '')");
    assert_eq!(error.code().code(), "OO001");
    assert_eq!(shop.sql("SELECT count(*) FROM onlyonce.records"), "0");
}

#[test]
fn a_role_needs_the_functions_alone_and_sees_neither_secret_nor_table() {
    let shop = Shop::open();
    shop.sql(
        "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app;
         GRANT ALL ON orders, visits TO app",
    );
    let url = shop.url().replace("postgres@", "app@");
    let order = |key: &'static str| {
        let (shop, url) = (&shop, url.clone());
        RUNTIME.block_on(async move {
            let mut client = connect(&url).await;
            shop.order(Door::Sql, &mut client, ReadCommitted, key).await
        })
    };
    assert!(order("denied").unwrap_err().to_string().contains("permission denied"));
    shop.sql("GRANT EXECUTE ON FUNCTION onlyonce.claim, onlyonce.complete TO app");
    assert!(matches!(order("granted"), Ok(Told::Ran(_))));
    assert!(matches!(order("granted"), Ok(Told::Replayed(_))));
    // Made anew, they keep their rights.
    let address = shop.url().parse().unwrap();
    RUNTIME.block_on(Postgres::install_functions(address)).unwrap();
    assert!(matches!(order("granted"), Ok(Told::Replayed(_))));
    for statement in [
        "SELECT secret FROM onlyonce.store",
        "SELECT record FROM onlyonce.records",
        "SELECT onlyonce._store()",
        "SELECT onlyonce._put('', 1, NULL)",
        "SELECT setval('onlyonce.noted', 1)",
    ] {
        let denied = RUNTIME
            .block_on(async { connect(&url).await.query(statement, &[]).await.unwrap_err() });
        assert_eq!(denied.code().unwrap().code(), "42501", "{statement}");
    }
    assert_eq!(shop.counts(), (1, 1));
}

/// As it was made before there were functions.
#[test]
fn an_older_store_gets_them_from_its_owner_and_works_without() {
    let shop = Shop::open();
    let drop = "DROP SEQUENCE onlyonce.noted; DROP TYPE onlyonce._record CASCADE";
    shop.sql(drop);
    assert_eq!(block_on(shop.store.swap(shop.id("old"), None, Some(claimed(9)))), Ok(Swap::Done));
    assert_eq!(block_on(shop.store.revision_max()), Ok(claimed(9).revision.get()));
    let order = |door| {
        RUNTIME.block_on(async {
            let mut client = connect(&shop.url()).await;
            shop.order(door, &mut client, ReadCommitted, "new").await
        })
    };
    let error = order(Door::Rust).unwrap_err();
    assert!(error.to_string().contains("onlyonce store functions"), "{error}");
    RUNTIME.block_on(Postgres::install_functions(shop.url().parse().unwrap())).unwrap();
    assert!(matches!(order(Door::Rust), Ok(Told::Ran(_))));
    assert!(matches!(order(Door::Sql), Ok(Told::Replayed(_))));
    let server = Server::start();
    let name = database(&server);
    let nowhere = server.url(&name).parse().unwrap();
    assert!(RUNTIME.block_on(Postgres::install_functions(nowhere)).is_err());
    init(&server, &name).unwrap();
}

/// The page's own statements, twice.
#[test]
fn the_example_of_the_page_sells_one() {
    let page = include_str!("../../../../docs/transaction.md");
    let (_, rest) = page.split_once("```sql\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let shop = Shop::open();
    shop.sql("CREATE TABLE stock (item text, free int); INSERT INTO stock VALUES ('blender', 3)");
    for _ in 0..2 {
        RUNTIME.block_on(async {
            connect(&shop.url()).await.batch_execute(example).await.unwrap();
        });
    }
    assert_eq!(shop.sql("SELECT free FROM stock"), "2");
}

/// Case B85. Behind a pooler that gives out connections by the transaction, some of whose clients
/// vanish in the middle of theirs; and the store itself behind it.
#[test]
fn behind_a_pooler_each_order_is_one_and_no_lock_is_left() {
    let shop = Shop::open();
    let pooler = PgBouncer::before(&shop.server);
    let url = pooler.url(&shop.name);
    let store = open_as(&url).unwrap();
    for number in 1..40 {
        let (id, record) = (onlyonce_conformance::id(number), claimed(number));
        assert_eq!(block_on(store.swap(id, None, Some(record.clone()))), Ok(Swap::Done));
        assert_eq!(block_on(store.get(id)), Ok(Some(record)));
    }
    RUNTIME.block_on(futures_util::future::join_all((0..8).map(|caller| {
        let (shop, url) = (&shop, url.clone());
        async move {
            let mut client = connect(&url).await;
            for step in 0..25 {
                // Each key is wanted by four.
                let key = format!("{}-{step}", caller / 4);
                if (caller + step) % 20 == 0 {
                    let tx = client.transaction().await.unwrap();
                    let claim = "SELECT outcome FROM onlyonce.claim('vanishes', $1, '')";
                    tx.query_typed(claim, &[(&key, tokio_postgres::types::Type::TEXT)])
                        .await
                        .unwrap();
                    drop(tx);
                    client = connect(&url).await;
                }
                let told = shop.order(Door::Rust, &mut client, ReadCommitted, &key).await.unwrap();
                assert!(matches!(told, Told::Ran(_) | Told::Replayed(_)), "{told:?}");
            }
        }
    })));
    assert_eq!(shop.counts(), (50, 50));
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' OR NOT granted";
    assert_eq!(shop.sql(locks), "0");
    assert_eq!(shop.sql("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'"), "0");
}
