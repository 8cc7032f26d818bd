//! Every problem is its own, and says the truth about what happened.

use std::collections::HashSet;

use super::*;

#[test]
fn rows_stand_in_the_order_of_their_kinds_and_names_are_unique() {
    for (at, row) in TABLE.iter().enumerate() {
        assert_eq!(row.kind as usize, at, "{}", row.name);
        assert_eq!(row.kind.row().name, row.name);
    }
    let names: HashSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), TABLE.len());
    let titles: HashSet<&str> = TABLE.iter().map(|row| row.title).collect();
    assert_eq!(titles.len(), TABLE.len());
}

#[test]
fn an_answer_that_evaluated_nothing_claims_nothing() {
    for row in &TABLE {
        use IdempotencyStatus as Says;
        let expect = if matches!(row.says, Says::NotExecuted | Says::Sealed) {
            Happened::No
        } else if row.says == Says::Gone {
            Happened::Yes
        } else {
            Happened::Unknown
        };
        assert_eq!(row.happened, expect, "{}", row.name);
    }
}

#[test]
fn a_key_is_given_up_only_where_no_attempt_can_have_run_with_it() {
    let given_up: Vec<&str> = TABLE
        .iter()
        .filter(|row| row.reuse_key == Some(ReuseKey::MustNot))
        .map(|row| row.name)
        .collect();
    assert_eq!(given_up, ["key-invalid", "key-time-invalid", "key-reused"]);
}

/// Case B99.
#[test]
fn each_condition_has_its_own_type_and_waiting_is_advised_only_where_it_helps() {
    use ProblemKind as K;
    for (kind, status, waits) in [
        (K::RequestInProgress, 409, true),
        (K::KeyReused, 422, false),
        (K::OutcomeUnknown, 409, false),
        (K::ReplyNotKept, 410, false),
        (K::StoreUnavailable, 503, true),
        (K::KeyMissing, 400, false),
        (K::KeyInvalid, 400, false),
    ] {
        let problem = Problem::new(kind).with_retry_after(Duration::from_millis(1500));
        let rendered = problem.render(TYPE_BASE, None);
        assert_eq!(rendered.head.status.as_u16(), status);
        let retry_after = rendered.head.headers.get(header::RETRY_AFTER);
        assert_eq!(retry_after.map(HeaderValue::as_bytes), waits.then_some(&b"2"[..]), "{kind:?}");
    }
}

/// Case B96.
#[test]
fn a_reused_key_is_told_by_a_type_and_shows_nothing_that_is_stored() {
    let key = Key::new("k-\"1\"").unwrap();
    let rendered = Problem::new(ProblemKind::KeyReused)
        .with_outcome(IdempotencyStatus::Mismatch, Happened::Yes)
        .render("https://api.example/problems/", Some(&key));
    let body: Value = serde_json::from_slice(&rendered.body).unwrap();
    assert_eq!(body["type"], "https://api.example/problems/key-reused");
    assert_eq!(body["status"], 422);
    assert_eq!(body["reuse_key"], "must_not");
    assert_eq!(body["retryable"], false);
    assert_eq!(body["happened"], "yes");
    let members: HashSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    let expect = ["type", "title", "status", "detail", "retryable", "happened", "who", "reuse_key"];
    assert_eq!(members, HashSet::from(expect));
    let headers = &rendered.head.headers;
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["content-length"], rendered.body.len().to_string());
    assert_eq!(headers["idempotency-status"], "mismatch");
    assert_eq!(headers["idempotency-key"], r#""k-\"1\"""#);
    assert_eq!(headers["link"], r#"<https://api.example/problems/key-reused>; rel="describedby""#);
    assert!(!headers.contains_key("idempotent-replayed"));
}

#[test]
fn the_page_of_problems_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/problems.md");
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        std::fs::write(path, page()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page(), "docs/problems.md is old: run cargo xtask docs");
}
