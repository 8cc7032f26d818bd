//! The file as it is written, and from there to a checked [`Plan`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use onlyonce_core::limits::{FOREVER, RETENTION_MAX};
use onlyonce_core::{Always, OnUnknown, Policy, Receiver};
use onlyonce_listen::text::{Bounds, ConfigError, Source, Span, mended, parsed};
use serde::{Deserialize, Deserializer};
use toml::{Spanned, Value};

use super::kinds::{KindWord, ThingWord};
use super::{Plan, RESOURCES_MAX, Resource, order};
use crate::kind::Kind;
use crate::template::Template;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanTable {
    name: Spanned<String>,
    #[serde(default)]
    resource: Vec<Spanned<ResourceTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceTable {
    key: Spanned<String>,
    pub(super) kind: Spanned<KindWord>,
    #[serde(default)]
    after: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) inputs: BTreeMap<Spanned<String>, Spanned<Value>>,
    pub(super) receiver: Option<Spanned<ReceiverTable>>,
    timeout: Option<Spanned<Span>>,
    ready_within: Option<Spanned<Span>>,
    pub(super) check: Option<Spanned<Value>>,
    pub(super) create: Option<Spanned<Value>>,
    pub(super) ready: Option<Spanned<Value>>,
    pub(super) destroy: Option<Spanned<Value>>,
    pub(super) server: Option<Spanned<String>>,
    pub(super) password: Option<Spanned<String>>,
    pub(super) r#type: Option<Spanned<ThingWord>>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) endpoint: Option<Spanned<String>>,
}

impl ResourceTable {
    /// The inputs that are no strings.
    pub(super) fn bare(&self) -> BTreeSet<&str> {
        let bare = self.inputs.iter().filter(|(_, value)| !value.get_ref().is_str());
        bare.map(|(name, _)| name.get_ref().as_str()).collect()
    }
}

/// What the place where a resource is made offers to settle an unknown outcome.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiverTable {
    always: Option<AlwaysWord>,
    keyed: Option<Span>,
    settle: Option<Span>,
    late: Option<Span>,
}

struct AlwaysWord(Always);

impl<'de> Deserialize<'de> for AlwaysWord {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from, |text| match text {
            "unique-name" => Ok(Self(Always::UniqueName)),
            "fenced" => Ok(Self(Always::Fenced)),
            _ => Err(format!("{text:?} is not known here; write \"unique-name\" or \"fenced\"")),
        })
    }
}

const MINUTES: Duration = Duration::from_secs(600);
const WITHIN: Bounds<Span> = Bounds(
    Span(Duration::from_millis(10))..=Span(Duration::from_secs(86_400)),
    "from \"10ms\" to \"1d\"",
);
/// It must leave room in a key of a record for the generation.
const KEY_MAX: usize = 100;

pub(super) fn parse(name: &str, text: &str, folder: &Path) -> Result<Plan, ConfigError> {
    let source = Source { name, text };
    let table: PlanTable = toml::from_str(text)
        .map_err(|error| source.wrong(error.span(), &mended(error.message())))?;
    word(&source, "name", &table.name)?;
    if table.resource.is_empty() {
        return Err(source.wrong(Some(0..0), "there is no resource; add a table [[resource]]"));
    }
    if RESOURCES_MAX < table.resource.len() {
        let many = format!("there are more than {RESOURCES_MAX} resources; split the plan");
        return Err(source.wrong(Some(0..0), &many));
    }
    let mut places = BTreeMap::new();
    for (at, resource) in table.resource.iter().enumerate() {
        let key = &resource.get_ref().key;
        word(&source, "key", key)?;
        if places.insert(key.get_ref().clone(), at).is_some() {
            let twice = format!("`key`: {:?} is the key of another resource too", key.get_ref());
            return Err(source.wrong(Some(key.span()), &twice));
        }
    }
    let mut heads = Vec::new();
    let mut resources = Vec::new();
    for resource in table.resource {
        heads.push(resource.get_ref().key.span());
        let head = source.head(resource.span());
        let reading = Reading { source: &source, places: &places, head };
        resources.push(reading.resource(resource.into_inner())?);
    }
    if let Some(circle) = order::circle(&resources) {
        let at = places.get(&circle[0]).and_then(|at| heads.get(*at)).cloned();
        let way = circle.iter().chain(circle.first()).cloned().collect::<Vec<_>>().join(" -> ");
        return Err(source.wrong(at, &format!("each waits for the next: {way}")));
    }
    let name = table.name.into_inner();
    Ok(Plan { name, folder: folder.to_owned(), resources })
}

/// A name or key: short, and without what separates it from other words.
fn word(source: &Source<'_>, field: &str, said: &Spanned<String>) -> Result<(), ConfigError> {
    let text = said.get_ref();
    let fits = |it: char| it.is_ascii_alphanumeric() || "-_/".contains(it);
    if !text.is_empty() && text.len() <= KEY_MAX && text.chars().all(fits) {
        return Ok(());
    }
    let wrong = format!("`{field}` is 1 to {KEY_MAX} letters, digits, `-`, `_` and `/`");
    Err(source.wrong(Some(said.span()), &wrong))
}

/// One resource on its way from the file.
pub(super) struct Reading<'a> {
    pub(super) source: &'a Source<'a>,
    places: &'a BTreeMap<String, usize>,
    /// The line that begins it.
    pub(super) head: Range<usize>,
}

impl Reading<'_> {
    pub(super) fn wrong(&self, span: Range<usize>, text: &str) -> ConfigError {
        self.source.wrong(Some(span), text)
    }

    fn resource(&self, table: ResourceTable) -> Result<Resource, ConfigError> {
        let mut after = BTreeSet::new();
        for key in &table.after {
            after.insert(self.place("after", key.get_ref(), key.span())?);
        }
        let mut inputs = BTreeMap::new();
        for (name, value) in &table.inputs {
            let template = self.input(name, value)?;
            for reference in template.references() {
                after.insert(self.reference(name.get_ref(), reference, value.span())?);
            }
            inputs.insert(name.get_ref().clone(), template);
        }
        let within = self.source.within(table.timeout.clone(), Span(MINUTES), &WITHIN)?.0;
        let kind = self.kind(&table, within, &inputs)?;
        let policy = self.policy(&kind, table.receiver)?;
        let ready_within = self.source.within(table.ready_within, Span(MINUTES), &WITHIN)?.0;
        let (key, after) = (table.key.into_inner(), after.into_iter().collect());
        Ok(Resource { key, kind, inputs, after, policy, ready_within })
    }

    fn place(&self, field: &str, key: &str, span: Range<usize>) -> Result<usize, ConfigError> {
        self.places.get(key).copied().ok_or_else(|| {
            self.wrong(span, &format!("`{field}`: there is no resource with the key {key:?}"))
        })
    }

    fn reference(
        &self,
        input: &str,
        reference: &str,
        span: Range<usize>,
    ) -> Result<usize, ConfigError> {
        let Some(key) = reference.strip_suffix(".id") else {
            let text = format!(
                "`inputs.{input}`: `${{{reference}}}` is not known; write `${{KEY.id}}` for the id \
                 of another resource"
            );
            return Err(self.wrong(span, &text));
        };
        self.place(&format!("inputs.{input}"), key, span)
    }

    fn input(
        &self,
        name: &Spanned<String>,
        value: &Spanned<Value>,
    ) -> Result<Template, ConfigError> {
        let text = name.get_ref();
        let begins = text.starts_with(|it: char| it.is_ascii_lowercase());
        if !begins
            || !text.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
        {
            let text = "an input's name is small letters, digits and `_`, begun by a letter";
            return Err(self.wrong(name.span(), text));
        }
        match value.get_ref() {
            Value::String(it) => Template::parse(it).map_err(|text| {
                self.wrong(value.span(), &format!("`inputs.{}`: {text}", name.get_ref()))
            }),
            Value::Integer(it) => Ok(Template::plain(it.to_string())),
            Value::Float(it) => Ok(Template::plain(it.to_string())),
            Value::Boolean(it) => Ok(Template::plain(it.to_string())),
            Value::Datetime(_) | Value::Array(_) | Value::Table(_) => {
                let text = format!("`inputs.{text}` must be a string, a number, true or false");
                Err(self.wrong(value.span(), &text))
            }
        }
    }

    /// A record of a resource is never forgotten: its id is needed as long as it is there.
    fn policy(
        &self,
        kind: &Kind,
        said: Option<Spanned<ReceiverTable>>,
    ) -> Result<Policy, ConfigError> {
        let span = said.as_ref().map_or(self.head.clone(), |it| self.source.head(it.span()));
        if let Some(ReceiverTable { settle: Some(_), .. }) = said.as_ref().map(Spanned::get_ref)
            && !kind.can_check()
        {
            let text = "`receiver.settle` is about what `check` says, and there is no `check`";
            return Err(self.wrong(span, text));
        }
        let receiver = match kind.receiver() {
            Some(receiver) => receiver,
            None => receiver(kind, said.map(Spanned::into_inner)),
        };
        let policy = Policy {
            retention: RETENTION_MAX,
            remember: FOREVER,
            on_unknown: OnUnknown::Auto,
            receiver,
            ..Policy::default()
        };
        policy.check().map_err(|error| self.wrong(span, &format!("`receiver`: {error}")))
    }
}

/// A "yes" is worth asking for although nothing says when a "no" is final: then it never is.
const NEVER_FINAL: Duration = RETENTION_MAX;

fn receiver(kind: &Kind, said: Option<ReceiverTable>) -> Receiver {
    let span = |it: Option<Span>| it.map(|span| span.0);
    let said =
        said.unwrap_or(ReceiverTable { always: None, keyed: None, settle: None, late: None });
    let settle =
        kind.can_check().then(|| span(said.settle).or(kind.settle()).unwrap_or(NEVER_FINAL));
    // What was begun may act for as long as it is let.
    let late = span(said.late).or(kind.within()).unwrap_or_default();
    Receiver { always: said.always.map(|it| it.0), keyed: span(said.keyed), settle, late }
}
