//! Cases of retention, leases and clocks.

use std::time::Duration;

use onlyonce::Sweeper;
use onlyonce::core::{Policy, State};
use onlyonce::store::Store as _;
use onlyonce_http::RoutePolicy;

use crate::common::{Door, Shop, Told, post, send, set};
use crate::several::several;

const HOUR: Duration = Duration::from_secs(3_600);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn kept_for(retention: Duration) -> RoutePolicy {
    let record = Policy { retention, ..Policy::default() };
    RoutePolicy { record, wait: Duration::ZERO, ..RoutePolicy::default() }
}

async fn ask(door: &Door) -> Told {
    send(door, post("tap", "seat")).await
}

/// Cases B57 and B60: what a late retry gets is decided by its time alone, at once and without a
/// sweeper: the answer, then that it is no longer kept, and not a second run. Each answer says
/// until when.
#[tokio::test(start_paused = true)]
async fn a_retry_after_the_retention_is_told_that_it_happened_and_does_not_run() {
    for (retention, within, after) in [
        (millis(1_000), millis(900), millis(200)),
        (millis(2_000), millis(1_000), millis(2_000)),
        (24 * HOUR, 23 * HOUR, 2 * HOUR),
        (72 * HOUR, 25 * HOUR, 48 * HOUR),
    ] {
        let set = set(Shop::default(), kept_for(retention)).await;
        let first = ask(&set.door).await;
        tokio::time::sleep(within).await;
        let again = ask(&set.door).await;
        assert_eq!((again.text(), again.says()), ("order 1", "replayed"), "{retention:?}");
        assert_eq!(again.headers["idempotency-expires"], first.headers["idempotency-expires"]);
        tokio::time::sleep(after).await;
        for _ in 0..2 {
            let late = ask(&set.door).await;
            assert_eq!((late.status, &*late.problem()), (410, "reply-not-kept"), "{retention:?}");
        }
        assert_eq!(set.shop.runs(), 1);
    }
}

/// Case B58: clocks as far apart as `skew_max` allows take nothing over early, and nobody is told
/// to wait for longer than the lease or for less than nothing.
#[tokio::test(start_paused = true)]
async fn clocks_that_differ_take_no_living_claim_over() {
    let lease = Duration::from_secs(10);
    let skew_max = Duration::from_secs(600);
    let record = Policy { lease, skew_max, ..Policy::default() };
    let retry_after = Duration::from_secs(60);
    let policy =
        RoutePolicy { record, wait: Duration::ZERO, retry_after, ..RoutePolicy::default() };
    // Five minutes behind, right, and five minutes ahead; each is the holder once.
    let clocks = [Duration::ZERO, Duration::from_secs(300), Duration::from_secs(600)];
    for holder in 0..clocks.len() {
        let several = several(&clocks, Shop::held(), policy.clone()).await;
        let door = several.doors[holder].clone();
        let first = tokio::spawn(async move { ask(&door).await });
        several.shop.started().await;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for door in &several.doors {
                let told = ask(door).await;
                assert_eq!(told.problem(), "request-in-progress");
                let wait: u64 = told.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=lease.as_secs()).contains(&wait), "{wait} s");
            }
        }
        several.shop.go_on();
        assert_eq!(first.await.unwrap().says(), "executed");
        assert_eq!(several.shop.runs(), 1);
    }
}

/// Case B63: an operation that takes longer than its answer is kept for is recorded all the same,
/// and the answer is kept from then on.
#[tokio::test(start_paused = true)]
async fn a_record_does_not_end_while_its_operation_runs() {
    let mut policy = kept_for(millis(1_000));
    policy.record.lease = millis(1_000);
    let set = set(Shop::held(), policy.clone()).await;
    let sweeping = tokio::spawn({
        let (engine, policy) = (set.engine.clone(), policy.record);
        async move {
            let mut sweeper = Sweeper::new(engine, policy);
            loop {
                sweeper.pass().await.unwrap();
                tokio::time::sleep(millis(50)).await;
            }
        }
    });
    let door = set.door.clone();
    let first = tokio::spawn(async move { ask(&door).await });
    set.shop.started().await;
    for _ in 0..6 {
        tokio::time::sleep(millis(500)).await;
        assert_eq!(ask(&set.door).await.problem(), "request-in-progress");
    }
    set.shop.go_on();
    assert_eq!(first.await.unwrap().says(), "executed");
    tokio::time::sleep(millis(500)).await;
    assert_eq!(ask(&set.door).await.says(), "replayed");
    let page = set.store.list(onlyonce::store::Filter::default(), None).await.unwrap();
    let State::Completed { answered_at, retain_until, .. } = &page.records[0].1.state else {
        panic!("{page:?}")
    };
    assert_eq!(retain_until.since(*answered_at), millis(1_000));
    assert_eq!(set.shop.runs(), 1);
    sweeping.abort();
}
