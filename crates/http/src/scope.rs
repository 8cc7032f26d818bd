//! Who a key belongs to: never chosen by the client alone.
//!
//! Two callers never share a scope, so neither can read the other's answers nor learn that a key
//! exists. Each rule hashes its parts under a name of its own, so that rules never collide. What
//! is hashed is keyed with the store's secret: records without it do not give away credentials.

pub mod jwt;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use onlyonce_core::{Credential, Scope, Timestamp};

use crate::digest::{Keys, Parts};
use jwt::{JwtVerifier, Token};

const API_KEYS: [HeaderName; 2] =
    [HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// How the scope of a request is found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ScopeRule {
    /// By whatever credentials are there: `Authorization`, `X-Api-Key`, `Api-Key`, the client's
    /// certificate. A JWT counts by issuer and subject. A cookie alone is refused.
    #[default]
    Auto,
    /// All callers share one scope. For upstreams whose keys are unguessable, or a single client.
    Shared,
    /// By a field that a trusted hop sets, such as `X-Account-Id`.
    Header(HeaderName),
    /// By a cookie, such as the one of the session.
    Cookie(String),
    /// By issuer, subject and further claims of a JWT that is verified here.
    Jwt(Arc<JwtVerifier>),
}

impl ScopeRule {
    /// The name used in configuration and in the published policy.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Shared => "shared",
            Self::Header(_) => "header",
            Self::Cookie(_) => "cookie",
            Self::Jwt(_) => "jwt",
        }
    }
}

/// Who sent a request, as far as keys are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose keys are meant.
    pub scope: Scope,
    /// The credential, if it names a caller without anybody having verified it: it may find a
    /// record but not read what another credential was answered.
    pub credential: Option<Credential>,
    /// There was no credential of any kind: all such callers share one scope.
    pub anonymous: bool,
}

/// Why a request belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScopeRefusal {
    /// There is a cookie and no other credential: callers must not be pooled, and which cookie
    /// names them is not known.
    CookieOnly,
    /// The field or cookie that the route's rule names is not there, or blank.
    Missing(String),
    /// The route wants a JWT as bearer token.
    NoJwt,
    /// The field or cookie came more than once.
    Repeated(String),
}

impl fmt::Display for ScopeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CookieOnly => f.write_str(
                "the request has a cookie and no other credential, and the route does not say \
                 which cookie names the caller",
            ),
            Self::Missing(name) => write!(f, "{name}, which names the caller here, is missing"),
            Self::NoJwt => f.write_str("the bearer token that names the caller here is no JWT"),
            Self::Repeated(name) => write!(f, "{name}, which names the caller, came repeatedly"),
        }
    }
}

impl std::error::Error for ScopeRefusal {}

/// Finds the caller of a request. `certificate` is the client's, if TLS ends here.
///
/// # Errors
/// [`ScopeRefusal`]: the request may not be pooled with strangers, so it is refused.
pub fn caller(
    rule: &ScopeRule,
    headers: &HeaderMap,
    certificate: Option<&[u8]>,
    keys: &Keys,
    now: Timestamp,
) -> Result<Caller, ScopeRefusal> {
    let mut parts = Parts::new(&keys.scope);
    parts.part(rule.name().as_bytes());
    match rule {
        ScopeRule::Auto => return auto(parts, headers, certificate, keys),
        ScopeRule::Shared => {}
        ScopeRule::Header(name) => {
            let value = one(headers, name)?;
            let value = value.ok_or_else(|| ScopeRefusal::Missing(name.to_string()))?;
            parts.part(name.as_str().as_bytes()).part(value);
        }
        ScopeRule::Cookie(name) => {
            let value = cookie(headers, name)?;
            let value = value.ok_or_else(|| ScopeRefusal::Missing(format!("cookie {name}")))?;
            parts.part(name.as_bytes()).part(value);
        }
        ScopeRule::Jwt(verifier) => {
            let token = one(headers, &header::AUTHORIZATION)?.and_then(bearer);
            let token = token.and_then(Token::parse).ok_or(ScopeRefusal::NoJwt)?;
            parts.part(token.issuer().as_bytes()).part(token.subject().as_bytes());
            for claim in verifier.claims() {
                parts.maybe(
                    token.claim(claim).map(|it| it.to_string()).as_deref().map(str::as_bytes),
                );
            }
            // A token that fails is sent on all the same: refusing it is the upstream's business.
            let verified = verifier.verify(&token, now).is_ok();
            let credential = (!verified).then(|| keys.secret().credential(token.raw().as_bytes()));
            return Ok(Caller { credential, ..known(&parts, None) });
        }
    }
    Ok(known(&parts, None))
}

fn known(parts: &Parts, credential: Option<Credential>) -> Caller {
    Caller { scope: scope(parts.finish()), credential, anonymous: false }
}

fn scope(bytes: [u8; 32]) -> Scope {
    Scope::new(Bytes::copy_from_slice(&bytes))
        .unwrap_or_else(|_| unreachable!("32 bytes are within the bound of a scope"))
}

fn auto(
    mut parts: Parts,
    headers: &HeaderMap,
    certificate: Option<&[u8]>,
    keys: &Keys,
) -> Result<Caller, ScopeRefusal> {
    let mut credential = None;
    let mut anonymous = true;
    if let Some(value) = one(headers, &header::AUTHORIZATION)? {
        anonymous = false;
        match bearer(value).and_then(Token::parse) {
            Some(token) => {
                parts.part(b"jwt");
                parts.part(token.issuer().as_bytes()).part(token.subject().as_bytes());
                credential = Some(keys.secret().credential(token.raw().as_bytes()));
            }
            None => {
                parts.part(b"authorization").part(value);
            }
        }
    }
    for name in &API_KEYS {
        if let Some(value) = one(headers, name)? {
            anonymous = false;
            parts.part(name.as_str().as_bytes()).part(value);
        }
    }
    if let Some(certificate) = certificate {
        anonymous = false;
        parts.part(b"certificate").part(certificate);
    }
    if anonymous && headers.contains_key(header::COOKIE) {
        return Err(ScopeRefusal::CookieOnly);
    }
    Ok(Caller { anonymous, ..known(&parts, credential) })
}

/// The only value of a field; `None` if it is absent or blank, which names nobody.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, ScopeRefusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ScopeRefusal::Repeated(name.to_string()));
    }
    let value = value.as_bytes().trim_ascii();
    Ok((!value.is_empty()).then_some(value))
}

/// The token of a bearer credential (RFC 6750) or one bound to a key (RFC 9449).
fn bearer(authorization: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(authorization).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("dpop");
    known.then(|| token.trim())
}

/// The value of a cookie. Cookie lines may be several: HTTP/2 splits them.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, ScopeRefusal> {
    let mut found = None;
    let pairs = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    for pair in pairs {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
        if pair[..at].trim_ascii() != name.as_bytes() {
            continue;
        }
        if found.replace(pair[at + 1..].trim_ascii()).is_some() {
            return Err(ScopeRefusal::Repeated(format!("cookie {name}")));
        }
    }
    Ok(found.filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests;
