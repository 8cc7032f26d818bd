//! The store's secret: key ids and fingerprints are keyed with it, so whoever has records without
//! it cannot search them for guessed keys or small secrets in requests.

use core::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::fingerprint::Credential;
use crate::key::{Key, KeyId, Scope};

/// 32 random bytes that belong to one store and are shared by all processes that use it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The secret with these bytes. They must come from a cryptographic random source.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be written to the store's secret file and nowhere else.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 bytes of HMAC-SHA-256 (RFC 2104) over length and bytes of scope, then of key,
    /// lengths as 4 bytes big-endian. Plain enough for SQL to compute too.
    pub fn key_id(&self, scope: &Scope, key: &Key) -> KeyId {
        let mac = self.mac(&[scope.as_bytes(), key.as_bytes()]);
        KeyId::from_bytes(first_half(&mac))
    }

    /// The tag of an unverified credential.
    pub fn credential(&self, credential: &[u8]) -> Credential {
        Credential::from_bytes(first_half(&self.mac(&[b"credential", credential])))
    }

    /// A key of its own for each purpose (fingerprints, scopes, check values), derived once.
    pub fn derive(&self, purpose: &'static str) -> [u8; 32] {
        self.mac(&[b"derive", purpose.as_bytes()])
    }

    /// HMAC-SHA-256 over length and bytes, under a key of its own for each purpose. Plain enough
    /// for SQL to compute too.
    pub fn digest(&self, purpose: &'static str, bytes: &[u8]) -> [u8; 32] {
        Self(self.derive(purpose)).mac(&[bytes])
    }

    /// A value that a store keeps in the open to recognise the right secret.
    pub fn check_value(&self) -> [u8; 16] {
        first_half(&self.derive("check value"))
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = <Hmac<Sha256>>::new_from_slice(&self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of every length"));
        for part in parts {
            // No part is longer than a request, which is bounded far below 4 GiB.
            mac.update(&(part.len() as u32).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

fn first_half(mac: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&mac[..16]);
    half
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_depends_on_secret_scope_key_and_where_they_are_split() {
        let id = |secret: u8, scope: &'static str, key: &'static str| {
            Secret::from_bytes([secret; 32])
                .key_id(&Scope::new(scope).unwrap(), &Key::new(key).unwrap())
        };
        let base = id(1, "ab", "cd");
        assert_eq!(base, id(1, "ab", "cd"));
        assert_ne!(base, id(2, "ab", "cd"));
        assert_ne!(base, id(1, "abc", "d"));
        assert_ne!(base, id(1, "a", "bcd"));
    }

    #[test]
    fn a_key_id_is_the_hmac_that_other_tools_compute() {
        // python3 -c 'import hmac; print(hmac.new(b"\x01"*32, b"\0\0\0\2ab\0\0\0\2cd",
        //   "sha256").hexdigest()[:32])'
        let secret = Secret::from_bytes([1; 32]);
        let id = secret.key_id(&Scope::new("ab").unwrap(), &Key::new("cd").unwrap());
        assert_eq!(id.to_string(), "b22c26573f5f24346b99139a97e1b3c4");
    }
}
