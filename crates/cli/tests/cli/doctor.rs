//! The doctor: a good store of each kind passes, and a bad setting is named with what to do.

use std::fs;
use std::os::unix::fs::FileExt as _;

use onlyonce_testbed::{Etcd, MariaDb, Postgres, Redis};
use serde_json::Value;

use crate::process::{Folder, Service, onlyonce};
use crate::service::token;
use crate::shared::Shared;

/// What a store that may be opened is told.
#[track_caller]
fn passes(url: &str) -> String {
    let told = onlyonce(["doctor", "--store", url]).done();
    assert!(told.contains("CHECK") && !told.contains("refused"), "{told}");
    for line in onlyonce(["doctor", "--json", "--store", url]).done().lines() {
        let check: Value = serde_json::from_str(line).unwrap();
        assert_ne!(check["verdict"], "refused", "{check}");
    }
    told
}

/// That this check is refused in the table, with this to do about it, and the command fails.
#[track_caller]
fn refuses(url: &str, check: &str, fix: &str) {
    let ran = onlyonce(["doctor", "--store", url]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let row = ran.out.lines().find(|line| line.starts_with(check));
    let row = row.unwrap_or_else(|| panic!("{check} is not in\n{}", ran.out));
    assert!(row.contains("refused") && row.contains(fix), "{row}");
    assert!(ran.err.contains(check), "{}", ran.err);
    let told = onlyonce(["doctor", "--json", "--store", url]);
    assert_eq!(told.code, Some(3), "{told:?}");
    let checks = told.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = checks.into_iter().find(|it| it["check"] == check).unwrap();
    assert_eq!(found["verdict"], "refused", "{found}");
    assert!(found["fix"].as_str().unwrap().contains(fix), "{found}");
    // Opening it says the same, or the first of several.
    let listed = onlyonce(["keys", "list", "--store", url]).failed(3);
    let is_only = told.out.matches("\"verdict\":\"refused\"").count() == 1;
    assert!(!is_only || listed.contains(found["why"].as_str().unwrap()), "{listed}");
}

#[test]
fn a_journal_is_looked_through_also_while_it_is_in_use() {
    let folder = Folder::empty();
    let url = format!("journal:{}", folder.path("data").display());
    let missing = onlyonce(["doctor", "--store", &url]);
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(missing.out.contains("onlyonce store init"), "{}", missing.out);
    assert!(!folder.path("data").exists());

    onlyonce(["store", "init", "--first", "--store", &url]).done();
    passes(&url);
    let token = token(&folder);
    let arguments = ["--listen", "127.0.0.1:0", "--token-file", &token, "--store", &url];
    let service = Service::start(&arguments);
    assert!(passes(&url).contains("has it"));
    service.stop();
    fs::write(folder.path("data").join("secret"), "00".repeat(32)).unwrap();
    refuses(&url, "secret", "bring its own file `secret` back");
}

#[test]
fn an_sqlite_file_whose_journal_mode_keeps_less_is_named() {
    let store = Shared::sqlite();
    passes(&store.url);
    // The two bytes of the header that say how it is written: 1 is a rollback journal.
    let file = fs::File::options().write(true).open(store.folder.path("once.db")).unwrap();
    file.write_all_at(&[1, 1], 18).unwrap();
    refuses(&store.url, "journal_mode", "PRAGMA journal_mode = wal");
}

#[test]
fn all_settings_of_a_postgres_that_would_lose_something_are_named() {
    let mut server = Postgres::start();
    let url = server.url("postgres");
    onlyonce(["store", "init", "--first", "--store", &url]).done();
    passes(&url);
    server.set("fsync", "off");
    server.set("full_page_writes", "off");
    server.restart();
    refuses(&url, "fsync", "ALTER SYSTEM SET fsync = on");
    refuses(&url, "full_page_writes", "ALTER SYSTEM SET full_page_writes = on");
}

#[test]
fn all_settings_of_a_mariadb_that_would_lose_something_are_named() {
    let mut server = MariaDb::start();
    server.sql("mysql", "CREATE DATABASE shop");
    let url = server.url("shop");
    onlyonce(["store", "init", "--first", "--store", &url]).done();
    passes(&url);
    server.set("innodb_flush_log_at_trx_commit", "2");
    server.set("log_bin", "bin");
    server.set("server_id", "1");
    server.restart();
    let fix = "SET GLOBAL innodb_flush_log_at_trx_commit = 1";
    refuses(&url, "innodb_flush_log_at_trx_commit", fix);
    refuses(&url, "sync_binlog", "SET GLOBAL sync_binlog = 1");
}

#[test]
fn all_settings_of_a_redis_that_would_lose_something_are_named() {
    let redis = Redis::start();
    let url = format!("redis://{}", redis.address());
    onlyonce(["store", "init", "--first", "--store", &url]).done();
    passes(&url);
    redis.ask(&["CONFIG", "SET", "appendfsync", "everysec"]);
    let accepting = format!("{url}?accept=everysec");
    assert!(passes(&accepting).contains("risk accepted"));
    redis.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    refuses(&url, "appendfsync", "accept=everysec");
    refuses(&url, "maxmemory-policy", "it must be noeviction");
    refuses(&accepting, "maxmemory-policy", "it must be noeviction");
}

#[test]
fn an_etcd_of_one_member_is_named() {
    let etcd = Etcd::start();
    let url = format!("etcd://{}", etcd.address());
    let accepting = format!("{url}?accept=single");
    onlyonce(["store", "init", "--first", "--store", &accepting]).done();
    refuses(&url, "voting members", "accept=single");
    assert!(passes(&accepting).contains("risk accepted"));
    passes(&Shared::etcd().url);
}

#[test]
fn a_server_that_is_not_there_is_told_and_what_it_would_be_asked() {
    let mut redis = Redis::start();
    let url = format!("redis://{}", redis.address());
    redis.kill();
    let ran = onlyonce(["doctor", "--store", &url]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    for (check, verdict) in [("server", "refused"), ("appendfsync", "cannot be asked")] {
        let row = ran.out.lines().find(|line| line.starts_with(check)).unwrap();
        assert!(row.contains(verdict), "{row}");
    }
}
