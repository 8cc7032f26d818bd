//! The procedures for other languages: who may call them, what they refuse, and that both doors
//! lead to the same records.

use mysql_async::IsolationLevel::ReadCommitted;
use mysql_async::ServerError;
use mysql_async::prelude::Queryable as _;
use onlyonce_conformance::{block_on, claimed};
use onlyonce_mysql::Mysql;
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::{MariaDb as Server, until};

use crate::common::{RUNTIME, database, init_as, open_as};
use crate::shop::{DOORS, Door, Shop, Told, connect};

const OUT: &str = "@outcome, @fence, @status, @content, @since, @cause";

fn refused(url: &str, statement: &str) -> ServerError {
    RUNTIME.block_on(async {
        let mut conn = connect(url).await;
        let mut tx = conn.start_transaction(mysql_async::TxOpts::default()).await.unwrap();
        let refused = tx.query_drop(statement).await.unwrap_err();
        tx.rollback().await.unwrap();
        conn.disconnect().await.unwrap();
        let mysql_async::Error::Server(said) = refused else { panic!("{refused}") };
        said
    })
}

#[test]
fn every_outcome_is_told_and_nothing_is_an_error_that_is_none() {
    let shop = Shop::open();
    let ask = |call: &str| {
        shop.sql(&format!(
            "START TRANSACTION; CALL onlyonce_claim({call}, {OUT}); \
             SELECT CONCAT_WS(' ', @outcome, @status, @content, @cause); COMMIT"
        ))
    };
    let now = r#"'{"lease": 100, "skew_max": 0}'"#;
    let loose = r#"'{"skew_max": 3600000}'"#;
    assert_eq!(ask(&format!("'shop', 'a', 'one', {now}")), "granted");
    assert_eq!(ask("'shop', 'a', 'two', NULL"), "mismatch");
    assert_eq!(ask(&format!("'shop', 'a', 'one', {loose}")), "in-flight");
    until("the lease is over", || {
        let told = ask(&format!("'shop', 'a', 'one', {now}"));
        (told == "outcome-unknown lapsed").then_some(())
    });
    assert_eq!(ask("'other', 'a', 'one', NULL"), "granted");
    // The doubt is run again where every change is in a transaction that completes it.
    let fence = |call: &str| {
        shop.sql(&format!(
            "START TRANSACTION; CALL onlyonce_claim({call}, {OUT}); SELECT @fence; COMMIT"
        ))
    };
    let again = fence(r#"'shop', 'a', 'one', '{"on_unknown": "retry"}'"#);
    let complete =
        |what: &str| format!("START TRANSACTION; CALL onlyonce_complete('shop', {what}); COMMIT");
    let done = format!("'a', {again}, 201, 'done', NULL");
    shop.sql(&complete(&done));
    assert_eq!(ask("'shop', 'a', 'one', NULL"), "replay 201 done");
    let error = refused(&shop.url(), &format!("CALL onlyonce_complete('shop', {done})"));
    assert_eq!(error.state, "OO001");
    assert!(error.message.contains("did not happen in this transaction; roll back"), "{error}");
    let large = fence("'shop', 'b', '', NULL");
    shop.sql(&complete(&format!("'b', {large}, 200, REPEAT('0', 1048577), NULL")));
    assert_eq!(ask("'shop', 'b', '', NULL"), "gone 200");
    let kept = fence("'shop', 'c', '', NULL");
    shop.sql(&complete(&format!("'c', {kept}, 200, REPEAT('0', 1048576), NULL")));
    let length = shop.sql(&format!(
        "START TRANSACTION; CALL onlyonce_claim('shop', 'c', '', NULL, {OUT}); \
         SELECT LENGTH(@content); COMMIT"
    ));
    assert_eq!(length, "1048576");
}

#[test]
fn a_call_that_is_wrong_says_what_is_wrong_and_that_nothing_happened() {
    let shop = Shop::open();
    let long = "x".repeat(256);
    let claim = |what: &str| format!("onlyonce_claim({what}, {OUT})");
    for (call, says) in [
        (claim("'s', '', '', NULL"), "printable ASCII"),
        (claim("'s', '  ', '', NULL"), "printable ASCII"),
        (claim(r"'s', 'a\n', '', NULL"), "printable ASCII"),
        (claim("'s', 'ä', '', NULL"), "printable ASCII"),
        (claim(&format!("'s', '{long}', '', NULL")), "printable ASCII"),
        (claim("'s', NULL, '', NULL"), "printable ASCII"),
        (claim("REPEAT('s', 1025), 'a', '', NULL"), "scope"),
        (claim("NULL, 'a', '', NULL"), "scope"),
        (claim("'s', 'a', NULL, NULL"), "request is missing"),
        (claim(r#"'s', 'a', '', '{"on_unknown": "perhaps"}'"#), "hold or retry"),
        (claim(r#"'s', 'a', '', '{"lease": null}'"#), "lease must be"),
        (claim(r#"'s', 'a', '', '{"lease": "30 s"}'"#), "lease must be"),
        (claim(r#"'s', 'a', '', '{"lease": 99}'"#), "lease must be"),
        (claim(r#"'s', 'a', '', '{"lease": 86400001}'"#), "lease must be"),
        (claim(r#"'s', 'a', '', '{"skew_max": -1}'"#), "skew_max must be"),
        (claim(r#"'s', 'a', '', '{"remember": -1}'"#), "remember must be"),
        (claim(r#"'s', 'a', '', '{"retention": 1}'"#), "options are"),
        (claim(r#"'s', 'a', '', '{"Lease": 600000}'"#), "options are"),
        (claim(r#"'s', 'a', '', '{"lease,remember": 1}'"#), "options are"),
        (claim(r#"'s', 'a', '', '{"": 1}'"#), "options are"),
        (claim("'s', 'a', '', '[]'"), "object of JSON"),
        (claim("'s', 'a', '', 'lease'"), "object of JSON"),
        (claim("'s', 'FFFFFFFF-FFFF-7000-8000-000000000000', '', NULL"), "ahead"),
        (r#"onlyonce_complete('s', 'a', 1, 201, '', '{"retention": -1}')"#.to_owned(), "retention"),
        (r#"onlyonce_complete('s', 'a', 1, 201, '', '{"skew_max": 7200000}')"#.to_owned(), "skew"),
        ("onlyonce_complete('s', 'a', NULL, 201, '', NULL)".to_owned(), "fence and status"),
        ("onlyonce_complete('s', 'a', 1, 65536, '', NULL)".to_owned(), "fence and status"),
    ] {
        let error = refused(&shop.url(), &format!("CALL {call}"));
        assert_eq!(error.state, "22023", "{call}: {error}");
        assert!(error.message.contains(says), "{call}: {error}");
        assert!(error.message.contains("did not happen"), "{call}: {error}");
    }
    let error = refused(&shop.url(), "CALL onlyonce_complete('s', 'a', 1, 201, '', NULL)");
    assert_eq!(error.state, "OO001");
    assert_eq!(shop.sql("SELECT COUNT(*) FROM onlyonce_records"), "0");
}

#[test]
fn a_user_needs_the_procedures_alone_and_sees_neither_secret_nor_table() {
    let shop = Shop::open();
    let name = &shop.name;
    shop.sql(&format!(
        "CREATE USER app@'127.0.0.1'; GRANT ALL ON {name}.orders TO app@'127.0.0.1'; \
         GRANT ALL ON {name}.visits TO app@'127.0.0.1'"
    ));
    let url = shop.url().replace("root@", "app@");
    let order = |key: &'static str| {
        RUNTIME.block_on(async {
            let mut conn = connect(&url).await;
            let told = shop.order(Door::Sql, &mut conn, ReadCommitted, key).await;
            conn.disconnect().await.unwrap();
            told
        })
    };
    let error = order("denied").unwrap_err();
    assert!(error.to_string().contains("denied"), "{error}");
    shop.sql(&format!(
        "GRANT EXECUTE ON PROCEDURE {name}.onlyonce_claim TO app@'127.0.0.1'; \
         GRANT EXECUTE ON PROCEDURE {name}.onlyonce_complete TO app@'127.0.0.1'"
    ));
    assert!(matches!(order("granted"), Ok(Told::Ran(_))));
    assert!(matches!(order("granted"), Ok(Told::Replayed(_))));
    // Made anew, they keep their rights.
    let address = shop.url().parse().unwrap();
    RUNTIME.block_on(Mysql::install_procedures(address)).unwrap();
    assert!(matches!(order("granted"), Ok(Told::Replayed(_))));
    // Whoever may call all that is there has no more by it.
    shop.sql(&format!("GRANT EXECUTE ON {name}.* TO app@'127.0.0.1'"));
    for statement in [
        "SELECT secret FROM onlyonce_store",
        "SELECT record FROM onlyonce_records",
        "CALL onlyonce__store(@secret, @floor)",
        "CALL onlyonce__note(1)",
    ] {
        let error = refused(&url, statement);
        assert!([1142, 1143].contains(&error.code), "{statement}: {error}");
    }
    assert_eq!(shop.counts(), (1, 1));
}

/// The Rust API works on the tables, with the rights that a proxy has.
#[test]
fn a_program_of_the_rust_api_needs_what_a_proxy_needs() {
    let shop = Shop::open();
    let name = &shop.name;
    let grant = ["records", "revisions", "store"].map(|table| {
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.onlyonce_{table} TO app@'127.0.0.1';"
        )
    });
    shop.sql(&format!(
        "CREATE USER app@'127.0.0.1'; GRANT ALL ON {name}.orders TO app@'127.0.0.1'; \
         GRANT ALL ON {name}.visits TO app@'127.0.0.1'; {}",
        grant.concat()
    ));
    let url = shop.url().replace("root@", "app@");
    RUNTIME.block_on(async {
        let mut conn = connect(&url).await;
        let told = shop.order(Door::Rust, &mut conn, ReadCommitted, "app").await.unwrap();
        assert!(matches!(told, Told::Ran(_)));
        conn.disconnect().await.unwrap();
    });
    assert_eq!(shop.counts(), (1, 1));
}

/// As it was made before there were procedures.
#[test]
fn an_older_store_gets_them_from_its_owner_and_works_without() {
    let shop = Shop::open();
    shop.sql(
        "DROP PROCEDURE onlyonce_claim; DROP PROCEDURE onlyonce_complete; \
         DELETE FROM onlyonce_revisions WHERE slot < 0",
    );
    assert_eq!(block_on(shop.store.swap(shop.id("old"), None, Some(claimed(9)))), Ok(Swap::Done));
    let order = |door| {
        RUNTIME.block_on(async {
            let mut conn = connect(&shop.url()).await;
            let told = shop.order(door, &mut conn, ReadCommitted, "new").await;
            conn.disconnect().await.unwrap();
            told
        })
    };
    for door in DOORS {
        let error = order(door).unwrap_err();
        assert!(error.to_string().contains("onlyonce store functions"), "{error}");
    }
    RUNTIME.block_on(Mysql::install_procedures(shop.url().parse().unwrap())).unwrap();
    assert!(matches!(order(Door::Rust), Ok(Told::Ran(_))));
    assert!(matches!(order(Door::Sql), Ok(Told::Replayed(_))));
    let server = Server::start();
    let name = database(&server);
    let nowhere = server.url(&name).parse().unwrap();
    assert!(RUNTIME.block_on(Mysql::install_procedures(nowhere)).is_err());
    assert_eq!(shop.counts(), (1, 1));
}

#[test]
fn an_owner_that_may_make_no_routines_has_a_store_without_them() {
    let server = Server::start();
    let name = database(&server);
    server.sql("mysql", "CREATE USER owner@'127.0.0.1'");
    let rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, INDEX";
    server.sql("mysql", &format!("GRANT {rights} ON {name}.* TO owner@'127.0.0.1'"));
    let url = server.url(&name).replace("root@", "owner@");
    init_as(&url).unwrap();
    let store = open_as(&url).unwrap();
    let id = onlyonce_conformance::id(1);
    assert_eq!(block_on(store.swap(id, None, Some(claimed(1)))), Ok(Swap::Done));
    let made = RUNTIME.block_on(Mysql::install_procedures(url.parse().unwrap()));
    let error = made.unwrap_err().to_string();
    assert!(error.contains("denied") && error.contains("CREATE ROUTINE"), "{error}");
}

/// With a binary log, in which every statement has to be as good the second time.
#[test]
fn a_server_with_a_binary_log_has_them_too() {
    for format in ["ROW", "MIXED"] {
        let mut server = Server::start();
        server.set("log_bin", "log");
        server.set("sync_binlog", "1");
        server.set("binlog_format", format);
        server.restart();
        let shop = Shop::on(server);
        RUNTIME.block_on(async {
            let mut conn = connect(&shop.url()).await;
            for (door, again) in [(Door::Sql, Door::Rust), (Door::Rust, Door::Sql)] {
                let key = format!("{door:?}");
                let told = shop.order(door, &mut conn, ReadCommitted, &key).await.unwrap();
                assert!(matches!(told, Told::Ran(_)));
                let told = shop.order(again, &mut conn, ReadCommitted, &key).await.unwrap();
                assert!(matches!(told, Told::Replayed(_)));
            }
            conn.disconnect().await.unwrap();
        });
        assert_eq!(shop.counts(), (2, 2));
    }
}

/// The page's own statements, twice.
#[test]
fn the_example_of_the_page_sells_one() {
    let page = include_str!("../../../../docs/transaction.md");
    let (_, rest) = page.split_once("In MariaDB").unwrap();
    let (_, rest) = rest.split_once("```sql\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let shop = Shop::open();
    shop.sql("CREATE TABLE stock (item text, free int); INSERT INTO stock VALUES ('blender', 3)");
    for _ in 0..2 {
        RUNTIME.block_on(async {
            let mut conn = connect(&shop.url()).await;
            conn.query_drop(example).await.unwrap();
            conn.disconnect().await.unwrap();
        });
    }
    assert_eq!(shop.sql("SELECT free FROM stock"), "2");
}
