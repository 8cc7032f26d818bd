//! The record service: what holders in other processes claim, say and ask, over HTTP and JSON.
//!
//! It has no rules of its own about keys: each endpoint is one command of the engine. Who may ask
//! what, in which scope and how often is its business. It cannot name a store; whoever starts it
//! brings an engine. `docs/service.md` is the walk-through, `docs/openapi.json` the description of
//! every endpoint, made by [`openapi()`] from the table that requests are routed by.

mod answers;
mod body;
mod callers;
mod config;
mod endpoint;
mod handle;
mod openapi;
mod quota;
mod reply;
mod serve;
mod wire;
mod work;

pub use callers::Credential;
pub use config::{Config, ConfigError, LISTEN, Limits, Listen, ScopeRule, token_file};
pub use openapi::openapi;
pub use serve::{Drained, Place, Server};
