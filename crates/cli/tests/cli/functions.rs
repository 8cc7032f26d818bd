//! `onlyonce store functions`: what a program of another language calls in its own transaction.

use onlyonce_testbed::{MariaDb, Postgres};

use crate::process::{Folder, onlyonce};

/// A new store has them, an older one gets them, and what they record is a record like all others.
#[test]
fn functions_are_there_or_made_and_their_records_are_known_to_keys() {
    let server = Postgres::start();
    let store = server.url("postgres");
    onlyonce(["store", "init", "--first", "--store", &store]).done();
    server.sql("postgres", "DROP FUNCTION onlyonce.claim; DROP FUNCTION onlyonce.complete");
    for _ in 0..2 {
        let said = onlyonce(["store", "functions", "--store", &store]).done();
        assert!(said.contains("GRANT EXECUTE ON FUNCTION onlyonce.claim"), "{said}");
    }
    let claim = "SELECT fence FROM onlyonce.claim('shop', 'order-1', '')";
    let fence = server.sql("postgres", claim);
    let list = || onlyonce(["keys", "list", "--store", &store]).done();
    assert!(list().contains("in-flight"), "{}", list());
    let complete = format!("SELECT onlyonce.complete('shop', 'order-1', {fence}, 201, 'sold')");
    server.sql("postgres", &complete);
    let said = list();
    assert!(said.contains("completed") && said.contains("201"), "{said}");
}

/// The same in MariaDB.
#[test]
fn procedures_are_there_or_made_and_their_records_are_known_to_keys() {
    let server = MariaDb::start();
    server.sql("mysql", "CREATE DATABASE shop");
    let store = server.url("shop");
    onlyonce(["store", "init", "--first", "--store", &store]).done();
    server.sql("shop", "DROP PROCEDURE onlyonce_claim; DROP PROCEDURE onlyonce_complete");
    for _ in 0..2 {
        let said = onlyonce(["store", "functions", "--store", &store]).done();
        assert!(said.contains("GRANT EXECUTE ON PROCEDURE onlyonce_claim"), "{said}");
    }
    let claim = "START TRANSACTION; CALL onlyonce_claim('shop', 'order-1', '', NULL, @outcome, \
                 @fence, @status, @content, @since, @cause); SELECT @fence; COMMIT";
    let fence = server.sql("shop", claim);
    let list = || onlyonce(["keys", "list", "--store", &store]).done();
    assert!(list().contains("in-flight"), "{}", list());
    let complete = format!(
        "START TRANSACTION; CALL onlyonce_complete('shop', 'order-1', {fence}, 201, 'sold', NULL); \
         COMMIT"
    );
    server.sql("shop", &complete);
    let said = list();
    assert!(said.contains("completed") && said.contains("201"), "{said}");
}

#[test]
fn functions_are_refused_where_there_can_be_none() {
    let folder = Folder::empty();
    let file = format!("sqlite:{}", folder.path("once.db").display());
    onlyonce(["store", "init", "--first", "--store", &file]).done();
    let said = onlyonce(["store", "functions", "--store", &file]).failed(2);
    assert!(said.contains("PostgreSQL or MariaDB only"), "{said}");
    let server = Postgres::start();
    let said = onlyonce(["store", "functions", "--store", &server.url("postgres")]).failed(3);
    assert!(said.contains("onlyonce store init"), "{said}");
}
