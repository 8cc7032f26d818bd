//! What there is to know of a message: what a template may refer to.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Addr, Message, MessageParser, PartType};

/// What a reference may name, each with what it stands for.
pub(crate) const NAMES: [(&str, &str); 12] = [
    ("key", "32 digits made of the message's key, the same at each attempt"),
    ("to", "the recipient"),
    ("sender", "who is told if it cannot be delivered"),
    ("from", "who stands in From, with the name"),
    ("from_address", "the address of From"),
    ("from_name", "the name in From"),
    ("reply_to", "the address of Reply-To"),
    ("subject", "the subject"),
    ("text", "the plain text"),
    ("html", "the HTML"),
    ("message_id", "the Message-ID, without its brackets"),
    ("raw", "the whole message, in base64"),
];

/// A message, and the values that a request is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    values: BTreeMap<&'static str, String>,
    attachments: usize,
}

impl Letter {
    /// Reads a message of RFC 5322. `key` names it to the provider, the same at each attempt; `to`
    /// is its recipient, `sender` who is told if it cannot be delivered.
    ///
    /// # Errors
    /// It cannot be read as a message; for a person.
    pub fn read(key: &str, to: &str, sender: &str, raw: &[u8]) -> Result<Self, String> {
        let message = MessageParser::default().parse(raw).ok_or("it is no message that is read")?;
        let mut values = BTreeMap::from([
            ("key", key.to_owned()),
            ("to", to.to_owned()),
            ("sender", sender.to_owned()),
            ("raw", STANDARD.encode(raw)),
        ]);
        let mut put = |name, value: Option<String>| {
            if let Some(value) = value.filter(|it| !it.is_empty()) {
                values.insert(name, value);
            }
        };
        let from = message.from().and_then(|it| it.first());
        let address = |it: &Addr<'_>| it.address.as_ref().map(ToString::to_string);
        put("from", from.and_then(shown));
        put("from_address", from.and_then(address));
        put("from_name", from.and_then(|it| it.name.as_ref().map(ToString::to_string)));
        put("reply_to", message.reply_to().and_then(|it| it.first()).and_then(address));
        put("subject", message.subject().map(ToOwned::to_owned));
        put("message_id", message.message_id().map(ToOwned::to_owned));
        put("text", text(&message));
        put("html", html(&message));
        let attachments = message.attachments.len();
        Ok(Self { values, attachments })
    }

    /// What a reference stands for.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// How many parts there are that are no text.
    pub(crate) const fn attachments(&self) -> usize {
        self.attachments
    }
}

/// `Name <address>`, the name in quotes if it holds what would be read otherwise (RFC 5322,
/// section 3.2.4).
fn shown(from: &Addr<'_>) -> Option<String> {
    let address = from.address.as_ref()?;
    let Some(name) = from.name.as_ref().filter(|it| !it.is_empty()) else {
        return Some(address.to_string());
    };
    let is_plain = |it: char| it.is_alphanumeric() || " -_'!".contains(it);
    if name.chars().all(is_plain) {
        return Some(format!("{name} <{address}>"));
    }
    let name: String = name.chars().filter(|it| !it.is_control()).collect();
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    Some(format!("\"{name}\" <{address}>"))
}

/// The plain text, if the message has one: none is made of HTML.
fn text(message: &Message<'_>) -> Option<String> {
    let parts = message.parts.iter().filter(|part| !is_attached(message, part));
    let texts = parts.filter_map(|part| {
        let PartType::Text(text) = &part.body else { return None };
        Some(text.as_ref())
    });
    joined(texts)
}

fn html(message: &Message<'_>) -> Option<String> {
    let parts = message.parts.iter().filter(|part| !is_attached(message, part));
    let texts = parts.filter_map(|part| {
        let PartType::Html(text) = &part.body else { return None };
        Some(text.as_ref())
    });
    joined(texts)
}

fn is_attached(message: &Message<'_>, part: &mail_parser::MessagePart<'_>) -> bool {
    let mut attached = message.attachments.iter();
    attached.any(|id| message.part(*id).is_some_and(|it| std::ptr::eq(it, part)))
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> Option<String> {
    let texts: Vec<&str> = texts.collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Letter {
        Letter::read("00ff", "ann@mail.example", "shop@shop.example", raw.as_bytes()).unwrap()
    }

    #[test]
    fn a_message_is_what_it_says() {
        let letter = read(
            "From: =?utf-8?Q?J=C3=B6rg=2C_Shop?= <shop@shop.example>\r\nReply-To: \
             <ask@shop.example>\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\nMessage-ID: \
             <7@shop.example>\r\n\r\nHello\r\n",
        );
        for (name, value) in [
            ("from", "\"Jörg, Shop\" <shop@shop.example>"),
            ("from_address", "shop@shop.example"),
            ("from_name", "Jörg, Shop"),
            ("reply_to", "ask@shop.example"),
            ("subject", "Grüße"),
            ("message_id", "7@shop.example"),
            ("text", "Hello\r\n"),
        ] {
            assert_eq!(letter.value(name), Some(value), "{name}");
        }
        assert_eq!((letter.value("html"), letter.attachments()), (None, 0));
    }

    #[test]
    fn text_and_html_are_told_apart_from_what_is_attached() {
        let letter = read(
            "From: a@b.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; \
             boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\
             \r\nContent-Type: text/plain\r\n\r\nplain\r\n--a\r\nContent-Type: text/html\r\n\r\n\
             <p>rich</p>\r\n--a--\r\n--m\r\nContent-Type: text/plain\r\nContent-Disposition: \
             attachment\r\n\r\nbill\r\n--m--\r\n",
        );
        assert_eq!(letter.value("text").map(str::trim), Some("plain"));
        assert_eq!(letter.value("html").map(str::trim), Some("<p>rich</p>"));
        assert_eq!(letter.attachments(), 1);
    }
}
