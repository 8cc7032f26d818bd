//! The store port: what every store of records promises, and the bytes of a record.
//!
//! A store has no logic. It replaces a record if its revision is still the one that was read,
//! and `onlyonce-core` decides what to replace it with. A store promises four things, each a
//! section of `docs/store-contract.md` and a file of cases in `onlyonce-conformance`:
//!
//! 1. a swap is atomic per key: of two swaps that expect the same revision, one takes place;
//! 2. what a swap confirmed survives a crash;
//! 3. a read that starts after a swap was confirmed sees it;
//! 4. an error says whether the swap may have taken place, and it never took place by half.
//!
//! This crate knows no runtime, no database and no HTTP.

pub mod callers;
pub mod check;
pub mod codec;
pub mod error;
pub mod format;
pub mod memory;
pub mod notice;
pub mod open;
pub mod outbox;
pub mod own;
pub mod row;
pub mod store;
pub mod transaction;

pub use callers::OpenTransactions;
pub use check::{Check, Checks, Found, Need, Warning};
pub use codec::{CodecError, decode, encode};
pub use error::{StoreError, StoreErrorKind};
pub use format::{FORMAT, Formats};
pub use memory::MemoryStore;
pub use notice::{Notice, Notices, Router, Teller, Want, notices};
pub use open::{OpenError, OpenErrorKind};
pub use row::Row;
pub use store::{BoxFuture, Cursor, Due, Filter, Page, Store, Swap};
