//! A message as it was taken in: its bytes never change again, however often it is handed over.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use onlyonce_core::{Fingerprint, Key, KeyError, Timestamp};
use onlyonce_smtp::{Content, ContentError, Envelope, Mailbox, Notify};
use sha2::{Digest as _, Sha256};

/// The rule by which fingerprints of messages are made.
const RULE: u8 = 1;

/// One message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(crate) key: Key,
    pub(crate) from: Option<Mailbox>,
    pub(crate) to: Mailbox,
    pub(crate) taken: Timestamp,
    /// Never after it was taken in.
    pub(crate) posted: Timestamp,
    /// Over what was asked for, without what was added here.
    pub(crate) print: [u8; 32],
    pub(crate) content: Content,
}

/// Why a text is not sent as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// It cannot be handed to a server.
    Content(ContentError),
    /// The line of this number, from 1, is no header field and no empty line.
    Head {
        /// The line.
        line: usize,
    },
    /// A field that must be there is not (RFC 5322, section 3.6).
    Missing(&'static str),
    /// A field that may be there once is there again, in the line of this number, from 1.
    Twice {
        /// The field.
        field: &'static str,
        /// The line.
        line: usize,
    },
    /// The key with a recipient behind it is no key.
    Key(KeyError),
    /// There is nobody to send it to.
    NoRecipient,
}

impl Message {
    /// What names it for this recipient.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The recipient.
    pub const fn to(&self) -> &Mailbox {
        &self.to
    }

    /// When it was taken in.
    pub const fn taken(&self) -> Timestamp {
        self.taken
    }

    /// When it was asked for: of a row of an outbox when that was written, by the database's clock,
    /// unless that is after it was taken; of all others when they were taken in.
    pub const fn posted(&self) -> Timestamp {
        self.posted
    }

    /// The same, of which it is known that nobody can have sent it before this moment.
    pub(crate) fn known_since(mut self, taken: Timestamp) -> Self {
        self.posted = self.taken.min(taken);
        self.taken = taken;
        self
    }

    /// The bytes.
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// What stands in its Message-ID, without line ends: the same for all recipients of a key.
    /// Empty if nothing stands there.
    pub fn message_id(&self) -> Vec<u8> {
        let lines = self.content.as_bytes().split_inclusive(|it| *it == b'\n');
        let head = lines.take_while(|line| *line != b"\r\n");
        let (mut id, mut is_id) = (Vec::new(), false);
        for line in head {
            let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
            let at = line.iter().position(|it| *it == b':').unwrap_or_default();
            let value = if is_folded { line } else { &line[at + 1..] };
            is_id = if is_folded { is_id } else { field(line).as_deref() == Some("message-id") };
            if is_id {
                id.extend_from_slice(value.trim_ascii());
            }
        }
        id
    }

    /// Tells it from another one under the same key.
    pub const fn fingerprint(&self) -> Fingerprint {
        Fingerprint::new(RULE, self.print)
    }

    /// 32 hexadecimal digits, made of the key: the name of its file, and of its envelope.
    pub fn name(&self) -> String {
        hex(&digest(&[b"onlyonce mail name", self.key.as_bytes()])[..16])
    }

    /// The bytes with its name in a field before them, the same at each attempt. `None` cannot be:
    /// what can be sent can be sent with one more line.
    pub(crate) fn with_name_in(&self, field: &str) -> Option<Content> {
        let line = format!("{field}: {}\r\n", self.name());
        Content::new(&[line.as_bytes(), self.content.as_bytes()].concat()).ok()
    }

    /// Who it is from and for, the same at each attempt.
    pub fn envelope(&self) -> Envelope {
        let (from, to) = (self.from.clone(), self.to.clone());
        Envelope { from, to, id: Some(self.name()), notify: Notify::Failure }
    }
}

/// The key of one recipient's copy: `KEY/recipient`, the domain in small letters, since servers
/// read it so (RFC 5321, section 2.4).
///
/// # Errors
/// The two together are no key.
pub fn item_key(key: &str, to: &Mailbox) -> Result<Key, KeyError> {
    let (domain, text) = (to.domain(), to.as_str());
    let local = &text[..text.len() - domain.len()];
    Key::new(format!("{key}/{local}{}", domain.to_lowercase()))
}

/// Makes of a text in the form of RFC 5322 one message for each recipient.
///
/// A missing Date is `taken`. A missing Message-ID is made of `key`, so that it is the same for all
/// recipients and at each attempt; whoever guesses the key can check that guess. Bcc goes: it is
/// nobody's business but the sender's (RFC 5322, section 3.6.3). Recipients are those of `to`, not
/// those that the text names.
///
/// # Errors
/// The text cannot be sent as it is; it names the line. Or the key is none.
pub fn frozen(
    key: &str,
    from: Option<&Mailbox>,
    to: &[Mailbox],
    text: &[u8],
    taken: Timestamp,
) -> Result<Vec<Message>, MessageError> {
    let asked = Content::new(text).map_err(MessageError::Content)?;
    let head = Head::of(asked.as_bytes())?;
    let mut added = Vec::new();
    if !head.has_date {
        let at = UNIX_EPOCH + Duration::from_millis(taken.as_millis());
        // `GMT` is the obsolete way to say it (RFC 5322, section 4.3).
        let date = httpdate::fmt_http_date(at).replace("GMT", "+0000");
        added.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
    }
    if !head.has_id {
        let name = hex(&digest(&[b"onlyonce message-id", key.as_bytes()])[..16]);
        let domain = from.map_or("onlyonce.invalid", Mailbox::domain);
        added.extend_from_slice(format!("Message-ID: <{name}@{domain}>\r\n").as_bytes());
    }
    added.extend_from_slice(&head.kept);
    let content = Content::new(&added).map_err(MessageError::Content)?;
    let mut messages: Vec<Message> = Vec::new();
    for to in to {
        let key = item_key(key, to).map_err(MessageError::Key)?;
        if messages.iter().any(|it| it.key == key) {
            continue;
        }
        let sender = from.map_or("", Mailbox::as_str).as_bytes();
        let print = digest(&[sender, to.as_str().as_bytes(), asked.as_bytes()]);
        let (from, to, content) = (from.cloned(), to.clone(), content.clone());
        let posted = taken;
        messages.push(Message { key, from, to, taken, posted, print, content });
    }
    if messages.is_empty() { Err(MessageError::NoRecipient) } else { Ok(messages) }
}

/// What there is to know of the head.
struct Head {
    has_date: bool,
    has_id: bool,
    /// The whole message without the fields that go.
    kept: Vec<u8>,
}

impl Head {
    fn of(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut kept = Vec::with_capacity(bytes.len());
        let (mut date, mut id, mut from) = (0, 0, 0);
        let (mut at, mut goes) = (0, false);
        for (number, line) in bytes.split_inclusive(|it| *it == b'\n').enumerate() {
            let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
            if line == b"\r\n" {
                break;
            }
            at += line.len();
            if !(is_folded && 0 < number) {
                let name = field(line).ok_or(MessageError::Head { line: number + 1 })?;
                goes = name == "bcc" || name == "resent-bcc";
                let (seen, field) = match name.as_str() {
                    "date" => (&mut date, "Date"),
                    "message-id" => (&mut id, "Message-ID"),
                    "from" => (&mut from, "From"),
                    _ => (&mut 0, ""),
                };
                *seen += 1;
                if 1 < *seen {
                    return Err(MessageError::Twice { field, line: number + 1 });
                }
            }
            if !goes {
                kept.extend_from_slice(line);
            }
        }
        if from == 0 {
            return Err(MessageError::Missing("From"));
        }
        kept.extend_from_slice(&bytes[at..]);
        Ok(Self { has_date: 0 < date, has_id: 0 < id, kept })
    }
}

/// The name of a field, in small letters (RFC 5322, section 2.2).
fn field(line: &[u8]) -> Option<String> {
    let end = line.iter().position(|it| *it == b':')?;
    let name = line[..end].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// Over all the parts, each with its length before it.
pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(error) => error.fmt(f),
            Self::Head { line } => {
                write!(f, "line {line} is no header field; the head ends with an empty line")
            }
            Self::Missing(field) => write!(f, "the head has no {field}"),
            Self::Twice { field, line } => write!(f, "line {line}: {field} is there already"),
            Self::Key(error) => write!(f, "the key with the recipient behind it: {error}"),
            Self::NoRecipient => f.write_str("there is no recipient"),
        }
    }
}

impl std::error::Error for MessageError {}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"From: shop@shop.example\nBcc: eve@mail.example,\n bob@mail.example\n\
        Subject: Welcome\n\nBcc: is text here\n";
    const TAKEN: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::new(text).unwrap()
    }

    fn taken(text: &[u8], to: &[&str], at: Timestamp) -> Result<Vec<Message>, MessageError> {
        let to: Vec<Mailbox> = to.iter().map(|it| mailbox(it)).collect();
        frozen("order-7", Some(&mailbox("shop@shop.example")), &to, text, at)
    }

    #[test]
    fn what_is_missing_is_added_once_and_never_changes() {
        let [message] = &taken(TEXT, &["ann@mail.example"], TAKEN).unwrap()[..] else { panic!() };
        let text = String::from_utf8(message.content().as_bytes().to_vec()).unwrap();
        let (date, rest) = text.split_once("\r\n").unwrap();
        assert_eq!(date, "Date: Mon, 24 Nov 2025 16:00:00 +0000");
        let (id, rest) = rest.split_once("\r\n").unwrap();
        assert!(id.starts_with("Message-ID: <") && id.ends_with("@shop.example>"), "{id}");
        let kept = "From: shop@shop.example\r\nSubject: Welcome\r\n\r\nBcc: is text here\r\n";
        assert_eq!(rest, kept);
        // A day later it is still the same message.
        let later = taken(TEXT, &["ann@mail.example"], TAKEN.plus_millis(86_400_000)).unwrap();
        assert_eq!(later[0].fingerprint(), message.fingerprint());
        assert_eq!(later[0].name(), message.name());
    }

    #[test]
    fn what_the_text_says_of_itself_stays() {
        let text = b"from: a@b.example\nDATE: then\nMessage-Id: <7@b.example>\n\nx\n";
        let messages = taken(text, &["ann@mail.example"], TAKEN).unwrap();
        let said = messages[0].content().as_bytes();
        assert_eq!(
            said,
            b"from: a@b.example\r\nDATE: then\r\nMessage-Id: <7@b.example>\r\n\r\nx\r\n"
        );
    }

    #[test]
    fn each_recipient_has_a_key_of_its_own_and_the_same_message() {
        let to = ["ann@mail.example", "bob@mail.example", "ann@MAIL.example"];
        let messages = taken(TEXT, &to, TAKEN).unwrap();
        let keys: Vec<&str> = messages.iter().map(|it| it.key().as_str()).collect();
        assert_eq!(keys, ["order-7/ann@mail.example", "order-7/bob@mail.example"]);
        assert_eq!(messages[0].content(), messages[1].content());
        assert_ne!(messages[0].name(), messages[1].name());
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_line() {
        let refused = |text: &[u8]| taken(text, &["ann@mail.example"], TAKEN).unwrap_err();
        assert_eq!(refused(b"Subject: x\n\n"), MessageError::Missing("From"));
        assert_eq!(refused(b"From ann Mon\nFrom: a@b.c\n\n"), MessageError::Head { line: 1 });
        assert_eq!(refused(b"From: a@b.c\nhello\n\n"), MessageError::Head { line: 2 });
        let twice = MessageError::Twice { field: "Date", line: 3 };
        assert_eq!(refused(b"From: a@b.c\nDate: 1\ndate: 2\n\n"), twice);
        assert_eq!(refused(b""), MessageError::Content(ContentError::Empty));
        assert_eq!(taken(TEXT, &[], TAKEN), Err(MessageError::NoRecipient));
        let long = frozen(&"k".repeat(250), None, &[mailbox("ann@mail.example")], TEXT, TAKEN);
        assert_eq!(long, Err(MessageError::Key(KeyError::TooLong { bytes: 267 })));
    }
}
