//! A request's content with references in it.
//!
//! A member that is one reference alone, to what a message does not have, is left out; so is a
//! thing of which nothing is left, and a thing of a list that lacks a member for that reason. So
//! one file serves messages with and without HTML.

use onlyonce_ask::encoded;
use onlyonce_ask::template::Template;
use serde_json::{Map, Value};

use crate::letter::Letter;

/// A document with references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Text(Template),
    Plain(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// What a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Json(Json),
    /// `application/x-www-form-urlencoded`.
    Form(Vec<(String, Template)>),
}

impl Body {
    /// The media type, and the content; or what is not known.
    pub(crate) fn filled(&self, letter: &Letter) -> Result<(&'static str, String), String> {
        match self {
            Self::Json(json) => {
                let value = json.filled(letter)?.unwrap_or(Value::Null);
                Ok(("application/json", value.to_string()))
            }
            Self::Form(fields) => {
                let mut pairs = Vec::new();
                for (name, value) in fields {
                    if let Some(value) = text(value, letter)? {
                        pairs.push(format!("{}={}", encoded(name), encoded(&value)));
                    }
                }
                Ok(("application/x-www-form-urlencoded", pairs.join("&")))
            }
        }
    }

    /// All that it refers to.
    pub(crate) fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Json(json) => json.templates(),
            Self::Form(fields) => fields.iter().map(|(_, value)| value).collect(),
        }
    }
}

impl Json {
    /// `None` if it is to be left out.
    fn filled(&self, letter: &Letter) -> Result<Option<Value>, String> {
        Ok(match self {
            Self::Plain(value) => Some(value.clone()),
            Self::Text(template) => text(template, letter)?.map(Value::String),
            Self::List(items) => {
                let mut list = Vec::new();
                for item in items {
                    let filled = item.filled(letter)?;
                    let is_whole = |value: &Value| match (item, value) {
                        (Self::Object(members), Value::Object(filled)) => {
                            members.len() == filled.len()
                        }
                        (Self::Text(_) | Self::Plain(_) | Self::List(_) | Self::Object(_), _) => {
                            true
                        }
                    };
                    list.extend(filled.filter(is_whole));
                }
                Some(Value::Array(list))
            }
            Self::Object(members) => {
                let mut object = Map::new();
                for (name, member) in members {
                    if let Some(value) = member.filled(letter)? {
                        object.insert(name.clone(), value);
                    }
                }
                // One of whose members there is none says nothing.
                let is_gone = object.is_empty() && !members.is_empty();
                (!is_gone).then_some(Value::Object(object))
            }
        })
    }

    fn templates(&self) -> Vec<&Template> {
        match self {
            Self::Text(template) => vec![template],
            Self::Plain(_) => Vec::new(),
            Self::List(items) => items.iter().flat_map(Self::templates).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, it)| it.templates()).collect(),
        }
    }
}

/// A text; `None` if it is one reference alone, to what the message does not have.
fn text(template: &Template, letter: &Letter) -> Result<Option<String>, String> {
    if template.only().is_some_and(|name| known(letter, name).is_none() && !is_of_system(name)) {
        return Ok(None);
    }
    filled(template, letter).map(Some)
}

/// A text, all of which must be known.
pub(crate) fn filled(template: &Template, letter: &Letter) -> Result<String, String> {
    let filled = template.fill(|name| known(letter, name));
    filled.map_err(|name| {
        if is_of_system(name) {
            format!("`${{{name}}}` is no variable that is set")
        } else {
            format!("the message has no `${{{name}}}`")
        }
    })
}

pub(crate) fn is_of_system(name: &str) -> bool {
    name.starts_with("env.")
}

pub(crate) fn known(letter: &Letter, name: &str) -> Option<String> {
    match name.strip_prefix("env.") {
        Some(variable) => std::env::var(variable).ok(),
        None => letter.value(name).map(ToOwned::to_owned),
    }
}
