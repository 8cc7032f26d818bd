//! Many requests with one key at once.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::common::{
    Proxy, Told, Upstream, caller, caller2, orders, origin, post, proxy, read, send, upstream,
};

/// Of each version of HTTP.
const ROUNDS: u32 = 20;
const DUPLICATES: usize = 1_000;

/// Status, body and fields of an answer.
type Parts = (u16, Vec<u8>, Vec<(String, Vec<u8>)>);

/// What must be the same in every answer; the rest is specified to differ between the first
/// answer and its replays.
fn same(told: &Told) -> Parts {
    let differing = [
        "date",
        "idempotency-status",
        "idempotent-replayed",
        "idempotent-original-date",
        "cache-control",
    ];
    let headers = told.headers.iter().filter(|(name, _)| !differing.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let mut headers: Vec<_> = headers.collect();
    // Fields of one name keep their order; that of different ones means nothing (RFC 9110, 5.3).
    headers.sort_by(|one, other| one.0.cmp(&other.0));
    (told.status, told.body.to_vec(), headers)
}

/// Every caller got the one answer, or was told to come again.
fn check(answers: &[Told], round: u32, runs: u32) {
    assert_eq!(answers.len(), DUPLICATES);
    assert_eq!(runs, round, "one run a round");
    let (later, told): (Vec<_>, Vec<_>) = answers.iter().partition(|told| told.status == 409);
    for one in &later {
        assert_eq!(one.problem(), "request-in-progress");
        assert!(one.headers.contains_key("retry-after"));
    }
    let distinct: BTreeSet<_> = told.iter().map(|told| same(told)).collect();
    assert_eq!(distinct.len(), 1, "{distinct:?}");
    assert_eq!(told.iter().filter(|told| told.says() == "executed").count(), 1);
}

/// Until so many requests are being answered.
async fn all_have_come(proxy: &Proxy, requests: usize) {
    let all = format!("onlyonce_requests_running {requests}");
    while proxy.telemetry.render().lines().all(|line| line != all) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The run ends once all have come, and everyone is told.
async fn end((upstream, proxy): (&Upstream, &Proxy), tasks: Vec<JoinHandle<Told>>, round: u32) {
    all_have_come(proxy, DUPLICATES).await;
    upstream.permits.add_permits(1);
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    check(&answers, round, upstream.runs());
}

/// Case B01.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_duplicates_over_http_1_run_once_and_all_get_the_same() {
    more_files();
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "[policy]\nwait = \"1m\"").await;
    for round in 1..=ROUNDS {
        let request = || origin(post(&format!("key-{round}"), "seat"));
        let mut callers = Vec::new();
        for _ in 0..DUPLICATES {
            callers.push(caller(proxy.address).await);
        }
        let tasks = callers.into_iter().map(|mut caller| {
            let request = request();
            tokio::spawn(async move { read(caller.send_request(request).await.unwrap()).await })
        });
        end((&upstream, &proxy), tasks.collect(), round).await;
    }
}

/// A connection of each caller takes two places in the table of open files.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// Case B01.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_duplicates_over_http_2_run_once_and_all_get_the_same() {
    let upstream = upstream(orders(), 0).await;
    let proxy = proxy(upstream.address, "[policy]\nwait = \"1m\"").await;
    for round in 1..=ROUNDS {
        let key = format!("key-{round}");
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let caller = caller2(proxy.address).await;
            for _ in 0..DUPLICATES / 4 {
                let (mut caller, key) = (caller.clone(), key.clone());
                tasks.push(tokio::spawn(async move {
                    caller.ready().await.unwrap();
                    read(caller.send_request(post(&key, "seat")).await.unwrap()).await
                }));
            }
        }
        end((&upstream, &proxy), tasks, round).await;
    }
}

#[tokio::test]
async fn fifty_duplicates_of_a_refused_request_make_one_call() {
    let refuse = std::sync::Arc::new(|_: u32, _: &crate::common::Seen| {
        http::Response::builder().status(429).body("slow down".into()).unwrap()
    });
    let upstream = upstream(refuse, 0).await;
    let proxy = proxy(upstream.address, "").await;
    let address = proxy.address;
    let tasks: Vec<_> = (0..50).map(|_| tokio::spawn(send(address, post("tap", "seat")))).collect();
    upstream.started.notified().await;
    all_have_come(&proxy, 50).await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    upstream.permits.add_permits(1);
    for task in tasks {
        let told = task.await.unwrap();
        assert_eq!((told.status, told.says()), (429, "not-executed"));
        assert_eq!(told.body, "slow down");
    }
    assert_eq!(upstream.runs(), 1);
}
