//! Two callers never share a scope; one caller keeps theirs.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::HeaderValue;
use onlyonce_core::Secret;
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_600_800_000);

fn keys() -> Keys {
    Keys::new(Secret::from_bytes([7; 32]))
}

fn request(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn who(rule: &ScopeRule, fields: &[(&'static str, &str)]) -> Result<Caller, ScopeRefusal> {
    caller(rule, &request(fields), None, &keys(), NOW)
}

fn jwt(claims: &str, signature: &str) -> String {
    let header = BASE64.encode(r#"{"alg":"RS256"}"#);
    format!("Bearer {header}.{}.{signature}", BASE64.encode(claims))
}

fn jwt_rule() -> ScopeRule {
    let jwks = include_bytes!("../../tests/jwt/jwks.json");
    ScopeRule::Jwt(Arc::new(JwtVerifier::from_jwks(jwks).unwrap()))
}

/// Case B67.
#[test]
fn two_callers_never_share_a_scope_whatever_names_them() {
    let alice = jwt(r#"{"iss":"i","sub":"alice"}"#, "AA");
    let bob = jwt(r#"{"iss":"i","sub":"bob"}"#, "AA");
    let elsewhere = jwt(r#"{"iss":"j","sub":"alice"}"#, "AA");
    let callers: Vec<Vec<(&'static str, &str)>> = vec![
        vec![],
        vec![("authorization", "Bearer a")],
        vec![("authorization", "Bearer b")],
        vec![("authorization", "bearer a")],
        vec![("authorization", "Basic YTpi")],
        vec![("authorization", &alice)],
        vec![("authorization", &bob)],
        vec![("authorization", &elsewhere)],
        vec![("x-api-key", "a")],
        vec![("x-api-key", "b")],
        vec![("api-key", "a")],
        vec![("authorization", "Bearer a"), ("x-api-key", "a")],
        vec![("authorization", "Bearer a"), ("x-api-key", "b")],
        vec![("x-api-key", "a"), ("api-key", "a")],
    ];
    let mut seen = HashSet::new();
    for fields in &callers {
        let caller = who(&ScopeRule::Auto, fields).unwrap();
        assert_eq!(caller.anonymous, fields.is_empty());
        assert!(seen.insert(caller.scope), "{fields:?}");
    }
    for certificate in [&b"one"[..], b"two"] {
        let headers = HeaderMap::new();
        let caller = caller(&ScopeRule::Auto, &headers, Some(certificate), &keys(), NOW).unwrap();
        assert!(!caller.anonymous && seen.insert(caller.scope));
    }
    let account = ScopeRule::Header(HeaderName::from_static("x-account-id"));
    let tenant = ScopeRule::Header(HeaderName::from_static("x-tenant-id"));
    for (rule, fields) in [
        (&ScopeRule::Shared, vec![]),
        (&account, vec![("x-account-id", "a")]),
        (&account, vec![("x-account-id", "b")]),
        (&tenant, vec![("x-tenant-id", "a")]),
        (&ScopeRule::Cookie("sid".into()), vec![("cookie", "sid=a")]),
        (&ScopeRule::Cookie("sid".into()), vec![("cookie", "sid=b")]),
        (&ScopeRule::Cookie("session".into()), vec![("cookie", "session=a")]),
        (&jwt_rule(), vec![("authorization", &*alice)]),
        (&jwt_rule(), vec![("authorization", &*bob)]),
    ] {
        assert!(seen.insert(who(rule, &fields).unwrap().scope), "{rule:?} {fields:?}");
    }
}

/// Case B68.
#[test]
fn a_cookie_without_a_rule_is_never_pooled_with_strangers() {
    let cookie = ("cookie", "sid=abc");
    assert_eq!(who(&ScopeRule::Auto, &[cookie]), Err(ScopeRefusal::CookieOnly));
    let known = who(&ScopeRule::Auto, &[cookie, ("x-api-key", "a")]).unwrap();
    assert_eq!(known, who(&ScopeRule::Auto, &[("x-api-key", "a")]).unwrap());
    assert!(who(&ScopeRule::Shared, &[cookie]).is_ok());
    assert!(who(&ScopeRule::Auto, &[]).unwrap().anonymous);
    assert!(who(&ScopeRule::Auto, &[("authorization", "  ")]).unwrap().anonymous);
}

/// Case B73.
#[test]
fn a_rotated_jwt_finds_its_record_but_is_another_credential() {
    let first = jwt(r#"{"iss":"i","sub":"u1","exp":1}"#, "AA");
    let second = jwt(r#"{"iss":"i","sub":"u1","exp":2}"#, "Ag");
    let [first, second] =
        [first, second].map(|token| who(&ScopeRule::Auto, &[("authorization", &token)]).unwrap());
    assert_eq!(first.scope, second.scope);
    assert!(first.credential.is_some());
    assert_ne!(first.credential, second.credential);
}

/// Case B73.
#[test]
fn a_verified_token_reads_and_a_forged_one_only_finds() {
    let token = format!("Bearer {}", include_str!("../../tests/jwt/rs256.jwt").trim());
    let verified = who(&jwt_rule(), &[("authorization", &token)]).unwrap();
    assert_eq!(verified.credential, None);
    let forged = jwt(r#"{"iss":"https://id.example","sub":"user-1"}"#, "AA");
    let forged = who(&jwt_rule(), &[("authorization", &forged)]).unwrap();
    assert_eq!(forged.scope, verified.scope);
    assert!(forged.credential.is_some());
    for fields in [&[][..], &[("authorization", "Bearer opaque")], &[("x-api-key", "a")]] {
        assert_eq!(who(&jwt_rule(), fields), Err(ScopeRefusal::NoJwt));
    }
}

/// Case B73.
#[test]
fn the_tenant_of_a_token_can_be_part_of_the_scope() {
    let jwks = include_bytes!("../../tests/jwt/jwks.json");
    let verifier = JwtVerifier::from_jwks(jwks).unwrap().with_claim("tenant");
    let rule = ScopeRule::Jwt(Arc::new(verifier));
    let of = |tenant: &str| {
        let claims = format!(r#"{{"iss":"i","sub":"op"{tenant}}}"#);
        who(&rule, &[("authorization", &jwt(&claims, "AA"))]).unwrap().scope
    };
    let scopes = [of(r#","tenant":"t1""#), of(r#","tenant":"t2""#), of("")];
    assert_eq!(scopes.iter().collect::<HashSet<_>>().len(), 3);
    assert_eq!(of(r#","tenant":"t1","jti":"9""#), scopes[0]);
}

#[test]
fn a_token_that_is_no_jwt_is_an_opaque_credential() {
    for garbage in ["Bearer a.b.c", "Bearer ..", "Bearer e30.e30.", "Bearer"] {
        let caller = who(&ScopeRule::Auto, &[("authorization", garbage)]).unwrap();
        assert!(caller.credential.is_none() && !caller.anonymous, "{garbage}");
    }
}

/// Case B74.
#[test]
fn what_names_the_caller_may_come_only_once() {
    let account = ScopeRule::Header(HeaderName::from_static("x-account-id"));
    let twice = |name: &'static str| [(name, "a"), (name, "a")];
    for (rule, fields, name) in [
        (&ScopeRule::Auto, twice("authorization"), "authorization"),
        (&ScopeRule::Auto, twice("x-api-key"), "x-api-key"),
        (&account, twice("x-account-id"), "x-account-id"),
        (
            &ScopeRule::Cookie("sid".into()),
            [("cookie", "sid=a"), ("cookie", "x=1; sid=b")],
            "cookie sid",
        ),
    ] {
        assert_eq!(who(rule, &fields), Err(ScopeRefusal::Repeated(name.into())));
    }
    // A field that no rule names is not looked at, so forging it changes nothing.
    let plain = who(&ScopeRule::Auto, &[("x-api-key", "a")]).unwrap();
    let forged = [("x-api-key", "a"), ("x-tenant-id", "victim"), ("x-forwarded-for", "10.0.0.1")];
    assert_eq!(who(&ScopeRule::Auto, &forged).unwrap(), plain);
}

#[test]
fn a_rule_whose_field_is_missing_or_blank_refuses() {
    let account = ScopeRule::Header(HeaderName::from_static("x-account-id"));
    let missing = |name: &str| Err(ScopeRefusal::Missing(name.into()));
    assert_eq!(who(&account, &[]), missing("x-account-id"));
    assert_eq!(who(&account, &[("x-account-id", "  ")]), missing("x-account-id"));
    let session = ScopeRule::Cookie("sid".into());
    assert_eq!(who(&session, &[("cookie", "xsid=a; sid=")]), missing("cookie sid"));
    let split = [("cookie", "a=1"), ("cookie", "b=2; sid=x")];
    let joined = who(&session, &[("cookie", "sid=x; b=3")]);
    assert_eq!(who(&session, &split), joined);
}

/// Case B89.
#[test]
fn the_longest_credential_and_key_fit_every_store() {
    let long = "x".repeat(100_000);
    let caller = who(&ScopeRule::Auto, &[("authorization", &long)]).unwrap();
    let key = onlyonce_core::Key::new("k".repeat(255)).unwrap();
    assert_eq!(keys().key_id(&caller.scope, &key).as_bytes().len(), 16);
}

#[test]
fn another_secret_makes_other_scopes() {
    let other = Keys::new(Secret::from_bytes([8; 32]));
    let headers = request(&[("x-api-key", "a")]);
    let ours = caller(&ScopeRule::Auto, &headers, None, &keys(), NOW).unwrap();
    let theirs = caller(&ScopeRule::Auto, &headers, None, &other, NOW).unwrap();
    assert_ne!(ours.scope, theirs.scope);
}

proptest! {
    #[test]
    fn no_authorization_panics(value in proptest::collection::vec(32u8..=255, 0..200)) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", &value[..]].concat()) {
            headers.append(header::AUTHORIZATION, value);
        }
        prop_assert!(caller(&ScopeRule::Auto, &headers, None, &keys(), NOW).is_ok());
        let _ = caller(&jwt_rule(), &headers, None, &keys(), NOW);
    }
}
