//! A cluster of a test, and the store on it.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onlyonce_conformance::{claimed, id};
use onlyonce_core::{Floor, KeyId, Record};
use onlyonce_etcd::{Etcd, Target, doctor};
use onlyonce_store::{Check, OpenError, Store as _, StoreError, Swap};
use tokio::runtime::Runtime;

/// Where the calls of stores run.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// The URL of one member that is all there is.
pub(crate) fn single(etcd: &onlyonce_testbed::Etcd) -> String {
    format!("etcd://{}?accept=single", etcd.address())
}

/// The URL of these members.
pub(crate) fn url(members: &[onlyonce_testbed::Etcd]) -> String {
    let hosts: Vec<_> = members.iter().map(|member| member.address().to_string()).collect();
    format!("etcd://{}", hosts.join(","))
}

fn target(url: &str) -> Target {
    url.parse().unwrap()
}

/// Makes a store.
pub(crate) fn init(url: &str) {
    try_init(url).unwrap();
}

/// Makes a store, or says why not.
pub(crate) fn try_init(url: &str) -> Result<(), OpenError> {
    RUNTIME.block_on(Etcd::init(&target(url), Floor::NONE))
}

/// Opens a store.
pub(crate) fn open(url: &str) -> Etcd {
    try_open(url).unwrap()
}

/// Everything that a doctor tells of it.
pub(crate) fn checks(url: &str) -> Vec<Check> {
    RUNTIME.block_on(doctor(&target(url)))
}

/// Opens a store, or says why not.
pub(crate) fn try_open(url: &str) -> Result<Etcd, OpenError> {
    RUNTIME.block_on(Etcd::open(&target(url)))
}

/// Opens a store also if a snapshot has brought it here, or says why not.
pub(crate) fn open_restored(url: &str) -> Result<Etcd, OpenError> {
    RUNTIME.block_on(Etcd::open_restored(&target(url)))
}

/// Claims a key that is absent.
pub(crate) fn try_claim(store: &Etcd, number: u64) -> Result<Record, StoreError> {
    let record = claimed(number);
    match RUNTIME.block_on(store.swap(id(number), None, Some(record.clone())))? {
        Swap::Done => Ok(record),
        Swap::Conflict(found) => panic!("{number} was claimed already: {found:?}"),
    }
}

/// Claims a key that is absent.
pub(crate) fn claim(store: &Etcd, number: u64) -> Record {
    try_claim(store, number).unwrap()
}

/// What a key's record is, once somebody tells: while members choose a leader nobody does.
pub(crate) fn get(store: &Etcd, number: u64) -> Option<Record> {
    onlyonce_testbed::until("an answer", || RUNTIME.block_on(store.get(id(number))).ok())
}

/// The key of a record.
pub(crate) fn record_key(id: KeyId) -> Vec<u8> {
    [b"onlyonce/record/", &id.as_bytes()[..]].concat()
}

/// Writes a key behind the store's back.
pub(crate) fn put(etcd: &onlyonce_testbed::Etcd, key: &[u8], value: &[u8]) {
    let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
    let body = format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}");
    let answer = etcd.post("/v3/kv/put", &body).unwrap();
    assert!(answer.contains("revision"), "{answer}");
}

/// Deletes all keys that begin so behind the store's back.
pub(crate) fn delete_all(etcd: &onlyonce_testbed::Etcd, prefix: &str) {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    let (key, end) = (STANDARD.encode(prefix), STANDARD.encode(end));
    let body = format!("{{\"key\":\"{key}\",\"range_end\":\"{end}\"}}");
    let answer = etcd.post("/v3/kv/deleterange", &body).unwrap();
    assert!(answer.contains("deleted"), "{answer}");
}

/// The numbers that processes compare in their transactions.
pub(crate) fn numbers(etcd: &onlyonce_testbed::Etcd) -> Vec<u64> {
    let (key, end) = (STANDARD.encode("onlyonce/process/"), STANDARD.encode("onlyonce/process0"));
    let body = format!("{{\"key\":\"{key}\",\"range_end\":\"{end}\"}}");
    let answer = etcd.post("/v3/kv/range", &body).unwrap_or_default();
    let values = answer.split("\"value\":\"").skip(1).filter_map(|rest| rest.split('"').next());
    let bytes = values.map(|value| STANDARD.decode(value).unwrap().try_into().unwrap());
    bytes.map(u64::from_be_bytes).collect()
}
