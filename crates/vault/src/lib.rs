//! Answers are secrets: a store around any other that encrypts what it keeps of them.
//!
//! Only the content of replies is encrypted. Keys and credentials are hashes in any store, and
//! what operators wrote into a record's history is for operators.
//!
//! Each content is sealed with AES-256-GCM (RFC 5116) under a key of its own, derived by
//! HMAC-SHA-256 from the master key, the record's id and its revision, with a random nonce: bytes
//! that were moved to another record, or kept from an older one, do not open. Beside them stands
//! which master key it was, so that keys can be changed: what is written uses the newest, what was
//! written before is read with its own until [`Encrypted::renew`] comes by. [`Names`] says in the
//! store which keys that may be.

mod keyring;
mod names;
mod rotation;
mod store;

pub use keyring::{Keyring, KeyringError, PLAIN};
pub use names::{EVERY, Name, Names, QUIET, Settled};
pub use rotation::Turned;
pub use store::Encrypted;
