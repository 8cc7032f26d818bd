//! Runs a command once for each key. Its output is passed on as it comes and kept with its end; who
//! comes with the key again is given both and nothing is run.
//!
//! This crate cannot choose or open a store, read a clock or parse a command line. It runs commands
//! of this machine and nothing else.
//!
//! - [`Order`] is what is asked for: a key, a command, and what its exit codes mean.
//! - [`Runner`] carries it out, or says why not: [`Became`].
//! - [`Locks`] tell whether any process of an earlier run is alive on this machine: its children
//!   inherit the lock.
//! - [`Transcript`] is what is kept of a run: what it wrote to which stream, and how it ended.

mod child;
mod job;
mod lock;
mod order;
mod output;
mod probe;
mod runner;
mod signals;
mod transcript;

pub use lock::{Alone, Locks};
pub use order::{Asking, Codes, Order, scope};
pub use output::{Stream, write};
pub use runner::{Became, Runner};
pub use transcript::{Ended, Transcript};
