//! What a server must be: each setting that would break a promise is refused, and named.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::io::Write as _;
use std::net::TcpStream;

use onlyonce_core::Floor;
use onlyonce_store::{Check, OpenError, OpenErrorKind, StoreErrorKind};
use onlyonce_testbed::{Redis, RedisCluster, Sentinel, until};

use common::{checks, claim, init, open, try_claim, try_init};

/// Opens it, which is refused by something that a doctor tells, or else by nothing of that.
fn try_open(url: &str) -> Result<onlyonce_redis::Redis, OpenError> {
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

fn url(redis: &Redis) -> String {
    format!("redis://{}", redis.address())
}

/// Makes a store on a good server, then starts that with the setting.
fn refused(settings: &[(&str, &str)], says: &str) {
    let bad = Redis::start_with(settings);
    let error = try_init(&url(&bad)).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(says), "{error}");

    let mut redis = Redis::start();
    init(&url(&redis), Floor::NONE);
    for (name, value) in settings {
        redis.set(name, value);
    }
    redis.restart();
    let error = try_open(&url(&redis)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

/// Case B79: with an evicting policy, records go when the memory is used up.
#[test]
fn a_server_that_may_evict_records_is_refused() {
    refused(&[("maxmemory-policy", "allkeys-lru"), ("maxmemory", "100mb")], "must be noeviction");
}

#[test]
fn a_server_that_evicts_only_what_expires_is_let_in() {
    let redis = Redis::start_with(&[("maxmemory-policy", "volatile-lru"), ("maxmemory", "100mb")]);
    init(&url(&redis), Floor::NONE);
    claim(&open(&url(&redis)), 1);
}

#[test]
fn a_server_without_an_append_only_file_is_refused() {
    refused(&[("appendonly", "no")], "appendonly is no");
    let snapshots = Redis::start_with(&[("appendonly", "no"), ("save", "1 1")]);
    assert!(try_init(&url(&snapshots)).unwrap_err().to_string().contains("appendonly is no"));
}

#[test]
fn a_server_that_does_not_sync_before_it_confirms_is_refused_or_a_risk() {
    refused(&[("appendfsync", "no")], "appendfsync is no");
    refused(&[("no-appendfsync-on-rewrite", "yes")], "no-appendfsync-on-rewrite is yes");
    refused(&[("appendfsync", "everysec")], "accept=everysec");
    let redis = Redis::start_with(&[("appendfsync", "everysec")]);
    let accepting = format!("{}?accept=everysec", url(&redis));
    init(&accepting, Floor::NONE);
    let store = open(&accepting);
    assert!(store.warnings()[0].text.contains("everysec"), "{:?}", store.warnings());
    let redis = Redis::start_with(&[("appendfsync", "no")]);
    let error = try_init(&format!("{}?accept=everysec", url(&redis))).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
}

#[test]
fn a_server_that_does_not_tell_its_settings_is_refused_or_a_risk() {
    let redis = Redis::start_with(&[("rename-command", "CONFIG hidden")]);
    let error = try_init(&url(&redis)).unwrap_err();
    assert!(error.to_string().contains("accept=unchecked"), "{error}");
    let accepting = format!("{}?accept=unchecked", url(&redis));
    init(&accepting, Floor::NONE);
    let store = open(&accepting);
    assert!(store.warnings()[0].text.contains("unchecked"), "{:?}", store.warnings());
}

/// Under `always` a server ends itself then: it is one that syncs by the second that tells of it.
#[test]
fn a_server_whose_file_took_no_write_is_refused() {
    let redis = Redis::start_with(&[("appendfsync", "everysec")]);
    let accepting = format!("{}?accept=everysec", url(&redis));
    init(&accepting, Floor::NONE);
    open(&accepting);
    redis.bound_files();
    until("a write fails", || {
        redis.ask(&["SET", "a", "b"]);
        redis.info("persistence").contains("aof_last_write_status:err").then_some(())
    });
    let error = try_open(&accepting).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("last write to the append-only file failed"), "{error}");
}

#[test]
fn a_doctor_names_all_that_is_wrong_and_not_only_the_first() {
    let redis = Redis::start();
    init(&url(&redis), Floor::NONE);
    let refused = || {
        let all = checks(&url(&redis));
        let refused = all.into_iter().filter(|it| it.error().is_some());
        refused.map(|it| it.need.name).collect::<Vec<_>>()
    };
    assert_eq!(refused(), Vec::<&str>::new());
    for (setting, value) in [("appendfsync", "no"), ("maxmemory-policy", "allkeys-lru")] {
        redis.ask(&["CONFIG", "SET", setting, value]);
    }
    assert_eq!(refused(), ["maxmemory-policy", "appendfsync"]);
    for (setting, value) in [("appendfsync", "always"), ("maxmemory-policy", "noeviction")] {
        redis.ask(&["CONFIG", "SET", setting, value]);
    }
    redis.ask(&["DEL", "{onlyonce:3f}:facts"]);
    assert_eq!(refused(), ["parts of the store"]);
}

/// Case B91: a replica may lag, so nothing is looked up there.
#[test]
fn a_replica_is_refused_and_names_its_master() {
    let master = Redis::start();
    init(&url(&master), Floor::NONE);
    let replica = Redis::replica_of(&master);
    let error = try_open(&url(&replica)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains(&format!("127.0.0.1:{}", master.port())), "{error}");
}

#[test]
fn a_node_of_a_cluster_is_not_taken_for_a_server_nor_the_other_way_round() {
    let mut cluster = RedisCluster::start();
    let error = try_init(&url(&cluster.nodes()[0])).unwrap_err();
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
    let redis = Redis::start();
    let error = try_init(&format!("redis+cluster://{}", redis.address())).unwrap_err();
    assert!(error.to_string().contains("cluster support disabled"), "{error}");
}

#[test]
fn a_server_with_fewer_replicas_than_asked_for_is_refused() {
    let redis = Redis::start();
    let error = try_init(&format!("{}?replicas=1", url(&redis))).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Refused);
    assert!(error.to_string().contains("0 follow it"), "{error}");
}

/// Opens it, which is refused for what a failover loses, and then takes that risk: the warning.
fn failover_is_refused_or_a_risk(url: &str) -> String {
    let error = try_open(url).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("`accept=failover` takes that risk"), "{error}");
    let mark = if url.contains('?') { '&' } else { '?' };
    let store = open(&format!("{url}{mark}accept=failover"));
    let risk = store.warnings().iter().find(|it| it.risk == Some("failover"));
    risk.unwrap().text.clone()
}

/// Case B79: nobody opens a store that a failover can take claims from without having said so.
#[test]
fn a_server_that_a_replica_can_replace_is_refused_or_a_risk() {
    let master = Redis::start();
    init(&url(&master), Floor::NONE);
    let replica = Redis::replica_of(&master);
    until("it has its copy", || master.info("replication").contains("state=online").then_some(()));
    let error = try_init(&format!("{}?prefix=other", url(&master))).unwrap_err();
    assert!(error.to_string().contains("accept=failover"), "{error}");
    let told = failover_is_refused_or_a_risk(&url(&master));
    assert!(told.contains("min-replicas-to-write is 0"), "{told}");
    // What is on all replicas may be lost all the same: one need not have it on its disk.
    let told = failover_is_refused_or_a_risk(&format!("{}?replicas=1", url(&master)));
    assert!(!told.contains("min-replicas-to-write"), "{told}");
    master.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let told = failover_is_refused_or_a_risk(&url(&master));
    assert!(!told.contains("min-replicas-to-write"), "{told}");
    let all = checks(&url(&master));
    let check = all.iter().find(|it| it.need.name == "failover").unwrap();
    assert_eq!(check.says, "replicas 1, min-replicas-to-write 1");

    drop(replica);
    until("it is gone", || master.info("replication").contains("slaves:0").then_some(()));
    master.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    claim(&open(&url(&master)), 1);
    // Sentinels are there for a failover, also while no replica is.
    let sentinel = Sentinel::watching(&master);
    failover_is_refused_or_a_risk(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port()));
}

/// A backup must not keep others from the store.
#[test]
fn who_only_copies_the_data_is_no_replica_that_could_take_over() {
    let redis = Redis::start_with(&[("repl-diskless-sync-delay", "600")]);
    init(&url(&redis), Floor::NONE);
    let mut copying = TcpStream::connect(redis.address()).unwrap();
    copying.write_all(b"SYNC\r\n").unwrap();
    until("it copies", || redis.info("replication").contains("state=wait_bgsave").then_some(()));
    claim(&open(&url(&redis)), 1);
}

#[test]
fn a_cluster_with_a_replica_is_refused_or_a_risk() {
    let mut cluster = RedisCluster::start();
    let url = format!("redis+cluster://{}", cluster.nodes()[1].address());
    init(&url, Floor::NONE);
    claim(&open(&url), 1);
    cluster.add_replica();
    failover_is_refused_or_a_risk(&url);
}

#[test]
fn a_missing_store_is_refused_and_one_that_is_there_is_not_made_again() {
    let redis = Redis::start();
    let error = try_open(&url(&redis)).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Missing);
    assert!(error.to_string().contains("onlyonce store init"), "{error}");
    init(&url(&redis), Floor::NONE);
    claim(&open(&url(&redis)), 1);
    assert_eq!(try_init(&url(&redis)).unwrap_err().kind(), OpenErrorKind::Exists);
    // Somebody has deleted the key with the secret: the records are of no use without it.
    redis.ask(&["DEL", "{onlyonce}:store"]);
    assert_eq!(try_open(&url(&redis)).err().unwrap().kind(), OpenErrorKind::Missing);
    assert_eq!(try_init(&url(&redis)).unwrap_err().kind(), OpenErrorKind::Foreign);
    redis.ask(&["HSET", "{onlyonce}:store", "format", "2", "secret", "x"]);
    assert_eq!(try_open(&url(&redis)).err().unwrap().kind(), OpenErrorKind::Newer);
}

#[test]
fn a_server_that_is_not_there_is_unavailable() {
    let mut redis = Redis::start();
    let address = url(&redis);
    redis.kill();
    assert_eq!(try_open(&address).err().unwrap().kind(), OpenErrorKind::Unavailable);
    let redis = Redis::start_with(&[("requirepass", "secret")]);
    let error = try_init(&url(&redis)).unwrap_err();
    assert_eq!(error.kind(), OpenErrorKind::Unavailable, "{error}");
    let with_password = format!("redis://:secret@{}", redis.address());
    init(&with_password, Floor::NONE);
    claim(&open(&with_password), 1);
}

/// Case B79: a store that is emptied behind our back does not make used keys look new.
#[test]
fn a_store_that_was_emptied_takes_nothing_more() {
    let redis = Redis::start();
    init(&url(&redis), Floor::NONE);
    let store = open(&url(&redis));
    claim(&store, 1);
    redis.ask(&["FLUSHALL"]);
    let error = try_claim(&store, 1).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Damaged);
    assert!(error.to_string().contains("emptied"), "{error}");
}

/// Case B79: a server whose settings became bad while it was away is not used again.
#[test]
fn a_server_is_looked_at_again_when_it_comes_back() {
    let mut redis = Redis::start();
    init(&url(&redis), Floor::NONE);
    let store = open(&url(&redis));
    claim(&store, 1);
    redis.set("maxmemory-policy", "allkeys-lru");
    redis.restart();
    let mut errors = Vec::new();
    for _ in 0..3 {
        errors.push(try_claim(&store, 2).unwrap_err().to_string());
    }
    assert!(errors.last().unwrap().contains("must be noeviction"), "{errors:?}");
}
