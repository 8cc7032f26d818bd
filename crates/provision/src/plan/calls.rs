//! The calls of a resource of kind `http`, as they are written in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{HeaderName, Method};
use serde::Deserialize;
use toml::Value;

use crate::kind::{
    Check, Create, Destroy, GONE, Http, IdIn, Json, REFUSED, REFUSED_GONE, Ready, Request, TAKEN,
};
use crate::template::Template;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckTable {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    items: String,
    id: String,
    marker: Option<String>,
    more: Option<String>,
    #[serde(default)]
    absent: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateTable {
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    id: String,
    refused: Option<Vec<u16>>,
    taken: Option<Vec<u16>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadyTable {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    field: String,
    is: Vec<String>,
    #[serde(default)]
    failed: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DestroyTable {
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    gone: Option<Vec<u16>>,
    refused: Option<Vec<u16>>,
}

/// What a call may refer to.
pub(super) struct Names<'a> {
    /// All inputs, and those that are numbers, true or false.
    pub(super) inputs: BTreeSet<&'a str>,
    pub(super) bare: BTreeSet<&'a str>,
}

/// A mistake: the field that it is in, and what is wrong with it.
pub(super) type Wrong = (&'static str, String);

/// The four tables of a resource, each as it stands in the file.
pub(super) fn http(
    [check, create, ready, destroy]: [Option<Value>; 4],
    names: &Names<'_>,
    within: Duration,
) -> Result<Http, Wrong> {
    let Some(create) = create else {
        return Err(("create", "it is missing: the call that makes it".into()));
    };
    let check =
        check.map(|it| self::check(it, names).map_err(|text| ("check", text))).transpose()?;
    let create = self::create(create, names).map_err(|text| ("create", text))?;
    let ready =
        ready.map(|it| self::ready(it, names).map_err(|text| ("ready", text))).transpose()?;
    let destroy =
        destroy.map(|it| self::destroy(it, names).map_err(|text| ("destroy", text))).transpose()?;
    if destroy.is_some() && check.is_none() {
        let text = "there is no `check`: only what is seen to have the marker is destroyed";
        return Err(("destroy", text.into()));
    }
    Ok(Http { check, create, ready, destroy, within })
}

fn check(value: Value, names: &Names<'_>) -> Result<Check, String> {
    let CheckTable { url, headers, items, id, marker, more, absent } = table(value)?;
    for pointer in [&items, &id].into_iter().chain(&marker).chain(&more) {
        is_pointer(pointer)?;
    }
    let request = request(Method::GET, &url, headers, None, names, false)?;
    let uses = |template: &Template| template.references().contains("marker");
    // Else it would take whatever it finds for ours.
    if marker.is_none() && !uses(&request.url) && !request.headers.iter().any(|(_, it)| uses(it)) {
        return Err(
            "say where the marker is in a thing (`marker`), or ask for it (`${marker}` in \
                    `url`): what is found would else be taken for ours"
                .into(),
        );
    }
    Ok(Check { request, items, id, marker, more, absent })
}

fn create(value: Value, names: &Names<'_>) -> Result<Create, String> {
    let CreateTable { method, url, headers, body, id, refused, taken } = table(value)?;
    let method = match method.as_deref() {
        None | Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        Some(other) => return Err(format!("`method` {other:?}: write POST, PUT or PATCH")),
    };
    let id = match id.split_once(':') {
        Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
            .map(|name| IdIn::Header(name.as_str().to_owned()))
            .map_err(|_| format!("`id`: {name:?} is no name of a header field"))?,
        _ => {
            is_pointer(&id)?;
            IdIn::Body(id)
        }
    };
    let body = body.map(|body| json(body, names, false)).transpose()?;
    let request = request(method, &url, headers, body, names, false)?;
    let refused = refused.unwrap_or_else(|| REFUSED.to_vec());
    let taken = taken.unwrap_or_else(|| TAKEN.to_vec());
    refuse(refused.iter().chain(&taken))?;
    if let Some(status) = refused.iter().find(|it| taken.contains(it)) {
        return Err(format!("{status} is listed under `refused` and `taken`"));
    }
    Ok(Create { request, id, refused, taken })
}

fn ready(value: Value, names: &Names<'_>) -> Result<Ready, String> {
    let ReadyTable { url, headers, field, is, failed } = table(value)?;
    is_pointer(&field)?;
    let request = request(Method::GET, &url, headers, None, names, true)?;
    Ok(Ready { request, field, is, failed })
}

fn destroy(value: Value, names: &Names<'_>) -> Result<Destroy, String> {
    let DestroyTable { method, url, headers, body, gone, refused } = table(value)?;
    let method = match method.as_deref() {
        None | Some("DELETE") => Method::DELETE,
        Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        Some(other) => return Err(format!("`method` {other:?}: write DELETE, POST, PUT or PATCH")),
    };
    let body = body.map(|body| json(body, names, true)).transpose()?;
    let request = request(method, &url, headers, body, names, true)?;
    let in_body = request.body.as_ref().is_some_and(|body| refers(body, "id"));
    if !request.url.references().contains("id") && !in_body {
        return Err("say which one it is: `${id}` in `url` or `body`".into());
    }
    let gone = gone.unwrap_or_else(|| GONE.to_vec());
    let refused = refused.unwrap_or_else(|| REFUSED_GONE.to_vec());
    refuse(refused.iter())?;
    if let Some(status) = gone.iter().find(|it| !(200..600).contains(*it)) {
        return Err(format!("`gone`: {status} answers nothing: write statuses from 200 to 599"));
    }
    if let Some(status) = gone.iter().find(|it| refused.contains(it)) {
        return Err(format!("{status} is listed under `gone` and `refused`"));
    }
    Ok(Destroy { request, gone, refused })
}

/// That these statuses can say that nothing was done.
fn refuse<'a>(mut statuses: impl Iterator<Item = &'a u16>) -> Result<(), String> {
    match statuses.find(|it| !(400..600).contains(*it)) {
        Some(status) => Err(format!("{status} refuses nothing: write statuses from 400 to 599")),
        None => Ok(()),
    }
}

/// Whether a document has this reference.
fn refers(json: &Json, name: &str) -> bool {
    match json {
        Json::Text(text) | Json::Bare(text) => text.references().contains(name),
        Json::Plain(_) => false,
        Json::List(items) => items.iter().any(|it| refers(it, name)),
        Json::Object(members) => members.iter().any(|(_, it)| refers(it, name)),
    }
}

fn table<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, String> {
    value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

/// RFC 6901.
fn is_pointer(text: &str) -> Result<(), String> {
    if text.is_empty() || text.starts_with('/') {
        return Ok(());
    }
    Err(format!("{text:?} is no JSON pointer: write one such as \"/data/id\""))
}

fn request(
    method: Method,
    url: &str,
    headers: BTreeMap<String, String>,
    body: Option<Json>,
    names: &Names<'_>,
    has_id: bool,
) -> Result<Request, String> {
    let template = |text: &str| {
        let template = Template::parse(text)?;
        names.check(&template, has_id)?;
        Ok::<_, String>(template)
    };
    let begins = ["http://", "https://", "${env."].iter().any(|it| url.starts_with(it));
    if !begins {
        return Err(format!("`url` {url:?}: write one that begins with http:// or https://"));
    }
    let url = template(url)?;
    let mut fields = Vec::new();
    for (name, value) in headers {
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map_err(|_| format!("`headers`: {name:?} is no name of a field"))?;
        fields.push((known.as_str().to_owned(), template(&value)?));
    }
    Ok(Request { method, url, headers: fields, body })
}

/// A document of the file as one of JSON.
fn json(value: Value, names: &Names<'_>, has_id: bool) -> Result<Json, String> {
    Ok(match value {
        Value::String(text) => {
            let template = Template::parse(&text)?;
            names.check(&template, has_id)?;
            let only = text.strip_prefix("${input.").and_then(|rest| rest.strip_suffix('}'));
            match only {
                Some(input) if names.bare.contains(input) => Json::Bare(template),
                Some(_) | None => Json::Text(template),
            }
        }
        Value::Integer(number) => Json::Plain(number.into()),
        Value::Float(number) => Json::Plain(number.into()),
        Value::Boolean(it) => Json::Plain(it.into()),
        Value::Datetime(at) => Json::Plain(at.to_string().into()),
        Value::Array(items) => {
            let items = items.into_iter().map(|it| json(it, names, has_id));
            Json::List(items.collect::<Result<_, _>>()?)
        }
        Value::Table(members) => {
            let members = members.into_iter();
            let members = members.map(|(name, it)| Ok((name, json(it, names, has_id)?)));
            Json::Object(members.collect::<Result<_, String>>()?)
        }
    })
}

impl Names<'_> {
    fn check(&self, template: &Template, has_id: bool) -> Result<(), String> {
        let is_known = |name: &str| match name.split_once('.') {
            Some(("input", input)) => self.inputs.contains(input),
            Some(("env", variable)) => !variable.is_empty(),
            Some(_) => false,
            None => ["key", "marker", "name", "token"].contains(&name) || (name == "id" && has_id),
        };
        match template.references().into_iter().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => Err(format!(
                "`${{{name}}}` is not known here: there are ${{key}}, ${{marker}}, ${{name}}, \
                 ${{token}}, ${{input.NAME}}, ${{env.NAME}} and, for `ready` and `destroy`, ${{id}}"
            )),
        }
    }
}
