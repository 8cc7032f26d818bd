//! The reverse proxy: listens, forwards, and runs each idempotency key once.
//!
//! It has no rules of its own about keys: each route is the middleware of `onlyonce-tower` around
//! the upstream. It cannot name a store; whoever starts it brings an engine.

mod admin;
mod body;
mod config;
mod handle;
mod serve;
mod tls;
mod upstream;

pub use config::{Admin, Config, ConfigError, LISTEN, Limits, Route, Target, Tls};
pub use onlyonce_listen::{StartError, Taken, Telemetry, raise_open_files};
pub use serve::{Drained, Ports, Server};

/// An error of any kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
