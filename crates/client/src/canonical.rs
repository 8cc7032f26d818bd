//! One spelling of a value as bytes: different values never have the same one.
//!
//! Each part is a tag, its length in bytes, a colon, and its content, so that no two lists of
//! fields run together into the same bytes. The clients in other languages spell the same values
//! alike; clients/vectors.json holds all of them to it.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What may be nested in what, at most.
pub const DEPTH_MAX: usize = 64;

/// A value that has one spelling. There is none for a fraction, since one amount has several
/// (`0.1 + 0.2`), nor for a time: write them as text, in the form that is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Field {
    /// Nothing.
    #[default]
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A text, compared by its bytes.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Several, in their order.
    List(Vec<Field>),
    /// Members by their names, in no order.
    Map(BTreeMap<String, Field>),
}

/// Why something is no field, or why fields make no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldError {
    /// A number with a fraction, or beyond 64 bits in JSON.
    Fraction,
    /// It is nested deeper than [`DEPTH_MAX`].
    Deep,
    /// The namespace is empty.
    NoNamespace,
    /// Without a field every operation would have the same key.
    NoField,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fraction => "a fraction has no one spelling: give text, or the smallest unit",
            Self::Deep => "a value is nested deeper than 64",
            Self::NoNamespace => "the namespace is empty",
            Self::NoField => "without a field every operation would have the same key",
        })
    }
}

impl std::error::Error for FieldError {}

macro_rules! fields {
    ($($from:ty => $make:expr),* $(,)?) => {$(
        impl From<$from> for Field {
            fn from(value: $from) -> Self {
                ($make)(value)
            }
        }
    )*};
}

fields! {
    () => |()| Self::Null,
    bool => Self::Bool,
    i32 => |it| Self::Int(i128::from(it)),
    i64 => |it| Self::Int(i128::from(it)),
    i128 => Self::Int,
    u32 => |it| Self::Int(i128::from(it)),
    u64 => |it| Self::Int(i128::from(it)),
    &str => |it: &str| Self::Text(it.to_owned()),
    &String => |it: &String| Self::Text(it.clone()),
    String => Self::Text,
    Vec<u8> => Self::Bytes,
    &[u8] => |it: &[u8]| Self::Bytes(it.to_vec()),
    Vec<Field> => Self::List,
    BTreeMap<String, Field> => Self::Map,
}

impl TryFrom<Value> for Field {
    type Error = FieldError;

    fn try_from(value: Value) -> Result<Self, FieldError> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(it) => Self::Bool(it),
            Value::Number(it) => Self::Int(whole(&it).ok_or(FieldError::Fraction)?),
            Value::String(it) => Self::Text(it),
            Value::Array(all) => {
                Self::List(all.into_iter().map(Self::try_from).collect::<Result<_, _>>()?)
            }
            Value::Object(all) => {
                let members = all.into_iter().map(|(name, it)| Ok((name, Self::try_from(it)?)));
                Self::Map(members.collect::<Result<_, FieldError>>()?)
            }
        })
    }
}

fn whole(number: &serde_json::Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// What tells these inputs from others: the same for equal ones, in all clients.
///
/// # Errors
/// They are nested too deep.
pub fn fingerprint(inputs: &Field) -> Result<String, FieldError> {
    Ok(format!("k1:{}", digest(inputs)?))
}

/// A key made from what identifies one operation. Equal fields give the same key, always and
/// everywhere; any difference in value, type, number or order of fields gives another. Two
/// intentions with equal fields are therefore one: docs/clients.md lists the pitfalls.
///
/// ```
/// use onlyonce_client::key_from;
///
/// let key = key_from("charge", ["order-7829".into(), 1000.into(), "EUR".into()])?;
/// assert!(key.starts_with("k1-"));
/// assert_ne!(key, key_from("charge", ["order-7829".into(), "1000".into(), "EUR".into()])?);
/// # Ok::<_, onlyonce_client::FieldError>(())
/// ```
///
/// # Errors
/// The namespace is empty, there is no field, or one is nested too deep.
pub fn key_from(
    namespace: &str,
    fields: impl IntoIterator<Item = Field>,
) -> Result<String, FieldError> {
    if namespace.is_empty() {
        return Err(FieldError::NoNamespace);
    }
    let mut all = vec![Field::from(namespace)];
    all.extend(fields);
    if all.len() < 2 {
        return Err(FieldError::NoField);
    }
    Ok(format!("k1-{}", digest(&Field::List(all))?))
}

fn digest(field: &Field) -> Result<String, FieldError> {
    let mut bytes = Vec::new();
    spell(field, 0, &mut bytes)?;
    Ok(hex(&Sha256::digest(&bytes)))
}

/// The bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spell(field: &Field, depth: usize, out: &mut Vec<u8>) -> Result<(), FieldError> {
    if DEPTH_MAX < depth {
        return Err(FieldError::Deep);
    }
    match field {
        Field::Null => part(b'n', b"", out),
        Field::Bool(it) => part(b'b', if *it { b"1" } else { b"0" }, out),
        Field::Int(it) => part(b'i', it.to_string().as_bytes(), out),
        Field::Text(it) => part(b's', it.as_bytes(), out),
        Field::Bytes(it) => part(b'x', it, out),
        Field::List(all) => {
            let mut inner = Vec::new();
            for item in all {
                spell(item, depth + 1, &mut inner)?;
            }
            part(b'l', &inner, out);
        }
        Field::Map(members) => {
            let mut inner = Vec::new();
            // Texts of Rust are ordered by their bytes.
            for (name, item) in members {
                part(b's', name.as_bytes(), &mut inner);
                spell(item, depth + 1, &mut inner)?;
            }
            part(b'm', &inner, out);
        }
    }
    Ok(())
}

fn part(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(content.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests;
