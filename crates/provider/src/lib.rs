//! Hands a message to a mail provider over HTTP, and knows whether the provider may have taken it.
//!
//! There is one adapter. What a provider's API is like stands in a file of configuration: the
//! address, the header fields, the body, what its answers mean, whether it remembers a key and for
//! how long, how it is asked for a message. [`READY`] has such files for some providers.
//!
//! This crate cannot keep a record or send anything again: whoever calls makes durable that a
//! message may be taken, between [`Provider::prepare`] and [`Ready::send`].

mod body;
mod config;
mod letter;
mod look;
mod provider;

pub use config::READY;
pub use letter::Letter;
pub use look::Looked;
pub use provider::{Provider, Ready, Refused, Sent};
