//! The port: one write primitive and a few reads.

use std::future::Future;
use std::pin::Pin;

use onlyonce_core::{Floor, KeyId, Record, Revision, StateKind, Timestamp};

use crate::error::StoreError;
use crate::notice::Teller;
use crate::row;

/// A boxed future, so that a store can be chosen at run time. One allocation a call is nothing
/// beside the sync or the round trip that the call waits for.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps records by key id. See the crate's documentation for what every store promises.
///
/// A call, once polled, may take effect even if its future is dropped: dropping is a lost answer.
pub trait Store: Send + Sync + 'static {
    /// The record of a key, or `None`.
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// Replaces the record iff its revision is still `expected` (`None`: absent). `next` is what
    /// stands afterwards; `None` deletes. A conflict changes nothing and returns what is there.
    ///
    /// Invariant, asserted by stores: `next`'s revision is above `expected`.
    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>>;

    /// The store's durable floor.
    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>>;

    /// The part of the store that a key is in, for one whose parts keep floors of their own, so
    /// that one that is away holds up no key of the others. `None`: the floor of the store holds
    /// for the key. A store around another one may leave this out.
    fn part(&self, id: KeyId) -> Option<u32> {
        let _ = id;
        None
    }

    /// The floor that holds for all keys of a part.
    fn floor_in(&self, part: u32) -> BoxFuture<'_, Result<Floor, StoreError>> {
        let _ = part;
        self.floor()
    }

    /// Raises the floor, durably before it returns. A lower floor changes nothing.
    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>>;

    /// What the store's own clock says, if it has one: then all that use it go by that clock. A
    /// store without one has the clock of the machines that use it. A store around another one
    /// hands its answer on.
    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// The largest revision this store has ever confirmed, zero if none: a clock that starts
    /// below it must not be trusted.
    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Keys with a record that `due` names, at most `limit`, in no order; perhaps more, never
    /// fewer. Those that may be due and cannot be read are among them. For the sweeper, which lets
    /// the core decide.
    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>>;

    /// Gives back the room of what was deleted and replaced, if that takes doing. The sweeper
    /// calls it after each pass.
    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }

    /// Records that match `filter`, a page at a time, for operators. Records changed meanwhile may
    /// be missed or seen in either form; unchanged ones are seen exactly once.
    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Tells of the keys that are wanted when their records have changed so that nobody is at work
    /// on them any more, for as long as somebody listens; also if another process has done it, at
    /// least if somebody listens there too. It may tell more. A store that cannot drops the teller,
    /// and is looked into from time to time; a store around another one hands it on.
    fn notices(&self, teller: Teller) {
        drop(teller);
    }

    /// The largest reply content in bytes that this store keeps.
    fn reply_max(&self) -> usize;

    /// Whether no other process can be using the store. If so, every holder from before this
    /// process began is dead, and the engine says so in their records.
    fn is_exclusive(&self) -> bool;
}

/// Which records a sweeper asks for: those that time may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Claims and replies whose time is over then.
    pub over_at: Timestamp,
    /// Tombstones that need not be remembered longer than until then.
    pub forget_until: Timestamp,
    /// Records that were released until then. How long those are kept is the policy's business,
    /// so a record does not tell.
    pub released_until: Timestamp,
}

impl Due {
    /// Whether it asks for this record.
    pub fn names(&self, record: &Record) -> bool {
        self.until(record.state.kind()).is_some_and(|until| row::due_at(record) <= until)
    }

    /// Until when the time of a record in this state may be over; `None` if time does not end it.
    pub const fn until(&self, state: StateKind) -> Option<Timestamp> {
        match state {
            StateKind::InFlight | StateKind::Completed => Some(self.over_at),
            StateKind::Tombstone => Some(self.forget_until),
            StateKind::Released => Some(self.released_until),
            StateKind::Unknown => None,
        }
    }
}

/// What became of a swap.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub enum Swap {
    /// It took place and is durable.
    Done,
    /// It did not: this is the record that stands there.
    Conflict(Option<Record>),
}

/// Which records a listing wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only records in this state, as last written (a lapsed claim still counts as in-flight).
    pub state: Option<StateKind>,
    /// At most this many records a page; zero means the store's default of 1,000.
    pub limit: usize,
}

/// Where the next page of a listing begins: opaque to callers, good for the listing it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub records: Vec<(KeyId, Record)>,
    /// Keys whose stored bytes cannot be read, with the reason. They count towards the limit.
    pub damaged: Vec<(KeyId, StoreError)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}
