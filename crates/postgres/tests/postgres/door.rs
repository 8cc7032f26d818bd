//! What is refused when a store is made or opened, each shown by a server that is set so.

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_postgres::Postgres;
use onlyonce_store::OpenErrorKind::{self, Exists, Missing, Newer, Refused, Unavailable};
use onlyonce_store::{Check, OpenError, Store as _, Swap};
use onlyonce_testbed::{Postgres as Server, until};

use crate::common::{self, RUNTIME, checks, database, init};

/// Opens it, which is refused by something that a doctor tells, or else by nothing of that.
fn open_as(url: &str) -> Result<Postgres, OpenError> {
    let refusals: Vec<OpenError> = checks(url).iter().filter_map(Check::error).collect();
    let opened = common::open_as(url);
    assert_eq!(opened.as_ref().err(), refusals.first());
    opened
}

fn open(server: &Server, database: &str) -> Result<Postgres, OpenError> {
    open_as(&server.url(database))
}

/// The names of what is refused.
fn refused(server: &Server, database: &str) -> Vec<&'static str> {
    let all = checks(&server.url(database));
    all.iter().filter(|it| it.error().is_some()).map(|it| it.need.name).collect()
}

#[track_caller]
fn is<T>(result: Result<T, OpenError>, kind: OpenErrorKind, says: &str) {
    let Err(error) = result else { panic!("it was let in") };
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn servers_that_would_lose_what_they_confirmed_are_refused_and_the_setting_is_named() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    open(&server, &name).unwrap();
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        server.set(setting, "off");
        server.restart();
        is(open(&server, &name), Refused, &format!("{setting} is off"));
        is(init(&server, &database(&server)), Refused, &format!("{setting} is off"));
        server.set(setting, "on");
    }
    server.restart();
    open(&server, &name).unwrap();
}

#[test]
fn a_doctor_names_all_that_is_wrong_and_not_only_the_first() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    assert_eq!(refused(&server, &name), Vec::<&str>::new());
    server.sql(&name, "ALTER TABLE onlyonce.records SET UNLOGGED");
    server.sql(&name, "ALTER TABLE onlyonce.revisions SET UNLOGGED");
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        server.set(setting, "off");
    }
    server.restart();
    let settings = ["fsync", "full_page_writes", "synchronous_commit"];
    let all = [&settings[..], &["tables", "tables"]].concat();
    assert_eq!(refused(&server, &name), all);
}

#[test]
fn settings_of_a_role_or_database_count_too() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let set = |what: &str| server.sql("postgres", &format!("ALTER DATABASE {name} {what}"));
    set("SET synchronous_commit = off");
    is(open(&server, &name), Refused, "synchronous_commit is off");
    set("RESET synchronous_commit");
    set("SET default_transaction_read_only = on");
    is(open(&server, &name), Refused, "default_transaction_read_only");
    set("RESET default_transaction_read_only");
    // Both are harmless, and would break transactions that rely on the defaults.
    set("SET default_transaction_isolation = 'serializable'");
    set("SET statement_timeout = '1h'");
    let store = open(&server, &name).unwrap();
    let swap = store.swap(id(1), None, Some(claimed(1)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
    let again = block_on(store.swap(id(1), None, Some(claimed(2)))).unwrap();
    assert_eq!(again, Swap::Conflict(Some(claimed(1))));
}

#[test]
fn a_standby_is_refused_and_so_is_a_commit_that_does_not_wait_for_a_promised_one() {
    let mut server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let standby = Server::standby_of(&server);
    is(open(&standby, &name), Refused, "standby");
    drop(standby);

    server.set("synchronous_commit", "local");
    server.restart();
    open(&server, &name).unwrap();
    server.set("synchronous_standby_names", "*");
    server.restart();
    is(open(&server, &name), Refused, "synchronous_commit is local");
}

/// Waits until so many servers follow this one by a name of this kind.
fn await_standby(server: &Server, name: &str) {
    let ask = format!(
        "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' \
         AND application_name = '{name}'"
    );
    until("a standby", || (server.sql("postgres", &ask) == "1").then_some(()));
}

#[test]
fn a_standby_that_no_commit_waits_for_is_refused_unless_somebody_takes_the_risk() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let app = "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app; \
               GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA onlyonce TO app";
    server.sql(&name, app);
    let other = database(&server);
    assert!(open(&server, &name).unwrap().warnings().is_empty());
    let _standby = Server::standby_of(&server);
    await_standby(&server, "walreceiver");

    is(open(&server, &name), Refused, "synchronous_standby_names is empty");
    is(init(&server, &other), Refused, "accept=asynchronous");
    // Everybody is told, also a role that may do nothing but use the tables.
    let url = server.url(&name);
    is(open_as(&url.replace("postgres@", "app@")), Refused, "accept=asynchronous");
    let store = open_as(&format!("{url}?accept=asynchronous")).unwrap();
    let risks: Vec<_> = store.warnings().iter().map(|warning| warning.risk).collect();
    assert_eq!(risks, [Some("asynchronous")]);

    let wait = "ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()";
    server.sql("postgres", wait);
    let waits = || server.sql("postgres", "SHOW synchronous_standby_names") == "*";
    until("commits wait", || waits().then_some(()));
    let store = open_as(&format!("{url}?accept=asynchronous")).unwrap();
    assert!(store.warnings().is_empty(), "a risk that is not met");
    open(&server, &name).unwrap();
}

/// Nobody fails over to either, and a nightly backup must not end the service.
#[test]
fn who_copies_the_log_for_a_backup_is_no_standby() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    for program in ["pg_basebackup", "pg_receivewal"] {
        // A server that calls itself so is told as they are.
        let mut reads = Server::standby_of(&server);
        reads.set("cluster_name", program);
        reads.restart();
        await_standby(&server, program);
        let alone = "SELECT count(*) FROM pg_stat_replication";
        until("the others are gone", || (server.sql("postgres", alone) == "1").then_some(()));
        open(&server, &name).unwrap();
    }
}

#[test]
fn a_table_that_is_not_kept_after_a_crash_is_refused_and_named() {
    let server = Server::start();
    for table in ["records", "store", "revisions"] {
        let name = database(&server);
        init(&server, &name).unwrap();
        server.sql(&name, &format!("ALTER TABLE onlyonce.{table} SET UNLOGGED"));
        is(open(&server, &name), Refused, &format!("onlyonce.{table} is not kept"));
    }
}

#[test]
fn a_store_is_made_once_and_never_by_opening_it() {
    let server = Server::start();
    let name = database(&server);
    is(open(&server, &name), Missing, "onlyonce store init");
    assert_eq!(server.sql(&name, "SELECT to_regnamespace('onlyonce')"), "");
    init(&server, &name).unwrap();
    let secret = open(&server, &name).unwrap().secret().clone();
    is(init(&server, &name), Exists, "already");
    assert!(open(&server, &name).unwrap().secret() == &secret);
    server.sql(&name, "UPDATE onlyonce.store SET version = 3");
    is(open(&server, &name), Newer, "format is 3");
    is(open(&server, "nowhere"), Unavailable, "nowhere");
}

#[test]
fn a_role_that_may_only_use_the_tables_is_enough_and_one_that_may_not_is_told_the_grant() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    server.sql(&name, "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA onlyonce TO app");
    let url = server.url(&name).replace("postgres@", "app@");
    is(open_as(&url), Refused, "GRANT SELECT, INSERT, UPDATE, DELETE");
    let tables = "ALL TABLES IN SCHEMA onlyonce TO app";
    server.sql(&name, &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {tables}"));
    let store = open_as(&url).unwrap();
    let one = claimed(1);
    assert_eq!(block_on(store.swap(id(1), None, Some(one.clone()))).unwrap(), Swap::Done);
    assert_eq!(block_on(store.swap(id(1), Some(one.revision), None)).unwrap(), Swap::Done);
    let floor = onlyonce_core::Floor::at(onlyonce_core::Timestamp::from_millis(7));
    block_on(store.raise_floor(floor)).unwrap();
    assert_eq!(block_on(store.floor()).unwrap(), floor);
    // Functions that are made anew leave it so.
    RUNTIME.block_on(Postgres::install_functions(server.url(&name).parse().unwrap())).unwrap();
    assert!(open_as(&url).is_ok());
    server.sql(&name, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA onlyonce FROM PUBLIC");
    is(open_as(&url), Refused, "GRANT EXECUTE ON FUNCTION onlyonce._swap");
}

/// As where somebody has copied the tables alone.
#[test]
fn a_store_without_the_function_that_it_writes_by_is_refused_until_it_is_made_anew() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    server.sql(&name, "DROP FUNCTION onlyonce._swap");
    is(open(&server, &name), Refused, "onlyonce store functions");
    let address = || server.url(&name).parse().unwrap();
    RUNTIME.block_on(Postgres::install_functions(address())).unwrap();
    let claim = |number| {
        let store = open(&server, &name).unwrap();
        block_on(store.swap(id(number), None, Some(claimed(number))))
    };
    assert_eq!(claim(1), Ok(Swap::Done));
    server.sql(&name, "DROP FUNCTION onlyonce._swap");
    assert_eq!(RUNTIME.block_on(Postgres::renew_functions(address())), Ok(true));
    assert_eq!(claim(2), Ok(Swap::Done));
}

/// An operator that a role finds before the server's own.
#[test]
fn revisions_are_compared_as_the_server_does_whatever_a_role_finds_first() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let hostile = "
        CREATE SCHEMA hostile;
        CREATE FUNCTION hostile.same(bigint, bigint) RETURNS boolean LANGUAGE sql
          AS 'SELECT true';
        CREATE OPERATOR hostile.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = hostile.same);";
    server.sql(&name, hostile);
    server.sql(&name, &format!("ALTER DATABASE {name} SET search_path = hostile, pg_catalog"));
    let store = open(&server, &name).unwrap();
    let (one, other) = (claimed(1), claimed(2));
    assert_eq!(block_on(store.swap(id(1), None, Some(other.clone()))), Ok(Swap::Done));
    let swap = store.swap(id(1), Some(one.revision), Some(claimed(3)));
    assert_eq!(block_on(swap), Ok(Swap::Conflict(Some(other))));
}
