//! A store in MariaDB or MySQL, for any number of processes on any machines.
//!
//! Each process has one connection that writes: a task takes all that has been asked for meanwhile,
//! and sends it as one text, a transaction with a statement for each swap, so that many callers
//! share a round trip and a sync. Every statement compares the revision, and the server says of
//! each whether it changed something. Other connections read.
//!
//! It is tested on MariaDB. MySQL should behave alike where it is used here, and was not tried.
//!
//! As a store it decides nothing: it knows records and revisions, not what they mean. It refuses a
//! server that would lose what it has confirmed, and looks again at every new connection. In a
//! transaction of the caller's it writes what `onlyonce-core` decides; `functions` does the same in
//! SQL, for other languages, and is held to the core cell by cell. That is for MariaDB alone.
//!
//! [`Outbox`] is another thing: a table of messages beside a caller's own tables, which a sender of
//! mail takes out. It is for MariaDB alone too.

mod address;
mod batch;
mod callers;
mod door;
mod error;
mod held;
mod many;
mod migrate;
mod mysql;
mod outbox;
mod procedures;
mod queue;
mod reader;
mod rows;
mod schema;
mod script;
mod session;
mod settings;
mod transaction;
mod writer;

pub use address::{Address, AddressError, RISKS};
pub use door::doctor;
pub use mysql::Mysql;
pub use onlyonce_store::Formats;
pub use onlyonce_store::transaction::{Claimed, Request, TxError, TxErrorKind};
pub use outbox::{OUTBOX, Outbox};
pub use transaction::{Granted, Transactions};
