//! A table of messages that callers write in transactions of their own, as each kind of database
//! shows it to a sender. An outbox is no store, and may lie in any database.

use onlyonce_core::Timestamp;

use crate::{BoxFuture, StoreError};

/// What a sender is told that finds no table.
pub const MISSING: &str = "there is no outbox: `onlyonce mail outbox` makes one";

/// A table of messages, and who we are to it.
///
/// An error leaves nothing lost: what was to be done is done again.
pub trait Outbox: Send + Sync {
    /// Makes rows that nobody has taken ours, at most `most` of them, the oldest first, and
    /// returns them. From then on no other sender is given them. This is durable before it returns.
    ///
    /// # Errors
    /// It was not done, or nobody knows: then rows may be ours that were not returned.
    fn take(&self, now: Timestamp, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>>;

    /// Rows that are ours and have not ended, in the order of their numbers, after this one.
    ///
    /// # Errors
    /// The database does not say.
    fn ours(&self, after: i64, most: usize) -> BoxFuture<'_, Result<Vec<Posted>, StoreError>>;

    /// Writes into a row of ours what became of its message. Repeating it changes nothing, and the
    /// last word of a row is never written over.
    ///
    /// # Errors
    /// It was not done, or nobody knows: repeat it.
    fn tell<'a>(
        &'a self,
        number: i64,
        told: Told,
        said: &'a str,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// How many rows there are of each kind.
    ///
    /// # Errors
    /// The database does not say; also where its functions were made by an older onlyonce.
    fn counts(&self) -> BoxFuture<'_, Result<Vec<Counted>, StoreError>>;
}

/// What a row is told of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nobody knows whether it was sent; somebody may still find out.
    Unknown,
    /// That is over, and it goes on as any row that was taken: it was not sent, or was let go.
    Taken,
    /// The server has it. The last word.
    Sent,
    /// It was refused for good. The last word.
    Refused,
}

impl Told {
    /// As it stands in the row.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Taken => "taken",
            Self::Sent => "sent",
            Self::Refused => "refused",
        }
    }

    /// Whether it is the last word.
    pub const fn is_last(self) -> bool {
        match self {
            Self::Unknown | Self::Taken => false,
            Self::Sent | Self::Refused => true,
        }
    }
}

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
    /// When, by the database's clock: its Date, if it names none.
    pub posted: Timestamp,
    /// When a sender took it, by that one's clock. Before that moment nobody can have sent it.
    pub taken: Timestamp,
    /// Whether it was told that nobody knows, and nothing since.
    pub is_unknown: bool,
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
