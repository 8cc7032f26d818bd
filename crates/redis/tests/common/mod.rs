//! A server of a test, and the store on it.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::LazyLock;

use onlyonce_conformance::{claimed, id};
use onlyonce_core::{Floor, Record};
use onlyonce_redis::{Redis, Settings, Target, doctor};
use onlyonce_store::{Check, OpenError, Store as _, StoreError, Swap};
use tokio::runtime::Runtime;

/// Where the calls of stores run.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// A server.
pub(crate) struct Server {
    pub(crate) redis: onlyonce_testbed::Redis,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self { redis: onlyonce_testbed::Redis::start() }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.redis.address())
    }
}

fn target(url: &str) -> Target {
    url.parse().unwrap()
}

/// Makes a store.
pub(crate) fn init(url: &str, floor: Floor) {
    RUNTIME.block_on(Redis::init(&target(url), floor)).unwrap();
}

/// Opens a store.
pub(crate) fn open(url: &str) -> Redis {
    try_open(url).unwrap()
}

/// Opens a store, or says why not.
pub(crate) fn try_open(url: &str) -> Result<Redis, OpenError> {
    RUNTIME.block_on(Redis::open(&target(url), Settings::default()))
}

/// Everything that a doctor tells of it.
pub(crate) fn checks(url: &str) -> Vec<Check> {
    RUNTIME.block_on(doctor(&target(url)))
}

/// Makes a store, or says why not.
pub(crate) fn try_init(url: &str) -> Result<(), OpenError> {
    RUNTIME.block_on(Redis::init(&target(url), Floor::NONE))
}

/// Claims a key that is absent.
pub(crate) fn try_claim(store: &Redis, number: u64) -> Result<Record, StoreError> {
    let record = claimed(number);
    match RUNTIME.block_on(store.swap(id(number), None, Some(record.clone())))? {
        Swap::Done => Ok(record),
        Swap::Conflict(found) => panic!("{number} was claimed already: {found:?}"),
    }
}

/// Claims a key that is absent.
pub(crate) fn claim(store: &Redis, number: u64) -> Record {
    try_claim(store, number).unwrap()
}

/// What a key's record is.
pub(crate) fn get(store: &Redis, number: u64) -> Option<Record> {
    RUNTIME.block_on(store.get(id(number))).unwrap()
}
