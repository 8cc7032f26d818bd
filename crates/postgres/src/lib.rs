//! A store in PostgreSQL, for any number of processes on any machines.
//!
//! Each process has one connection that writes: a task takes all that has been asked for meanwhile,
//! and does it in one transaction of array statements, so that many callers share a round trip and
//! a sync. Every swap compares the revision inside the transaction. Another connection reads.
//!
//! Nothing stands in a session: no prepared statement, no setting that outlives a transaction. So
//! it works through a pooler that hands out connections by the transaction.
//!
//! It cannot decide anything by itself: it knows records and revisions, not what they mean; what
//! the core decides about a claim in a caller's own transaction it writes there. It refuses a
//! server that would lose what it has confirmed, and looks again at every new connection.

mod address;
mod batch;
mod callers;
mod door;
mod error;
mod migrate;
mod notice;
mod others;
mod outbox;
mod postgres;
mod queue;
mod reader;
mod schema;
mod session;
mod transaction;
mod writer;

pub use address::{Address, AddressError, RISKS};
pub use door::doctor;
pub use onlyonce_store::Formats;
pub use onlyonce_store::transaction::{Claimed, Request, TxError, TxErrorKind};
pub use outbox::{OUTBOX, Outbox};
pub use postgres::Postgres;
pub use transaction::{Granted, Transactions};

/// The example in the documentation compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/transaction.md")]
struct Page;
