//! The values in requests: each kind parses itself, and says in the schema what it accepts.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;
use onlyonce::store::Cursor;
use onlyonce_core::{ClaimId, Fence, Key, KeyId, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};
use serde_json::{Value, json};

/// The largest whole number that every client reads exactly: 2^53 - 1.
pub(crate) const EXACT_MAX: u64 = (1 << 53) - 1;
/// The shortest lease, in milliseconds.
pub(crate) const LEASE_LEAST: u64 = 100;
/// The longest lease: a day.
pub(crate) const LEASE_MOST: u64 = 86_400_000;
/// The longest retention: a hundred years.
pub(crate) const RETENTION_MOST: u64 = 3_153_600_000_000;
/// The largest code of a reply.
pub(crate) const STATUS_MOST: u64 = 65_535;
/// The longest time that a request may ask to wait.
pub(crate) const WAIT_MOST: u64 = 600_000;

const _: () = assert!(LEASE_LEAST as u128 == onlyonce_core::limits::LEASE_MIN.as_millis());
const _: () = assert!(LEASE_MOST as u128 == onlyonce_core::limits::LEASE_MAX.as_millis());
const _: () = assert!(RETENTION_MOST as u128 == onlyonce_core::limits::RETENTION_MAX.as_millis());

/// A value that is written as a string.
trait Written: Sized {
    /// What the schema says beside that it is a string.
    fn rules() -> Value;

    /// Reads it; an error says what it must be.
    fn parse(text: String) -> Result<Self, String>;
}

macro_rules! written {
    ($type:ty $(, $($generics:tt)*)?) => {
        impl<'de, $($($generics)*)?> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::parse(String::deserialize(from)?).map_err(D::Error::custom)
            }
        }

        impl<$($($generics)*)?> JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!({ "type": "string" });
                if let Value::Object(rules) = Self::rules() {
                    for (name, rule) in rules {
                        schema.insert(name, rule);
                    }
                }
                schema
            }
        }
    };
}

/// The name of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScopeName(pub(crate) String);

impl ScopeName {
    /// Whether this can be the name of a scope.
    pub(crate) fn fits(text: &str) -> bool {
        let ours = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@-".contains(&byte);
        (1..=64).contains(&text.len()) && text.bytes().all(ours)
    }
}

impl Written for ScopeName {
    fn rules() -> Value {
        json!({ "pattern": "^[A-Za-z0-9._:/@-]{1,64}$" })
    }

    fn parse(text: String) -> Result<Self, String> {
        if Self::fits(&text) {
            return Ok(Self(text));
        }
        Err("a scope is 1 to 64 letters, digits or any of . _ : / @ -".to_owned())
    }
}

written!(ScopeName);

/// A key.
#[derive(Clone, Debug)]
pub(crate) struct KeyText(pub(crate) Key);

impl Written for KeyText {
    fn rules() -> Value {
        json!({ "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*[!-~][ -~]*$" })
    }

    fn parse(text: String) -> Result<Self, String> {
        Key::new(text).map(Self).map_err(|error| error.to_string())
    }
}

written!(KeyText);

/// The id of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) KeyId);

const HEX: &str = "^[0-9a-f]{32}$";

fn hex(text: &str) -> Result<KeyId, String> {
    let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    let id = if lower { KeyId::from_hex(text) } else { None };
    id.ok_or_else(|| "it must be 32 hexadecimal digits in lower case".to_owned())
}

impl Written for Id {
    fn rules() -> Value {
        json!({ "pattern": HEX })
    }

    fn parse(text: String) -> Result<Self, String> {
        hex(&text).map(Self)
    }
}

written!(Id);

/// The claim id of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptId(pub(crate) ClaimId);

impl Written for AttemptId {
    fn rules() -> Value {
        json!({ "pattern": HEX })
    }

    fn parse(text: String) -> Result<Self, String> {
        hex(&text).map(|id| Self(ClaimId::from_bytes(*id.as_bytes())))
    }
}

written!(AttemptId);

/// Text of so many characters.
#[derive(Clone, Debug)]
pub(crate) struct Text<const MIN: usize, const MAX: usize>(pub(crate) String);

impl<const MIN: usize, const MAX: usize> Written for Text<MIN, MAX> {
    fn rules() -> Value {
        json!({ "minLength": MIN, "maxLength": MAX })
    }

    fn parse(text: String) -> Result<Self, String> {
        if (MIN..=MAX).contains(&text.chars().count()) {
            return Ok(Self(text));
        }
        Err(format!("it must have {MIN} to {MAX} characters"))
    }
}

written!(Text<MIN, MAX>, const MIN: usize, const MAX: usize);

/// A media type.
#[derive(Clone, Debug)]
pub(crate) struct MediaType(pub(crate) HeaderValue);

impl Written for MediaType {
    fn rules() -> Value {
        json!({ "pattern": "^[!-~]([ -~]{0,126}[!-~])?$" })
    }

    fn parse(text: String) -> Result<Self, String> {
        let wrong = "a media type is 1 to 128 bytes of printable ASCII, without spaces around";
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| (0x20..=0x7E).contains(&byte))
            && text.trim() == text;
        let value = if fits { HeaderValue::try_from(text).ok() } else { None };
        value.map(Self).ok_or_else(|| wrong.to_owned())
    }
}

written!(MediaType);

/// Bytes in base64.
#[derive(Clone, Debug)]
pub(crate) struct Base64(pub(crate) Bytes);

impl Written for Base64 {
    fn rules() -> Value {
        // The last digit before the padding has unused bits, which must be zero.
        let end = "([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?";
        let pattern = format!("^([A-Za-z0-9+/]{{4}})*{end}$");
        json!({ "contentEncoding": "base64", "pattern": pattern })
    }

    fn parse(text: String) -> Result<Self, String> {
        let wrong = "it is no base64 with its padding (RFC 4648 section 4)";
        STANDARD.decode(text).map(|it| Self(it.into())).map_err(|_| wrong.to_owned())
    }
}

written!(Base64);

/// Where a page of a listing begins.
#[derive(Clone, Debug)]
pub(crate) struct PageMark(pub(crate) Cursor);

impl PageMark {
    /// As it is written.
    pub(crate) fn text(cursor: &Cursor) -> String {
        URL_SAFE_NO_PAD.encode(&cursor.0)
    }
}

impl Written for PageMark {
    fn rules() -> Value {
        // The last digit has unused bits, which must be zero.
        let end = "([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?";
        let pattern = format!("^([A-Za-z0-9_-]{{4}})*{end}$");
        json!({ "pattern": pattern })
    }

    fn parse(text: String) -> Result<Self, String> {
        let read = URL_SAFE_NO_PAD.decode(text);
        read.map(|it| Self(Cursor(it))).map_err(|_| "it is no `next` of a page".to_owned())
    }
}

written!(PageMark);

/// A whole number within these bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// So many milliseconds.
    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// So many milliseconds after the epoch.
    pub(crate) const fn time(self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

impl<const MAX: u64> Number<1, MAX> {
    /// The fence of this number.
    pub(crate) fn fence(self) -> Fence {
        Fence::new(self.0).unwrap_or_else(|| unreachable!("it is not zero"))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let whole = from.deserialize_any(Whole::<MIN, MAX>)?;
        if (MIN..=MAX).contains(&whole) {
            return Ok(Self(whole));
        }
        Err(D::Error::invalid_value(Unexpected::Unsigned(whole), &Whole::<MIN, MAX>))
    }
}

/// Reads a whole number, also one that is written as `7.0`: JSON has only one kind of number.
struct Whole<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for Whole<MIN, MAX> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<u64, E> {
        let exact = 0.0 <= number && number <= EXACT_MAX as f64 && number.fract() == 0.0;
        let wrong = || E::invalid_value(Unexpected::Float(number), &self);
        if exact { Ok(number as u64) } else { Err(wrong()) }
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Number<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}
