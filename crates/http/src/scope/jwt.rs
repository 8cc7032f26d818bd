//! JSON Web Tokens: what they claim, and whether a published key vouches for it.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use onlyonce_core::Timestamp;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

/// How far the issuer's clock may differ from ours.
const LEEWAY: Duration = Duration::from_secs(60);

/// A token that has the form of a JWT with an issuer and a subject. Nothing is verified yet.
#[derive(Debug)]
pub struct Token<'a> {
    raw: &'a str,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Reads a signed token in compact form (RFC 7515 section 7.1).
    ///
    /// `None` if it is anything else, claims no issuer or subject, or is not signed at all: it
    /// then counts as an opaque credential.
    pub fn parse(raw: &'a str) -> Option<Self> {
        let mut segments = raw.split('.');
        let (header, claims) = (segments.next()?, segments.next()?);
        let signature = BASE64.decode(segments.next()?).ok()?;
        if segments.next().is_some() || signature.is_empty() {
            return None;
        }
        let token = Self { raw, header: object(header)?, claims: object(claims)?, signature };
        let named = |text: &str| !text.is_empty();
        let whole = named(token.issuer()) && named(token.subject()) && named(token.algorithm());
        whole.then_some(token)
    }

    /// The whole token.
    pub const fn raw(&self) -> &'a str {
        self.raw
    }

    /// Who says that they issued it.
    pub fn issuer(&self) -> &str {
        text(&self.claims, "iss")
    }

    /// Whom it speaks of.
    pub fn subject(&self) -> &str {
        text(&self.claims, "sub")
    }

    /// Another claim.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    fn algorithm(&self) -> &str {
        text(&self.header, "alg")
    }

    fn signed(&self) -> &'a str {
        self.raw.rsplit_once('.').map_or("", |(signed, _)| signed)
    }
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    let json = BASE64.decode(segment).ok()?;
    match serde_json::from_slice(&json).ok()? {
        Value::Object(object) => Some(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Why a token is not vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unverified {
    /// No key of the set made this signature.
    Signature,
    /// The issuer is another than the configured one.
    Issuer,
    /// The audience is another than the configured one.
    Audience,
    /// It has expired, is not valid yet, or names no readable time.
    Time,
}

/// A set of public keys that is no set of public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwksError {
    /// Not a JSON document with a list `keys`.
    NotASet,
    /// A key is broken: its place in the list and the member.
    Key {
        /// Counted from zero.
        at: usize,
        /// The member that is missing or unreadable.
        member: &'static str,
    },
    /// No key is of a kind that can verify signatures here.
    NoUsableKey,
}

impl fmt::Display for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASet => f.write_str("the key set is no JSON object with a list \"keys\""),
            Self::Key { at, member } => {
                write!(f, "key {at} of the set: \"{member}\" is missing or unreadable")
            }
            Self::NoUsableKey => f.write_str(
                "no key of the set can verify signatures here (RSA, P-256, P-384, Ed25519)",
            ),
        }
    }
}

impl std::error::Error for JwksError {}

/// Verifies tokens by a set of public keys (RFC 7517). Shared secrets are not accepted in it.
#[derive(Clone, Debug)]
pub struct JwtVerifier {
    keys: Vec<VerifyingKey>,
    issuer: Option<String>,
    audience: Option<String>,
    claims: Vec<String>,
}

#[derive(Clone, Debug)]
struct VerifyingKey {
    id: Option<String>,
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl JwtVerifier {
    /// Reads a key set. Keys for encryption and of kinds not known here are passed over.
    ///
    /// # Errors
    /// [`JwksError`] names the key and the member.
    pub fn from_jwks(json: &[u8]) -> Result<Self, JwksError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| JwksError::NotASet)?;
        let list = set.get("keys").and_then(Value::as_array).ok_or(JwksError::NotASet)?;
        let mut keys = Vec::new();
        for (at, key) in list.iter().enumerate() {
            let key = key.as_object().ok_or(JwksError::Key { at, member: "kty" })?;
            if matches!(text(key, "use"), "" | "sig")
                && let Some(material) =
                    material(key).map_err(|member| JwksError::Key { at, member })?
            {
                let named = |name| key.get(name).and_then(Value::as_str).map(str::to_owned);
                keys.push(VerifyingKey { id: named("kid"), algorithm: named("alg"), material });
            }
        }
        if keys.is_empty() {
            return Err(JwksError::NoUsableKey);
        }
        Ok(Self { keys, issuer: None, audience: None, claims: Vec::new() })
    }

    /// Accepts tokens of this issuer only.
    #[must_use]
    pub fn with_issuer(self, issuer: impl Into<String>) -> Self {
        Self { issuer: Some(issuer.into()), ..self }
    }

    /// Accepts tokens for this audience only.
    #[must_use]
    pub fn with_audience(self, audience: impl Into<String>) -> Self {
        Self { audience: Some(audience.into()), ..self }
    }

    /// Makes a further claim part of the scope, such as the tenant.
    #[must_use]
    pub fn with_claim(mut self, name: impl Into<String>) -> Self {
        self.claims.push(name.into());
        self
    }

    /// The claims beyond issuer and subject that are part of the scope.
    pub fn claims(&self) -> &[String] {
        &self.claims
    }

    /// Whether a key of the set vouches for the token, and it is for us and for now.
    ///
    /// # Errors
    /// [`Unverified`] says what fails first.
    pub fn verify(&self, token: &Token<'_>, now: Timestamp) -> Result<(), Unverified> {
        let id = token.header.get("kid").and_then(Value::as_str);
        let vouched = self
            .keys
            .iter()
            .filter(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
            .any(|key| key.vouches_for(token));
        // RFC 7515 section 4.1.11: what a header calls critical must be understood.
        if !vouched || token.header.contains_key("crit") {
            return Err(Unverified::Signature);
        }
        if self.issuer.as_deref().is_some_and(|issuer| issuer != token.issuer()) {
            return Err(Unverified::Issuer);
        }
        if self.audience.as_deref().is_some_and(|audience| !is_for(token.claim("aud"), audience)) {
            return Err(Unverified::Audience);
        }
        let ends = bound(token.claim("exp"))?.unwrap_or(Timestamp::MAX);
        let begins = bound(token.claim("nbf"))?.unwrap_or_default();
        if ends.plus(LEEWAY) <= now || now.plus(LEEWAY) < begins {
            return Err(Unverified::Time);
        }
        Ok(())
    }
}

/// A time in seconds since the epoch, whole or not; a claim that is none is not passed over.
fn bound(claim: Option<&Value>) -> Result<Option<Timestamp>, Unverified> {
    let Some(claim) = claim else { return Ok(None) };
    let seconds = claim.as_f64().filter(|seconds| 0.0 <= *seconds).ok_or(Unverified::Time)?;
    // The cast saturates.
    Ok(Some(Timestamp::from_millis((seconds * 1000.0) as u64)))
}

fn is_for(claim: Option<&Value>, audience: &str) -> bool {
    let is = |value: &Value| value.as_str() == Some(audience);
    claim.is_some_and(|claim| is(claim) || claim.as_array().is_some_and(|list| list.iter().any(is)))
}

fn material(key: &Map<String, Value>) -> Result<Option<Material>, &'static str> {
    let bytes = |member: &'static str| {
        BASE64.decode(text(key, member)).ok().filter(|it| !it.is_empty()).ok_or(member)
    };
    // An uncompressed point (SEC 1 section 2.3.3): both halves at full length.
    let point = |half: usize| {
        let (x, y) = (bytes("x")?, bytes("y")?);
        if x.len() != half {
            return Err("x");
        }
        if y.len() != half {
            return Err("y");
        }
        Ok([&[4][..], &x, &y].concat())
    };
    Ok(Some(match (text(key, "kty"), text(key, "crv")) {
        ("RSA", _) => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
        ("EC", "P-256") => Material::P256(point(32)?),
        ("EC", "P-384") => Material::P384(point(48)?),
        ("OKP", "Ed25519") => Material::Ed25519(bytes("x")?),
        ("", _) => return Err("kty"),
        _ => return Ok(None),
    }))
}

impl VerifyingKey {
    /// The algorithm is the key's choice: a token only picks among what fits the key's kind.
    fn vouches_for(&self, token: &Token<'_>) -> bool {
        let name = token.algorithm();
        if self.algorithm.as_deref().is_some_and(|algorithm| algorithm != name) {
            return false;
        }
        let (message, signature) = (token.signed().as_bytes(), token.signature.as_slice());
        let plain = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match (&self.material, name) {
            (Material::Rsa { n, e }, _) => rsa(name).is_some_and(|algorithm| {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(algorithm, message, signature).is_ok()
            }),
            (Material::P256(point), "ES256") => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Material::P384(point), "ES384") => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Material::Ed25519(key), "EdDSA" | "Ed25519") => plain(&signature::ED25519, key),
            (Material::P256(_) | Material::P384(_) | Material::Ed25519(_), _) => false,
        }
    }
}

fn rsa(name: &str) -> Option<&'static signature::RsaParameters> {
    Some(match name {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
