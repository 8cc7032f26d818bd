//! A message as it was delivered, and which operation it asks for.

use std::fmt;
use std::sync::Arc;

use onlyonce_core::{Fingerprint, Key, KeyError, Secret, Timestamp};

/// The rule by which fingerprints of messages are made.
const RULE: u8 = 1;

/// What a broker has delivered. It is the same at each delivery, but for `redelivered`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub body: Vec<u8>,
    /// What its sender calls it (AMQP: the property `message-id`).
    pub id: Option<String>,
    /// Its headers that are text, in the broker's order.
    pub headers: Vec<(String, String)>,
    /// Whether it was delivered before, and was not done with then.
    pub redelivered: bool,
}

impl Message {
    /// The first header of this name, compared as it stands.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// Makes the key of a message, or finds none.
pub type MakeKey = Arc<dyn Fn(&Message) -> Option<String> + Send + Sync>;

/// Where the key of a message stands. It must be the same in all copies of a message, also in those
/// that its sender sends again, and another one in every other message.
#[derive(Clone)]
pub enum KeyFrom {
    /// What its sender calls it.
    Id,
    /// The header of this name.
    Header(String),
    /// Whatever this makes of the message, such as a field of its body.
    Made(MakeKey),
}

impl KeyFrom {
    /// The key of a message.
    ///
    /// # Errors
    /// It has none, or one that is none: the message can be told from no other.
    pub fn key(&self, message: &Message) -> Result<Key, MessageError> {
        let found = match self {
            Self::Id => message.id.clone(),
            Self::Header(name) => message.header(name).map(str::to_owned),
            Self::Made(make) => make(message),
        };
        let text = found.ok_or_else(|| MessageError::NoKey { place: self.place() })?;
        Key::new(text).map_err(|error| MessageError::Key { place: self.place(), error })
    }

    fn place(&self) -> String {
        match self {
            Self::Id => "its message id".to_owned(),
            Self::Header(name) => format!("its header {name}"),
            Self::Made(_) => "what the key is made of".to_owned(),
        }
    }
}

impl fmt::Debug for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFrom({})", self.place())
    }
}

/// Why a message cannot be told from others, or from its own copies. It was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// It has no key.
    NoKey {
        /// Where it was looked for.
        place: String,
    },
    /// What stands there is no key.
    Key {
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The time it was first sent is missing, or is none.
    Sent {
        /// The header.
        header: String,
    },
    /// It is from the future.
    Ahead {
        /// The time it carries.
        at: Timestamp,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey { place } => write!(f, "it has no key: {place} is missing"),
            Self::Key { place, error } => write!(f, "{place}: {error}"),
            Self::Sent { header } => {
                write!(f, "its header {header} is no time (milliseconds since 1970, in digits)")
            }
            Self::Ahead { at } => write!(f, "its time is ahead of ours: {at:?}"),
        }
    }
}

impl std::error::Error for MessageError {}

/// When a message was first sent, as its header says in milliseconds since 1970.
pub(crate) fn sent(message: &Message, header: &str) -> Result<Timestamp, MessageError> {
    let text = message.header(header).filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
    let millis = text.and_then(|it| it.parse().ok());
    let wrong = || MessageError::Sent { header: header.to_owned() };
    millis.map(Timestamp::from_millis).ok_or_else(wrong)
}

/// Tells a message from another one under the same key. The time it was first sent is part of it:
/// who claims another time asks for another operation.
pub(crate) fn fingerprint(
    secret: &Secret,
    message: &Message,
    sent: Option<Timestamp>,
) -> Fingerprint {
    let mut digest = blake3::Hasher::new_keyed(&secret.derive("message fingerprint"));
    digest.update(&sent.map_or(u64::MAX, Timestamp::as_millis).to_be_bytes());
    digest.update(&message.body);
    Fingerprint::new(RULE, digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_was_said_to_be_and_nowhere_else() {
        let headers = vec![("order".to_owned(), "o-7".to_owned())];
        let id = Some("m-1".to_owned());
        let message = Message { body: b"n-3".to_vec(), id, headers, redelivered: false };
        let body = |message: &Message| String::from_utf8(message.body.clone()).ok();
        for (from, key) in [
            (KeyFrom::Id, "m-1"),
            (KeyFrom::Header("order".into()), "o-7"),
            (KeyFrom::Made(Arc::new(body)), "n-3"),
        ] {
            assert_eq!(from.key(&message).unwrap().as_str(), key);
        }
        let other = KeyFrom::Header("Order".into()).key(&message).unwrap_err();
        assert_eq!(other.to_string(), "it has no key: its header Order is missing");
        let empty = Message { id: Some(" ".into()), ..message };
        assert!(KeyFrom::Id.key(&empty).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn a_time_is_digits_and_part_of_the_fingerprint() {
        let with = |value: &str| {
            let headers = vec![("sent".to_owned(), value.to_owned())];
            Message { headers, ..Message::default() }
        };
        assert_eq!(sent(&with("17"), "sent"), Ok(Timestamp::from_millis(17)));
        for wrong in ["", "-1", "+1", "1e3", "99999999999999999999999"] {
            assert!(sent(&with(wrong), "sent").is_err(), "{wrong}");
        }
        let secret = Secret::from_bytes([1; 32]);
        let at = |time| fingerprint(&secret, &Message::default(), time);
        assert_ne!(at(None), at(Some(Timestamp::from_millis(17))));
    }
}
