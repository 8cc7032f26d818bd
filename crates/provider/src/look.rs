//! Asking a provider whether it has a message.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use onlyonce_ask::template::Template;
use onlyonce_ask::{Answer, encoded, send};
use serde_json::Value;

use crate::body::{filled, is_of_system, known};
use crate::letter::Letter;

/// What a provider says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It has it, under this id.
    There(String),
    /// It has nothing of it. Whether that counts depends on the bounds.
    Absent,
    /// Nothing.
    CannotTell,
}

/// How it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) url: Template,
    pub(crate) headers: Vec<(String, Template)>,
    /// Where in the answer the messages are: a list, one message, or null.
    pub(crate) items: String,
    /// Where in a message its id is.
    pub(crate) id: String,
    /// Where in a message our key is; without it, all that is found is the message.
    pub(crate) marker: Option<String>,
    /// Statuses that say that there is no such message.
    pub(crate) absent: Vec<u16>,
    /// How long what was taken may not be found yet.
    pub(crate) settle: Duration,
    /// How long what was sent may need to be taken.
    pub(crate) late: Duration,
}

impl Look {
    pub(crate) async fn ask(&self, letter: &Letter, within: Duration) -> Looked {
        let Ok(request) = self.request(letter) else { return Looked::CannotTell };
        match send(request, within).await {
            Ok(answer) => self.judged(&answer, letter),
            Err(_) => Looked::CannotTell,
        }
    }

    fn request(&self, letter: &Letter) -> Result<Request<Full<Bytes>>, String> {
        let url = address(&self.url, letter)?;
        let mut request = Request::builder().method(Method::GET).uri(url);
        for (name, value) in &self.headers {
            request = request.header(name, filled(value, letter)?);
        }
        request.body(Full::default()).map_err(|error| error.to_string())
    }

    fn judged(&self, answer: &Answer, letter: &Letter) -> Looked {
        if self.absent.contains(&answer.status) {
            return Looked::Absent;
        }
        let body = match answer.status {
            200..=299 => serde_json::from_slice::<Value>(&answer.body).ok(),
            _ => None,
        };
        let Some(body) = body else { return Looked::CannotTell };
        let items = match body.pointer(&self.items) {
            Some(Value::Array(items)) => items.as_slice(),
            Some(Value::Null) => &[],
            Some(item @ Value::Object(_)) => std::slice::from_ref(item),
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => {
                return Looked::CannotTell;
            }
        };
        let key = letter.value("key").unwrap_or_default();
        let is_it = |item: &&Value| {
            let marker = self.marker.as_ref().map(|marker| item.pointer(marker));
            marker.is_none_or(|marker| marker.is_some_and(|it| is_or_has(it, key)))
        };
        match items.iter().find(is_it) {
            Some(found) => Looked::There(found.pointer(&self.id).map(plain).unwrap_or_default()),
            None if items.is_empty() => Looked::Absent,
            // It was not asked for these: who looks for another thing finds nothing.
            None => Looked::CannotTell,
        }
    }
}

/// An address; what stands for a value in it is encoded, but for what the environment says.
pub(crate) fn address(url: &Template, letter: &Letter) -> Result<String, String> {
    let value = |name: &str| {
        let value = known(letter, name)?;
        Some(if is_of_system(name) { value } else { encoded(&value) })
    };
    url.fill(value).map_err(|name| format!("`${{{name}}}` is not known"))
}

/// A value as text, without the quotes of a string. Null and what is empty is the empty text.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn is_or_has(value: &Value, key: &str) -> bool {
    match value {
        Value::String(text) => text == key,
        Value::Array(items) => items.iter().any(|it| is_or_has(it, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Provider;

    #[test]
    fn nothing_is_absent_only_where_nothing_at_all_is_found() {
        let file = "url = \"https://a.example/\"\njson = {}\n[look]\nurl = \
                    \"https://a.example/${key}\"\nitems = \"/data\"\nid = \"/id\"\nmarker = \
                    \"/tags\"\nabsent = [404]\n";
        let provider = Provider::read("mail.toml", file).unwrap();
        let look = provider.look.unwrap();
        let raw = b"From: a@b.example\r\n\r\nHello\r\n";
        let letter = Letter::read("00ff", "ann@mail.example", "", raw).unwrap();
        let there = || Looked::There("7".to_owned());
        for (status, body, says) in [
            (200, r#"{"data":[{"id":1,"tags":["x"]},{"id":7,"tags":["00ff"]}]}"#, there()),
            (200, r#"{"data":{"id":"7","tags":"00ff"}}"#, there()),
            (200, r#"{"data":[]}"#, Looked::Absent),
            (200, r#"{"data":null}"#, Looked::Absent),
            (404, "gone", Looked::Absent),
            (200, r#"{"data":[{"id":1,"tags":["x"]}]}"#, Looked::CannotTell),
            (200, r#"{"data":[{"id":1}]}"#, Looked::CannotTell),
            (200, r#"{"other":[]}"#, Looked::CannotTell),
            (200, "[", Looked::CannotTell),
            (500, r#"{"data":[]}"#, Looked::CannotTell),
            (301, r#"{"data":[]}"#, Looked::CannotTell),
        ] {
            let (headers, body) = (http::HeaderMap::new(), Bytes::from(body));
            let answer = Answer { status, headers, body };
            assert_eq!(look.judged(&answer, &letter), says, "{status} {:?}", answer.body);
        }
        assert_eq!(look.request(&letter).unwrap().uri(), "https://a.example/00ff");
    }
}
