//! A resource behind an HTTP API: a call that looks for it, one that makes it, one that asks
//! whether it is ready, one that destroys it. What an answer means is the plan's word; what it does
//! not mention says nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request as HttpRequest};
use http_body_util::Full;
use onlyonce_core::Cause;
use serde_json::Value;

use super::{Call, Made, Readiness, Seen, Undone, id, last_line};
use crate::client::{self, Answer, Failed, encoded};
use crate::template::Template;

/// The calls of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) check: Option<Check>,
    pub(crate) create: Create,
    pub(crate) ready: Option<Ready>,
    pub(crate) destroy: Option<Destroy>,
    /// How long each of them may take.
    pub(crate) within: Duration,
}

/// How it is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) request: Request,
    /// Where in the answer the things are that were found: a list, one thing, or null.
    pub(crate) items: String,
    /// Where in a thing its id is.
    pub(crate) id: String,
    /// Where in a thing its marker is; without it everything that is found is ours.
    pub(crate) marker: Option<String>,
    /// Where the answer says that there is more of it.
    pub(crate) more: Option<String>,
    /// Statuses that say that nothing is there.
    pub(crate) absent: Vec<u16>,
}

/// How it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Create {
    pub(crate) request: Request,
    /// Where in the answer the id is.
    pub(crate) id: IdIn,
    /// Statuses that say that nothing was made.
    pub(crate) refused: Vec<u16>,
    /// Statuses that say that something has its place: perhaps what this request has made.
    pub(crate) taken: Vec<u16>,
}

/// Where an id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdIn {
    /// At this JSON pointer (RFC 6901).
    Body(String),
    /// In this header field.
    Header(String),
}

/// How it is asked whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) request: Request,
    /// Where in the answer its state is.
    pub(crate) field: String,
    /// What stands there when it is ready,
    pub(crate) is: Vec<String>,
    /// and when it never will be.
    pub(crate) failed: Vec<String>,
}

/// How it is destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destroy {
    pub(crate) request: Request,
    /// Statuses that say that it is gone.
    pub(crate) gone: Vec<u16>,
    /// Statuses that say that nothing was done.
    pub(crate) refused: Vec<u16>,
}

/// A request whose references are not filled in yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Template,
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) body: Option<Json>,
}

/// A JSON document with references in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Text(Template),
    /// An input that is a number, true or false, as it is.
    Bare(Template),
    Plain(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What is refused, as HTTP has it: a request that these answer was not carried out (RFC 9110,
/// section 15.5; RFC 6585). Not 408, by which a server may have lost a request half-way, nor 409
/// and 412, which may be about what an earlier attempt has made.
pub(crate) const REFUSED: [u16; 15] =
    [400, 401, 402, 403, 404, 405, 406, 411, 413, 414, 415, 421, 422, 429, 431];
/// What says that it is gone, as HTTP has it for DELETE (RFC 9110, section 9.3.5). Not 202, which
/// says that it is not carried out yet.
pub(crate) const GONE: [u16; 2] = [200, 204];
/// What is refused when something is to be destroyed. Not 404, by which a second one of the same
/// request may be answered, that somebody on the way has sent.
pub(crate) const REFUSED_GONE: [u16; 14] =
    [400, 401, 402, 403, 405, 406, 411, 413, 414, 415, 421, 422, 429, 431];
/// What may be about what is there already.
pub(crate) const TAKEN: [u16; 2] = [409, 412];

impl Http {
    pub(super) async fn check(&self, call: &Call<'_>) -> Seen {
        let Some(check) = &self.check else {
            return Seen::CannotTell("the plan has no `check` for it".into());
        };
        match self.ask(&check.request, call).await {
            Ok(answer) => check.seen(&answer, call),
            Err(failed) => Seen::CannotTell(told(failed)),
        }
    }

    pub(super) async fn create(&self, call: &Call<'_>) -> Made {
        let Create { request, id, refused, taken } = &self.create;
        let answer = match self.ask(request, call).await {
            Ok(answer) => answer,
            Err(Failed::NotSent(text)) => return Made::Refused(text),
            Err(Failed::Lost(cause, text)) => return Made::Unknown(cause, text),
            // The status counts, whatever is lost of the rest.
            Err(Failed::Cut(status, text)) if refused.contains(&status) => {
                return Made::Refused(text);
            }
            Err(Failed::Cut(_, text)) => return Made::Unknown(Cause::AnswerCut, text),
        };
        let text = format!("answered with {}: {}", answer.status, said(&answer));
        match answer.status {
            status if refused.contains(&status) => Made::Refused(text),
            status if taken.contains(&status) => Made::Taken(text),
            200..=299 => match id.of(&answer) {
                Some(id) => Made::Created(id),
                None => {
                    Made::Unknown(Cause::AnswerCut, format!("no id where it should be; {text}"))
                }
            },
            _ => Made::Unknown(Cause::GatewayAnswer, text),
        }
    }

    pub(super) async fn ready(&self, call: &Call<'_>) -> Readiness {
        let Some(Ready { request, field, is, failed }) = &self.ready else {
            return Readiness::Ready;
        };
        let answer = match self.ask(request, call).await {
            Ok(answer) => answer,
            Err(failed) => return Readiness::NotYet(told(failed)),
        };
        let body = serde_json::from_slice::<Value>(&answer.body).ok();
        let state = body.as_ref().and_then(|body| body.pointer(field)).map(plain);
        match state.filter(|_| is_success(answer.status)) {
            Some(state) if is.contains(&state) => Readiness::Ready,
            Some(state) if failed.contains(&state) => Readiness::Failed(state),
            Some(state) => Readiness::NotYet(state),
            None => {
                let text = format!("answered with {}: {}", answer.status, said(&answer));
                Readiness::NotYet(text)
            }
        }
    }

    pub(super) async fn destroy(&self, call: &Call<'_>) -> Undone {
        let Some(Destroy { request, gone, refused }) = &self.destroy else {
            return Undone::Refused("the plan has no `destroy` for it".into());
        };
        let (status, text) = match self.ask(request, call).await {
            Ok(answer) => {
                (answer.status, format!("answered with {}: {}", answer.status, said(&answer)))
            }
            Err(Failed::NotSent(text)) => return Undone::Refused(text),
            Err(Failed::Lost(cause, text)) => return Undone::Unknown(cause, text),
            // The status counts, whatever is lost of the rest.
            Err(Failed::Cut(status, text)) => (status, text),
        };
        match status {
            status if gone.contains(&status) => Undone::Gone,
            status if refused.contains(&status) => Undone::Refused(text),
            _ => Undone::Unknown(Cause::GatewayAnswer, text),
        }
    }

    /// The call that looks for it, as it is sent now: to another account it shows other things. Of
    /// this only a digest is kept, with a key, so fields may hold secrets.
    pub(super) fn sight(&self, call: &Call<'_>) -> Option<String> {
        let Check { request, items, id, marker, more, absent } = self.check.as_ref()?;
        let filled = request.filled(call).ok()?;
        let url = filled.uri().to_string();
        let fields = filled.headers().iter();
        let headers: Vec<_> = fields.map(|(name, it)| (name.as_str(), it.as_bytes())).collect();
        serde_json::to_string(&(url, headers, items, id, marker, more, absent)).ok()
    }

    async fn ask(&self, request: &Request, call: &Call<'_>) -> Result<Answer, Failed> {
        let request = request.filled(call).map_err(Failed::NotSent)?;
        client::send(request, self.within).await
    }
}

impl Check {
    fn seen(&self, answer: &Answer, call: &Call<'_>) -> Seen {
        if self.absent.contains(&answer.status) {
            return Seen::Absent;
        }
        let cannot = |why: &str| {
            let (status, said) = (answer.status, said(answer));
            Seen::CannotTell(format!("{why}: answered with {status}: {said}"))
        };
        if !is_success(answer.status) {
            return cannot("no answer that says what is there");
        }
        let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else {
            return cannot("the answer is no JSON");
        };
        let items = match body.pointer(&self.items) {
            Some(Value::Array(items)) => items.as_slice(),
            Some(Value::Null) => &[],
            Some(item @ Value::Object(_)) => std::slice::from_ref(item),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {
                return cannot("the answer has no things where `items` says");
            }
        };
        let mut ids = (BTreeSet::new(), BTreeSet::new());
        for item in items {
            let Some(id) = item.pointer(&self.id).map(plain).and_then(|it| id(&it)) else {
                return cannot("a thing has no id where `id` says");
            };
            let ours = self.marker.as_ref().is_none_or(|marker| {
                item.pointer(marker).is_some_and(|it| is_or_has(it, &call.identity.marker))
            });
            if ours { &mut ids.0 } else { &mut ids.1 }.insert(id);
        }
        let more = self.more.as_ref().and_then(|more| body.pointer(more));
        let is_all = more.is_none_or(|more| plain(more).is_empty());
        let mut ours = ids.0.into_iter();
        match (ours.next(), ours.next()) {
            (Some(first), Some(second)) => {
                Seen::Several([first, second].into_iter().chain(ours).collect())
            }
            _ if !is_all => cannot("there is more than one page of it"),
            (Some(one), None) => Seen::Ours(one),
            (None, _) if ids.1.is_empty() => Seen::Absent,
            (None, _) => Seen::NotOurs(ids.1.into_iter().collect::<Vec<_>>().join(", ")),
        }
    }
}

impl IdIn {
    fn of(&self, answer: &Answer) -> Option<String> {
        match self {
            Self::Header(name) => id(answer.headers.get(name)?.to_str().ok()?),
            Self::Body(pointer) => {
                let body: Value = serde_json::from_slice(&answer.body).ok()?;
                id(&plain(body.pointer(pointer)?))
            }
        }
    }
}

impl Request {
    /// The request, or why it cannot be made.
    fn filled(&self, call: &Call<'_>) -> Result<HttpRequest<Full<Bytes>>, String> {
        let known = |name: &str| known(call, name);
        let missing = |name: &str| format!("`${{{name}}}` is not known here");
        let in_url = |name: &str| {
            // What the environment says is a part of the address, and not a value in it.
            let value = known(name)?;
            Some(if name.starts_with("env.") { value } else { encoded(&value) })
        };
        let url = self.url.fill(in_url).map_err(missing)?;
        let mut request = HttpRequest::builder().method(self.method.clone()).uri(url);
        for (name, value) in &self.headers {
            request = request.header(name, value.fill(known).map_err(missing)?);
        }
        let body = match &self.body {
            None => Bytes::new(),
            Some(json) => {
                request = request.header("content-type", "application/json");
                json.filled(&known).map_err(|name| missing(&name))?.to_string().into()
            }
        };
        // What is wrong is not shown: a field may hold a secret.
        request.body(Full::new(body)).map_err(|error| format!("no request can be made: {error}"))
    }
}

impl Json {
    fn filled(&self, known: &impl Fn(&str) -> Option<String>) -> Result<Value, String> {
        Ok(match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) => Value::String(text.fill(known)?),
            Self::Bare(text) => {
                let text = text.fill(known)?;
                serde_json::from_str(&text).unwrap_or(Value::String(text))
            }
            Self::List(items) => {
                items.iter().map(|it| it.filled(known)).collect::<Result<Vec<_>, _>>()?.into()
            }
            Self::Object(members) => {
                let members =
                    members.iter().map(|(name, it)| Ok((name.clone(), it.filled(known)?)));
                Value::Object(members.collect::<Result<_, String>>()?)
            }
        })
    }
}

/// What a reference in a request stands for.
fn known(call: &Call<'_>, name: &str) -> Option<String> {
    match name {
        "key" => Some(call.key.to_owned()),
        "marker" => Some(call.identity.marker.clone()),
        "name" => Some(call.identity.name.clone()),
        "token" => Some(call.identity.token.clone()),
        "id" => call.id.map(str::to_owned),
        name => match name.split_once('.') {
            Some(("input", input)) => call.inputs.get(input).cloned(),
            Some(("env", variable)) => std::env::var(variable).ok(),
            _ => None,
        },
    }
}

/// A text whose references are variables of the environment alone.
pub(super) fn environment(text: &Template) -> Result<String, String> {
    let known = |name: &str| std::env::var(name.strip_prefix("env.")?).ok();
    let filled = text.fill(known);
    filled.map_err(|name| format!("`${{{name}}}` is not known: it is no variable that is set"))
}

const fn is_success(status: u16) -> bool {
    200 <= status && status < 300
}

/// A value as text, without the quotes of a string. Null and what is empty is the empty text.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn is_or_has(value: &Value, marker: &str) -> bool {
    match value {
        Value::String(text) => text == marker,
        Value::Array(items) => items.iter().any(|it| is_or_has(it, marker)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn said(answer: &Answer) -> String {
    match last_line(&String::from_utf8_lossy(&answer.body)) {
        "" => "it says nothing".into(),
        line => line.to_owned(),
    }
}

fn told(failed: Failed) -> String {
    match failed {
        Failed::NotSent(text) | Failed::Lost(_, text) | Failed::Cut(_, text) => text,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::identity::Identity;

    /// The same plan, with what another account is known by in the environment.
    #[test]
    fn a_look_with_another_account_is_another_look() {
        let template = |text: &str| Template::parse(text).unwrap();
        let headers = vec![("authorization".to_owned(), template("Bearer ${input.account}"))];
        let url = template("http://127.0.0.1/things");
        let request = Request { method: Method::GET, url, headers, body: None };
        let (id, marker, more, items) = ("/id".into(), None, None, String::new());
        let absent = Vec::new();
        let check = Check { request: request.clone(), items, id, marker, more, absent };
        let id = IdIn::Body("/id".into());
        let create = Create { request, id, refused: Vec::new(), taken: Vec::new() };
        let within = Duration::from_secs(1);
        let http = Http { check: Some(check), create, ready: None, destroy: None, within };
        let sight = |account: &str| {
            let inputs = &BTreeMap::from([("account".to_owned(), account.to_owned())]);
            let (identity, folder) = (&Identity::new("shop", "web", 1), Path::new("/"));
            let (attempt, id, hold) = (None, None, None);
            let now = onlyonce_core::Timestamp::default();
            http.sight(&Call { key: "web", identity, inputs, folder, now, attempt, id, hold })
        };
        assert!(sight("ours").is_some());
        assert_eq!(sight("ours"), sight("ours"));
        assert_ne!(sight("ours"), sight("theirs"));
    }
}
