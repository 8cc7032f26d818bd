//! What is refused when a store is made or opened, each shown by a server that is set so.

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_mysql::Mysql;
use onlyonce_store::OpenErrorKind::{
    self, Exists, Foreign, Missing, Newer, Older, Refused, Unavailable,
};
use onlyonce_store::{Check, Found, OpenError, Store as _, Swap};
use onlyonce_testbed::{MariaDb as Server, until};

use crate::common::{self, checks, database, init, init_as};

/// Opens it, which is refused by something that a doctor tells, or else by nothing of that.
fn open_as(url: &str) -> Result<Mysql, OpenError> {
    let refusals: Vec<OpenError> = checks(url).iter().filter_map(Check::error).collect();
    let opened = common::open_as(url);
    assert_eq!(opened.as_ref().err(), refusals.first());
    opened
}

fn open(server: &Server, database: &str) -> Result<Mysql, OpenError> {
    open_as(&server.url(database))
}

/// The names of what is refused.
fn refused(server: &Server, database: &str) -> Vec<&'static str> {
    let all = checks(&server.url(database));
    all.iter().filter(|it| it.error().is_some()).map(|it| it.need.name).collect()
}

/// What a doctor makes of a check.
fn found(url: &str, name: &str) -> Found {
    checks(url).iter().find(|it| it.need.name == name).unwrap().found
}

#[track_caller]
fn is<T>(result: Result<T, OpenError>, kind: OpenErrorKind, says: &str) {
    let Err(error) = result else { panic!("it was let in") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

/// That it is neither opened nor made while a setting is bad, and that the setting is named.
#[track_caller]
fn is_refused(server: &Server, name: &str, says: &str) {
    is(open(server, name), Refused, says);
    is(init(server, &database(server)), Refused, says);
}

#[test]
fn servers_that_would_lose_what_they_confirmed_are_refused_and_the_setting_is_named() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    open(&server, &name).unwrap();
    let set = |setting: &str, value: &str| {
        server.sql("mysql", &format!("SET GLOBAL {setting} = {value}"));
    };
    for (setting, bad, good) in [
        ("innodb_flush_log_at_trx_commit", "0", "1"),
        ("innodb_flush_log_at_trx_commit", "2", "3"),
        ("max_allowed_packet", "1048576", "16777216"),
        ("read_only", "ON", "OFF"),
    ] {
        set(setting, bad);
        is_refused(&server, &name, &format!("{setting} is {}", bad.to_lowercase()));
        set(setting, good);
        open(&server, &name).unwrap();
    }
    for (setting, bad) in [("innodb_doublewrite", "OFF"), ("innodb_flush_method", "nosync")] {
        server.set(setting, bad);
        server.restart();
        is_refused(&server, &name, &format!("{setting} is {bad}"));
        server.unset(setting);
    }
}

/// With a binary log, what it has not got after a crash is taken back.
#[test]
fn a_binary_log_that_is_not_synced_is_refused_and_so_is_one_that_takes_no_transaction_of_ours() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    server.set("log_bin", "bin");
    server.set("server_id", "1");
    server.restart();
    for bad in ["0", "1000"] {
        server.sql("mysql", &format!("SET GLOBAL sync_binlog = {bad}"));
        is_refused(&server, &name, &format!("sync_binlog is {bad}"));
    }
    server.sql("mysql", "SET GLOBAL sync_binlog = 1");
    server.sql("mysql", "SET GLOBAL binlog_format = STATEMENT");
    is_refused(&server, &name, "binlog_format is STATEMENT");
    for good in ["MIXED", "ROW"] {
        server.sql("mysql", &format!("SET GLOBAL binlog_format = {good}"));
        let store = open(&server, &name).unwrap();
        let number = u64::try_from(good.len()).unwrap();
        let swap = store.swap(id(number), None, Some(claimed(number)));
        assert_eq!(block_on(swap).unwrap(), Swap::Done);
    }
}

#[test]
fn a_doctor_names_all_that_is_wrong_and_not_only_the_first() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    assert_eq!(refused(&server, &name), Vec::<&str>::new());
    server.sql(&name, "ALTER TABLE onlyonce_records ENGINE=Aria");
    server.sql(&name, "ALTER TABLE onlyonce_revisions ENGINE=MyISAM");
    server.set("innodb_flush_log_at_trx_commit", "2");
    server.set("innodb_doublewrite", "OFF");
    server.set("log_bin", "bin");
    server.set("server_id", "1");
    server.restart();
    let settings = ["innodb_flush_log_at_trx_commit", "innodb_doublewrite", "sync_binlog"];
    let all = [&settings[..], &["engine", "engine"]].concat();
    assert_eq!(refused(&server, &name), all);
}

#[test]
fn settings_that_would_break_transactions_are_set_right_by_each_connection() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    for (setting, value) in [
        ("sql_mode", "ORACLE"),
        ("transaction_isolation", "SERIALIZABLE"),
        ("transaction_read_only", "ON"),
        ("autocommit", "OFF"),
        ("completion_type", "CHAIN"),
        ("default_time_zone", "+05:30"),
        ("character_set_server", "utf8mb4"),
        ("collation_server", "utf8mb4_general_ci"),
        ("wait_timeout", "1"),
        ("innodb_lock_wait_timeout", "3600"),
        ("updatable_views_with_limit", "NO"),
    ] {
        server.set(setting, value);
    }
    server.restart();
    server.sql("mysql", "SET GLOBAL sql_select_limit = 1, GLOBAL sql_safe_updates = ON");
    let store = open(&server, &name).unwrap();
    // Two ids that a collation would take for equal.
    let keys = [*b"aaaaaaaaaaaaaaaa", *b"AAAAAAAAAAAAAAAA"].map(onlyonce_core::KeyId::from_bytes);
    for (number, key) in (1..).zip(keys) {
        let swap = store.swap(key, None, Some(claimed(number)));
        assert_eq!(block_on(swap).unwrap(), Swap::Done);
    }
    let again = block_on(store.swap(keys[0], None, Some(claimed(9)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(1))));
    let page = block_on(store.list(onlyonce_store::Filter::default(), None)).unwrap();
    assert_eq!(page.records.len(), 2);
    let other = common::open(&server, &name).unwrap();
    assert_eq!(block_on(other.get(keys[1])).unwrap(), Some(claimed(2)));
}

#[test]
fn a_replica_is_refused_unless_the_address_takes_that_risk() {
    let mut primary = Server::start();
    for (setting, value) in [("log_bin", "bin"), ("server_id", "1"), ("sync_binlog", "1")] {
        primary.set(setting, value);
    }
    primary.restart();
    let name = database(&primary);
    init(&primary, &name).unwrap();
    let replica = Server::replica_of(&primary);
    let made = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME = 'onlyonce_store'";
    until("it is copied", || (replica.sql("mysql", made) == "1").then_some(()));
    let row = "SELECT COUNT(*) FROM onlyonce_store";
    until("its row is", || (replica.sql(&name, row) == "1").then_some(()));
    is(open(&replica, &name), Refused, "it follows another server");
    let accepting = format!("{}?accept=replica", replica.url(&name));
    assert_eq!(found(&accepting, "replica"), Found::Accepted);
    open_as(&accepting).unwrap();
    // Who may not ask for its status is told all the same that it runs.
    let grant = format!("CREATE USER app; GRANT ALL ON {name}.* TO app");
    primary.sql("mysql", &grant);
    let url = replica.url(&name).replace("root@", "app@");
    until("the user is copied", || {
        let checks = checks(&url);
        checks.iter().any(|it| it.need.name == "replica" && it.error().is_some()).then_some(())
    });
    replica.sql("mysql", "STOP SLAVE");
    open(&replica, &name).unwrap();
    // Whoever has left is noticed when there is something to tell him.
    until("nobody follows any more", || {
        primary.sql("mysql", "FLUSH BINARY LOGS");
        (followers(&primary) == "0").then_some(())
    });
    open(&primary, &name).unwrap();
}

#[test]
fn a_server_whose_tables_can_only_be_read_is_refused() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    server.stop();
    server.set("innodb_read_only", "ON");
    server.restart();
    is(open(&server, &name), Refused, "innodb_read_only is on");
    server.unset("innodb_read_only");
    server.restart();
    open(&server, &name).unwrap();
}

/// How many replicas a server has.
fn followers(primary: &Server) -> String {
    let told = primary.sql("mysql", "SHOW GLOBAL STATUS LIKE 'Slaves_connected'");
    told.split_whitespace().last().unwrap_or_default().to_owned()
}

/// A failover to it would lose what it had not got, and no other server knows.
#[test]
fn a_server_that_a_replica_follows_is_refused_unless_commits_wait_or_it_is_a_risk() {
    let mut primary = Server::start();
    for (setting, value) in [("log_bin", "bin"), ("server_id", "1"), ("sync_binlog", "1")] {
        primary.set(setting, value);
    }
    primary.restart();
    let name = database(&primary);
    init(&primary, &name).unwrap();
    let replica = Server::replica_of(&primary);
    until("it follows", || (followers(&primary) == "1").then_some(()));
    let other = database(&primary);
    is(init(&primary, &other), Refused, "accept=asynchronous");
    is(open(&primary, &name), Refused, "accept=asynchronous");
    let accepting = format!("{}?accept=asynchronous", primary.url(&name));
    assert_eq!(found(&accepting, "replicas"), Found::Accepted);
    let taken = open_as(&accepting).unwrap();
    assert_eq!(taken.warnings().first().and_then(|it| it.risk), Some("asynchronous"));

    // Each setting without which a commit is shown or confirmed before the replica has it.
    replica.sql("mysql", "STOP SLAVE; SET GLOBAL rpl_semi_sync_slave_enabled = ON; START SLAVE");
    for (setting, value, says) in [
        ("enabled", "ON", "AFTER_SYNC"),
        ("wait_point", "AFTER_SYNC", "timeout = 86400000"),
        ("timeout", "86399999", "timeout = 86400000"),
        ("wait_no_slave", "OFF", "wait_no_slave = ON"),
    ] {
        primary.sql("mysql", &format!("SET GLOBAL rpl_semi_sync_master_{setting} = {value}"));
        is(open(&primary, &name), Refused, says);
    }
    primary.sql("mysql", "SET GLOBAL rpl_semi_sync_master_wait_no_slave = ON");
    primary.sql("mysql", "SET GLOBAL rpl_semi_sync_master_timeout = 86400000");
    assert_eq!(found(&primary.url(&name), "replicas"), Found::Good);
    let store = open(&primary, &name).unwrap();
    assert_eq!(block_on(store.swap(id(1), None, Some(claimed(1)))).unwrap(), Swap::Done);
    // A replica that has kept commits waiting for too long is not waited for any more.
    replica.server().freeze();
    primary.sql("mysql", "SET GLOBAL rpl_semi_sync_master_timeout = 1; CREATE DATABASE late");
    primary.sql("mysql", "SET GLOBAL rpl_semi_sync_master_timeout = 86400000");
    is(open(&primary, &name), Refused, "Rpl_semi_sync_master_status is OFF");
    replica.server().thaw();
    primary.sql("mysql", "SET GLOBAL rpl_semi_sync_master_enabled = OFF");
    is(open(&primary, &name), Refused, "rpl_semi_sync_master_enabled = ON");
}

#[test]
fn a_node_of_a_galera_cluster_is_refused_unless_the_address_takes_that_risk() {
    let node = Server::galera();
    let name = database(&node);
    is(init(&node, &name), Refused, "accept=galera");
    let accepting = format!("{}?accept=galera", node.url(&name));
    init_as(&accepting).unwrap();
    is(open(&node, &name), Refused, "accept=galera");
    assert_eq!(found(&accepting, "wsrep_on"), Found::Accepted);
    let store = open_as(&accepting).unwrap();
    let swap = store.swap(id(1), None, Some(claimed(1)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    let again = block_on(store.swap(id(1), None, Some(claimed(2)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(1))));
}

#[test]
fn a_table_without_transactions_is_refused_and_named() {
    let server = Server::start();
    for (table, engine) in [("records", "MyISAM"), ("store", "Aria"), ("revisions", "MEMORY")] {
        let name = database(&server);
        init(&server, &name).unwrap();
        server.sql(&name, &format!("ALTER TABLE onlyonce_{table} ENGINE={engine}"));
        is(open(&server, &name), Refused, &format!("ALTER TABLE onlyonce_{table} ENGINE=InnoDB"));
    }
    // One that keeps what was counts it too.
    let name = database(&server);
    init(&server, &name).unwrap();
    server.sql(&name, "ALTER TABLE onlyonce_records ADD SYSTEM VERSIONING");
    is(open(&server, &name), Refused, "DROP SYSTEM VERSIONING");
}

#[test]
fn a_store_is_made_once_and_never_by_opening_it() {
    let server = Server::start();
    let name = database(&server);
    is(open(&server, &name), Missing, "onlyonce store init");
    assert_eq!(server.sql(&name, "SHOW TABLES"), "");
    init(&server, &name).unwrap();
    let secret = open(&server, &name).unwrap().secret().clone();
    is(init(&server, &name), Exists, "already");
    assert!(open(&server, &name).unwrap().secret() == &secret);
    server.sql(&name, "UPDATE onlyonce_store SET version = 1");
    is(open(&server, &name), Older, "onlyonce store migrate");
    server.sql(&name, "UPDATE onlyonce_store SET version = 3");
    is(open(&server, &name), Newer, "format is 3");
    server.sql(&name, "UPDATE onlyonce_store SET version = 2, secret = x'00'");
    // It is filled up with zeros to its length: that is a secret, and another one.
    assert!(open(&server, &name).unwrap().secret() != &secret);
    is(open(&server, "nowhere"), Unavailable, "nowhere");
}

/// The server commits each table by itself, so an init may end between them.
#[test]
fn an_init_that_was_cut_short_is_gone_on_with_unless_there_are_records() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let secret = open(&server, &name).unwrap().secret().clone();
    server.sql(&name, "DELETE FROM onlyonce_store");
    is(open(&server, &name), Missing, "row is missing");
    server.sql(&name, "DROP TABLE onlyonce_store");
    is(open(&server, &name), Missing, "no store");
    init(&server, &name).unwrap();
    let store = open(&server, &name).unwrap();
    assert!(store.secret() != &secret);
    let swap = store.swap(id(1), None, Some(claimed(1)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    server.sql(&name, "DELETE FROM onlyonce_store");
    is(init(&server, &name), Foreign, "there are records");
    assert_eq!(server.sql(&name, "SELECT COUNT(*) FROM onlyonce_store"), "0");
}

#[test]
fn a_user_that_may_only_use_the_tables_is_enough_and_one_that_may_not_is_told_the_grant() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let grant = |rights: &str, table: &str| {
        server.sql("mysql", &format!("GRANT {rights} ON {name}.onlyonce_{table} TO app"));
    };
    server.sql("mysql", "CREATE USER app IDENTIFIED BY 'geheim'");
    let url = server.url(&name).replace("root@", "app:geheim@");
    is(open_as(&url), Unavailable, "Access denied");
    grant("SELECT", "records");
    is(open_as(&url), Missing, "none that this user may see");
    let all = "SELECT, INSERT, UPDATE, DELETE";
    grant(all, "store");
    grant(all, "revisions");
    is(open_as(&url), Refused, &format!("GRANT {all}"));
    grant(all, "records");
    let file = tempfile();
    std::fs::write(&file, "geheim\n").unwrap();
    let url =
        format!("{}?password-file={}", server.url(&name).replace("root@", "app@"), file.display());
    let store = open_as(&url).unwrap();
    assert_eq!(found(&url, "replica"), Found::Good);
    let one = claimed(1);
    assert_eq!(block_on(store.swap(id(1), None, Some(one.clone()))).unwrap(), Swap::Done);
    assert_eq!(block_on(store.swap(id(1), Some(one.revision), None)).unwrap(), Swap::Done);
    let floor = onlyonce_core::Floor::at(onlyonce_core::Timestamp::from_millis(7));
    block_on(store.raise_floor(floor)).unwrap();
    assert_eq!(block_on(store.floor()).unwrap(), floor);
    std::fs::remove_file(file).unwrap();
}

/// A name in the system's folder that nobody else has.
fn tempfile() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("onlyonce-mysql-{}", std::process::id()))
}
