//! Tokens that are vouched for, and all the ways in which one is not.

use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_600_800_000);
const JWKS: &[u8] = include_bytes!("../../../tests/jwt/jwks.json");
const RS256: &str = include_str!("../../../tests/jwt/rs256.jwt");
const PS256: &str = include_str!("../../../tests/jwt/ps256.jwt");

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

fn ed25519() -> (Ed25519KeyPair, JwtVerifier) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let x = BASE64.encode(pair.public_key().as_ref());
    let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]});
    let verifier = JwtVerifier::from_jwks(jwks.to_string().as_bytes()).unwrap();
    (pair, verifier)
}

fn sign(pair: &Ed25519KeyPair, claims: &Value) -> String {
    let signed = unsigned(&json!({"alg": "EdDSA"}), claims);
    let signature = BASE64.encode(pair.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn verify(verifier: &JwtVerifier, token: &str) -> Result<(), Unverified> {
    verifier.verify(&Token::parse(token.trim()).unwrap(), NOW)
}

#[test]
fn rsa_tokens_of_a_published_key_are_verified() {
    let verifier = JwtVerifier::from_jwks(JWKS).unwrap();
    for token in [RS256, PS256] {
        assert_eq!(verify(&verifier, token), Ok(()));
        let (signed, signature) = token.trim().rsplit_once('.').unwrap();
        let (_, claims) = signed.rsplit_once('.').unwrap();
        let header = BASE64.encode(r#"{"alg":"RS512","kid":"r1"}"#);
        let other = format!("{header}.{claims}.{signature}");
        assert_eq!(verify(&verifier, &other), Err(Unverified::Signature));
    }
}

#[test]
fn elliptic_curve_tokens_are_verified() {
    let random = SystemRandom::new();
    let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y}]});
    let verifier = JwtVerifier::from_jwks(jwks.to_string().as_bytes()).unwrap();
    let signed = unsigned(&json!({"alg": "ES256"}), &json!({"iss": "i", "sub": "s"}));
    let signature = pair.sign(&random, signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", BASE64.encode(signature));
    assert_eq!(verify(&verifier, &token), Ok(()));
}

#[test]
fn a_token_is_for_its_issuer_its_audience_and_its_time() {
    let (pair, verifier) = ed25519();
    let strict = verifier.clone().with_issuer("i").with_audience("shop");
    let check = |claims: Value| verify(&strict, &sign(&pair, &claims));
    let now = NOW.as_millis() / 1000;
    assert_eq!(check(json!({"iss": "i", "sub": "s", "aud": "shop", "exp": now + 1})), Ok(()));
    assert_eq!(check(json!({"iss": "i", "sub": "s", "aud": ["a", "shop"]})), Ok(()));
    for (claims, error) in [
        (json!({"iss": "x", "sub": "s", "aud": "shop"}), Unverified::Issuer),
        (json!({"iss": "i", "sub": "s"}), Unverified::Audience),
        (json!({"iss": "i", "sub": "s", "aud": ["a"]}), Unverified::Audience),
        (json!({"iss": "i", "sub": "s", "aud": "shop", "exp": now - 61}), Unverified::Time),
        (json!({"iss": "i", "sub": "s", "aud": "shop", "exp": "soon"}), Unverified::Time),
        (json!({"iss": "i", "sub": "s", "aud": "shop", "nbf": now + 61}), Unverified::Time),
        (json!({"iss": "i", "sub": "s", "aud": "shop", "nbf": true}), Unverified::Time),
    ] {
        assert_eq!(check(claims.clone()), Err(error), "{claims}");
    }
}

#[test]
fn a_changed_or_foreign_token_is_not_vouched_for() {
    let (pair, verifier) = ed25519();
    let (stranger, _) = ed25519();
    let claims = json!({"iss": "i", "sub": "s"});
    assert_eq!(verify(&verifier, &sign(&stranger, &claims)), Err(Unverified::Signature));
    let token = sign(&pair, &claims);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = signed.split_once('.').unwrap().0;
    let other = BASE64.encode(json!({"iss": "i", "sub": "admin"}).to_string());
    let forged = format!("{header}.{other}.{signature}");
    assert_eq!(verify(&verifier, &forged), Err(Unverified::Signature));
    // The key decides what it verifies: no token can ask for a weaker algorithm.
    for alg in ["none", "HS256", "RS256"] {
        let signed = unsigned(&json!({"alg": alg}), &claims);
        let token = format!("{signed}.{signature}");
        assert_eq!(verify(&verifier, &token), Err(Unverified::Signature), "{alg}");
    }
    let critical = unsigned(&json!({"alg": "EdDSA", "crit": ["x"], "x": 1}), &claims);
    let signature = BASE64.encode(pair.sign(critical.as_bytes()));
    let refused = verify(&verifier, &format!("{critical}.{signature}"));
    assert_eq!(refused, Err(Unverified::Signature));
}

#[test]
fn what_is_no_signed_jwt_with_issuer_and_subject_is_opaque() {
    let claims = json!({"iss": "i", "sub": "s"});
    let header = json!({"alg": "EdDSA"});
    for token in [
        "abc".to_owned(),
        "a.b.c".to_owned(),
        "..".to_owned(),
        format!("{}.", unsigned(&header, &claims)),
        unsigned(&header, &claims),
        format!("{}.AA.AA", unsigned(&header, &claims)),
        format!("{}.AA", unsigned(&header, &json!({"sub": "s"}))),
        format!("{}.AA", unsigned(&header, &json!({"iss": "i"}))),
        format!("{}.AA", unsigned(&header, &json!({"iss": "i", "sub": 7}))),
        format!("{}.AA", unsigned(&header, &json!({"iss": "i", "sub": ""}))),
        format!("{}.AA", unsigned(&json!({}), &claims)),
        format!("{}.AA", unsigned(&header, &json!(["iss", "sub"]))),
    ] {
        assert!(Token::parse(&token).is_none(), "{token}");
    }
    assert!(Token::parse(&format!("{}.AA", unsigned(&header, &claims))).is_some());
}

#[test]
fn a_broken_key_set_is_refused_by_name() {
    let read = |set: Value| JwtVerifier::from_jwks(set.to_string().as_bytes()).unwrap_err();
    assert_eq!(JwtVerifier::from_jwks(b"{").unwrap_err(), JwksError::NotASet);
    assert_eq!(read(json!({"keys": {}})), JwksError::NotASet);
    assert_eq!(read(json!({"keys": []})), JwksError::NoUsableKey);
    assert_eq!(read(json!({"keys": [{"kty": "oct", "k": "AAAA"}]})), JwksError::NoUsableKey);
    let broken = |member| JwksError::Key { at: 0, member };
    assert_eq!(read(json!({"keys": [{}]})), broken("kty"));
    assert_eq!(read(json!({"keys": [{"kty": "RSA", "e": "AQAB"}]})), broken("n"));
    let short = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]});
    assert_eq!(read(short), broken("x"));
}
