//! What a route never keeps reaches its first caller and no disk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use onlyonce_journal::{Journal, Settings, Start};
use tokio::sync::Semaphore;

use crate::common::{Answering, Told, post, proxy_on, send, upstream};

const POLICY: &str =
    "[policy]\nredact_headers = [\"x-token\"]\nredact_members = [\"/card/number\"]";
const SECRETS: [&str; 2] = ["once-shown", "4242424242424242"];

/// Answers with a card, and with so much beside it that it streams.
fn card(media_type: &'static str, padding: usize) -> (Answering, Bytes) {
    let body = format!(
        "{{\"amount\": 1.0e2, \"card\": {{\"number\":\"4242424242424242\"}}, \"pad\": \"{}\"}}",
        "x".repeat(padding)
    );
    let bytes = Bytes::from(body);
    let body = bytes.clone();
    let answering: Answering = Arc::new(move |_, _| {
        let answer = Response::builder().status(201).header("x-token", "once-shown");
        let answer = answer.header("content-type", media_type).header("x-shop", "yes");
        answer.body(Full::from(body.clone())).unwrap()
    });
    (answering, bytes)
}

fn on_disk(folder: &Path, text: &str) -> bool {
    let files =
        std::fs::read_dir(folder).unwrap().filter_map(|it| std::fs::read(it.ok()?.path()).ok());
    let mut found = false;
    for bytes in files {
        found |= bytes.windows(text.len()).any(|it| it == text.as_bytes());
    }
    found
}

/// The first answer, that of a duplicate that waits for it, and that of a later one; with the body
/// that was sent. Nothing secret may be on the disk.
async fn answers(media_type: &'static str, padding: usize) -> ([Told; 3], Bytes) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let settings = Settings { segment_bytes: 1 << 20, ..Settings::default() };
    let (journal, _) = Journal::open_or_create(&dir, settings, Start::First).unwrap();
    let (answering, body) = card(media_type, padding);
    let upstream = upstream(answering, 0).await;
    let proxy = proxy_on(Arc::new(journal.clone()), upstream.address, POLICY).await;
    let address = proxy.address;
    let first = tokio::spawn(async move { send(address, post("tap", "seat")).await });
    upstream.started.notified().await;
    let waiting = tokio::spawn(async move { send(address, post("tap", "seat")).await });
    upstream.permits.add_permits(Semaphore::MAX_PERMITS);
    let (first, waited) = (first.await.unwrap(), waiting.await.unwrap());
    let later = send(address, post("tap", "seat")).await;
    assert_eq!(upstream.runs(), 1);
    journal.close();
    assert!(on_disk(&dir, "onlyonce"), "the files are read");
    for secret in SECRETS {
        assert!(!on_disk(&dir, secret), "{secret} of {media_type} stands on the disk");
    }
    ([first, waited, later], body)
}

#[tokio::test]
async fn the_first_caller_gets_all_and_a_replay_names_what_it_lacks() {
    for padding in [0, 100_000] {
        let ([first, waited, later], body) = answers("application/json", padding).await;
        assert_eq!((first.says(), &first.body), ("executed", &body));
        assert_eq!(first.headers["x-token"], "once-shown");
        assert!(!first.headers.contains_key("idempotency-redacted"));
        let left = String::from_utf8(body.to_vec()).unwrap();
        let left = left.replace("\"4242424242424242\"", "null");
        for again in [waited, later] {
            assert_eq!(
                (again.status, again.says(), &*again.body),
                (201, "replayed", left.as_bytes())
            );
            assert_eq!(again.headers["idempotency-redacted"], "\"x-token\", \"/card/number\"");
            assert_eq!(again.headers["content-length"], left.len().to_string());
            assert_eq!(again.headers["x-shop"], "yes");
            assert!(!again.headers.contains_key("x-token"));
        }
    }
}

#[tokio::test]
async fn an_answer_in_which_nothing_can_be_found_is_not_kept() {
    for padding in [0, 100_000] {
        let ([first, waited, later], body) = answers("text/plain", padding).await;
        assert_eq!((first.says(), &first.body), ("executed", &body));
        for again in [waited, later] {
            assert_eq!((again.status, again.problem().as_str()), (410, "reply-not-kept"));
        }
    }
}
