//! The file as it is written, and from there to a checked [`Config`].

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

use onlyonce_core::limits::KEY_AHEAD_MAX;
use onlyonce_core::{Always, OnUnknown, Policy, Receiver};
use onlyonce_listen::text::{Bounds, ConfigError, Size, Source, Span, mended};
use onlyonce_listen::tls::Tls;
use serde::Deserialize;
use toml::Spanned;

use super::{Config, DEFAULT_SCOPE, LISTEN, Listen, ScopeRule, limits, token_file};
use crate::callers::{Caller, Credential};
use crate::wire::ScopeName;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    unix: Option<Spanned<PathBuf>>,
    tls: Option<Spanned<TlsTable>>,
    problem_base: Option<String>,
    #[serde(default)]
    limits: limits::Table,
    #[serde(default)]
    scope: Vec<Spanned<ScopeTable>>,
    #[serde(default)]
    caller: Vec<Spanned<CallerTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    certificate: PathBuf,
    key: PathBuf,
    client_trust: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeTable {
    name: Spanned<String>,
    lease: Option<Span>,
    lease_max: Option<Span>,
    retention: Option<Span>,
    retention_max: Option<Spanned<Span>>,
    remember: Option<Span>,
    skew_max: Option<Span>,
    on_unknown: Option<UnknownWord>,
    receiver: Option<ReceiverTable>,
    keys: Option<KeysWord>,
    key_ahead_max: Option<Spanned<Span>>,
    reply_max: Option<Spanned<Size>>,
    claims_per_second: Option<Spanned<u32>>,
    claims_burst: Option<Spanned<u32>>,
    waits: Option<Spanned<usize>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UnknownWord {
    Hold,
    Retry,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KeysWord {
    Any,
    Timed,
}

/// What the receivers of a scope's operations offer to settle an outcome that nobody knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiverTable {
    always: Option<AlwaysWord>,
    keyed: Option<Span>,
    late: Option<Span>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AlwaysWord {
    Transactional,
    Fenced,
    UniqueName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallerTable {
    name: String,
    token_file: Option<PathBuf>,
    token_sha256: Option<String>,
    certificate_sha256: Option<String>,
    certificate_name: Option<String>,
    #[serde(default)]
    scopes: Vec<Spanned<String>>,
    #[serde(default)]
    operator: bool,
}

const REPLY_MAX: Bounds<Size> = Bounds(Size(0)..=Size(16 << 20), "from \"0B\" to \"16MiB\"");
const RATE: Bounds<u32> = Bounds(1..=1_000_000, "from 1 to 1000000");
const WAITS: Bounds<usize> = Bounds(0..=1_000_000, "from 0 to 1000000");

pub(super) fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
    let source = Source { name, text };
    let file: File = toml::from_str(text)
        .map_err(|error| source.wrong(error.span(), &mended(error.message())))?;
    let limits = file.limits.checked(&source)?;
    let listen = match (file.listen, file.unix) {
        (None, None) => Listen::Tcp(LISTEN),
        (Some(address), None) => Listen::Tcp(address),
        (None, Some(path)) => Listen::Unix(path.into_inner()),
        (Some(_), Some(path)) => {
            let text = "there is a listen already: a service has a port or a unix socket";
            return Err(source.wrong(Some(path.span()), text));
        }
    };
    if let (Listen::Unix(_), Some(tls)) = (&listen, &file.tls) {
        let span = source.head(tls.span());
        return Err(source.wrong(Some(span), "a unix socket has no TLS; take this table out"));
    }
    let mut scopes: Vec<ScopeRule> = Vec::new();
    for table in file.scope {
        scopes.push(scope(&source, table, &scopes)?);
    }
    if scopes.is_empty() {
        scopes.push(ScopeRule::new(DEFAULT_SCOPE));
    }
    let mut callers: Vec<Caller> = Vec::new();
    for table in file.caller {
        callers.push(caller(&source, table, &scopes, &callers)?);
    }
    let tls = file.tls.map(|table| {
        let TlsTable { certificate, key, client_trust } = table.into_inner();
        Tls { certificate, key, client_trust }
    });
    let problem_base = file.problem_base;
    let problem_base = problem_base.unwrap_or_else(|| onlyonce_http::problem::TYPE_BASE.to_owned());
    Ok(Config { listen, tls, limits, problem_base, scopes, callers })
}

fn scope(
    source: &Source<'_>,
    table: Spanned<ScopeTable>,
    others: &[ScopeRule],
) -> Result<ScopeRule, ConfigError> {
    let head = source.head(table.span());
    let table = table.into_inner();
    let (at, name) = (table.name.span(), table.name.into_inner());
    if !ScopeName::fits(&name) {
        let text = "a scope is 1 to 64 letters, digits or any of . _ : / @ -";
        return Err(source.wrong(Some(at), text));
    }
    if others.iter().any(|other| other.name == name) {
        return Err(source.wrong(Some(at), &format!("there is a scope {name:?} already")));
    }
    let base = ScopeRule::new(name);
    let span = |it: Option<Span>, default| it.map_or(default, |it| it.0);
    let policy = Policy {
        lease: span(table.lease, base.policy.lease),
        retention: span(table.retention, base.policy.retention),
        remember: span(table.remember, base.policy.remember),
        skew_max: span(table.skew_max, base.policy.skew_max),
        on_unknown: match table.on_unknown {
            Some(UnknownWord::Retry) => OnUnknown::Retry,
            Some(UnknownWord::Hold) | None => OnUnknown::Hold,
        },
        receiver: table.receiver.map_or(Receiver::BARE, |table| receiver(&table)),
    };
    let wrong = |text: &str| source.wrong(Some(head.clone()), text);
    let policy = policy.check().map_err(|error| wrong(&error.to_string()))?;
    let retention_max = match table.retention_max {
        Some(said) if policy.remember < said.get_ref().0 => {
            let text = "it is longer than remember: a key would be forgotten before its reply";
            return Err(source.wrong(Some(said.span()), text));
        }
        Some(said) => said.into_inner().0,
        None => policy.remember,
    };
    let key_ahead_max = match table.key_ahead_max {
        Some(said) if KEY_AHEAD_MAX < said.get_ref().0 => {
            let text = "at most 5m: keys from further ahead could run twice once a store is lost";
            return Err(source.wrong(Some(said.span()), text));
        }
        Some(said) => said.into_inner().0,
        None => base.key_ahead_max,
    };
    let claims = match (table.claims_per_second, table.claims_burst) {
        (None, None) => None,
        (Some(rate), burst) => {
            let rate = source.within(Some(rate), 1, &RATE)?;
            Some((rate, source.within(burst, rate, &RATE)?))
        }
        (None, Some(burst)) => {
            let text = "it counts only with claims_per_second";
            return Err(source.wrong(Some(burst.span()), text));
        }
    };
    Ok(ScopeRule {
        policy,
        lease_max: span(table.lease_max, base.lease_max).max(policy.lease),
        retention_max,
        timed: table.keys == Some(KeysWord::Timed),
        key_ahead_max,
        reply_max: source.within(table.reply_max, Size(base.reply_max), &REPLY_MAX)?.0,
        claims,
        waits: source.within(table.waits, base.waits, &WAITS)?,
        ..base
    })
}

fn receiver(table: &ReceiverTable) -> Receiver {
    let always = table.always.map(|word| match word {
        AlwaysWord::Transactional => Always::Transactional,
        AlwaysWord::Fenced => Always::Fenced,
        AlwaysWord::UniqueName => Always::UniqueName,
    });
    let keyed = table.keyed.map(|it| it.0);
    let late = table.late.map_or(std::time::Duration::ZERO, |it| it.0);
    Receiver { always, keyed, late, ..Receiver::BARE }
}

fn caller(
    source: &Source<'_>,
    table: Spanned<CallerTable>,
    scopes: &[ScopeRule],
    others: &[Caller],
) -> Result<Caller, ConfigError> {
    let head = source.head(table.span());
    let table = table.into_inner();
    let wrong = |text: &str| source.wrong(Some(head.clone()), text);
    let mut places = Vec::new();
    for name in table.scopes {
        let (at, name): (Range<usize>, String) = (name.span(), name.into_inner());
        let place = scopes.iter().position(|scope| scope.name == name);
        let unknown = || format!("there is no [[scope]] with the name {name:?}");
        places.push(place.ok_or_else(|| source.wrong(Some(at), &unknown()))?);
    }
    if places.is_empty() && !table.operator {
        return Err(wrong("this caller may do nothing: give it scopes = [\"NAME\"]"));
    }
    let given =
        (table.token_file, table.token_sha256, table.certificate_sha256, table.certificate_name);
    let credential = match given {
        (Some(path), None, None, None) => token_file(&path).map_err(|text| wrong(&text))?,
        (None, Some(hex), None, None) => Credential::Token(digest(&hex).ok_or_else(|| {
            wrong("token_sha256 is 64 hexadecimal digits: `printf %s TOKEN | sha256sum`")
        })?),
        (None, None, Some(hex), None) => Credential::Certificate(digest(&hex).ok_or_else(|| {
            wrong(
                "certificate_sha256 is 64 hexadecimal digits: `openssl x509 -in FILE -outform DER \
                 | sha256sum`",
            )
        })?),
        (None, None, None, Some(name)) => Credential::CertificateName(name),
        _ => {
            return Err(wrong(
                "a caller is known by one of token_file, token_sha256, certificate_sha256 and \
                 certificate_name",
            ));
        }
    };
    if let Some(other) = others.iter().find(|other| other.credential == credential) {
        return Err(wrong(&format!("{:?} is known by the same already", other.name)));
    }
    Ok(Caller { name: table.name, credential, scopes: places, operator: table.operator })
}

/// 32 bytes in hexadecimal; colons between them, as openssl prints them, do not matter.
fn digest(text: &str) -> Option<[u8; 32]> {
    let text = text.replace(':', "");
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(digest)
}
