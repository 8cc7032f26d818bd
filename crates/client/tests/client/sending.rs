//! One key for each intent, whatever is sent again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use onlyonce_client::{
    FileIntents, IntentStore, Kind, MemoryIntents, Retrying, RetryingClient, json_request,
};

use crate::server::{Server, lost, plain, problem};

fn done() -> String {
    plain(201, &["idempotency-status: executed"], "{\"order\":1}")
}

async fn send(server: &Server, client: &RetryingClient) -> Result<u16, onlyonce_client::OnceError> {
    let request = json_request(&server.url, &serde_json::json!({"cart": 17})).unwrap();
    client.send("pay cart 17", request).await.map(|it| it.status)
}

fn in_memory() -> RetryingClient {
    RetryingClient::new(MemoryIntents::default())
}

#[tokio::test]
async fn a_key_outlives_what_is_lost_what_is_busy_and_the_process() {
    let busy = problem(409, "request-in-progress", true, "must");
    let away = plain(503, &["retry-after: 0"], "");
    let server = Server::start([lost(), busy, away, done(), done()]).await;
    let folder = tempfile::tempdir().unwrap();
    let client = || RetryingClient::new(FileIntents::new(folder.path()).unwrap());
    assert_eq!(send(&server, &client()).await.unwrap(), 201);
    // All that a new process has of the old one is the folder.
    assert_eq!(send(&server, &client()).await.unwrap(), 201);
    let keys = server.keys();
    assert_eq!(keys.len(), 5);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    client().forget("pay cart 17").await.unwrap();
    server.script.lock().unwrap().push_back(done());
    send(&server, &client()).await.unwrap();
    assert_ne!(server.keys()[5], keys[0]);
}

#[tokio::test]
async fn a_key_is_changed_once_and_only_when_nothing_can_have_run_under_it() {
    let never = || problem(400, "key-invalid", false, "must_not");
    let server = Server::start([never(), done()]).await;
    assert_eq!(send(&server, &in_memory()).await.unwrap(), 201);
    let keys = server.keys();
    assert_ne!(keys[0], keys[1]);
    let server = Server::start([never(), never(), done()]).await;
    let client = in_memory();
    assert_eq!(send(&server, &client).await.unwrap_err().kind(), Kind::Refused);
    assert_eq!(server.keys().len(), 2);
    // Under this one another request has run.
    let server = Server::start([problem(422, "key-reused", false, "must_not"), done()]).await;
    assert_eq!(send(&server, &in_memory()).await.unwrap_err().kind(), Kind::Mismatch);
    assert_eq!(server.keys().len(), 1);
}

#[tokio::test]
async fn what_nobody_knows_ends_it_at_once() {
    for answer in [
        problem(409, "outcome-unknown", false, "must"),
        plain(502, &["idempotency-status: unknown"], ""),
    ] {
        let server = Server::start([answer, done()]).await;
        let error = send(&server, &in_memory()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::OutcomeUnknown);
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn what_the_api_says_is_an_answer_however_it_looks() {
    let own = problem(409, "request-in-progress", true, "must");
    let own = own.replace("\r\n\r\n", "\r\nidempotency-status: executed\r\n\r\n");
    for (answer, status) in [(own, 409), (plain(402, &[], ""), 402), (plain(500, &[], ""), 500)] {
        let server = Server::start([answer]).await;
        assert_eq!(send(&server, &in_memory()).await.unwrap(), status);
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_wait_that_is_told_is_cut_to_the_bound_and_ends_with_patience() {
    let busy = || plain(503, &["retry-after: 3600"], "");
    let server = Server::start([busy(), done()]).await;
    let short = Retrying { retry_after_max: Duration::ZERO, ..Retrying::default() };
    assert_eq!(send(&server, &in_memory().with_options(short)).await.unwrap(), 201);
    let server = Server::start([busy(), done()]).await;
    let patience = Duration::from_secs(20);
    let client = in_memory().with_options(Retrying { patience, ..Retrying::default() });
    let error = send(&server, &client).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::NoAnswer, true));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(server.asked().len(), 1);
}

/// A disk that is full.
struct Full;

impl IntentStore for Full {
    fn take(&self, _: &str, _: &dyn Fn() -> String) -> io::Result<String> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn replace(&self, _: &str, _: &str, _: &dyn Fn() -> String) -> io::Result<String> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn forget(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_sent_and_neither_is_what_cannot_be_right() {
    let server = Server::start([done()]).await;
    let error = send(&server, &RetryingClient::new(Full)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotKept);
    let client = in_memory();
    let request = || json_request(&server.url, &1).unwrap();
    let mut by_hand = request();
    by_hand.headers_mut().insert("idempotency-key", "mine".parse().unwrap());
    let elsewhere = json_request("/orders", &1).unwrap();
    let long = "x".repeat(onlyonce_client::NAME_MAX + 1);
    for (intent, request) in
        [("a", by_hand), ("a", elsewhere), (" ", request()), (long.as_str(), request())]
    {
        let error = client.send(intent, request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn taken_many_times_at_once_an_intent_has_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(FileIntents::new(folder.path()).unwrap());
    for _ in 0..20 {
        let take = || {
            let store = Arc::clone(&store);
            std::thread::spawn(move || store.take("one", &onlyonce_client::uuid7).unwrap())
        };
        let all: Vec<_> = (0..8).map(|_| take()).collect();
        let all: Vec<_> = all.into_iter().map(|it| it.join().unwrap()).collect();
        assert!(all.iter().all(|key| *key == all[0]), "{all:?}");
        let new = store.replace("one", &all[0], &|| "new".to_owned()).unwrap();
        assert_eq!(store.replace("one", &all[0], &|| "newer".to_owned()).unwrap(), new);
        assert_eq!(store.take("one", &|| "newest".to_owned()).unwrap(), new);
        store.forget("one").unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_another_client_wrote_is_read_and_one_of_another_intent_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileIntents::new(folder.path()).unwrap();
    store.take("pay", &|| "k".to_owned()).unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "{\"intent\": \"pay\", \"key\": \"theirs\"}").unwrap();
    assert_eq!(store.take("pay", &|| "k".to_owned()).unwrap(), "theirs");
    for wrong in ["", "{}", "{\"intent\": \"p\", \"key\": \"k\"}", "{\"intent\": \"pay\"}"] {
        std::fs::write(&file, wrong).unwrap();
        assert!(store.take("pay", &|| "k".to_owned()).is_err(), "{wrong}");
    }
}
