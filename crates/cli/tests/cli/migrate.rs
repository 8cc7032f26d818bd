//! `onlyonce store migrate`, after an update and when nothing is to be done.

use onlyonce_testbed::{MariaDb, Postgres};

use crate::process::{Folder, Ran, onlyonce};

fn migrate(store: &str) -> Ran {
    onlyonce(["store", "migrate", "--store", store])
}

#[test]
fn a_store_of_the_newest_format_is_left_and_a_newer_one_is_refused_with_what_to_do() {
    let folder = Folder::empty();
    let path = folder.path("once.db");
    let file = format!("sqlite:{}", path.display());
    assert!(migrate(&file).failed(3).contains("onlyonce store init"));
    onlyonce(["store", "init", "--first", "--store", &file]).done();
    for _ in 0..2 {
        let said = migrate(&file).done();
        assert!(said.contains("format 1, the newest: nothing is to be done"), "{said}");
    }
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 2).unwrap();
    drop(database);
    for _ in 0..2 {
        let said = onlyonce(["store", "migrate", "--at-rest", "--store", &file]).failed(3);
        assert!(said.contains("its format is 2") && said.contains("newer onlyonce"), "{said}");
    }
}

#[test]
fn where_there_are_no_tables_it_says_what_holds_there() {
    let folder = Folder::empty();
    let journal = format!("journal:{}", folder.path("data").display());
    let said = migrate(&journal).done();
    assert!(said.contains("a journal has no tables"), "{said}");
    for store in ["redis://127.0.0.1:1", "etcd://127.0.0.1:1"] {
        let said = migrate(store).done();
        assert!(said.contains("it has no tables: nothing is to be done"), "{said}");
    }
}

/// As a database that was made, or functions that were, by an onlyonce of before.
#[test]
fn functions_of_another_onlyonce_are_made_anew_for_the_owner_and_others_are_told_who_may() {
    let server = Postgres::start();
    let store = server.url("postgres");
    onlyonce(["store", "init", "--first", "--store", &store]).done();
    assert!(!migrate(&store).done().contains("functions"));
    server.sql("postgres", "DROP FUNCTION onlyonce.claim");
    let app = "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app;
               GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO app";
    server.sql("postgres", app);
    let said = migrate(&store.replace("postgres@", "app@")).failed(3);
    assert!(said.contains("GRANT the role that owns them"), "{said}");
    assert!(migrate(&store).done().contains("made anew"));
    assert!(!migrate(&store).done().contains("functions"));
}

#[test]
fn procedures_of_another_onlyonce_are_made_anew_for_who_may_and_others_are_told_the_grant() {
    let server = MariaDb::start();
    server.sql("mysql", "CREATE DATABASE shop; CREATE USER app");
    let store = server.url("shop");
    onlyonce(["store", "init", "--first", "--store", &store]).done();
    assert!(!migrate(&store).done().contains("functions"));
    server.sql("shop", "DROP PROCEDURE onlyonce_claim");
    for table in ["records", "revisions", "store"] {
        let rights = "SELECT, INSERT, UPDATE, DELETE";
        server.sql("shop", &format!("GRANT {rights} ON onlyonce_{table} TO app"));
    }
    let said = migrate(&store.replace("root@", "app@")).failed(3);
    assert!(said.contains("GRANT CREATE ROUTINE"), "{said}");
    // What somebody has deleted of what belongs to every store is made again.
    server.sql("shop", "DELETE FROM onlyonce_revisions WHERE slot BETWEEN 3 AND 5");
    let refused = onlyonce(["doctor", "--store", &store]).failed(3);
    assert!(refused.contains("1 of 21 checks: rows"), "{refused}");
    assert!(migrate(&store).done().contains("3 rows of onlyonce_revisions"));
    onlyonce(["doctor", "--store", &store]).done();
    server.sql("shop", "DROP PROCEDURE onlyonce_claim");
    assert!(migrate(&store).done().contains("made anew"));
    assert!(!migrate(&store).done().contains("functions"));
}
