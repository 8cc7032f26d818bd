//! A row of an outbox as each kind of database gives it to a sender: a message that a caller wrote
//! in a transaction of its own. An outbox is no store, and may lie in any database.

use onlyonce_core::Timestamp;

/// A message of the table, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The row's number. It is never another row's.
    pub number: i64,
    /// The caller's name for the message.
    pub key: String,
    /// Who is told if it cannot be delivered.
    pub sender: String,
    /// Who gets it.
    pub recipient: String,
    /// As it was written.
    pub message: Vec<u8>,
    /// When, by the database's clock.
    pub posted: Timestamp,
    /// When a sender took it, by that one's clock.
    pub taken: Timestamp,
}

/// How many rows there are of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// `waiting`, `taken`, `unknown`, `sent` or `refused`.
    pub state: String,
    /// Whether the sender that asks has taken them.
    pub is_ours: bool,
    /// How many.
    pub rows: u64,
    /// When the oldest of them was written, by the database's clock.
    pub oldest: Timestamp,
}
