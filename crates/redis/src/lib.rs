//! A store in Redis, for several machines: one server, a master that sentinels watch, or a cluster.
//!
//! A swap is one script, so it is atomic; it is confirmed when the server has synced it. The
//! server must be one that keeps what it confirms: others are refused, and each refusal names the
//! setting. A failover loses what the replica had not got by then, and no client can prevent it:
//! `docs/stores.md` says what is done about it, and what is not.
//!
//! It cannot decide anything: it knows records and revisions, not what they mean.

mod door;
mod error;
mod facts;
mod homes;
mod inner;
mod layout;
mod link;
mod listing;
mod map;
mod notice;
mod script;
mod server;
mod slot;
mod store;
mod target;

pub use facts::doctor;
pub use store::{Redis, Settings};
pub use target::{RISKS, Target};
