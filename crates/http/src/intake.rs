//! What a request's head says: pass it on, refuse it, or protect it. All rules of HTTP about
//! keys are decided here, before the body is read, so that a front door has none of its own.

use http::request::Parts as Head;
use http::{HeaderMap, Method, header};
use onlyonce_core::{Credential, Key, KeyId, Scope, Timestamp};

use crate::cors;
use crate::digest::Keys;
use crate::headers;
use crate::key::{self, KeyPolicy};
use crate::problem::{Problem, ProblemKind};
use crate::render;
use crate::route::RoutePolicy;
use crate::scope::{self, ScopeRefusal};

/// What to do with a request.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub enum Intake {
    /// Pass it on as it is: no key is looked at and no marks are put on its answer.
    Bypass(Bypass),
    /// Answer with this problem; the request is not passed on.
    Refuse {
        /// Why.
        problem: Problem,
        /// The key to echo, if it could be read.
        key: Option<Key>,
    },
    /// Read the body and claim.
    Protect(Protected),
}

/// Why a request is not protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The route does not protect its method. A key on it does no harm.
    Method,
    /// It asks what a page of another origin may send.
    Preflight,
    /// It has no key, and needs none.
    NoKey,
}

/// What is known of a keyed request before its body is read.
#[derive(Clone, Debug)]
pub struct Protected {
    /// The key, in its one spelling.
    pub key: Key,
    /// Whom it belongs to.
    pub scope: Scope,
    /// What its record is found by.
    pub key_id: KeyId,
    /// The caller's credential, if nobody has verified it.
    pub credential: Option<Credential>,
    /// There was no credential at all: such callers share one scope.
    pub anonymous: bool,
    /// The time the key carries or was sent with.
    pub key_time: Option<Timestamp>,
    /// That time, if it was sent beside the key: it is then part of the fingerprint.
    pub first_sent: Option<Timestamp>,
    /// The request must never run: look, don't claim.
    pub replay_only: bool,
    /// The client accepts trailers.
    pub trailers: bool,
}

/// Reads a request's head. `certificate` is the client's, if TLS ends here.
pub fn read(
    head: &Head,
    certificate: Option<&[u8]>,
    policy: &RoutePolicy,
    keys: &Keys,
    now: Timestamp,
) -> Intake {
    if cors::is_preflight(&head.method, &head.headers) {
        return Intake::Bypass(Bypass::Preflight);
    }
    let replay_only = headers::replay_only(&head.headers);
    if !policy.methods.contains(&head.method) {
        // A method that may change something must not slip through a question without risk.
        return match replay_only {
            Ok(false) => Intake::Bypass(Bypass::Method),
            Ok(true) | Err(_) if head.method.is_safe() => Intake::Bypass(Bypass::Method),
            Ok(true) => refuse(unprotected(&head.method)),
            Err(error) => refuse(replay_only_invalid(&error)),
        };
    }
    let replay_only = match replay_only {
        Ok(replay_only) => replay_only,
        Err(error) => return refuse(replay_only_invalid(&error)),
    };
    match key_of(&head.headers, policy) {
        Ok(Some(key)) => match protect(head, certificate, policy, keys, now, &key, replay_only) {
            Ok(protected) => Intake::Protect(protected),
            Err(problem) => Intake::Refuse { problem, key: Some(key) },
        },
        Ok(None) if policy.keys == KeyPolicy::Optional && !replay_only => {
            Intake::Bypass(Bypass::NoKey)
        }
        Ok(None) => refuse(Problem::new(ProblemKind::KeyMissing)),
        Err(problem) => refuse(problem),
    }
}

fn refuse(problem: Problem) -> Intake {
    Intake::Refuse { problem, key: None }
}

fn replay_only_invalid(error: &headers::ReplayOnlyError) -> Problem {
    Problem::new(ProblemKind::ReplayOnlyInvalid).with_detail(sentence(error))
}

fn unprotected(method: &Method) -> Problem {
    Problem::new(ProblemKind::ReplayOnlyInvalid)
        .with_detail(format!("{method} is not protected here, so there is nothing to replay."))
}

/// An error's text as a sentence of a problem's detail.
fn sentence(error: &impl std::error::Error) -> String {
    let text = error.to_string();
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

fn key_of(headers: &HeaderMap, policy: &RoutePolicy) -> Result<Option<Key>, Problem> {
    let parsed = key::parse(headers, &policy.key_names, policy.key_spelling);
    let parsed =
        parsed.and_then(|key| key.map(|key| key::canonical(key, policy.key_format)).transpose());
    parsed.map_err(|error| {
        let kind =
            if error.is_duplicate() { ProblemKind::KeyDuplicate } else { ProblemKind::KeyInvalid };
        Problem::new(kind).with_detail(sentence(&error))
    })
}

fn protect(
    head: &Head,
    certificate: Option<&[u8]>,
    policy: &RoutePolicy,
    keys: &Keys,
    now: Timestamp,
    key: &Key,
    replay_only: bool,
) -> Result<Protected, Problem> {
    let headers = &head.headers;
    if policy.refuse_early_data && headers.contains_key(headers::EARLY_DATA) {
        return Err(Problem::new(ProblemKind::EarlyData));
    }
    if headers.contains_key(header::UPGRADE) {
        return Err(Problem::new(ProblemKind::UpgradeRefused));
    }
    if body_is_over(headers, policy.body_max) {
        return Err(body_too_large(policy));
    }
    let time = key::time(key, policy.key_format, headers, policy.keys, now, policy.key_ahead_max)
        .map_err(|error| {
        Problem::new(ProblemKind::KeyTimeInvalid).with_detail(sentence(&error))
    })?;
    let caller =
        scope::caller(&policy.scope, headers, certificate, keys, now).map_err(|refusal| {
            let kind = match refusal {
                ScopeRefusal::Repeated(_) => ProblemKind::ScopeDuplicate,
                ScopeRefusal::CookieOnly | ScopeRefusal::Missing(_) | ScopeRefusal::NoJwt => {
                    ProblemKind::ScopeMissing
                }
            };
            Problem::new(kind).with_detail(sentence(&refusal))
        })?;
    Ok(Protected {
        key_id: keys.key_id(&caller.scope, key),
        key: key.clone(),
        scope: caller.scope,
        credential: caller.credential,
        anonymous: caller.anonymous,
        key_time: time.at,
        first_sent: time.at.filter(|_| time.first_sent),
        replay_only,
        trailers: render::accepts_trailers(headers),
    })
}

/// Whether the head already says that the body is over the limit.
fn body_is_over(headers: &HeaderMap, max: usize) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| (max as u64) < length)
}

/// The problem of a body over the limit, for who finds out while reading it.
pub fn body_too_large(policy: &RoutePolicy) -> Problem {
    Problem::new(ProblemKind::BodyTooLarge)
        .with_detail(format!("A keyed request may have {} bytes.", policy.body_max))
}

/// The problem of a body that there is no memory for at present.
pub fn no_room(policy: &RoutePolicy) -> Problem {
    Problem::new(ProblemKind::NoRoom).with_retry_after(policy.retry_after)
}

#[cfg(test)]
mod tests;
