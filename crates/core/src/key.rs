//! What a record is found by: the client's key, the scope it belongs to, and the two together.

use core::fmt;

use bytes::Bytes;

use crate::limits::{KEY_BYTES_MAX, SCOPE_BYTES_MAX};
use crate::time::Timestamp;

/// The client's name for one intended operation: 1 to 255 bytes of printable ASCII, not all spaces.
///
/// `Debug` shows only the length: within its retention a key is a capability to read a reply.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Bytes);

/// Why bytes are not a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// No bytes, or spaces alone: every such request would share one record.
    Empty,
    /// More than [`KEY_BYTES_MAX`] bytes.
    TooLong {
        /// The length that was given, in bytes.
        bytes: usize,
    },
    /// A byte outside printable ASCII (0x20 to 0x7E).
    NotPrintableAscii {
        /// Where the byte stands, counted from zero.
        at: usize,
    },
}

impl Key {
    /// Parses decoded key bytes.
    ///
    /// # Errors
    /// [`KeyError`] names the first rule that the bytes break.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        if bytes.iter().all(|byte| *byte == b' ') {
            return Err(KeyError::Empty);
        }
        if KEY_BYTES_MAX < bytes.len() {
            return Err(KeyError::TooLong { bytes: bytes.len() });
        }
        match bytes.iter().position(|byte| !(0x20..=0x7E).contains(byte)) {
            Some(at) => Err(KeyError::NotPrintableAscii { at }),
            None => Ok(Self(bytes)),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        // Printable ASCII was checked in `new`.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The time a UUIDv7 key carries (RFC 9562 section 5.7), in its usual 36-character form.
    pub fn uuid7_time(&self) -> Option<Timestamp> {
        if self.0.len() != 36 {
            return None;
        }
        let uuid = uuid::Uuid::try_parse(self.as_str()).ok()?;
        if uuid.get_version_num() != 7 || uuid.get_variant() != uuid::Variant::RFC4122 {
            return None;
        }
        Some(Timestamp::from_millis((uuid.as_u128() >> 80) as u64))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the key is empty"),
            Self::TooLong { bytes } => {
                write!(f, "the key has {bytes} bytes, at most {KEY_BYTES_MAX} are allowed")
            }
            Self::NotPrintableAscii { at } => {
                write!(f, "byte {at} of the key is not printable ASCII")
            }
        }
    }
}

impl std::error::Error for KeyError {}

/// Who a key belongs to. Set by us from authentication, never chosen by the client alone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Scope(Bytes);

/// A scope longer than [`SCOPE_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeError {
    /// The length that was given, in bytes.
    pub bytes: usize,
}

impl Scope {
    /// The scope with these bytes, which may be empty (one anonymous scope).
    ///
    /// # Errors
    /// [`ScopeError`] above [`SCOPE_BYTES_MAX`] bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, ScopeError> {
        let bytes = bytes.into();
        if SCOPE_BYTES_MAX < bytes.len() {
            return Err(ScopeError { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    /// The scope's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} bytes)", self.0.len())
    }
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the scope has {} bytes, at most {SCOPE_BYTES_MAX} are allowed", self.bytes)
    }
}

impl std::error::Error for ScopeError {}

/// Scope and key together, as a keyed hash: what a record is found by. Made by
/// [`Secret::key_id`](crate::Secret::key_id).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// The key id with these bytes, as read back from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for stores.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses the 32 hexadecimal digits that `Display` prints.
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 32 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; 16];
        for (at, pair) in text.chunks_exact(2).enumerate() {
            bytes[at] = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printable_ascii_of_bounded_length() {
        assert_eq!(Key::new("").unwrap_err(), KeyError::Empty);
        assert_eq!(Key::new("   ").unwrap_err(), KeyError::Empty);
        assert_eq!(Key::new("a\tb").unwrap_err(), KeyError::NotPrintableAscii { at: 1 });
        assert_eq!(Key::new("é").unwrap_err(), KeyError::NotPrintableAscii { at: 0 });
        assert_eq!(Key::new(vec![b'k'; 256]).unwrap_err(), KeyError::TooLong { bytes: 256 });
        assert_eq!(Key::new(vec![b'k'; 255]).unwrap().as_bytes().len(), 255);
    }

    #[test]
    fn debug_output_does_not_show_the_key() {
        assert_eq!(format!("{:?}", Key::new("secret-key").unwrap()), "Key(10 bytes)");
    }

    #[test]
    fn only_a_version_7_uuid_carries_time() {
        // The example of RFC 9562, appendix A.6: 2022-02-22T19:22:22.00Z.
        let key = Key::new("017F22E2-79B0-7CC3-98C4-DC0C0C07398F").unwrap();
        assert_eq!(key.uuid7_time(), Some(Timestamp::from_millis(0x017F_22E2_79B0)));
        for other in [
            "919108f7-52d1-4320-9bac-f847db4148a8", // version 4
            "017F22E279B07CC398C4DC0C0C07398F",     // not the usual form
            "017F22E2-79B0-7CC3-18C4-DC0C0C07398F", // another variant
            "order-7829",
        ] {
            assert_eq!(Key::new(other).unwrap().uuid7_time(), None, "{other}");
        }
    }

    #[test]
    fn a_key_id_reads_back_what_it_prints() {
        let id = KeyId::from_bytes(*b"0123456789abcdef");
        assert_eq!(KeyId::from_hex(&id.to_string()), Some(id));
        assert_eq!(KeyId::from_hex("xyz"), None);
        assert_eq!(KeyId::from_hex(&"g".repeat(32)), None);
    }
}
