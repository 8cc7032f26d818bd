//! What is answered for an operation, as kept bytes.

use core::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// The answer of an operation: a status, and its content unless that could not be kept.
///
/// The content is opaque here; `onlyonce-http` writes heads, bodies and trailers into it.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    content: Option<Bytes>,
}

impl Reply {
    /// A reply whose content is kept for replay.
    pub fn kept(status: u16, content: impl Into<Bytes>) -> Self {
        Self { status, content: Some(content.into()) }
    }

    /// The operation was answered with `status`, but the content was too large to keep.
    pub const fn not_kept(status: u16) -> Self {
        Self { status, content: None }
    }

    /// The status, in the meaning of the front door (HTTP status, exit code, SMTP code).
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The content, or `None` if it was not kept.
    pub const fn content(&self) -> Option<&Bytes> {
        self.content.as_ref()
    }

    /// The same answer without its content.
    pub const fn without_content(&self) -> Self {
        Self::not_kept(self.status)
    }

    /// A short digest, kept in the tombstone to tell a repeated answer from another one.
    pub fn digest(&self) -> ReplyDigest {
        let mut digest = Sha256::new();
        digest.update(self.status.to_be_bytes());
        digest.update([u8::from(self.content.is_some())]);
        digest.update(self.content.as_deref().unwrap_or_default());
        let mut short = [0; 8];
        short.copy_from_slice(&digest.finalize()[..8]);
        ReplyDigest(short)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Some(content) => write!(f, "Reply({}, {} bytes)", self.status, content.len()),
            None => write!(f, "Reply({}, not kept)", self.status),
        }
    }
}

/// The first eight bytes of a digest over a [`Reply`]. Replies are not secrets from their own
/// store, so it needs no key; it only tells two answers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyDigest([u8; 8]);

impl ReplyDigest {
    /// The digest with these bytes, as read back from a store.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes, for stores.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_status_content_and_whether_it_was_kept() {
        let reply = Reply::kept(201, "ok");
        assert_eq!(reply.digest(), reply.clone().digest());
        assert_ne!(reply.digest(), Reply::kept(200, "ok").digest());
        assert_ne!(reply.digest(), Reply::kept(201, "no").digest());
        assert_ne!(Reply::kept(201, "").digest(), Reply::not_kept(201).digest());
    }
}
