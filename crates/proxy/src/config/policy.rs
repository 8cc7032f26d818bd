//! The settings of a route's policy as they are written in the file.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use onlyonce::core::limits::FOREVER;
use onlyonce::core::{Always, OnUnknown, Receiver};
use onlyonce_http::cors::{Cors, Origins};
use onlyonce_http::fingerprint::pointer::Pointers;
use onlyonce_http::key::{KeyFormat, KeyPolicy, KeySpelling};
use onlyonce_http::scope::jwt::JwtVerifier;
use onlyonce_http::{Absent, BodyRule, OnStoreError, Probe, RoutePolicy, ScopeRule};
use onlyonce_listen::text::{Size, Span, duration, parsed};
use serde::{Deserialize, Deserializer};

/// A value that the standard library or a crate of types reads from a string.
pub(super) struct Word<T>(T);

impl<'de, T: Parse> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, T::parse).map(Self)
    }
}

/// A word of the file.
pub(super) trait Parse: Sized {
    fn parse(text: &str) -> Result<Self, String>;
}

fn inner<T>(words: Vec<Word<T>>) -> Vec<T> {
    words.into_iter().map(|word| word.0).collect()
}

/// One of a few names.
fn one_of<T: Copy>(text: &str, named: &[(&str, T)]) -> Result<T, String> {
    let found = named.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = named.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        format!("{text:?} is not known here; write one of {}", names.join(", "))
    })
}

macro_rules! names {
    ($type:ty: $($name:literal => $value:expr),+ $(,)?) => {
        impl Parse for $type {
            fn parse(text: &str) -> Result<Self, String> {
                one_of(text, &[$(($name, $value)),+])
            }
        }
    };
}

names!(
    KeyPolicy: "optional" => Self::Optional, "required" => Self::Required,
    "timed" => Self::Timed,
);
names!(KeySpelling: "lenient" => Self::Lenient, "strict" => Self::Strict);
names!(KeyFormat: "any" => Self::Any, "uuid" => Self::Uuid, "ulid" => Self::Ulid);
names!(BodyRule: "structure" => Self::Structure, "bytes" => Self::Bytes, "jcs" => Self::Jcs);
names!(OnStoreError: "closed" => Self::Closed, "open" => Self::Open);
names!(
    OnUnknown: "hold" => Self::Hold, "retry" => Self::Retry, "probe" => Self::Probe,
    "auto" => Self::Auto,
);
names!(Always: "fenced" => Self::Fenced, "unique-name" => Self::UniqueName);

/// A duration, or for ever.
struct Remember(Duration);

impl Parse for Remember {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "forever" { Ok(Self(FOREVER)) } else { duration(text).map(Self) }
    }
}

impl Parse for HeaderName {
    fn parse(text: &str) -> Result<Self, String> {
        Self::from_str(text).map_err(|_| format!("{text:?} is no name of a header field"))
    }
}

impl Parse for Method {
    fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().any(|it| it.is_ascii_lowercase()) {
            let upper = text.to_ascii_uppercase();
            return Err(format!("methods are written in capitals: \"{upper}\""));
        }
        Self::from_str(text).map_err(|_| format!("{text:?} is no method"))
    }
}

impl Parse for HeaderValue {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") || text.ends_with('/') {
            let text = format!("{text:?} is no origin; write one such as \"https://shop.example\"");
            return Err(text);
        }
        Self::from_str(text).map_err(|_| format!("{text:?} is no origin"))
    }
}

/// Who a key belongs to, without the files that it may need.
#[derive(Clone)]
pub(super) enum ScopeWord {
    Rule(ScopeRule),
    Jwt,
}

impl Parse for ScopeWord {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::Rule(match text.split_once(':') {
            None if text == "auto" => ScopeRule::Auto,
            None if text == "shared" => ScopeRule::Shared,
            None if text == "jwt" => return Ok(Self::Jwt),
            Some(("header", name)) => ScopeRule::Header(HeaderName::parse(name)?),
            Some(("cookie", name)) => ScopeRule::Cookie(name.to_owned()),
            _ => {
                return Err(format!(
                    "{text:?} is not known here; write \"auto\", \"shared\", \"header:NAME\", \
                     \"cookie:NAME\" or \"jwt\""
                ));
            }
        }))
    }
}

/// `[policy]` and `[route.policy]`: what is not said is as in the policy around it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyTable {
    lease: Option<Span>,
    retention: Option<Span>,
    remember: Option<Word<Remember>>,
    skew_max: Option<Span>,
    on_unknown: Option<Word<OnUnknown>>,
    wait: Option<Span>,
    retry_after: Option<Span>,
    methods: Option<Vec<Word<Method>>>,
    keys: Option<Word<KeyPolicy>>,
    key_names: Option<Vec<Word<HeaderName>>>,
    key_spelling: Option<Word<KeySpelling>>,
    key_format: Option<Word<KeyFormat>>,
    key_ahead_max: Option<Span>,
    scope: Option<Word<ScopeWord>>,
    jwt: Option<JwtTable>,
    receiver: Option<ReceiverTable>,
    probe: Option<ProbeTable>,
    fingerprint: Option<Word<BodyRule>>,
    fingerprint_headers: Option<Vec<Word<HeaderName>>>,
    fingerprint_exclude: Option<Vec<String>>,
    complete: Option<Vec<u16>>,
    release: Option<Vec<u16>>,
    unknown: Option<Vec<u16>>,
    reply_max: Option<Size>,
    body_max: Option<Size>,
    on_store_error: Option<Word<OnStoreError>>,
    set_cookie: Option<bool>,
    redact_headers: Option<Vec<Word<HeaderName>>>,
    redact_members: Option<Vec<String>>,
    refuse_early_data: Option<bool>,
    problem_base: Option<String>,
    cors_origins: Option<Vec<Word<HeaderValue>>>,
    cors_credentials: Option<bool>,
}

/// `[policy.receiver]`: what the upstream offers to settle an outcome that nobody knows. It is
/// declared as a whole: a route's takes nothing over from the policy around it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiverTable {
    always: Option<Word<Always>>,
    keyed: Option<Span>,
    settle: Option<Span>,
    late: Option<Span>,
}

/// `[policy.probe]`: how the upstream is asked about an outcome that nobody knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeTable {
    path: String,
    absent_status: u16,
    absent_header: Option<String>,
    absent_member: Option<String>,
    /// These two are the receiver's, and may be said here instead.
    settle: Option<Span>,
    late: Option<Span>,
}

/// `[policy.jwt]`: how tokens are verified.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtTable {
    /// A JWK set in a file.
    keys: PathBuf,
    issuer: Option<String>,
    audience: Option<String>,
    #[serde(default)]
    claims: Vec<String>,
}

/// Puts what was said over what stands.
fn set<T>(over: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *over = said;
    }
}

impl PolicyTable {
    /// This over another policy; an error says what is wrong.
    pub(super) fn over(self, mut base: RoutePolicy) -> Result<RoutePolicy, String> {
        let span = |it: Option<Span>| it.map(|span| span.0);
        set(&mut base.record.lease, span(self.lease));
        set(&mut base.record.retention, span(self.retention));
        set(&mut base.record.remember, self.remember.map(|it| it.0.0));
        set(&mut base.record.skew_max, span(self.skew_max));
        set(&mut base.record.on_unknown, self.on_unknown.map(|it| it.0));
        set(&mut base.wait, span(self.wait));
        set(&mut base.retry_after, span(self.retry_after));
        set(&mut base.methods, self.methods.map(inner));
        set(&mut base.keys, self.keys.map(|it| it.0));
        set(&mut base.key_names, self.key_names.map(inner));
        set(&mut base.key_spelling, self.key_spelling.map(|it| it.0));
        set(&mut base.key_format, self.key_format.map(|it| it.0));
        set(&mut base.key_ahead_max, span(self.key_ahead_max));
        set(&mut base.scope, scope(self.scope, self.jwt)?);
        receiver(&mut base, self.receiver, self.probe)?;
        set(&mut base.fingerprint.body, self.fingerprint.map(|it| it.0));
        set(&mut base.fingerprint.headers, self.fingerprint_headers.map(inner));
        let exclude = self.fingerprint_exclude.map(pointers);
        set(&mut base.fingerprint.exclude, exclude.transpose()?);
        set(&mut base.classify.complete, self.complete.map(statuses).transpose()?);
        set(&mut base.classify.release, self.release.map(statuses).transpose()?);
        set(&mut base.classify.unknown, self.unknown.map(statuses).transpose()?);
        set(&mut base.reply_max, self.reply_max.map(|it| it.0));
        set(&mut base.body_max, self.body_max.map(|it| it.0));
        set(&mut base.on_store_error, self.on_store_error.map(|it| it.0));
        set(&mut base.set_cookie, self.set_cookie);
        set(&mut base.redact.headers, self.redact_headers.map(inner));
        set(&mut base.redact.members, self.redact_members.map(pointers).transpose()?);
        set(&mut base.refuse_early_data, self.refuse_early_data);
        set(&mut base.problem_base, self.problem_base);
        let origins = self
            .cors_origins
            .map(inner)
            .map(|list| if list.is_empty() { Origins::None } else { Origins::List(list) });
        let credentials = self.cors_credentials;
        let Cors { origins: old, credentials: with } = base.cors;
        base.cors =
            Cors { origins: origins.unwrap_or(old), credentials: credentials.unwrap_or(with) };
        Ok(base)
    }
}

fn pointers(texts: Vec<String>) -> Result<Pointers, String> {
    Pointers::parse(texts.iter().map(String::as_str)).map_err(|error| error.to_string())
}

fn statuses(numbers: Vec<u16>) -> Result<Vec<StatusCode>, String> {
    let status = |number: u16| {
        StatusCode::from_u16(number).map_err(|_| format!("{number} is no HTTP status"))
    };
    numbers.into_iter().map(status).collect()
}

fn scope(
    word: Option<Word<ScopeWord>>,
    jwt: Option<JwtTable>,
) -> Result<Option<ScopeRule>, String> {
    match (word.map(|it| it.0), jwt) {
        (None, None) => Ok(None),
        (Some(ScopeWord::Rule(rule)), None) => Ok(Some(rule)),
        (Some(ScopeWord::Jwt), Some(table)) => verifier(table).map(Some),
        (Some(ScopeWord::Jwt), None) => Err("scope = \"jwt\" needs a table [policy.jwt] with \
                                             keys = \"FILE\", the issuer's JWK set"
            .to_owned()),
        (Some(ScopeWord::Rule(_)) | None, Some(_)) => {
            Err("a jwt table counts only with scope = \"jwt\"".to_owned())
        }
    }
}

/// Puts what is said of the receiver, and where to ask it, over what stands.
fn receiver(
    base: &mut RoutePolicy,
    table: Option<ReceiverTable>,
    probe: Option<ProbeTable>,
) -> Result<(), String> {
    let span = |it: Option<Span>| it.map(|span| span.0);
    let bounds = probe.as_ref().map_or((None, None), |it| (span(it.settle), span(it.late)));
    if let Some(ReceiverTable { always, keyed, settle, late }) = table {
        if (settle.is_some() || late.is_some()) && bounds != (None, None) {
            return Err(
                "settle and late stand in the receiver's table already; say them once".to_owned()
            );
        }
        if settle.is_some() && late.is_none() {
            return Err(
                "a receiver's settle needs its late too: a \"no\" is final after both".to_owned()
            );
        }
        base.record.receiver = Receiver {
            always: always.map(|it| it.0),
            keyed: span(keyed),
            settle: span(settle),
            late: span(late).unwrap_or_default(),
        };
        // Nor is one that cannot be asked asked as the one around it is.
        base.probe = base.probe.take().filter(|_| settle.is_some());
    }
    match bounds {
        (None, None) => {}
        (Some(settle), Some(late)) => {
            base.record.receiver = base.record.receiver.and_queryable(settle, late);
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err("a \"no\" is final after settle and late: say both".to_owned());
        }
    }
    if let Some(table) = probe {
        base.probe = Some(asked(table)?);
    } else if !matches!(base.record.on_unknown, OnUnknown::Probe | OnUnknown::Auto) {
        // What a route takes over from the policy around it ends with the choice to ask.
        base.probe = None;
    }
    Ok(())
}

fn asked(table: ProbeTable) -> Result<Probe, String> {
    let ProbeTable { path, absent_status, absent_header, absent_member, .. } = table;
    let split = |text: &str, at: char, example: &str| -> Result<(String, String), String> {
        let (name, value) = text
            .split_once(at)
            .ok_or_else(|| format!("{text:?} is not understood; write it as {example}"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    };
    let absent = match (absent_header, absent_member) {
        (Some(field), None) => {
            let (name, value) = split(&field, ':', "\"x-lookup: none\"")?;
            let value = HeaderValue::try_from(&value)
                .map_err(|_| format!("{value:?} is no value of a header field"))?;
            Absent::Header(HeaderName::parse(&name)?, value)
        }
        (None, Some(member)) => {
            let (pointer, text) = split(&member, '=', "\"/error = no such order\"")?;
            Absent::Member(pointer, text)
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err("a probe needs absent_header or absent_member, and one of them only: a \
                        status alone is also what a missing page has"
                .to_owned());
        }
    };
    let absent_status = StatusCode::from_u16(absent_status)
        .map_err(|_| format!("{absent_status} is no HTTP status"))?;
    Ok(Probe { path, absent_status, absent })
}

fn verifier(table: JwtTable) -> Result<ScopeRule, String> {
    let JwtTable { keys, issuer, audience, claims } = table;
    let named = |error: String| format!("{}: {error}", keys.display());
    let json = std::fs::read(&keys).map_err(|error| named(error.to_string()))?;
    let mut verifier = JwtVerifier::from_jwks(&json).map_err(|error| named(error.to_string()))?;
    if let Some(issuer) = issuer {
        verifier = verifier.with_issuer(issuer);
    }
    if let Some(audience) = audience {
        verifier = verifier.with_audience(audience);
    }
    let verifier = claims.into_iter().fold(verifier, JwtVerifier::with_claim);
    Ok(ScopeRule::Jwt(Arc::new(verifier)))
}
