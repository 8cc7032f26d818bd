//! Clients for programs in Rust that have no engine of their own.
//!
//! - [`Client`] runs operations once: the record service (`onlyonce serve`) keeps the records.
//! - [`RetryingClient`] sends requests to APIs that know idempotency keys, such as those behind
//!   `onlyonce proxy`: one key for each intent, on the disk before it is sent, the same with every
//!   retry and after a restart.
//! - [`uuid7`] and [`key_from`] make keys.
//!
//! It does the same as the clients for Python and TypeScript, makes the same keys, and runs the
//! same vectors (clients/vectors.json). docs/clients.md has a walk-through.
//!
//! This crate knows the service by its documents and the proxy by its answers: it can import no
//! other crate of onlyonce, decide nothing, and keep no record.

mod canonical;
mod claim;
mod client;
mod desk;
mod error;
mod files;
mod http1;
mod intents;
mod problem;
mod retrying;

pub use canonical::{DEPTH_MAX, Field, FieldError, fingerprint, key_from};
pub use claim::{Attempt, Options};
pub use client::{Client, Failed, Failure};
pub use error::{Happened, Kind, OnceError, ReuseKey, Who};
pub use files::FileIntents;
pub use http1::Answer;
pub use intents::{INTENTS_MAX, IntentStore, MemoryIntents, NAME_MAX};
pub use retrying::{Retrying, RetryingClient, json_request};

/// A new UUIDv7, for a new intention: later ones of this process are greater. Its time lets it be
/// refused however late it comes back. Keep it before it is used.
///
/// ```
/// assert!(onlyonce_client::uuid7() < onlyonce_client::uuid7());
/// ```
pub fn uuid7() -> String {
    uuid::Uuid::now_v7().to_string()
}
