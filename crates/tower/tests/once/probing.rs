//! An outcome that nobody knows, and a service that can be asked: what it knows is taken, and what
//! it does not know settles nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use onlyonce::core::{OnUnknown, Policy, Receiver, Secret};
use onlyonce::store::MemoryStore;
use onlyonce::{Engine, Settings};
use onlyonce_http::{Absent, FailureKind, Keys, Probe, RoutePolicy, UpstreamFailure};
use onlyonce_tokio::TokioRuntime;
use onlyonce_tower::{BoxError, OnceLayer, RequestBody};
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt};

use crate::common::{Told, post, read};

/// How long after the loss a "no" becomes final.
const FINAL: Duration = Duration::from_secs(72);

/// How the bank answers questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Truly,
    /// The same page to everything.
    OnePage,
    /// Nothing but a status.
    Bare404,
    Running,
    Fails,
}

struct Books {
    charges: Vec<String>,
    questions: u32,
    answers: Answers,
    /// Of the next charge: whether it is booked before the connection is lost.
    loses: Option<bool>,
}

type Bank = Arc<Mutex<Books>>;
type Door = BoxCloneService<Request<Full<Bytes>>, Told, BoxError>;

fn bank(answers: Answers, loses: Option<bool>) -> Bank {
    Arc::new(Mutex::new(Books { charges: Vec::new(), questions: 0, answers, loses }))
}

fn said(status: u16, body: impl Into<Bytes>) -> Result<Response<Full<Bytes>>, BoxError> {
    let status = StatusCode::from_u16(status)?;
    Ok(Response::builder().status(status).body(Full::new(body.into()))?)
}

fn handle(
    bank: &Bank,
    request: &Request<RequestBody<Full<Bytes>>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let mut books = bank.lock().unwrap();
    let lost = || Err(UpstreamFailure::new(FailureKind::SentAndLost, "on purpose").into());
    if request.method() == http::Method::POST {
        let key = request.headers()["idempotency-key"].to_str()?.trim_matches('"').to_owned();
        let loses = books.loses.take();
        if loses != Some(false) {
            books.charges.push(key);
        }
        return if loses.is_some() { lost() } else { said(201, "charged") };
    }
    books.questions += 1;
    let key = request.uri().path().strip_prefix("/charges/").unwrap();
    match books.answers {
        Answers::Truly if books.charges.iter().any(|it| it == key) => said(200, "charge of before"),
        Answers::Truly => said(404, "{\"error\":\"no such charge\"}"),
        Answers::OnePage => said(200, "<h1>welcome</h1>"),
        Answers::Bare404 => said(404, "Not Found"),
        Answers::Running => said(409, "{\"error\":\"no such charge\"}"),
        Answers::Fails => lost(),
    }
}

async fn door(bank: &Bank) -> Door {
    door_with(bank, |_| {}).await
}

async fn door_with(bank: &Bank, change: impl FnOnce(&mut Policy)) -> Door {
    let probe = Probe {
        path: "/charges/{key}".to_owned(),
        absent_status: StatusCode::NOT_FOUND,
        absent: Absent::Member("/error".to_owned(), "no such charge".to_owned()),
    };
    let mut policy = RoutePolicy::default();
    policy.record.on_unknown = OnUnknown::Probe;
    policy.record.receiver = Receiver::queryable(Duration::from_secs(10), Duration::from_secs(60));
    change(&mut policy.record);
    policy.probe = policy.record.receiver.settle.map(|_| probe);
    let (store, runtime) = (Arc::new(MemoryStore::new()), Arc::new(TokioRuntime::new()));
    let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
    let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
    let bank = Arc::clone(bank);
    let service = tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
        let answer = handle(&bank, &request);
        async move { answer }
    });
    let once = OnceLayer::new(engine, keys, Arc::new(policy.check().unwrap())).layer(service);
    BoxCloneService::new(once.and_then(async |answer| Ok(read(answer).await)))
}

fn tap(door: &Door) -> impl Future<Output = Told> + Send + use<> {
    let door = door.clone();
    async move { door.oneshot(post("tap", "seat")).await.unwrap() }
}

fn charges(bank: &Bank) -> usize {
    bank.lock().unwrap().charges.len()
}

#[tokio::test(start_paused = true)]
async fn what_happened_is_found_and_answers_all_retries() {
    let bank = bank(Answers::Truly, Some(true));
    let door = door(&bank).await;
    assert_eq!(tap(&door).await.problem(), "outcome-unknown");
    for _ in 0..3 {
        let told = tap(&door).await;
        assert_eq!((told.status, told.says(), told.text()), (200, "replayed", "charge of before"));
    }
    assert_eq!(charges(&bank), 1);
    // One about a key never used, one about this one, and then it is known.
    assert_eq!(bank.lock().unwrap().questions, 2);
}

#[tokio::test(start_paused = true)]
async fn a_no_counts_only_once_nothing_can_arrive_any_more() {
    let bank = bank(Answers::Truly, Some(false));
    let door = door(&bank).await;
    assert_eq!(tap(&door).await.problem(), "outcome-unknown");
    for wait in [0, 30, 40] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        assert_eq!(tap(&door).await.problem(), "outcome-unknown");
        assert_eq!(charges(&bank), 0);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = tap(&door).await;
    assert_eq!((told.says(), told.text(), charges(&bank)), ("executed", "charged", 1));
    assert_eq!(tap(&door).await.says(), "replayed");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_late_is_found_before_a_no_is_final() {
    let bank = bank(Answers::Truly, Some(false));
    let door = door(&bank).await;
    assert_eq!(tap(&door).await.problem(), "outcome-unknown");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(tap(&door).await.problem(), "outcome-unknown");
    bank.lock().unwrap().charges.push("tap".to_owned());
    tokio::time::sleep(FINAL).await;
    assert_eq!(tap(&door).await.says(), "replayed");
    assert_eq!(charges(&bank), 1);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_know_settles_nothing_ever() {
    for answers in [Answers::OnePage, Answers::Bare404, Answers::Running, Answers::Fails] {
        for happened in [true, false] {
            let bank = bank(answers, Some(happened));
            let door = door(&bank).await;
            assert_eq!(tap(&door).await.problem(), "outcome-unknown");
            for _ in 0..3 {
                let told = tap(&door).await;
                assert_eq!(told.problem(), "outcome-unknown", "{answers:?}");
                assert_eq!(charges(&bank), usize::from(happened));
                tokio::time::sleep(FINAL * 100).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_breaks_later_is_not_believed_of_what_it_cannot_know() {
    let bank = bank(Answers::Truly, Some(false));
    let door = door(&bank).await;
    tap(&door).await;
    assert_eq!(tap(&door).await.problem(), "outcome-unknown");
    bank.lock().unwrap().answers = Answers::Bare404;
    tokio::time::sleep(FINAL).await;
    assert_eq!(tap(&door).await.problem(), "outcome-unknown");
    assert_eq!(charges(&bank), 0);
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_ask_little_and_run_once() {
    let bank = bank(Answers::Truly, Some(false));
    let door = door(&bank).await;
    tap(&door).await;
    tokio::time::sleep(FINAL).await;
    let taps: Vec<_> = (0..50).map(|_| tokio::spawn(tap(&door))).collect();
    for tap in taps {
        let told = tap.await.unwrap();
        let says = ["executed", "replayed", "unknown", "in-progress"];
        assert!(says.contains(&told.says()), "{told:?}");
    }
    assert_eq!(charges(&bank), 1);
}

/// The bank drops a repeated key for a day, and can be asked.
fn keyed(policy: &mut Policy) {
    let window = Duration::from_secs(24 * 60 * 60);
    policy.on_unknown = OnUnknown::Auto;
    policy.receiver = Receiver { keyed: Some(window), ..policy.receiver };
}

#[tokio::test(start_paused = true)]
async fn a_service_that_drops_duplicates_is_sent_it_again_until_it_forgets_and_then_asked() {
    let day = Duration::from_secs(24 * 60 * 60);
    // The lease, the clocks' difference, and what is late.
    let margin = Duration::from_secs(30 + 1 + 60);
    for (later, is_again) in
        [(Duration::ZERO, true), (day - margin - FINAL, true), (day - margin, false)]
    {
        let bank = bank(Answers::Truly, Some(false));
        let door = door_with(&bank, keyed).await;
        assert_eq!(tap(&door).await.problem(), "outcome-unknown");
        tokio::time::sleep(later).await;
        let told = tap(&door).await;
        assert_eq!((told.says(), charges(&bank)), ("executed", 1), "{later:?}");
        // Within the window nobody need be asked.
        assert_eq!(bank.lock().unwrap().questions == 0, is_again, "{later:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn on_unknown_retry_holds_once_the_service_has_forgotten_the_key() {
    let day = Duration::from_secs(24 * 60 * 60);
    for (later, charged) in [(Duration::ZERO, 2), (day, 1)] {
        let bank = bank(Answers::Truly, Some(true));
        let door = door_with(&bank, |policy| {
            policy.on_unknown = OnUnknown::Retry;
            policy.receiver = Receiver::keyed(day);
        });
        let door = door.await;
        assert_eq!(tap(&door).await.problem(), "outcome-unknown");
        tokio::time::sleep(later).await;
        let told = tap(&door).await;
        // This bank does not really drop what is repeated, so that it can be counted.
        assert_eq!(charges(&bank), charged, "{later:?}");
        let says = if charged == 2 { "executed" } else { "unknown" };
        assert_eq!(told.says(), says);
    }
}
