//! What `onlyonce mail run` was told: by flags, and by a file in which there may be kinds of
//! messages and of destinations too. A flag counts before the file.

use std::net::{ToSocketAddrs as _, UdpSocket};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onlyonce_listen::text::{Bounds, ConfigError, Source, Span, mended, parsed};
use onlyonce_mail::provider::Provider;
use onlyonce_mail::{Asking, Class, Destination, Pace, Rules, Whom};
use onlyonce_smtp::Relay;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::doubt::{ABSENT_MAX, Offers, PolicyArgs, ProbeArgs, Unknown};
use super::way::{Auth, Protection, ServerArgs, provider};
use super::{RunArgs, apart, outbox};
use crate::exit::Exit;
use crate::failure::Failure;

/// How many messages are on their way at once, if nothing is said.
const WORKERS: u16 = 4;
/// How many may be said.
const MANY: Bounds<u16> = Bounds(1..=1_000, "from 1 to 1000");
/// How often a message may be tried at most.
const TRIES: Bounds<u32> = Bounds(1..=u32::MAX, "from 1");

/// What a sender is made of.
pub(super) struct Plan {
    pub(super) way: Way,
    pub(super) outbox: Option<outbox::At>,
    pub(super) pace: Pace,
    /// Who is asked about doubts, if somebody was named.
    pub(super) probe: Option<Asking>,
    /// Where it was named.
    pub(super) probe_place: String,
    /// The rules of messages of no class.
    pub(super) usual: Rules,
    pub(super) classes: Vec<Class>,
    pub(super) destinations: Vec<Destination>,
}

/// Which way messages go.
pub(super) enum Way {
    Relay(Relay),
    Provider(Arc<Provider>),
}

impl Way {
    /// What it is called where it is noted, on one line.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Relay(relay) => format!("{}:{}", relay.host.to_lowercase(), relay.port),
            Self::Provider(provider) => provider.place(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    provider: Option<Spanned<PathBuf>>,
    outbox: Option<Read<outbox::At>>,
    workers: Option<Spanned<u16>>,
    per_domain: Option<Spanned<u16>>,
    rate: Option<Rate>,
    rate_per_domain: Option<Rate>,
    server: Option<Spanned<ServerTable>>,
    probe: Option<Spanned<ProbeTable>>,
    policy: Option<Spanned<PolicyTable>>,
    #[serde(default)]
    class: Vec<Spanned<ClassTable>>,
    #[serde(default)]
    destination: Vec<Spanned<DestinationTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerTable {
    host: String,
    tls: Option<Protection>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    auth: Option<Auth>,
    hello: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeTable {
    who: String,
    log: Option<PathBuf>,
    tls: Option<Protection>,
    password_file: Option<PathBuf>,
    #[serde(default)]
    absent: Vec<Spanned<u8>>,
    settle: Option<Span>,
    late: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyTable {
    on_unknown: Option<Unknown>,
    window: Option<Span>,
    retention: Option<Span>,
    tries: Option<Spanned<u32>>,
    try_for: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassTable {
    keys: Spanned<String>,
    rate: Option<Rate>,
    policy: Option<PolicyTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DestinationTable {
    domains: Vec<Spanned<String>>,
    workers: Option<Spanned<u16>>,
    rate: Option<Rate>,
}

/// The time from one message to the next, written as a rate.
struct Rate(Duration);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, apart).map(Self)
    }
}

/// What is written as behind a flag.
struct Read<T>(T);

impl<'de> Deserialize<'de> for Read<outbox::At> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, str::parse).map(Self)
    }
}

impl Plan {
    /// What the flags say, and the file that they name.
    pub(super) fn of(args: &RunArgs) -> Result<Self, Failure> {
        let Some(path) = &args.config else { return read(args, "the flags", "") };
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| ConfigError::of(&name, error))?;
        read(args, &name, &text)
    }
}

fn read(args: &RunArgs, name: &str, text: &str) -> Result<Plan, Failure> {
    let source = Source { name, text };
    let file: File = toml::from_str(text)
        .map_err(|error| source.wrong(error.span(), &mended(error.message())))?;
    let way = way(&source, args, file.server, file.provider)?;
    // What looks for messages at one server says "no" of those that another one has.
    let is_other = args.server.host.is_some() || args.provider.is_some();
    let table = file.probe.filter(|_| !is_other && args.probe.who.is_none());
    let at = table.as_ref().map(|it| source.head(it.span()));
    let asking = asking(&source, args, table, &way)?;
    let own = match &way {
        Way::Provider(provider) => Some(Arc::clone(provider)),
        Way::Relay(_) => None,
    };
    let mut offers = Offers { probe: asking, provider: own };
    let policy = match file.policy {
        Some(table) => {
            let span = source.head(table.span());
            (table.into_inner().args(&source)?, Some(span))
        }
        None => (PolicyArgs::default(), None),
    };
    let (policy, span) = (args.policy.over(&policy.0), policy.1);
    let usual = policy.rules(&offers, &|name, text| match &span {
        Some(span) if !args.policy.says(name) => source.wrong(Some(span.clone()), text).into(),
        Some(_) | None => Failure::new(Exit::Usage, format!("--{name}: {text}")),
    })?;
    let mut classes: Vec<Class> = Vec::new();
    for table in file.class {
        classes.push(class(&source, table, &policy, &offers, &classes)?);
    }
    let is_asked = |rules: &Rules| rules.asking == offers.probe;
    let is_asked = is_asked(&usual) || classes.iter().any(|class| is_asked(&class.rules));
    let probe_place = at.as_ref().map_or("--probe".to_owned(), |_| format!("{name}: [probe]"));
    if offers.probe.is_some() && !is_asked {
        unasked(&source, args, at)?;
        offers.probe = None;
    }
    let many =
        |said, flag: Option<u16>| source.within(said, WORKERS, &MANY).map(|it| flag.unwrap_or(it));
    let there = file.per_domain.is_some() || args.per_domain.is_some();
    let per_domain = many(file.per_domain, args.per_domain)?;
    let pace = Pace {
        workers: many(file.workers, args.workers)?.into(),
        per_domain: if there { per_domain.into() } else { usize::MAX },
        apart: args.rate.or(file.rate.map(|it| it.0)).unwrap_or_default(),
        apart_there: args
            .rate_per_domain
            .or(file.rate_per_domain.map(|it| it.0))
            .unwrap_or_default(),
        ..Pace::default()
    };
    let destinations = destinations(&source, file.destination, &pace)?;
    let outbox = args.outbox.clone().or(file.outbox.map(|it| it.0));
    let probe = offers.probe;
    Ok(Plan { way, outbox, pace, probe, probe_place, usual, classes, destinations })
}

/// A probe is named, here in the file or by a flag, and nobody asks it. To hold is safe, whatever a
/// file offers.
fn unasked(source: &Source<'_>, args: &RunArgs, at: Option<Range<usize>>) -> Result<(), Failure> {
    let text = "a probe is named, and nobody asks it: say --on-unknown probe, or on_unknown = \
                \"probe\" in a policy";
    match at {
        Some(_) if args.policy.on_unknown == Some(Unknown::Hold) => Ok(()),
        Some(at) => Err(source.wrong(Some(at), text).into()),
        None => Err(Failure::new(Exit::Usage, format!("--probe: {text}"))),
    }
}

/// The way that flags name, else the one of the file.
fn way(
    source: &Source<'_>,
    args: &RunArgs,
    server: Option<Spanned<ServerTable>>,
    named: Option<Spanned<PathBuf>>,
) -> Result<Way, Failure> {
    let flag = |text: &str| Failure::new(Exit::Usage, format!("--server: {text}"));
    if let Some(file) = &args.provider {
        let wrong = |text: &str| Failure::new(Exit::Usage, format!("--provider: {text}"));
        return provider(file, &wrong).map(Way::Provider);
    }
    if args.server.host.is_some() {
        return args.server.clone().relay(&flag).map(Way::Relay);
    }
    match (server, named) {
        (None, None) => {
            let text = "it says neither where the mail server is nor a provider; add a table \
                        [server] with host = \"HOST\", or a line provider = \"FILE\"";
            Err(source.wrong(Some(0..0), text).into())
        }
        (Some(_), Some(named)) => {
            let text = "there is a [server] too, and messages go one way; take one of them out";
            Err(source.wrong(Some(named.span()), text).into())
        }
        (None, Some(_)) if args.server.is_said() => {
            let text = "--tls, --user, --password-file, --auth, --hello: these are for a mail \
                        server, and the file names a provider";
            Err(Failure::new(Exit::Usage, text))
        }
        (None, Some(named)) => {
            let wrong = |text: &str| source.wrong(Some(named.span()), text).into();
            provider(named.get_ref(), &wrong).map(Way::Provider)
        }
        (Some(table), None) => {
            let span = source.head(table.span());
            let ServerTable { host, tls, user, password_file, auth, hello } = table.into_inner();
            let server = ServerArgs { host: Some(host), tls, user, password_file, auth, hello };
            let wrong = |text: &str| beside(source, &span, args.server.is_said(), text);
            args.server.clone().over(server).relay(&wrong).map(Way::Relay)
        }
    }
}

/// A mistake in a table, or in what flags say beside it.
fn beside(source: &Source<'_>, span: &Range<usize>, has_flags: bool, text: &str) -> Failure {
    let flags = if has_flags { " (or a flag that counts before it is wrong)" } else { "" };
    source.wrong(Some(span.clone()), &format!("{text}{flags}")).into()
}

/// Who is asked about doubts: whom flags name, else whom the file does.
fn asking(
    source: &Source<'_>,
    args: &RunArgs,
    table: Option<Spanned<ProbeTable>>,
    way: &Way,
) -> Result<Option<Asking>, Failure> {
    let span = table.as_ref().map(|it| source.head(it.span()));
    let wrong = |text: &str| match &span {
        Some(span) => beside(source, span, args.probe.is_said(), text),
        None => Failure::new(Exit::Usage, format!("--probe: {text}")),
    };
    let named = table.map(|it| it.into_inner().args(source)).transpose()?.unwrap_or_default();
    let asking = args.probe.clone().over(named).asking(&wrong)?;
    if let Some(Asking { whom, .. }) = &asking {
        fits(whom, way).map_err(wrong)?;
    }
    Ok(asking)
}

/// Whether what is sent this way is found there: what never is would be sent again.
fn fits(whom: &Whom, way: &Way) -> Result<(), &'static str> {
    match (whom, way) {
        (Whom::Archive(_), Way::Provider(_)) => {
            Err("imap: a provider sends messages in words of its own, and none would be found")
        }
        (Whom::Postfix(_) | Whom::Exim(_), Way::Provider(_)) => {
            Err("postfix and exim have nothing of what a provider takes")
        }
        (Whom::Postfix(_) | Whom::Exim(_), Way::Relay(relay)) if !is_here(relay) => Err(
            "postfix and exim are looked at on this host, and the mail server is not here; name \
             it by an address of this host, such as 127.0.0.1, if it is",
        ),
        (Whom::Postfix(_) | Whom::Exim(_) | Whom::Archive(_), Way::Relay(_))
        | (Whom::Command { .. } | Whom::Provider(_), _) => Ok(()),
    }
}

/// Whether the server is on this host, by all of its addresses: one can listen at them. Loopback is
/// here also where it has no such address, as of version 6.
fn is_here(relay: &Relay) -> bool {
    let name = relay.host.trim_start_matches('[').trim_end_matches(']');
    let Ok(all) = (name, 0).to_socket_addrs() else { return false };
    let all: Vec<_> = all.collect();
    !all.is_empty()
        && all.into_iter().all(|it| it.ip().is_loopback() || UdpSocket::bind(it).is_ok())
}

impl ProbeTable {
    /// As flags say it.
    fn args(self, source: &Source<'_>) -> Result<ProbeArgs, ConfigError> {
        let Self { who, log, tls, password_file, absent, settle, late } = self;
        let codes = Bounds(1..=ABSENT_MAX, "from 1 to 125");
        let absent = absent.into_iter().map(|it| source.within(Some(it), 1, &codes));
        Ok(ProbeArgs {
            who: Some(who.into()),
            log,
            tls,
            password_file,
            absent: absent.collect::<Result<_, _>>()?,
            settle: settle.map(|it| it.0.into()),
            late: late.map(|it| it.0.into()),
        })
    }
}

impl PolicyTable {
    /// As flags say it.
    fn args(self, source: &Source<'_>) -> Result<PolicyArgs, ConfigError> {
        let Self { on_unknown, window, retention, tries, try_for } = self;
        let tries = tries.map(|it| source.within(Some(it), 1, &TRIES)).transpose()?;
        let [window, retention, try_for] =
            [window, retention, try_for].map(|it| it.map(|it| it.0.into()));
        Ok(PolicyArgs { on_unknown, window, retention, tries, try_for })
    }
}

fn class(
    source: &Source<'_>,
    table: Spanned<ClassTable>,
    around: &PolicyArgs,
    offers: &Offers,
    others: &[Class],
) -> Result<Class, Failure> {
    let span: Range<usize> = source.head(table.span());
    let ClassTable { keys, rate, policy } = table.into_inner();
    let (at, keys) = (keys.span(), keys.into_inner());
    if keys.is_empty() || !keys.bytes().all(|it| (b' '..=b'~').contains(&it)) {
        let text = "say what the keys of these messages begin with, such as \"news/\"; what counts \
                    for all others stands in [policy]";
        return Err(source.wrong(Some(at), text).into());
    }
    if others.iter().any(|it| it.keys == keys) {
        let text = format!("there is a class for {keys:?} already; put what both say into one");
        return Err(source.wrong(Some(at), &text).into());
    }
    let policy = policy.map(|it| it.args(source)).transpose()?.unwrap_or_default().over(around);
    let rules = policy.rules(offers, &|_, text| source.wrong(Some(span.clone()), text).into())?;
    Ok(Class { keys, rules, apart: rate.map(|it| it.0).unwrap_or_default() })
}

fn destinations(
    source: &Source<'_>,
    tables: Vec<Spanned<DestinationTable>>,
    pace: &Pace,
) -> Result<Vec<Destination>, Failure> {
    let mut all: Vec<Destination> = Vec::new();
    for table in tables {
        let span = source.head(table.span());
        let DestinationTable { domains: said, workers, rate } = table.into_inner();
        let mut domains: Vec<String> = Vec::new();
        for domain in said {
            let (at, domain) = (domain.span(), domain.into_inner().to_lowercase());
            if domain.is_empty() || domain.contains(['@', ' ', '*']) {
                let text = "this is no domain, such as \"mail.example\"";
                return Err(source.wrong(Some(at), text).into());
            }
            if all.iter().flat_map(|it| &it.domains).chain(&domains).any(|it| *it == domain) {
                let text = format!("{domain:?} is of a destination already, and one can count");
                return Err(source.wrong(Some(at), &text).into());
            }
            domains.push(domain);
        }
        if domains.is_empty() {
            return Err(source.wrong(Some(span), "it names no domain").into());
        }
        let workers = match workers {
            Some(said) => source.within(Some(said), WORKERS, &MANY)?.into(),
            None => pace.per_domain,
        };
        let apart = rate.map_or(pace.apart_there, |it| it.0);
        all.push(Destination { domains, workers, apart });
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
