//! Which requests pass, which are refused, and what is known of the others.

use http::Request;
use onlyonce_core::Secret;

use super::*;
use crate::key::KeyFormat;
use crate::scope::ScopeRule;
use crate::status::IdempotencyStatus;

const NOW: Timestamp = Timestamp::from_millis(1_795_600_800_000);

fn take(method: Method, fields: &[(&str, &str)], policy: &RoutePolicy) -> Intake {
    let mut request = Request::builder().method(method).uri("/orders");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    read(&head, None, policy, &Keys::new(Secret::from_bytes([7; 32])), NOW)
}

fn bypassed(intake: Intake) -> Bypass {
    let Intake::Bypass(bypass) = intake else { panic!("{intake:?}") };
    bypass
}

fn refused(intake: Intake) -> ProblemKind {
    let Intake::Refuse { problem, .. } = intake else { panic!("{intake:?}") };
    assert_eq!(problem.says(), IdempotencyStatus::NotEvaluated);
    problem.kind()
}

fn protected(intake: Intake) -> Protected {
    let Intake::Protect(protected) = intake else { panic!("{intake:?}") };
    protected
}

const KEY: (&str, &str) = ("idempotency-key", "order-1");

/// Case B29.
#[test]
fn without_a_key_nothing_is_guessed_it_passes_or_is_refused() {
    let optional = RoutePolicy::default();
    assert_eq!(bypassed(take(Method::POST, &[], &optional)), Bypass::NoKey);
    for keys in [KeyPolicy::Required, KeyPolicy::Timed] {
        let policy = RoutePolicy { keys, ..RoutePolicy::default() };
        assert_eq!(refused(take(Method::POST, &[], &policy)), ProblemKind::KeyMissing);
    }
}

#[test]
fn a_key_on_an_unprotected_method_does_no_harm() {
    let policy = RoutePolicy { keys: KeyPolicy::Required, ..RoutePolicy::default() };
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        let intake = take(method, &[KEY, ("idempotency-key", "bad,")], &policy);
        assert_eq!(bypassed(intake), Bypass::Method);
    }
    let put = RoutePolicy { methods: vec![Method::PUT], ..RoutePolicy::default() };
    protected(take(Method::PUT, &[KEY], &put));
}

/// Case B97.
#[test]
fn a_preflight_never_claims_a_key() {
    let fields = [
        ("origin", "https://shop.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "idempotency-key"),
        KEY,
    ];
    let policy = RoutePolicy { keys: KeyPolicy::Required, ..RoutePolicy::default() };
    assert_eq!(bypassed(take(Method::OPTIONS, &fields, &policy)), Bypass::Preflight);
}

/// Case B105.
#[test]
fn a_bad_key_is_refused_on_optional_routes_too() {
    let policy = RoutePolicy::default();
    for bad in ["", "   ", "\"\"", "\"abc", "a;b"] {
        let intake = take(Method::POST, &[("idempotency-key", bad)], &policy);
        assert_eq!(refused(intake), ProblemKind::KeyInvalid, "{bad}");
    }
    for twice in [&[KEY, KEY][..], &[("idempotency-key", "a, b")]] {
        assert_eq!(refused(take(Method::POST, twice, &policy)), ProblemKind::KeyDuplicate);
    }
    let Intake::Refuse { problem, key } =
        take(Method::POST, &[("idempotency-key", "a;b")], &policy)
    else {
        panic!("a bad key is refused")
    };
    assert_eq!(key, None);
    let body = problem.body("");
    assert_eq!(body["detail"], "Byte 1 (0x3b) is not allowed.");
}

#[test]
fn spellings_of_one_key_find_one_record() {
    let policy = RoutePolicy { key_format: KeyFormat::Uuid, ..RoutePolicy::default() };
    let id =
        |value: &str| protected(take(Method::POST, &[("idempotency-key", value)], &policy)).key_id;
    let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
    assert_eq!(id(uuid), id(&format!("\"{}\"", uuid.to_uppercase())));
    let intake = take(Method::POST, &[KEY], &policy);
    assert_eq!(refused(intake), ProblemKind::KeyInvalid);
}

#[test]
fn a_question_without_risk_is_never_passed_on() {
    let policy = RoutePolicy::default();
    let ask = |method: Method, fields: &[(&str, &str)]| {
        let fields = [fields, &[("idempotency-replay-only", "?1")]].concat();
        take(method, &fields, &policy)
    };
    assert!(protected(ask(Method::POST, &[KEY])).replay_only);
    assert_eq!(refused(ask(Method::POST, &[])), ProblemKind::KeyMissing);
    assert_eq!(refused(ask(Method::PUT, &[KEY])), ProblemKind::ReplayOnlyInvalid);
    assert_eq!(bypassed(ask(Method::GET, &[KEY])), Bypass::Method);
    let typo = [KEY, ("idempotency-replay-only", "true")];
    for method in [Method::POST, Method::DELETE] {
        assert_eq!(refused(take(method, &typo, &policy)), ProblemKind::ReplayOnlyInvalid);
    }
}

#[test]
fn what_cannot_be_given_again_or_could_be_repeated_by_others_is_refused() {
    let policy = RoutePolicy::default();
    let with = |name, value| take(Method::POST, &[KEY, (name, value)], &policy);
    assert_eq!(refused(with("upgrade", "websocket")), ProblemKind::UpgradeRefused);
    assert_eq!(refused(with("early-data", "1")), ProblemKind::EarlyData);
    assert_eq!(refused(with("content-length", "16777217")), ProblemKind::BodyTooLarge);
    protected(with("content-length", "16777216"));
    let early = RoutePolicy { refuse_early_data: false, ..RoutePolicy::default() };
    protected(take(Method::POST, &[KEY, ("early-data", "1")], &early));
    // Without a key it is none of our business.
    assert_eq!(bypassed(take(Method::POST, &[("upgrade", "h2c")], &policy)), Bypass::NoKey);
}

/// Case B68.
#[test]
fn a_caller_that_nobody_can_name_is_refused_and_an_anonymous_one_is_flagged() {
    let policy = RoutePolicy::default();
    let cookie = take(Method::POST, &[KEY, ("cookie", "sid=1")], &policy);
    assert_eq!(refused(cookie), ProblemKind::ScopeMissing);
    assert!(protected(take(Method::POST, &[KEY], &policy)).anonymous);
    let named = protected(take(Method::POST, &[KEY, ("x-api-key", "1")], &policy));
    assert!(!named.anonymous);
    let twice = [KEY, ("x-api-key", "1"), ("x-api-key", "2")];
    assert_eq!(refused(take(Method::POST, &twice, &policy)), ProblemKind::ScopeDuplicate);
}

/// Case B67.
#[test]
fn the_same_key_of_two_callers_is_two_records() {
    let policy = RoutePolicy::default();
    let id =
        |who: &str| protected(take(Method::POST, &[KEY, ("authorization", who)], &policy)).key_id;
    assert_ne!(id("Bearer a"), id("Bearer b"));
    let shared = RoutePolicy { scope: ScopeRule::Shared, ..RoutePolicy::default() };
    let fields = [KEY, ("authorization", "Bearer a")];
    assert_ne!(protected(take(Method::POST, &fields, &shared)).key_id, id("Bearer a"));
}

#[test]
fn a_keys_time_is_its_own_or_is_sent_beside_it() {
    let policy = RoutePolicy { keys: KeyPolicy::Timed, ..RoutePolicy::default() };
    let sent = ("idempotency-first-sent", "Wed, 25 Nov 2026 09:00:00 GMT");
    let timed = protected(take(Method::POST, &[KEY, sent], &policy));
    assert_eq!(timed.key_time, Some(Timestamp::from_millis(1_795_597_200_000)));
    assert_eq!(timed.first_sent, timed.key_time);
    let uuid7 = ("idempotency-key", "017F22E2-79B0-7CC3-98C4-DC0C0C07398F");
    let own = protected(take(Method::POST, &[uuid7, sent], &policy));
    assert_eq!(own.key_time, Some(Timestamp::from_millis(0x017F_22E2_79B0)));
    assert_eq!(own.first_sent, None);
    let kind = ProblemKind::KeyTimeInvalid;
    assert_eq!(refused(take(Method::POST, &[KEY], &policy)), kind);
    let ahead = ("idempotency-first-sent", "Wed, 25 Nov 2026 11:00:00 GMT");
    assert_eq!(refused(take(Method::POST, &[KEY, ahead], &RoutePolicy::default())), kind);
}
