//! What a member knows of its set: its number, and the map. It stands where the mark of a moved
//! store does, so that a program that does not know of sets refuses the store as a marked one.

use onlyonce_core::{Cause, Doubt, Evidence, Fence, History, Record, Revision, State, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_store::transaction::MARK;
use onlyonce_store::{Store, StoreError, StoreErrorKind, Swap};

use crate::map::{Map, Number};

/// The word that a member's mark begins with.
const ROLE: &str = "member";

/// A member's place in its set, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The member's number. One that the map does not have is to join.
    pub own: Number,
    /// The map as this member knows it.
    pub map: Map,
    /// The same number in all members of a set, and in no others.
    pub set: Fence,
    /// What it is replaced by.
    pub revision: Revision,
}

impl Seat {
    /// The seat in this record of a mark; `None` if it is another mark.
    pub fn of(record: &Record) -> Option<Self> {
        let text = std::str::from_utf8(record.evidence.as_ref()?.as_bytes()).ok()?;
        let rest = text.strip_prefix(ROLE)?.strip_prefix(' ')?;
        let (own, map) = rest.split_once(' ')?;
        let (own, map) = (own.parse().ok()?, Map::parse(map)?);
        Some(Self { own, map, set: record.fence, revision: record.revision })
    }

    /// The seat of a store, if it has one.
    ///
    /// # Errors
    /// The store cannot be read, or has a mark that is no seat.
    pub async fn read(store: &dyn Store) -> Result<Option<Self>, StoreError> {
        let Some(record) = store.get(MARK).await? else { return Ok(None) };
        Self::of(&record).map(Some).ok_or_else(|| {
            let text = "the store is marked, and not as a member: `onlyonce doctor` says more";
            StoreError::new(StoreErrorKind::NotApplied, text)
        })
    }

    /// Gives a store that has no mark a seat. Without `set` it is the first of a new set. Returns
    /// `None` if it has a mark by now.
    ///
    /// # Errors
    /// The store's.
    pub async fn take(
        store: &dyn Store,
        own: Number,
        map: &Map,
        set: Option<Fence>,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let largest = Revision::new(store.revision_max().await?.max(set.map_or(0, Fence::get)));
        let revision = Revision::after(largest, now);
        let set = set.unwrap_or(Fence::of(revision));
        failpoint!("spread.seat.before", own);
        let taken = put(store, None, Self { own, map: map.clone(), set, revision }).await;
        failpoint!("spread.seat.after", own);
        taken
    }

    /// The same seat with another map; `None` if it has changed meanwhile. Its revision is above
    /// `least`, which the store remembers from then on.
    pub(crate) async fn turn(
        &self,
        store: &dyn Store,
        map: &Map,
        least: u64,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let past = Revision::new(least).max(Some(self.revision));
        let revision = Revision::after(past, now);
        put(store, Some(self.revision), Self { map: map.clone(), revision, ..self.clone() }).await
    }
}

async fn put(
    store: &dyn Store,
    before: Option<Revision>,
    seat: Seat,
) -> Result<Option<Seat>, StoreError> {
    match store.swap(MARK, before, Some(record(&seat))).await? {
        Swap::Done => Ok(Some(seat)),
        Swap::Conflict(_) => Ok(None),
    }
}

/// An outcome that nobody knows is the one state that nothing but a person ends.
fn record(seat: &Seat) -> Record {
    let Seat { own, map, set, revision } = seat;
    let since = Timestamp::from_millis(revision.get());
    Record {
        revision: *revision,
        fingerprint: None,
        credential: None,
        first_fence: *set,
        fence: *set,
        attempt: 0,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: None,
        // It fits: see the test of the map.
        evidence: Evidence::new(format!("{ROLE} {own} {map}")),
        history: History::default(),
        state: State::Unknown(Doubt { since, cause: Cause::Restored, only: None }),
    }
}
