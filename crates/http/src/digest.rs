//! Keyed digests over parts that cannot run into each other, and the keys for them.

use onlyonce_core::{Key, KeyId, Scope, Secret};

/// A store's secret and the keys derived from it, made once at start.
#[derive(Clone, Debug)]
pub struct Keys {
    secret: Secret,
    pub(crate) scope: DigestKey,
    pub(crate) fingerprint: DigestKey,
}

impl Keys {
    /// Derives the keys. Records made with another secret are not found and match nothing.
    pub fn new(secret: Secret) -> Self {
        let scope = DigestKey(secret.derive("http scope"));
        let fingerprint = DigestKey(secret.derive("fingerprint"));
        Self { secret, scope, fingerprint }
    }

    /// What the record of this key in this scope is found by.
    pub fn key_id(&self, scope: &Scope, key: &Key) -> KeyId {
        self.secret.key_id(scope, key)
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// The key of one kind of digest. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct DigestKey([u8; 32]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// A keyed BLAKE3 digest of parts, each with its length before it.
pub(crate) struct Parts(blake3::Hasher);

impl Parts {
    pub(crate) fn new(key: &DigestKey) -> Self {
        Self(blake3::Hasher::new_keyed(&key.0))
    }

    pub(crate) fn part(&mut self, part: &[u8]) -> &mut Self {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// A part that may be absent, which is not the same as empty.
    pub(crate) fn maybe(&mut self, part: Option<&[u8]>) -> &mut Self {
        match part {
            Some(part) => self.part(&[1]).part(part),
            None => self.part(&[0]),
        }
    }

    /// How many parts of a list follow.
    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.part(&(count as u64).to_le_bytes())
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
