//! A primary that is lost, and a standby without the last claims that takes its place.

use std::time::Duration;

use onlyonce_testbed::Postgres;

use crate::caller::order;
use crate::process::{Proxy, onlyonce, until};
use crate::store::uuid_v7;
use crate::upstream::{Manner, Upstream};

const SHOP: &str = "postgres";

/// A primary with a store, and a standby that no commit waits for.
fn pair() -> (Postgres, Postgres) {
    let primary = Postgres::start();
    onlyonce(["store", "init", "--first", "--store", &primary.url(SHOP)]).done();
    let standby = Postgres::standby_of(&primary);
    let follows = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    until("a standby that follows", || (primary.sql(SHOP, follows) == "1").then_some(()));
    (primary, standby)
}

/// Until the standby has all that was confirmed so far.
fn await_copy(primary: &Postgres) {
    let all = "SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication";
    until("the standby has it", || (primary.sql(SHOP, all) == "t").then_some(()));
}

/// Case B79. The limit, and what is left of the promise behind it: docs/stores-sql.md.
#[test]
fn after_a_failover_that_lost_claims_only_keys_without_a_time_run_again_once_it_was_said() {
    let (mut primary, mut standby) = pair();
    let upstream = Upstream::open();
    let told = onlyonce(["keys", "list", "--store", &primary.url(SHOP)]).failed(3);
    assert!(told.contains("accept=asynchronous"), "{told}");
    let url = format!("{}?accept=asynchronous", primary.url(SHOP));
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    let answer = order("answered").send(proxy.address).ran();
    upstream.manner(Manner::Hold);
    let begun = order("running").begin(proxy.address);
    upstream.began("running");
    await_copy(&primary);

    // The standby falls behind, and everything goes on.
    standby.kill();
    upstream.manner(Manner::Answer(0));
    upstream.let_go();
    begun.answer().unwrap().ran();
    let timed = uuid_v7(Duration::ZERO);
    for key in ["lost", "lost-too", &timed] {
        order(key).send(proxy.address).ran();
    }
    proxy.stop();
    primary.kill();
    standby.restart();
    standby.sql(SHOP, "SELECT pg_promote()");
    let url = standby.url(SHOP);

    // What was confirmed and told to its caller is gone, and nobody says so.
    onlyonce(["doctor", "--store", &url]).done();
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    order("lost").send(proxy.address).ran();
    assert_eq!(upstream.effects_of("lost"), 2, "the loss is shown");
    proxy.stop();

    onlyonce(["store", "restored", "--at-rest", "--store", &url]).done();
    let proxy = Proxy::start_with(&url, &upstream, &[]);
    assert_eq!(order("answered").send(proxy.address).replayed(), answer);
    order("running").send(proxy.address).is_problem(409, "outcome-unknown");
    order(&timed).send(proxy.address).is_problem(412, "key-expired");
    order("lost").send(proxy.address).replayed();
    for (key, effects) in [("answered", 1), ("running", 1), (&timed, 1), ("lost", 2)] {
        assert_eq!(upstream.effects_of(key), effects, "{key}");
    }
    // It has no time and no record: nothing tells it from a new one.
    order("lost-too").send(proxy.address).ran();
    proxy.stop();
}

#[test]
fn a_doctor_names_a_standby_that_no_commit_waits_for_and_what_ends_the_risk() {
    let (primary, _standby) = pair();
    let url = primary.url(SHOP);
    let ran = onlyonce(["doctor", "--store", &url]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    let row = ran.out.lines().find(|line| line.starts_with("standbys")).unwrap().to_owned();
    assert!(row.contains("refused") && row.contains("synchronous_standby_names"), "{row}");
    let taken = ["doctor", "--json", "--store", &url, "--accept-risk", "asynchronous"];
    let told = onlyonce(taken).done();
    assert!(told.contains("\"risk\":\"asynchronous\""), "{told}");
    let wait = "ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()";
    primary.sql(SHOP, wait);
    until("it is waited for", || {
        (onlyonce(["doctor", "--store", &url]).code == Some(0)).then_some(())
    });
}
