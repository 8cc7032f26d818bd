//! What the engine relies on: time that never runs backwards, sleeps on that time, tasks that
//! outlive whoever spawned them, and claim ids that never come twice.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onlyonce::Runtime;
use onlyonce::core::Holder;
use onlyonce_tokio::{TokioRuntime, this_process};

#[tokio::test(start_paused = true)]
async fn a_sleep_ends_when_its_time_has_passed_on_the_same_clock() {
    let runtime = TokioRuntime::new();
    let before = runtime.now();
    runtime.sleep(Duration::from_secs(3600)).await;
    let slept = runtime.now().since(before);
    let hour = Duration::from_secs(3600);
    assert!(hour <= slept && slept < hour + Duration::from_secs(1), "{slept:?}");
}

#[tokio::test(start_paused = true)]
async fn the_clock_never_runs_backwards() {
    let runtime = TokioRuntime::new();
    let mut latest = runtime.now();
    for _ in 0..100 {
        runtime.sleep(Duration::from_millis(7)).await;
        let now = runtime.now();
        assert!(latest <= now);
        latest = now;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_outlives_whoever_spawned_it() {
    let runtime = TokioRuntime::new();
    let (done, sleep) = (Arc::new(AtomicBool::new(false)), runtime.sleep(Duration::from_secs(1)));
    let by_task = Arc::clone(&done);
    runtime.spawn(Box::pin(async move {
        sleep.await;
        by_task.store(true, Ordering::SeqCst);
    }));
    drop(runtime);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(done.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_ends_alone() {
    let runtime = TokioRuntime::new();
    runtime.spawn(Box::pin(async { panic!("on purpose") }));
    runtime.sleep(Duration::from_secs(1)).await;
    assert_ne!(runtime.now().as_millis(), 0);
}

#[test]
fn a_thread_of_no_runtime_may_spawn_and_sleep() {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let runtime = Arc::new(tokio.block_on(async { TokioRuntime::new() }));
    let elsewhere = Arc::clone(&runtime);
    let sleep = std::thread::spawn(move || {
        elsewhere.spawn(Box::pin(async {}));
        elsewhere.sleep(Duration::from_millis(1))
    });
    tokio.block_on(sleep.join().unwrap());
}

#[tokio::test]
async fn claim_ids_never_come_twice() {
    let runtime = TokioRuntime::new();
    let ids: HashSet<_> = (0..10_000).map(|_| runtime.claim_id()).collect();
    assert_eq!(ids.len(), 10_000);
}

#[tokio::test]
async fn the_holder_is_this_process_and_stays_the_same() {
    let runtime = TokioRuntime::new();
    assert_eq!(runtime.holder(), this_process());
    assert_ne!(runtime.holder(), Holder::default());
}
