//! The scripts that run on the server, and what they answer.

use redis::{Cmd, Value};

/// A script, by its place among those that a connection has loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Swap,
    Page,
    Floor,
    Init,
    Tell,
}

impl Script {
    pub(crate) const ALL: [Self; 5] = [Self::Swap, Self::Page, Self::Floor, Self::Init, Self::Tell];

    pub(crate) const fn source(self) -> &'static str {
        match self {
            Self::Swap => include_str!("lua/swap.lua"),
            Self::Page => include_str!("lua/page.lua"),
            Self::Floor => include_str!("lua/floor.lua"),
            Self::Init => include_str!("lua/init.lua"),
            Self::Tell => include_str!("lua/tell.lua"),
        }
    }
}

/// A call of a script whose digest the server knows it by.
pub(crate) fn call(digest: &str, keys: &[String], arguments: &[&[u8]]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(digest).arg(keys.len());
    for key in keys {
        command.arg(key);
    }
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

/// What a script answers: a word, and more.
pub(crate) fn word(answer: Value) -> Option<(String, Vec<Value>)> {
    let Value::Array(mut parts) = answer else { return None };
    if parts.is_empty() {
        return None;
    }
    let rest = parts.split_off(1);
    Some((text(parts.pop()?)?, rest))
}

/// Text, however it comes.
pub(crate) fn text(value: Value) -> Option<String> {
    match bytes(value)? {
        Some(bytes) => String::from_utf8(bytes).ok(),
        None => None,
    }
}

/// Bytes, or nothing where the server has nothing.
#[allow(clippy::wildcard_enum_match_arm, reason = "another crate's enum that grows")]
pub(crate) fn bytes(value: Value) -> Option<Option<Vec<u8>>> {
    match value {
        Value::Nil => Some(None),
        Value::BulkString(bytes) => Some(Some(bytes)),
        Value::SimpleString(text) => Some(Some(text.into_bytes())),
        Value::Okay => Some(Some(b"OK".to_vec())),
        Value::Int(number) => Some(Some(number.to_string().into_bytes())),
        _ => None,
    }
}
