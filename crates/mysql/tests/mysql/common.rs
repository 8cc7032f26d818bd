//! Servers with databases, and a runtime for what is opened on them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use onlyonce_conformance::{block_on, claimed, id};
use onlyonce_core::Floor;
use onlyonce_mysql::{Address, Mysql, doctor};
use onlyonce_store::{Check, OpenError, Store as _, Swap};
use onlyonce_testbed::MariaDb as Server;
use tokio::runtime::Runtime;

/// Stores work on it; tests wait outside of it, as callers without a runtime do.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// How many transactions are open, and in this state. The server looks at them again only once
/// nobody has asked for a tenth of a second: who asks more often is told the same for ever.
pub(crate) fn transactions(sql: impl Fn(&str) -> String, state: &str) -> String {
    std::thread::sleep(std::time::Duration::from_millis(120));
    sql(&format!(
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state LIKE '{state}'"
    ))
}

/// A new, empty database.
pub(crate) fn database(server: &Server) -> String {
    let name = format!("shop_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
    server.sql("mysql", &format!("CREATE DATABASE {name}"));
    name
}

pub(crate) fn init(server: &Server, database: &str) -> Result<(), OpenError> {
    init_as(&server.url(database))
}

pub(crate) fn init_as(url: &str) -> Result<(), OpenError> {
    let address: Address = url.parse().unwrap();
    RUNTIME.block_on(Mysql::init(address, Floor::NONE))
}

pub(crate) fn open_as(url: &str) -> Result<Mysql, OpenError> {
    let address: Address = url.parse().unwrap();
    RUNTIME.block_on(Mysql::open(address))
}

/// Everything that a doctor tells of it.
pub(crate) fn checks(url: &str) -> Vec<Check> {
    let address: Address = url.parse().unwrap();
    RUNTIME.block_on(doctor(address))
}

pub(crate) fn open(server: &Server, database: &str) -> Result<Mysql, OpenError> {
    open_as(&server.url(database))
}

pub(crate) fn claim(store: &Mysql, number: u64) {
    let swap = store.swap(id(number), None, Some(claimed(number)));
    assert_eq!(block_on(swap).unwrap(), Swap::Done);
}

/// Ends all connections but the one that asks, as an administrator or a time limit does.
pub(crate) fn end_connections(server: &Server) {
    let ids = "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() \
               AND USER NOT IN ('system user', 'event_scheduler')";
    for id in server.sql("mysql", ids).lines() {
        server.sql("mysql", &format!("KILL SOFT CONNECTION {id}"));
    }
}
