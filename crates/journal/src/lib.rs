//! The embedded store: an append-only log of records with group commit.
//!
//! Records are written twice, read rarely and die by age: a log's best case. One thread writes;
//! it takes all that has been asked for meanwhile, writes it with one call, syncs once and wakes
//! everyone. An index in memory says where the newest record of each key stands; tombstones of
//! more than a day leave it for shelves, files behind a filter. What has been
//! confirmed survives a crash of the machine; a tail that was never confirmed is cut; anything
//! else that is not as it was written refuses to open, with file and offset.
//!
//! It cannot decide anything: it knows records and revisions, not what they mean. It belongs to
//! one process at a time. `docs/record-format.md` describes every byte of it.
//!
//! ```
//! use onlyonce_journal::{Journal, Settings, Start};
//!
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("data");
//! let (journal, created) = Journal::open_or_create(&path, Settings::default(), Start::First)?;
//! assert!(created);
//! assert_eq!(journal.stats().keys, 0);
//! journal.close();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backup;
mod check;
mod dir;
mod disk;
mod doctor;
mod entry;
mod error;
mod filter;
mod index;
mod journal;
mod keeper;
mod label;
mod listing;
mod merge;
mod pace;
mod peek;
mod progress;
mod rebuild;
mod reclaim;
mod recover;
mod restore;
mod salvage;
mod segment;
mod shared;
mod shelf;
mod shelf_builder;
mod shelf_ends;
mod shelve;
mod shelves;
mod snapshot;
mod staging;
mod survey;
mod writer;

pub use backup::Backup;
pub use check::{Finding, Report, check, check_with};
pub use dir::Start;
pub use doctor::doctor;
pub use error::{JournalError, JournalErrorKind};
pub use journal::{Journal, Settings, Stats};
pub use peek::peek;
pub use progress::Progress;
pub use restore::{Restored, restore, restore_with};
pub use salvage::{Salvaged, salvage, salvage_with};

#[cfg(test)]
mod tests;
