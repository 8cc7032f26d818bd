//! What each outcome is answered with, decided by the core itself where it can be.

use std::time::Duration;

use http::{HeaderValue, Request, Response};
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, Look, Next, Phase, Policy, Secret,
    Verdict, decide,
};
use serde_json::Value;

use super::*;
use crate::digest::Keys;
use crate::intake::{self, Intake};
use crate::{capture, problem};

const NOW: Timestamp = Timestamp::from_millis(1_795_600_800_000);

fn request(fields: &[(&str, &str)]) -> Protected {
    let mut request = Request::post("/orders").header("idempotency-key", "order-1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    let keys = Keys::new(Secret::from_bytes([7; 32]));
    let intake = intake::read(&head, None, &RoutePolicy::default(), &keys, NOW);
    let Intake::Protect(request) = intake else { panic!("{intake:?}") };
    request
}

/// Carries commands through the core, a second apart.
struct World {
    record: Option<Record>,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        Self { record: None, now: NOW }
    }

    fn ask(&mut self, command: &Command) -> Outcome {
        self.now = self.now.plus_millis(1000);
        let policy = Policy::default();
        let decision = decide(self.now, Floor::NONE, &policy, self.record.as_ref(), command);
        match decision.next {
            Next::Keep => {}
            Next::Write(record) => self.record = Some(record),
            Next::Delete => self.record = None,
        }
        decision.outcome
    }

    fn claim(&mut self, print: u8) -> Outcome {
        self.ask(&Command::Claim(Claim {
            fingerprint: Fingerprint::new(1, [print; 32]),
            claim_id: ClaimId::from_bytes([self.now.as_millis() as u8; 16]),
            holder: Holder::default(),
            key_time: None,
            credential: None,
            phase: Phase::Committing,
        }))
    }

    fn fence(&self) -> Fence {
        self.record.as_ref().unwrap().fence
    }

    fn look(&mut self) -> Outcome {
        let fingerprint = Fingerprint::new(1, [1; 32]);
        self.ask(&Command::Look(Look { fingerprint, key_time: None, credential: None }))
    }

    fn told(&self, outcome: &Outcome) -> Answer {
        answer(outcome, self.record.as_ref(), &request(&[]), &RoutePolicy::default(), self.now)
    }
}

#[test]
fn nobody_is_told_to_wait_longer_than_the_claim_can_last() {
    let record = Policy { skew_max: Duration::ZERO, ..Policy::default() };
    let retry_after = Duration::from_secs(3_600);
    let policy = RoutePolicy { record, retry_after, ..RoutePolicy::default() };
    // By a clock that is behind, the claim seems to last for longer than any lease.
    for (left, told) in [(25_001, "26"), (600_000, "30"), (1, "1"), (0, "1")] {
        let outcome = Outcome::InFlight { lease_until: NOW.plus_millis(left) };
        let problem = problem_of(answer(&outcome, None, &request(&[]), &policy, NOW));
        let rendered = problem.render(problem::TYPE_BASE, None);
        assert_eq!(rendered.head.headers["retry-after"], told, "{left} ms");
    }
}

fn created() -> Reply {
    let head = Response::builder()
        .status(201)
        .header("location", "/orders/7829")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    capture::whole(&head, b"order confirmed", false, 1 << 20)
}

fn problem_of(answer: Answer) -> Problem {
    let Answer::Problem(problem) = answer else { panic!("{answer:?}") };
    problem
}

fn check(problem: &Problem, kind: ProblemKind, says: IdempotencyStatus, happened: Happened) {
    assert_eq!((problem.kind(), problem.says(), problem.happened()), (kind, says, happened));
}

#[test]
fn the_first_runs_a_duplicate_is_told_to_wait_and_a_retry_gets_the_answer() {
    let mut world = World::new();
    let granted = world.claim(1);
    assert!(matches!(world.told(&granted), Answer::Run(_)));
    let outcome = world.claim(1);
    let problem = problem_of(world.told(&outcome));
    check(
        &problem,
        ProblemKind::RequestInProgress,
        IdempotencyStatus::InProgress,
        Happened::Unknown,
    );
    let rendered = problem.render(problem::TYPE_BASE, None);
    assert_eq!(rendered.head.headers["retry-after"], "2");
    let fence = world.fence();
    world.ask(&Command::Complete { fence, reply: created() });
    let outcome = world.claim(1);
    let Answer::Replay(replay) = world.told(&outcome) else { panic!("{outcome:?}") };
    assert_eq!((replay.head.status.as_u16(), &replay.body[..]), (201, &b"order confirmed"[..]));
    assert_eq!(replay.head.headers["idempotency-status"], "replayed");
    assert_eq!(replay.head.headers["location"], "/orders/7829");
}

/// Case B66.
#[test]
fn first_answer_and_replays_name_the_same_expiry_and_keep_to_it() {
    let mut world = World::new();
    world.claim(1);
    let policy = RoutePolicy::default();
    let first = render::expires(world.fence(), &policy.record, None);
    world.now = world.now.plus_millis(20_000);
    let fence = world.fence();
    world.ask(&Command::Complete { fence, reply: created() });
    for _ in 0..2 {
        let outcome = world.claim(1);
        let Answer::Replay(replay) = world.told(&outcome) else { panic!("{outcome:?}") };
        let expires = &replay.head.headers["idempotency-expires"];
        assert_eq!(*expires, crate::date::http_date(first));
    }
    world.now = first;
    assert!(matches!(world.look(), Outcome::Replay { .. }));
}

/// Case B96.
#[test]
fn a_reused_key_says_what_became_of_the_first_request() {
    let mut world = World::new();
    world.claim(1);
    let kind = ProblemKind::KeyReused;
    let outcome = world.claim(2);
    let told = problem_of(world.told(&outcome));
    check(&told, kind, IdempotencyStatus::Mismatch, Happened::Unknown);
    let fence = world.fence();
    world.ask(&Command::Complete { fence, reply: created() });
    let outcome = world.claim(2);
    let told = problem_of(world.told(&outcome));
    check(&told, kind, IdempotencyStatus::Mismatch, Happened::Yes);
    assert_eq!(told.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[test]
fn an_unknown_outcome_is_said_and_never_glossed_over() {
    let mut world = World::new();
    world.claim(1);
    let (fence, cause) = (world.fence(), Cause::TimedOut);
    world.ask(&Command::Abandon { fence, cause });
    let first = failed_by_default(FailureKind::TimedOut, world.record.as_ref(), world.now);
    assert_eq!(first.status(), StatusCode::GATEWAY_TIMEOUT);
    let outcome = world.claim(1);
    let later = problem_of(world.told(&outcome));
    assert_eq!(later.status(), StatusCode::CONFLICT);
    for problem in [first, later] {
        check(&problem, ProblemKind::OutcomeUnknown, IdempotencyStatus::Unknown, Happened::Unknown);
        let body = problem.body(problem::TYPE_BASE);
        assert_eq!(body["cause"], "timed-out");
        assert_eq!(body["reuse_key"], "must");
    }
    let lost = failed_by_default(FailureKind::SentAndLost, None, NOW);
    assert_eq!(lost.status(), StatusCode::BAD_GATEWAY);
}

#[test]
fn not_executed_is_said_only_if_no_attempt_can_have_run() {
    let mut world = World::new();
    world.claim(1);
    let fence = world.fence();
    world.ask(&Command::Release { fence, stranger: false });
    let told = failed_by_default(FailureKind::NeverSent, world.record.as_ref(), world.now);
    let kind = ProblemKind::UpstreamUnreachable;
    check(&told, kind, IdempotencyStatus::NotExecuted, Happened::No);

    // Somebody had it run again without knowing whether the first attempt happened.
    let mut world = World::new();
    world.claim(1);
    let fence = world.fence();
    world.ask(&Command::Abandon { fence, cause: Cause::TimedOut });
    let verdict = Verdict::RunAgain;
    let (by, why) = (String::new(), String::new());
    world.ask(&Command::Resolve { fence, verdict, by, why });
    world.claim(1);
    let fence = world.fence();
    world.ask(&Command::Release { fence, stranger: false });
    let told = failed_by_default(FailureKind::NeverSent, world.record.as_ref(), world.now);
    check(&told, kind, IdempotencyStatus::NotEvaluated, Happened::Unknown);
    assert_eq!(failed_by_default(FailureKind::NeverSent, None, NOW).happened(), Happened::Unknown);
}

/// Case B41.
#[test]
fn an_answer_too_large_to_keep_is_gone_and_not_run_again() {
    let mut world = World::new();
    world.claim(1);
    let fence = world.fence();
    world.ask(&Command::Complete { fence, reply: Reply::not_kept(201) });
    let outcome = world.claim(1);
    let told = problem_of(world.told(&outcome));
    check(&told, ProblemKind::ReplyNotKept, IdempotencyStatus::Gone, Happened::Yes);
    let body = told.body(problem::TYPE_BASE);
    assert_eq!(body["original_status"], 201);
    assert_eq!(body["answered_at"], "2026-11-25T10:00:02.000Z");
}

#[test]
fn a_sealed_key_says_so_in_the_words_of_the_seal_if_it_has_any() {
    for (reply, kept) in [(created(), true), (Reply::kept(410, "not http"), false)] {
        let mut world = World::new();
        let seal =
            |reply| Command::Seal { reply, key_time: None, by: String::new(), why: String::new() };
        world.ask(&seal(reply));
        let outcome = world.claim(1);
        let told = world.told(&outcome);
        if let (true, Answer::Replay(rendered)) = (kept, &told) {
            assert_eq!(rendered.head.headers["idempotency-status"], "sealed");
            assert!(!rendered.head.headers.contains_key("idempotent-replayed"));
        } else {
            let told = problem_of(told);
            assert!(!kept);
            check(&told, ProblemKind::KeySealed, IdempotencyStatus::Sealed, Happened::No);
        }
    }
}

#[test]
fn a_question_without_risk_claims_no_more_than_is_certain() {
    let policy = RoutePolicy::default();
    let ask = |fields: &[(&str, &str)], record: Option<&Record>| {
        let mut request = request(fields);
        request.replay_only = true;
        problem_of(answer(&Outcome::Absent, record, &request, &policy, NOW))
    };
    let untimed = ask(&[], None);
    let kind = ProblemKind::NotSeen;
    check(&untimed, kind, IdempotencyStatus::NotEvaluated, Happened::Unknown);
    let sent = [("idempotency-first-sent", "Wed, 25 Nov 2026 09:00:00 GMT")];
    check(&ask(&sent, None), kind, IdempotencyStatus::NotExecuted, Happened::No);
    let mut world = World::new();
    world.claim(1);
    let fence = world.fence();
    world.ask(&Command::Release { fence, stranger: false });
    assert_eq!(world.look(), Outcome::Absent);
    let released = ask(&[], world.record.as_ref());
    check(&released, kind, IdempotencyStatus::NotExecuted, Happened::No);
}

/// Case B25.
#[test]
fn a_damaged_record_is_neither_shown_nor_run() {
    let reply = Reply::kept(201, "\x07nonsense");
    let outcome = Outcome::Replay { reply, answered_at: NOW, sealed: false };
    let told = answer(&outcome, None, &request(&[]), &RoutePolicy::default(), NOW);
    let Answer::Damaged(problem, error) = told else { panic!("{told:?}") };
    assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(error, ContentError::Version(7));
    let rendered = problem.render(problem::TYPE_BASE, None);
    let body: Value = serde_json::from_slice(&rendered.body).unwrap();
    assert_eq!(body["reuse_key"], "must");
}

#[test]
fn those_who_waited_for_a_refusal_get_it_too_and_it_is_no_replay() {
    let mut world = World::new();
    world.claim(1);
    let head = Response::builder().status(429).header("retry-after", "7").body(()).unwrap();
    let reply = capture::whole(&head.into_parts().0, b"slow down", false, 1 << 20);
    let fence = world.fence();
    world.ask(&Command::Release { fence, stranger: false });
    let record = world.record.as_ref();
    let rendered = shared(&reply, record, &request(&[]), world.now).unwrap().unwrap();
    assert_eq!(rendered.head.status, 429);
    let headers = &rendered.head.headers;
    assert_eq!(headers["retry-after"], HeaderValue::from_static("7"));
    assert_eq!(headers["idempotency-status"], "not-executed");
    for absent in ["idempotent-replayed", "idempotent-original-date", "idempotency-expires"] {
        assert!(!headers.contains_key(absent), "{absent}");
    }
    let told = problem_of(world.told(&Outcome::Absent));
    let kind = ProblemKind::AttemptReleased;
    check(&told, kind, IdempotencyStatus::NotExecuted, Happened::No);
}

#[test]
fn what_is_left_has_its_own_answer_and_none_runs_anything() {
    let world = World::new();
    for (outcome, kind, status) in [
        (Outcome::CredentialChanged, ProblemKind::CredentialChanged, 409),
        (Outcome::Expired, ProblemKind::KeyExpired, 412),
        (Outcome::Done, ProblemKind::StoreUnavailable, 503),
        (Outcome::Fenced, ProblemKind::StoreUnavailable, 503),
    ] {
        let told = problem_of(world.told(&outcome));
        assert_eq!((told.kind(), told.status().as_u16()), (kind, status));
        assert_eq!(told.happened(), Happened::Unknown);
    }
}

fn failed_by_default(kind: FailureKind, record: Option<&Record>, now: Timestamp) -> Problem {
    failed(kind, record, &Policy::default(), now)
}

/// What a client is told about sending again is what then happens.
#[test]
fn an_unknown_outcome_is_retryable_where_sending_again_settles_it() {
    use onlyonce_core::{Always, OnUnknown, Receiver};
    let second = Duration::from_secs(1);
    let (fenced, asked) = (Receiver::always(Always::Fenced), Receiver::queryable(second, second));
    let keyed = Receiver::keyed(60 * second);
    for (on_unknown, receiver, after, retryable) in [
        (OnUnknown::Hold, fenced, second, false),
        (OnUnknown::Retry, fenced, second, true),
        (OnUnknown::Auto, Receiver::BARE, second, false),
        (OnUnknown::Probe, asked, second, true),
        (OnUnknown::Retry, keyed, second, true),
        (OnUnknown::Retry, keyed, 60 * second, false),
    ] {
        let mut world = World::new();
        world.claim(1);
        let (fence, cause) = (world.fence(), Cause::TimedOut);
        world.ask(&Command::Abandon { fence, cause });
        let outcome = world.look();
        let record = Policy { on_unknown, receiver, ..Policy::default() };
        let policy = RoutePolicy { record, ..RoutePolicy::default() };
        let (stands, now) = (world.record.as_ref(), world.now.plus(after));
        let later = answer(&outcome, stands, &request(&[]), &policy, now);
        let Answer::Problem(later) = later else { panic!("{later:?}") };
        let first = failed(FailureKind::TimedOut, stands, &record, now);
        for problem in [first, later] {
            let told = &problem.body("")["retryable"];
            assert_eq!(*told, retryable, "{on_unknown:?} {receiver:?} {after:?}");
        }
    }
}
