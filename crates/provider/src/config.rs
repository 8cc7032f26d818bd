//! A provider's file, and those that are ready.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use onlyonce_ask::template::Template;
use onlyonce_listen::text::{ConfigError, Source, Span, mended};
use serde::Deserialize;
use toml::{Table, Value};

use crate::body::{Body, Json};
use crate::letter::NAMES;
use crate::look::Look;
use crate::provider::{IdIn, Provider, Signing};

/// The files that `like` may name.
pub const READY: [(&str, &str); 6] = [
    ("brevo", include_str!("ready/brevo.toml")),
    ("mailgun", include_str!("ready/mailgun.toml")),
    ("postmark", include_str!("ready/postmark.toml")),
    ("resend", include_str!("ready/resend.toml")),
    ("sendgrid", include_str!("ready/sendgrid.toml")),
    ("ses", include_str!("ready/ses.toml")),
];

/// Statuses by which a provider says that it will never take this message.
const REFUSED: [u16; 3] = [400, 413, 422];
/// Those that say it of the request, such as by a key that is not valid: mended, it may be sent.
/// Not 408, 409 and 5xx, by which what was asked may have been carried out (RFC 9110, section 15).
const LATER: [u16; 11] = [401, 402, 403, 404, 405, 406, 411, 415, 421, 429, 431];
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(60);
/// How long a request that was given up may need to be carried out: the system gives up what is
/// not confirmed for 30 s, and the provider has as long again and more.
const LATE: Duration = Duration::from_secs(2 * 60);
/// How long what a provider has taken may need to be found there.
const SETTLE: Duration = Duration::from_secs(5 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    like: Option<String>,
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    json: Option<Table>,
    form: Option<BTreeMap<String, String>>,
    id: Option<String>,
    refused: Option<Vec<u16>>,
    later: Option<Vec<u16>>,
    window: Option<Span>,
    late: Option<Span>,
    within: Option<Span>,
    look: Option<LookTable>,
    aws: Option<AwsTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AwsTable {
    region: String,
    service: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LookTable {
    url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    items: String,
    id: Option<String>,
    marker: Option<String>,
    #[serde(default)]
    absent: Vec<u16>,
    settle: Option<Span>,
    late: Option<Span>,
}

/// A mistake: the field that it is in, and what is wrong with it.
type Wrong = (&'static str, String);

impl Provider {
    /// Reads a file; `name` is what mistakes name.
    ///
    /// # Errors
    /// A mistake in it, with its place.
    pub fn read(name: &str, text: &str) -> Result<Self, ConfigError> {
        let source = Source { name, text };
        let parsed = toml::from_str::<FileTable>(text);
        let written =
            parsed.map_err(|error| source.wrong(error.span(), &mended(error.message())))?;
        let wrong = |(field, text): Wrong| ConfigError::of(name, format!("`{field}`: {text}"));
        let table = match &written.like {
            None => written,
            Some(like) => merged(like, text).map_err(|text| wrong(("like", text)))?,
        };
        provider(table).map_err(wrong)
    }
}

/// A ready file, with what another one says laid over it.
fn merged(like: &str, text: &str) -> Result<FileTable, String> {
    let Some((_, ready)) = READY.iter().find(|(name, _)| *name == like) else {
        let names = READY.map(|(name, _)| name).join(", ");
        return Err(format!("{like:?} is none that is ready: there are {names}"));
    };
    let read = |text: &str| text.parse::<Table>().map_err(|error| error.message().to_owned());
    let (mut table, over) = (read(ready)?, read(text)?);
    lay_over(&mut table, over);
    Value::Table(table).try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn lay_over(table: &mut Table, over: Table) {
    for (name, value) in over {
        match (table.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                table.insert(name, value);
            }
        }
    }
}

fn provider(table: FileTable) -> Result<Provider, Wrong> {
    let address = table.url.unwrap_or_default();
    let url = url((!address.is_empty()).then_some(&address)).map_err(|text| ("url", text))?;
    let body = match (table.json, table.form) {
        (Some(json), None) => {
            Body::Json(json_of(Value::Table(json)).map_err(|text| ("json", text))?)
        }
        (None, Some(form)) => {
            let fields = form.into_iter().map(|(name, value)| Ok((name, template(&value)?)));
            Body::Form(fields.collect::<Result<_, String>>().map_err(|text| ("form", text))?)
        }
        (Some(_), Some(_)) => return Err(("form", "it has `json` already: one of both".into())),
        (None, None) => return Err(("json", "it is missing, and so is `form`".into())),
    };
    let headers = headers(table.headers).map_err(|text| ("headers", text))?;
    let id = table.id.as_deref().map(id).transpose().map_err(|text| ("id", text))?;
    let refused = statuses(table.refused, &REFUSED).map_err(|text| ("refused", text))?;
    let mut later = statuses(table.later, &LATER).map_err(|text| ("later", text))?;
    later.retain(|status| !refused.contains(status));
    let window = table.window.map(|it| it.0);
    let carries_key = || {
        let all = headers.iter().map(|(_, value)| value).chain(body.templates()).chain([&url]);
        all.into_iter().any(|it| it.references().contains("key"))
    };
    if window.is_some() && !carries_key() {
        let text = "the provider remembers a key, and nothing of the request has `${key}`";
        return Err(("window", text.into()));
    }
    if table.look.is_some() && table.aws.is_some() {
        return Err(("look", "requests are signed, and those of a look-up cannot be".into()));
    }
    let look = table.look.map(|it| look(it, &headers)).transpose();
    let look = look.map_err(|text| ("look", text))?;
    let late = table.late.map_or(LATE, |it| it.0);
    let within = table.within.map_or(WITHIN, |it| it.0);
    if table.aws.is_some() {
        signable(&address, &headers)?;
    }
    let signing =
        |it: AwsTable| template(&it.region).map(|region| Signing { region, service: it.service });
    let aws = table.aws.map(signing).transpose().map_err(|text| ("aws", text))?;
    Ok(Provider { url, headers, body, id, refused, later, window, late, within, look, aws })
}

/// Whether requests like this can be signed, as far as the file says it.
fn signable(url: &str, headers: &[(String, Template)]) -> Result<(), Wrong> {
    if url.contains('?') {
        return Err(("url", "an address with a query is not signed".into()));
    }
    let signs = |name: &str| ["host", "authorization", "x-amz-date"].contains(&name);
    match headers.iter().find(|(name, _)| signs(&name.to_ascii_lowercase())) {
        Some((name, _)) => Err(("headers", format!("{name:?} is part of the signature"))),
        None => Ok(()),
    }
}

fn look(table: LookTable, usual: &[(String, Template)]) -> Result<Look, String> {
    let url = url(table.url.as_deref()).map_err(|text| format!("`url`: {text}"))?;
    let id = table.id.ok_or("`id` is missing: where in a message its id is")?;
    for pointer in [&table.items, &id].into_iter().chain(&table.marker) {
        is_pointer(pointer)?;
    }
    let named = |name: &str| url.references().contains(name);
    // Else it would take whatever it finds for the message.
    if table.marker.is_none() && !named("key") && !named("message_id") {
        return Err("say where the key is in a message (`marker`), or ask for it (`${key}` or \
                    `${message_id}` in `url`): what is found would else be taken for it"
            .into());
    }
    // It is asked as it is told, but for the key of a message.
    let headers = match table.headers {
        Some(own) => headers(own)?,
        None => {
            let fits = |(_, value): &&(String, Template)| {
                value.references().iter().all(|name| name.starts_with("env."))
            };
            usual.iter().filter(fits).cloned().collect()
        }
    };
    let (settle, late) =
        (table.settle.map_or(SETTLE, |it| it.0), table.late.map_or(LATE, |it| it.0));
    let LookTable { items, marker, absent, .. } = table;
    Ok(Look { url, headers, items, id, marker, absent, settle, late })
}

fn url(text: Option<&str>) -> Result<Template, String> {
    let text = text.ok_or("it is missing")?;
    if !["http://", "https://", "${env."].iter().any(|it| text.starts_with(it)) {
        return Err(format!("{text:?}: write one that begins with http:// or https://"));
    }
    template(text)
}

fn template(text: &str) -> Result<Template, String> {
    let template = Template::parse(text)?;
    let is_known = |name: &str| match name.strip_prefix("env.") {
        Some(variable) => !variable.is_empty(),
        None => NAMES.iter().any(|(known, _)| *known == name),
    };
    if let Some(name) = template.references().into_iter().find(|name| !is_known(name)) {
        let known: Vec<String> = NAMES.iter().map(|(it, _)| format!("${{{it}}}")).collect();
        let known = known.join(", ");
        return Err(format!(
            "`${{{name}}}` is not known here: there are {known} and ${{env.NAME}}"
        ));
    }
    Ok(template)
}

fn headers(fields: BTreeMap<String, String>) -> Result<Vec<(String, Template)>, String> {
    let field = |(name, value): (String, String)| {
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map_err(|_| format!("{name:?} is no name of a field"))?;
        Ok((known.as_str().to_owned(), template(&value)?))
    };
    fields.into_iter().map(field).collect()
}

fn id(text: &str) -> Result<IdIn, String> {
    match text.split_once(':') {
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(|name| IdIn::Header(name.as_str().to_owned()))
            .map_err(|_| format!("{name:?} is no name of a header field")),
        _ => is_pointer(text).map(|()| IdIn::Body(text.to_owned())),
    }
}

/// RFC 6901.
fn is_pointer(text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with('/') {
        return Ok(());
    }
    Err(format!("{text:?} is no JSON pointer: write one such as \"/data/id\""))
}

/// A server that answers with 5xx may have taken what it was sent; one with 408 or 409 too.
fn statuses(written: Option<Vec<u16>>, usual: &[u16]) -> Result<Vec<u16>, String> {
    let Some(written) = written else { return Ok(usual.to_vec()) };
    match written.iter().find(|it| !(400..500).contains(*it) || [408, 409].contains(*it)) {
        None => Ok(written),
        Some(status) => Err(format!(
            "{status} does not say that nothing was sent: write statuses from 400 to 499, but not \
             408 and 409"
        )),
    }
}

fn json_of(value: Value) -> Result<Json, String> {
    Ok(match value {
        Value::String(text) => Json::Text(template(&text)?),
        Value::Integer(number) => Json::Plain(number.into()),
        Value::Float(number) => Json::Plain(number.into()),
        Value::Boolean(it) => Json::Plain(it.into()),
        Value::Datetime(at) => Json::Plain(at.to_string().into()),
        Value::Array(items) => {
            Json::List(items.into_iter().map(json_of).collect::<Result<_, _>>()?)
        }
        Value::Table(members) => {
            let members = members.into_iter().map(|(name, it)| Ok((name, json_of(it)?)));
            Json::Object(members.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ready_files_are_read_and_can_be_changed() {
        for (name, _) in READY {
            let read = Provider::read("mail.toml", &format!("like = \"{name}\"\n"));
            let provider = read.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!provider.variables().is_empty(), "{name} needs a secret");
        }
        let changed = "like = \"resend\"\nwindow = \"1h\"\n[json]\ntags = [\"x\"]\n";
        let (changed, usual) = (
            Provider::read("mail.toml", changed).unwrap(),
            Provider::read("mail.toml", "like = \"resend\"").unwrap(),
        );
        assert_eq!(changed.window(), Some(Duration::from_secs(3_600)));
        assert_eq!(changed.headers, usual.headers);
        assert_eq!(changed.body.templates().len(), usual.body.templates().len() + 1);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let good = "url = \"https://a.example/\"\njson = { to = \"${to}\" }\n";
        assert!(Provider::read("mail.toml", good).is_ok());
        for (wrong, says) in [
            ("like = \"resend\"\nurll = 1\n", "mail.toml:2:1"),
            ("like = \"pigeon\"\n", "`like`: \"pigeon\" is none that is ready"),
            ("json = {}\n", "`url`: it is missing"),
            ("url = \"https://a.example/\"\n", "`json`: it is missing"),
            ("url = \"ftp://a.example/\"\njson = {}\n", "begins with http"),
            (&format!("{good}window = \"1h\"\n"), "nothing of the request has `${key}`"),
            (&format!("{good}refused = [409]\n"), "409 does not say that nothing was sent"),
            (&format!("{good}later = [503]\n"), "503 does not say that nothing was sent"),
            (&format!("{good}id = \"id\"\n"), "is no JSON pointer"),
            (&good.replace("${to}", "${too}"), "`${too}` is not known here"),
            (
                &format!("{good}[look]\nurl = \"https://a.example/?to=${{to}}\"\nid = \"/id\"\n"),
                "would else be taken for it",
            ),
            ("like = \"ses\"\n[look]\n", "those of a look-up cannot be"),
            ("like = \"ses\"\nurl = \"https://a.example/?x=1\"\n", "a query is not signed"),
            ("like = \"ses\"\n[headers]\nHost = \"b.example\"\n", "part of the signature"),
        ] {
            let error = Provider::read("mail.toml", wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
