//! What a cluster must be: what would break a promise is refused, and named.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use onlyonce_conformance::{answered, id};
use onlyonce_store::{Check, Found, OpenError, OpenErrorKind, Store as _, StoreErrorKind};
use onlyonce_testbed::{Etcd, EtcdCluster};

use common::{
    RUNTIME, checks, claim, delete_all, get, init, open, open_restored, put, single, try_claim,
    try_init,
};

/// Opens it, which is refused by something that a doctor tells, or else by nothing of that.
fn try_open(url: &str) -> Result<onlyonce_etcd::Etcd, OpenError> {
    let refusals: Vec<OpenError> = checks(url).iter().filter_map(Check::error).collect();
    let opened = common::try_open(url);
    assert_eq!(opened.as_ref().err().map(OpenError::kind), refusals.first().map(OpenError::kind));
    if let Err(error) = &opened
        && error.kind() != OpenErrorKind::Unavailable
    {
        assert_eq!(refusals.first(), Some(error));
    }
    opened
}

#[test]
fn one_member_alone_is_refused_or_a_risk() {
    let etcd = Etcd::start();
    let error = try_init(&format!("etcd://{}", etcd.address())).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("accept=single"), "{error}");
    init(&single(&etcd));
    let error = try_open(&format!("etcd://{}", etcd.address())).err().unwrap();
    assert!(error.to_string().contains("accept=single"), "{error}");
    let told = checks(&single(&etcd));
    let voters = told.iter().find(|check| check.need.name == "voting members").unwrap();
    assert_eq!(voters.found, Found::Accepted, "{voters:?}");
    let store = open(&single(&etcd));
    assert!(store.warnings()[0].text.contains("1 voting member"), "{:?}", store.warnings());
}

/// A member that does not sync is not told from others by its answers, but by its own count.
#[test]
fn a_member_that_does_not_sync_is_refused_and_named() {
    let etcd = Etcd::start_with(&["--unsafe-no-fsync"]);
    let error = try_init(&single(&etcd)).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("--unsafe-no-fsync"), "{error}");
    let mut cluster = EtcdCluster::start();
    let url = common::url(cluster.members());
    init(&url);
    let told = checks(&url);
    let syncs = told.iter().filter(|it| it.need.name == "fsync").map(|it| it.found);
    assert_eq!(syncs.collect::<Vec<_>>(), [Found::Good; 3], "{told:?}");
    // One of three, whichever leads.
    let bad = &mut cluster.members()[1];
    bad.add_argument("--unsafe-no-fsync");
    bad.restart();
    let place = format!("etcd {}", bad.address());
    let error = try_open(&url).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(&place), "{error}");
}

/// What is written to see whether a member syncs is in its log alone.
#[test]
fn a_doctor_changes_no_key() {
    let etcd = Etcd::start();
    init(&single(&etcd));
    let revision = || {
        let told = etcd.post("/v3/kv/range", r#"{"key":"AA=="}"#).unwrap();
        let told = told.split_once("\"revision\":\"").unwrap().1;
        told.split('"').next().unwrap().to_owned()
    };
    let before = revision();
    let told = checks(&single(&etcd));
    assert_eq!(told.iter().find(|it| it.need.name == "fsync").unwrap().found, Found::Good);
    assert_eq!(revision(), before);
}

/// Case B79: a full cluster refuses whole records, says that it is full, and is refused until
/// somebody has looked.
#[test]
fn a_full_cluster_refuses_whole_records_and_its_alarm_is_refused() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "1500000"]);
    init(&single(&etcd));
    let store = open(&single(&etcd));
    let one = claim(&store, 1);
    let mut stands = one.clone();
    let full = (2..50).find_map(|at| {
        let next = answered(&one, at, vec![at as u8; 400_000]);
        let swap = store.swap(id(1), Some(stands.revision), Some(next.clone()));
        match RUNTIME.block_on(swap) {
            Ok(_) => {
                stands = next;
                None
            }
            Err(error) => Some(error),
        }
    });
    assert_eq!(full.unwrap().kind(), StoreErrorKind::Full);
    assert_eq!(get(&store, 1), Some(stands));
    assert_eq!(try_claim(&store, 2).unwrap_err().kind(), StoreErrorKind::Full);
    let error = try_open(&single(&etcd)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("NOSPACE"), "{error}");
}

#[test]
fn members_whose_data_differs_by_an_alarm_of_theirs_are_refused() {
    let etcd = Etcd::start();
    init(&single(&etcd));
    let raise = r#"{"action":"ACTIVATE","memberID":"1","alarm":"CORRUPT"}"#;
    assert!(etcd.post("/v3/maintenance/alarm", raise).unwrap().contains("CORRUPT"));
    let error = try_open(&single(&etcd)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("CORRUPT"), "{error}");
    let quiet = raise.replace("ACTIVATE", "DEACTIVATE");
    etcd.post("/v3/maintenance/alarm", &quiet).unwrap();
    open(&single(&etcd));
}

#[test]
fn members_of_two_clusters_are_not_one_store() {
    let (one, other) = (Etcd::start(), Etcd::start());
    init(&single(&one));
    init(&single(&other));
    let both = format!("etcd://{},{}?accept=single", one.address(), other.address());
    let error = try_open(&both).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    let says = format!("etcd {}: it belongs to another cluster", other.address());
    assert!(error.to_string().contains(&says), "{error}");
    assert!(try_init(&format!("{both}&prefix=new")).is_err());
}

#[test]
fn a_learner_is_refused() {
    let mut cluster = EtcdCluster::start();
    let learner = cluster.add_learner();
    let url = format!("etcd://{}", cluster.members()[learner].address());
    let error = try_init(&url).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("learner"), "{error}");
    init(&format!("etcd://{}", cluster.members()[0].address()));
}

#[test]
fn a_cluster_without_a_majority_is_unavailable() {
    let mut cluster = EtcdCluster::start();
    let url = common::url(cluster.members());
    init(&url);
    cluster.members()[0].kill();
    claim(&open(&url), 1);
    // One member is done without; that it is away is told.
    let told = checks(&url);
    assert!(told.iter().all(|check| check.error().is_none()), "{told:?}");
    let away = told.iter().find(|check| check.need.name == "member").unwrap();
    assert_eq!(away.found, Found::Unasked, "{away:?}");
    cluster.members()[1].kill();
    let error = try_open(&url).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
}

#[test]
fn a_missing_store_is_refused_and_one_that_is_there_is_not_made_again() {
    let etcd = Etcd::start();
    let error = try_open(&single(&etcd)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Missing);
    assert!(error.to_string().contains("onlyonce store init"), "{error}");
    init(&single(&etcd));
    claim(&open(&single(&etcd)), 1);
    assert_eq!(try_init(&single(&etcd)).unwrap_err().kind(), OpenErrorKind::Exists);
    // Somebody has deleted the key with the secret: the records are of no use without it.
    delete_all(&etcd, "onlyonce/store");
    assert_eq!(try_open(&single(&etcd)).err().unwrap().kind(), OpenErrorKind::Missing);
    assert_eq!(try_init(&single(&etcd)).unwrap_err().kind(), OpenErrorKind::Foreign);
    put(&etcd, b"onlyonce/store", &[2, 1, 1]);
    assert_eq!(try_open(&single(&etcd)).err().unwrap().kind(), OpenErrorKind::Newer);
    put(&etcd, b"onlyonce/store", &[]);
    assert_eq!(try_open(&single(&etcd)).err().unwrap().kind(), OpenErrorKind::Foreign);
}

/// A snapshot makes a cluster of another identity, and what ran after it was taken is not in it.
#[test]
fn a_store_from_a_snapshot_is_refused() {
    let etcd = Etcd::start();
    init(&single(&etcd));
    let facts = [&[1][..], &7_u64.to_be_bytes(), &[3; 32]].concat();
    put(&etcd, b"onlyonce/store", &facts);
    let error = try_open(&single(&etcd)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("snapshot"), "{error}");
}

/// It is let in for who makes it safe to use, and for everybody once that was said.
#[test]
fn a_store_from_a_snapshot_is_let_in_once_it_has_settled_here() {
    let etcd = Etcd::start();
    init(&single(&etcd));
    let facts = |cluster: u64| [&[1][..], &cluster.to_be_bytes(), &[3; 32]].concat();
    put(&etcd, b"onlyonce/store", &facts(7));
    let store = open_restored(&single(&etcd)).unwrap();
    let record = claim(&store, 1);
    assert_eq!(try_open(&single(&etcd)).err().unwrap().kind(), OpenErrorKind::Refused);
    for _ in 0..2 {
        RUNTIME.block_on(store.settle_in()).unwrap();
        assert_eq!(get(&open(&single(&etcd)), 1), Some(record.clone()));
    }
    // Another one has taken its place.
    put(&etcd, b"onlyonce/store", &facts(8));
    let error = RUNTIME.block_on(store.settle_in()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert_eq!(try_open(&single(&etcd)).err().unwrap().kind(), OpenErrorKind::Refused);
    put(&etcd, b"onlyonce/store", &[2, 1, 1]);
    assert_eq!(open_restored(&single(&etcd)).err().unwrap().kind(), OpenErrorKind::Newer);
}

/// Case B79: a store that is emptied behind our back does not make used keys look new.
#[test]
fn a_store_that_was_emptied_takes_nothing_more() {
    let etcd = Etcd::start();
    init(&single(&etcd));
    let store = open(&single(&etcd));
    claim(&store, 1);
    delete_all(&etcd, "onlyonce/");
    let error = try_claim(&store, 1).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(error.to_string().contains("emptied"), "{error}");
}

#[test]
fn a_password_is_asked_for_and_taken() {
    let etcd = Etcd::start();
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"p@w"}"#),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let answer = etcd.post(path, body).unwrap();
        assert!(!answer.contains("error"), "{path}: {answer}");
    }
    let without = try_init(&single(&etcd)).unwrap_err();
    assert_eq!(without.kind(), OpenErrorKind::Unavailable, "{without}");
    let wrong = format!("etcd://root:other@{}?accept=single", etcd.address());
    assert_eq!(try_init(&wrong).unwrap_err().kind(), OpenErrorKind::Unavailable);
    let right = format!("etcd://root:p%40w@{}?accept=single", etcd.address());
    init(&right);
    claim(&open(&right), 1);
}
