//! What is said to the record service of an operation that ends, or does not.

use std::time::Duration;

use onlyonce_client::{Attempt, Client, Failed, Failure, Kind, Options};
use serde_json::json;

use crate::server::{Server, document, lost, plain, problem};

fn granted() -> String {
    document(&json!({
        "outcome": "granted", "fence": 5, "attempt": 1, "phase": "prepared", "lease_left_ms": 60000,
    }))
}

fn said() -> String {
    document(&json!({"outcome": "done", "state": "in-flight", "lease_left_ms": 60000}))
}

fn client(server: &Server) -> Client {
    Client::new(&server.url).unwrap().with_token("t").unwrap()
}

async fn never(_: Attempt) -> Result<u32, Failure<String>> {
    panic!("it ran")
}

#[tokio::test]
async fn an_operation_is_claimed_committed_run_and_recorded() {
    let server = Server::start([lost(), granted(), said(), lost(), said()]).await;
    let run = async |attempt: Attempt| Ok::<_, Failure<String>>(attempt.fence());
    assert_eq!(client(&server).once("k", "inputs", run).await.unwrap(), 5);
    let (asked, paths) = (server.asked(), server.paths());
    assert_eq!(
        paths,
        ["claim", "claim", "commit", "complete", "complete"].map(|it| format!("/v1/{it}"))
    );
    // A repeated claim is the same claim.
    assert_eq!(asked[0].body, asked[1].body);
    assert_eq!(asked[1].body["phase"], "prepared");
    assert_eq!(asked[4].body["reply"], json!({"status": 200, "json": 5}));
}

#[tokio::test]
async fn nothing_runs_whose_commit_is_not_heard_and_the_key_is_freed() {
    let refused = plain(403, &[], "");
    let server = Server::start([granted(), refused, said()]).await;
    let failed = client(&server).once("k", (), never).await.unwrap_err();
    let Failed::Refused(error) = failed else { panic!("{failed}") };
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(server.paths(), ["/v1/claim", "/v1/commit", "/v1/release"]);
}

/// The answer was long on its way, or the process was stopped: the claim may soon be another's.
#[tokio::test]
async fn nothing_is_begun_under_a_claim_that_is_nearly_over() {
    let nearly = || document(&json!({"outcome": "done", "lease_left_ms": 19000}));
    let server = Server::start([granted(), nearly(), said(), granted(), said(), said()]).await;
    let run = async |attempt: Attempt| Ok::<_, Failure<String>>(attempt.fence());
    assert_eq!(client(&server).once("k", (), run).await.unwrap(), 5);
    let paths = ["claim", "commit", "release", "claim", "commit", "complete"];
    assert_eq!(server.paths(), paths.map(|it| format!("/v1/{it}")));
}

#[tokio::test]
async fn only_who_says_that_it_did_not_happen_frees_the_key() {
    for (failure, word) in [
        (Failure::DidNotHappen("no".to_owned()), "/v1/release"),
        (Failure::CannotTell("lost".to_owned()), "/v1/abandon"),
    ] {
        let server = Server::start([granted(), said(), said()]).await;
        let run = async |_: Attempt| Err::<u32, _>(failure.clone());
        assert!(client(&server).once("k", (), run).await.is_err());
        assert_eq!(server.paths()[2], word);
    }
}

#[tokio::test]
async fn an_operation_that_panics_or_is_dropped_is_unknown_at_once() {
    let server = Server::start([granted(), said(), said()]).await;
    let its = client(&server);
    let run = async |_: Attempt| -> Result<u32, Failure<String>> { panic!("boom") };
    assert!(tokio::spawn(async move { its.once("k", (), run).await }).await.is_err());
    server.came(3).await;
    assert_eq!(server.paths()[2], "/v1/abandon");

    let server = Server::start([granted(), said(), said()]).await;
    let (began, begun) = tokio::sync::oneshot::channel();
    let its = client(&server);
    let running = tokio::spawn(async move {
        let run = async |_: Attempt| -> Result<u32, Failure<String>> {
            began.send(()).unwrap();
            std::future::pending().await
        };
        its.once("k", (), run).await
    });
    begun.await.unwrap();
    running.abort();
    server.came(3).await;
    assert_eq!(server.paths()[2], "/v1/abandon");
}

#[tokio::test]
async fn what_happened_and_is_not_recorded_comes_with_its_result() {
    let server = Server::start([granted(), said()]).await;
    let options = Options { patience: Duration::ZERO, ..Options::default() };
    let run = async |_: Attempt| Ok::<_, Failure<String>>(7);
    let failed = client(&server).with_options(options).once("k", (), run).await.unwrap_err();
    let Failed::Happened { result, error } = failed else { panic!("{failed}") };
    assert_eq!((result, error.kind()), (7, Kind::NotRecorded));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_reply_is_given_and_one_of_another_type_does_not_run_it_again() {
    let replay =
        || document(&json!({"outcome": "replay", "reply": {"status": 200, "json": "text"}}));
    let server = Server::start([replay(), replay()]).await;
    let run = async |_: Attempt| -> Result<String, Failure<String>> { panic!("it ran") };
    assert_eq!(client(&server).once("k", (), run).await.unwrap(), "text");
    let failed = client(&server).once("k", (), never).await.unwrap_err();
    assert_eq!(failed.error().map(|it| it.kind()), Some(Kind::Gone));
}

#[tokio::test]
async fn what_a_key_meets_is_said_and_nothing_runs() {
    for (status, name, kind) in [
        (409, "outcome-unknown", Kind::OutcomeUnknown),
        (422, "key-reused", Kind::Mismatch),
        (410, "reply-not-kept", Kind::Gone),
        (409, "key-sealed", Kind::Sealed),
    ] {
        let server = Server::start([problem(status, name, false, "must")]).await;
        let failed = client(&server).once("k", (), never).await.unwrap_err();
        assert_eq!(failed.error().map(|it| it.kind()), Some(kind));
        assert_eq!(server.paths(), ["/v1/claim"]);
    }
    assert_eq!(Client::new("ftp://host").unwrap_err().kind(), Kind::Invalid);
}
