//! Servers with databases, and a runtime for what is opened on them.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use onlyonce_core::Floor;
use onlyonce_postgres::{Address, Postgres, doctor};
use onlyonce_store::{Check, OpenError};
use onlyonce_testbed::Postgres as Server;
use tokio::runtime::Runtime;

/// Stores work on it; tests wait outside of it, as callers without a runtime do.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// A new, empty database.
pub(crate) fn database(server: &Server) -> String {
    let name = format!("shop_{}", DATABASES.fetch_add(1, Ordering::SeqCst));
    server.sql("postgres", &format!("CREATE DATABASE {name}"));
    name
}

pub(crate) fn init(server: &Server, database: &str) -> Result<(), OpenError> {
    init_as(&server.url(database))
}

pub(crate) fn init_as(url: &str) -> Result<(), OpenError> {
    let address: Address = url.parse().unwrap();
    RUNTIME.block_on(Postgres::init(address, Floor::NONE))
}

pub(crate) fn open_as(url: &str) -> Result<Postgres, OpenError> {
    let address: Address = url.parse().unwrap();
    RUNTIME.block_on(Postgres::open(address))
}

/// Everything that a doctor tells of it.
pub(crate) fn checks(url: &str) -> Vec<Check> {
    let address: Address = url.parse().unwrap();
    RUNTIME.block_on(doctor(address))
}

pub(crate) fn open(server: &Server, database: &str) -> Result<Postgres, OpenError> {
    open_as(&server.url(database))
}
