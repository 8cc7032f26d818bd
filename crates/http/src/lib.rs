//! What HTTP means for an idempotency key, without I/O.

pub mod date;
mod digest;
pub mod fingerprint;
pub mod headers;
pub mod key;
pub mod scope;
pub mod status;

pub use digest::Keys;
