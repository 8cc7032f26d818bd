//! The digest that tells whether a request is the same one, and the tag of its credential.

use core::fmt;

/// A versioned, keyed digest of the parts of a request that must not change.
///
/// The version names the rule that made the digest. A record keeps the version it was made with,
/// and later requests are compared by that rule, so that a new rule does not break old records.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    version: u8,
    digest: [u8; 32],
}

impl Fingerprint {
    /// A fingerprint made by the rule `version`.
    pub const fn new(version: u8, digest: [u8; 32]) -> Self {
        Self { version, digest }
    }

    /// The rule it was made by.
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// The digest, for stores.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint(v{} {:02x}{:02x}..)", self.version, self.digest[0], self.digest[1])
    }
}

/// A keyed hash of a credential that nobody here has verified, such as a rotated JWT.
///
/// It may *find* a record but never *read* what another credential was answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Credential([u8; 16]);

impl Credential {
    /// The tag with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for stores.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}
