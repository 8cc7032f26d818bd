//! The file as it is written, and from there to a checked [`Config`].

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use onlyonce_http::RoutePolicy;
use onlyonce_listen::text::{ConfigError, Source, mended, parsed};
use onlyonce_listen::tls::Tls;
use serde::Deserialize;
use toml::Spanned;

use super::policy::PolicyTable;
use super::{Admin, Config, LISTEN, Route, Target, limits, target};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    listen: Option<SocketAddr>,
    upstream: Option<UpstreamText>,
    upstream_trust: Option<PathBuf>,
    tls: Option<TlsTable>,
    #[serde(default)]
    limits: limits::Table,
    admin: Option<Spanned<AdminTable>>,
    policy: Option<Spanned<PolicyTable>>,
    #[serde(default)]
    route: Vec<Spanned<RouteTable>>,
}

struct UpstreamText(Target);

impl<'de> Deserialize<'de> for UpstreamText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, target).map(Self)
    }
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
struct AdminTable {
    listen: SocketAddr,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    path: Spanned<String>,
    policy: Option<PolicyTable>,
}

/// Tokens are as good as passwords and must not be guessed.
const TOKEN_MIN: usize = 16;

pub(super) fn parse(name: &str, text: &str, upstream: Option<&str>) -> Result<Config, ConfigError> {
    let source = Source { name, text };
    let file: File = toml::from_str(text)
        .map_err(|error| source.wrong(error.span(), &mended(error.message())))?;
    let upstream = match (upstream, file.upstream) {
        (Some(flag), _) => target(flag).map_err(|text| ConfigError::of("--upstream", text))?,
        (None, Some(UpstreamText(target))) => target,
        (None, None) => {
            let text = "there is no upstream; add a line such as upstream = \
                        \"http://127.0.0.1:3000\"";
            return Err(source.wrong(Some(0..0), text));
        }
    };
    let own = file.policy.map_or(Ok(RoutePolicy::default()), |table| {
        let span = source.head(table.span());
        checked(&source, span, table.into_inner(), RoutePolicy::default())
    })?;
    let mut routes: Vec<Route> = Vec::new();
    for table in file.route {
        routes.push(route(&source, table, &own, &routes)?);
    }
    // The longest path that fits counts.
    routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    let tls = file.tls.map(|TlsTable { certificate, key, client_trust }| Tls {
        certificate,
        key,
        client_trust,
    });
    let listen = file.listen.unwrap_or(LISTEN);
    Ok(Config {
        listen,
        upstream: Target { trust: file.upstream_trust, ..upstream },
        tls,
        limits: file.limits.checked(&source)?,
        admin: file.admin.map(|table| admin(&source, table, listen)).transpose()?,
        policy: Arc::new(own),
        routes,
    })
}

fn admin(
    source: &Source<'_>,
    table: Spanned<AdminTable>,
    callers: SocketAddr,
) -> Result<Admin, ConfigError> {
    let span = source.head(table.span());
    let AdminTable { listen, token } = table.into_inner();
    if !listen.ip().is_loopback() {
        let text = format!(
            "the admin port must be on loopback, and {listen} is not; use 127.0.0.1:{}",
            listen.port()
        );
        return Err(source.wrong(Some(span), &text));
    }
    if listen == callers && listen.port() != 0 {
        let text = format!("callers connect to {listen} already; give operators another port");
        return Err(source.wrong(Some(span), &text));
    }
    if token.len() < TOKEN_MIN || !token.bytes().all(|it| it.is_ascii_graphic()) {
        let text = format!(
            "the token must be at least {TOKEN_MIN} visible characters; make one with `openssl \
             rand -hex 16`"
        );
        return Err(source.wrong(Some(span), &text));
    }
    Ok(Admin { listen, token })
}

fn route(
    source: &Source<'_>,
    table: Spanned<RouteTable>,
    own: &RoutePolicy,
    others: &[Route],
) -> Result<Route, ConfigError> {
    let span = source.head(table.span());
    let RouteTable { path, policy } = table.into_inner();
    let at = path.span();
    let path = path.into_inner();
    if !path.starts_with('/') || path.contains(['?', '#', '*']) {
        let text = "a route's path begins with / and stands for itself and all below it, such as \
                    \"/orders\"";
        return Err(source.wrong(Some(at), text));
    }
    let bare = |path: &str| path.trim_end_matches('/').len();
    if others.iter().any(|other| path[..bare(&path)] == other.path[..bare(&other.path)]) {
        let text = format!(
            "there is a route for {path:?} already, and only one can count; put what both say \
             into one table"
        );
        return Err(source.wrong(Some(at), &text));
    }
    let policy = match policy {
        Some(table) => checked(source, span, table, own.clone())?,
        None => own.clone(),
    };
    Ok(Route { path, policy: Arc::new(policy) })
}

fn checked(
    source: &Source<'_>,
    span: Range<usize>,
    table: PolicyTable,
    base: RoutePolicy,
) -> Result<RoutePolicy, ConfigError> {
    let policy = table.over(base).map_err(|text| source.wrong(Some(span.clone()), &text))?;
    policy.check().map_err(|error| source.wrong(Some(span), &error.to_string()))
}
