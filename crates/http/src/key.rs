//! The idempotency key in a request's header fields: parsed once, bounded, never ignored.
//!
//! The draft asks for a structured field string (`"abc"`); almost everyone sends the bare value.
//! Both are the same key, so that a client which changes its spelling between two attempts does
//! not run twice. A value that is not a key is refused: to ignore it would unprotect the request.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use onlyonce_core::limits::KEY_BYTES_MAX;
use onlyonce_core::{Key, KeyError, Timestamp};

use crate::date;
use crate::headers::FIRST_SENT;

/// Which spellings of a key are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeySpelling {
    /// Quoted and bare values, which are the same key.
    #[default]
    Lenient,
    /// Only a structured field string, as the draft has it.
    Strict,
}

/// What a key must look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// Any printable ASCII. Upper and lower case differ.
    #[default]
    Any,
    /// A UUID in any spelling; all spellings of one UUID are one key.
    Uuid,
    /// A ULID; upper and lower case are one key, and the time it carries counts.
    Ulid,
}

impl KeyFormat {
    /// The name used in configuration and in the published policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Uuid => "uuid",
            Self::Ulid => "ulid",
        }
    }
}

/// Whether a request needs a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyPolicy {
    /// Requests without a key pass unprotected.
    #[default]
    Optional,
    /// Requests without a key are refused.
    Required,
    /// The key must carry or be sent with its time, so that it is refused however late it comes.
    Timed,
}

impl KeyPolicy {
    /// The name used in configuration and in the published policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
            Self::Timed => "timed",
        }
    }
}

/// Why a request's key field is not one key. Positions count bytes of the field's value from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFieldError {
    /// More than one field line over all accepted names, even if they are equal.
    Repeated {
        /// How many.
        lines: usize,
    },
    /// A comma: probably two lines that somebody joined.
    Joined {
        /// Where the comma stands.
        at: usize,
    },
    /// Nothing, or only blanks.
    Empty,
    /// More than [`KEY_BYTES_MAX`] bytes.
    TooLong {
        /// The length after decoding.
        bytes: usize,
    },
    /// A byte that no key has; in bare values also space, `"` and `;`.
    Byte {
        /// Where it stands.
        at: usize,
        /// What it is.
        byte: u8,
    },
    /// The closing quote is missing.
    Unterminated,
    /// A backslash before anything but `"` and `\`.
    Escape {
        /// Where the backslash stands.
        at: usize,
    },
    /// Something other than parameters after the closing quote.
    AfterString {
        /// Where it begins.
        at: usize,
    },
    /// A bare value, and only quoted ones are accepted here.
    NotQuoted,
    /// A byte sequence (`:YWJj:`), which the draft does not allow as a key.
    ByteSequence,
    /// The route wants a key in another format.
    Format(KeyFormat),
}

impl KeyFieldError {
    /// Whether the key came more than once.
    pub const fn is_duplicate(self) -> bool {
        matches!(self, Self::Repeated { .. } | Self::Joined { .. })
    }
}

impl fmt::Display for KeyFieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Repeated { lines } => write!(f, "the key was sent in {lines} lines, not in one"),
            Self::Joined { at } => write!(f, "byte {at} is a comma: was the key sent twice?"),
            Self::Empty => f.write_str("the key is empty or blank"),
            Self::TooLong { bytes } => {
                write!(f, "the key has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")
            }
            Self::Byte { at, byte } => write!(f, "byte {at} (0x{byte:02x}) is not allowed"),
            Self::Unterminated => f.write_str("the closing quote is missing"),
            Self::Escape { at } => write!(f, "the backslash at byte {at} escapes nothing"),
            Self::AfterString { at } => write!(f, "byte {at} follows the closing quote"),
            Self::NotQuoted => f.write_str("the key must be a quoted string"),
            Self::ByteSequence => f.write_str("the key is a byte sequence, not a string"),
            Self::Format(KeyFormat::Uuid) => f.write_str("the key is not a UUID"),
            Self::Format(KeyFormat::Ulid) => f.write_str("the key is not a ULID"),
            Self::Format(KeyFormat::Any) => f.write_str("the key is not accepted here"),
        }
    }
}

impl std::error::Error for KeyFieldError {}

/// The key among `headers`, looked for under all of `names`; `None` if there is none.
///
/// # Errors
/// [`KeyFieldError`] says why and where. Lines are counted before any of them is read.
pub fn parse(
    headers: &HeaderMap,
    names: &[HeaderName],
    spelling: KeySpelling,
) -> Result<Option<Key>, KeyFieldError> {
    let mut values = names.iter().flat_map(|name| headers.get_all(name));
    let Some(value) = values.next() else { return Ok(None) };
    let more = values.count();
    if 0 < more {
        return Err(KeyFieldError::Repeated { lines: more + 1 });
    }
    parse_value(value.as_bytes(), spelling).map(Some)
}

/// The key in one field value.
///
/// # Errors
/// [`KeyFieldError`] says why and where.
pub fn parse_value(value: &[u8], spelling: KeySpelling) -> Result<Key, KeyFieldError> {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let Some(start) = value.iter().position(|byte| !is_blank(byte)) else {
        return Err(KeyFieldError::Empty);
    };
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    let (at, value) = (start, &value[start..end]);
    let key = match (value[0], spelling) {
        (b'"', _) => quoted(value, at)?,
        (_, KeySpelling::Strict) => return Err(KeyFieldError::NotQuoted),
        (_, KeySpelling::Lenient) => bare(value, at)?,
    };
    Key::new(key).map_err(|error| match error {
        KeyError::TooLong { bytes } => KeyFieldError::TooLong { bytes },
        KeyError::Empty => KeyFieldError::Empty,
        // The bytes were checked where their place in the field was known.
        KeyError::NotPrintableAscii { .. } | _ => KeyFieldError::Empty,
    })
}

fn bare(value: &[u8], offset: usize) -> Result<Bytes, KeyFieldError> {
    if let [b':', .., b':'] = value {
        return Err(KeyFieldError::ByteSequence);
    }
    for (at, byte) in value.iter().copied().enumerate() {
        match byte {
            b',' => return Err(KeyFieldError::Joined { at: offset + at }),
            b'"' | b';' => return Err(KeyFieldError::Byte { at: offset + at, byte }),
            0x21..=0x7E => {}
            _ => return Err(KeyFieldError::Byte { at: offset + at, byte }),
        }
    }
    Ok(Bytes::copy_from_slice(value))
}

/// A structured field string (RFC 9651 section 4.2.5) with parameters, which are ignored.
fn quoted(value: &[u8], offset: usize) -> Result<Bytes, KeyFieldError> {
    let mut key = Vec::with_capacity(value.len());
    let mut at = 1;
    loop {
        match value.get(at) {
            None => return Err(KeyFieldError::Unterminated),
            Some(b'"') => break,
            Some(b'\\') => match value.get(at + 1) {
                Some(byte @ (b'"' | b'\\')) => {
                    key.push(*byte);
                    at += 1;
                }
                Some(_) | None => return Err(KeyFieldError::Escape { at: offset + at }),
            },
            Some(byte @ 0x20..=0x7E) => key.push(*byte),
            Some(byte) => return Err(KeyFieldError::Byte { at: offset + at, byte: *byte }),
        }
        at += 1;
    }
    parameters(value, at + 1, offset)?;
    Ok(key.into())
}

/// Checks what follows the closing quote: `;name` or `;name=value`, any number of times.
fn parameters(value: &[u8], mut at: usize, offset: usize) -> Result<(), KeyFieldError> {
    let wrong = |at: usize| match value.get(at) {
        Some(b',') => KeyFieldError::Joined { at: offset + at },
        Some(_) | None => KeyFieldError::AfterString { at: offset + at },
    };
    let skip = |mut at: usize, wanted: fn(u8) -> bool| {
        while value.get(at).is_some_and(|byte| wanted(*byte)) {
            at += 1;
        }
        at
    };
    while at < value.len() {
        let blanks = skip(at, |byte| byte == b' ' || byte == b'\t');
        if value.get(blanks) == Some(&b',') {
            return Err(wrong(blanks));
        }
        if value[at] != b';' {
            return Err(wrong(at));
        }
        at = skip(at + 1, |byte| byte == b' ');
        let name = at;
        if !value.get(at).is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*') {
            return Err(wrong(at));
        }
        at = skip(name, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        });
        if value.get(at) != Some(&b'=') {
            continue;
        }
        at += 1;
        let begin = at;
        at = match value.get(at) {
            Some(b'"') => string_end(value, at).ok_or_else(|| wrong(begin))?,
            Some(_) | None => skip(at, |byte| byte.is_ascii_graphic() && !b"\";,".contains(&byte)),
        };
        if at == begin {
            return Err(wrong(at));
        }
    }
    Ok(())
}

/// Where the string that opens at `at` ends, behind its closing quote.
fn string_end(value: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match value.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if matches!(value.get(at + 1), Some(b'"' | b'\\')) => at += 1,
            b'\\' => return None,
            0x20..=0x7E => {}
            _ => return None,
        }
    }
}

/// The key as a field value: always quoted, as the draft has it.
pub fn render(key: &Key) -> HeaderValue {
    let mut text = String::with_capacity(key.as_bytes().len() + 2);
    text.push('"');
    for letter in key.as_str().chars() {
        if letter == '"' || letter == '\\' {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
    crate::headers::value(&text)
}

/// The one spelling that all spellings of this key share under `format`.
///
/// # Errors
/// [`KeyFieldError::Format`] if it is none.
pub fn canonical(key: Key, format: KeyFormat) -> Result<Key, KeyFieldError> {
    let text = match format {
        KeyFormat::Any => return Ok(key),
        KeyFormat::Uuid => uuid::Uuid::try_parse(key.as_str()).ok().map(|uuid| uuid.to_string()),
        KeyFormat::Ulid => {
            let upper = key.as_str().to_ascii_uppercase();
            ulid_millis(&upper).map(|_| upper)
        }
    };
    text.and_then(|text| Key::new(text).ok()).ok_or(KeyFieldError::Format(format))
}

/// The time that a key of this format carries by itself.
pub fn carried_time(key: &Key, format: KeyFormat) -> Option<Timestamp> {
    match format {
        KeyFormat::Any | KeyFormat::Uuid => key.uuid7_time(),
        KeyFormat::Ulid => ulid_millis(key.as_str()).map(Timestamp::from_millis),
    }
}

/// The milliseconds in the first ten of a ULID's 26 Crockford digits, in upper case.
fn ulid_millis(text: &str) -> Option<u64> {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let text = text.as_bytes();
    // 26 digits are 130 bits; the first may only use three of its five.
    if text.len() != 26 || b'7' < text[0] {
        return None;
    }
    let mut millis = 0;
    for (at, letter) in text.iter().enumerate() {
        let digit = DIGITS.iter().position(|digit| digit == letter)? as u64;
        if at < 10 {
            millis = millis << 5 | digit;
        }
    }
    Some(millis)
}

/// When a key was made, and whether the client said so beside the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyTime {
    /// The time the key carries or was sent with.
    pub at: Option<Timestamp>,
    /// It comes from `Idempotency-First-Sent`, and is therefore part of the fingerprint.
    pub first_sent: bool,
}

/// Why a key's time is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyTimeError {
    /// Further ahead of our clock than `key_ahead_max`: its record could go while it looks new.
    Ahead {
        /// How far ahead of our clock it is.
        by: Duration,
    },
    /// `Idempotency-First-Sent` is not one HTTP date.
    NotADate,
    /// The route wants keys with time, and this one carries none.
    Missing,
}

impl fmt::Display for KeyTimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead { by } => {
                write!(f, "the key's time is {} s ahead of the server's clock", by.as_secs())
            }
            Self::NotADate => f.write_str("Idempotency-First-Sent is not one HTTP date"),
            Self::Missing => f.write_str(
                "the key carries no time: use a UUIDv7, or send Idempotency-First-Sent with it",
            ),
        }
    }
}

impl std::error::Error for KeyTimeError {}

/// The time of a key: its own, else the one that the client sent beside it.
///
/// # Errors
/// [`KeyTimeError`], and nothing may be claimed then.
pub fn time(
    key: &Key,
    format: KeyFormat,
    headers: &HeaderMap,
    policy: KeyPolicy,
    now: Timestamp,
    ahead_max: Duration,
) -> Result<KeyTime, KeyTimeError> {
    let time = match carried_time(key, format) {
        Some(at) => KeyTime { at: Some(at), first_sent: false },
        None => {
            let at = first_sent(headers)?;
            KeyTime { at, first_sent: at.is_some() }
        }
    };
    match time.at {
        Some(at) if now.plus(ahead_max) < at => Err(KeyTimeError::Ahead { by: at.since(now) }),
        None if policy == KeyPolicy::Timed => Err(KeyTimeError::Missing),
        Some(_) | None => Ok(time),
    }
}

fn first_sent(headers: &HeaderMap) -> Result<Option<Timestamp>, KeyTimeError> {
    let mut values = headers.get_all(FIRST_SENT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| KeyTimeError::NotADate)?;
    let at = date::parse_http_date(text.trim()).ok_or(KeyTimeError::NotADate)?;
    if values.next().is_some() {
        return Err(KeyTimeError::NotADate);
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests;
