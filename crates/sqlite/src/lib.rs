//! A store in an SQLite file, for several processes on one machine.
//!
//! Each process has one thread that writes: it takes all that has been asked for meanwhile, does it
//! in one transaction, and answers once that is synced. Processes take turns by SQLite's own write
//! lock; each swap compares the revision inside the transaction, so of all writers on the machine
//! one wins. Reads see only what is synced, and wait for nobody.
//!
//! [`Outbox`] is another thing: a table of messages in a file of a caller's own tables, which a
//! sender of mail takes out.
//!
//! It cannot decide anything by itself: it knows records and revisions, not what they mean; what
//! the core decides about a claim in a caller's own transaction it writes there. It refuses a file
//! on a network file system, where SQLite's locks and shared memory do not hold.
//!
//! ```
//! use onlyonce_core::Floor;
//! use onlyonce_sqlite::Sqlite;
//!
//! let dir = tempfile::tempdir()?;
//! let file = dir.path().join("once.db");
//! Sqlite::init(&file, Floor::NONE)?;
//! let store = Sqlite::open(&file)?;
//! assert_eq!(store.count(None)?, 0);
//! store.close();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod door;
mod error;
mod keeper;
mod migrate;
mod outbox;
mod queue;
mod readers;
mod schema;
mod shared;
mod sqlite;
mod transaction;
mod writer;

pub use door::doctor;
pub use onlyonce_store::Formats;
pub use onlyonce_store::outbox::{Counted, Posted};
pub use onlyonce_store::transaction::{Claimed, Request, TxError, TxErrorKind};
pub use outbox::{OUTBOX, Outbox};
pub use sqlite::Sqlite;
pub use transaction::{Granted, Transactions};
