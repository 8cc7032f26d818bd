//! The mark of a store that is being moved, or was, or that was put back from an older copy and is
//! not safe to use yet: nothing but the command that does it may use such a store.
//!
//! It is a record under a key id that no key has, so it is written as every record is: by a swap
//! from the revision that was read, on disk before it is confirmed, in every kind of store.

use std::sync::Arc;

use onlyonce_core::{Cause, Doubt, Evidence, Fence, History, KeyId, Record, Revision, State};
use onlyonce_store::{Store, Swap, transaction};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::now;

/// Where the mark is. Ids of keys are the first half of a keyed digest; none of them is this one.
pub(crate) const ID: KeyId = transaction::MARK;

/// Whether a record is of a key, and not what a store says of itself: its mark, the names of the
/// keys that its answers may need, or word of sweepers for the next ones.
pub(crate) fn is_of_key(id: KeyId) -> bool {
    ![ID, transaction::NAMES, transaction::SWEPT].contains(&id)
}

/// What is going on with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its records are being copied to another place.
    Leaving,
    /// They were, all of them, and the other place is used now.
    Left,
    /// A copy into it was begun and is not whole yet.
    Arriving,
    /// It was put back from an older copy, and what that does not know is not refused yet.
    Restoring,
    /// It is one of several stores of a set, which are used together or not at all.
    Member,
}

impl Role {
    const ALL: [Self; 5] =
        [Self::Leaving, Self::Left, Self::Arriving, Self::Restoring, Self::Member];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Arriving => "arriving",
            Self::Restoring => "restoring",
            Self::Member => "member",
        }
    }
}

/// The mark as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) role: Role,
    /// The other store's address, as it is shown; cut if it is very long; empty if there is none.
    pub(crate) other: String,
    /// The same number in both stores of a copy, and in no others.
    pub(crate) copy: Fence,
    /// The revision it is replaced by.
    pub(crate) revision: Revision,
}

impl Mark {
    /// The mark of a store, if it has one.
    pub(crate) async fn read(store: &dyn Store) -> Result<Option<Self>, Failure> {
        store.get(ID).await?.as_ref().map(Self::of).transpose()
    }

    /// The mark that is in this record.
    pub(crate) fn of(record: &Record) -> Result<Self, Failure> {
        let unread = || {
            let text = "the store has a mark that this program does not know; a newer one made it";
            Failure::new(Exit::StoreUnavailable, text)
        };
        let text = record.evidence.as_ref().ok_or_else(unread)?;
        let text = String::from_utf8_lossy(text.as_bytes());
        let (role, other) = text.split_once(' ').ok_or_else(unread)?;
        let role = Role::ALL.into_iter().find(|it| it.name() == role).ok_or_else(unread)?;
        let (copy, revision) = (record.fence, record.revision);
        Ok(Self { role, other: other.to_owned(), copy, revision })
    }

    /// Whether it names this store as the other one.
    pub(crate) fn names(&self, other: &str) -> bool {
        self.other == shown(self.role, other)
    }

    /// Writes a mark in the place of the one that was read, and says whether that still stood.
    /// Its revision is at least `least`, which the store remembers when the mark is gone.
    pub(crate) async fn write(
        store: &dyn Store,
        expected: Option<&Self>,
        (role, other, copy): (Role, &str, Option<Fence>),
        least: u64,
    ) -> Result<Option<Self>, Failure> {
        let before = expected.map(|mark| mark.revision);
        let largest = [copy.map(Fence::get), Some(least)].into_iter().flatten().max();
        let past = largest.and_then(Revision::new);
        let revision = Revision::after(before.max(past), now());
        let copy = copy.unwrap_or(Fence::of(revision));
        let other = shown(role, other);
        let record = record(revision, copy, &format!("{} {other}", role.name()));
        match store.swap(ID, before, Some(record)).await? {
            Swap::Done => Ok(Some(Self { role, other, copy, revision })),
            Swap::Conflict(_) => Ok(None),
        }
    }

    /// Takes it away, and says whether it still stood.
    pub(crate) async fn remove(self, store: &dyn Store) -> Result<bool, Failure> {
        Ok(store.swap(ID, Some(self.revision), None).await? == Swap::Done)
    }

    /// Why the store must not be used.
    pub(crate) fn refusal(&self, place: &str) -> Failure {
        let (text, hint) = self.why(place);
        Failure::new(Exit::StoreUnavailable, format!("{place}: {text}")).with_hint(hint)
    }

    /// The same without the place, and what to do about it.
    pub(crate) fn why(&self, place: &str) -> (String, String) {
        let other = &self.other;
        match self.role {
            Role::Left => (
                format!("its records were moved to {other}"),
                format!("`--store {other}`: what ran there since is not known here"),
            ),
            Role::Leaving => (
                format!("its records are being moved to {other}"),
                format!(
                    "`onlyonce store copy {place} {other}` goes on, and with --give-up it does not"
                ),
            ),
            Role::Arriving => (
                format!("not all records of {other} are in it yet"),
                format!(
                    "`onlyonce store copy {other} {place}` goes on; if that was given up, delete \
                     what is here"
                ),
            ),
            Role::Restoring => (
                "it was put back from an older copy, and is not safe to use yet".to_owned(),
                format!("`onlyonce store restored --at-rest --store {place}` goes on"),
            ),
            Role::Member => (
                "it is one of several stores, which know the keys together".to_owned(),
                "`--store spread:FILE`, with a line for each in the file".to_owned(),
            ),
        }
    }
}

/// Refuses a store that has a mark.
pub(crate) async fn refuse(store: Arc<dyn Store>, place: &str) -> Result<(), Failure> {
    Mark::read(&*store).await?.map_or(Ok(()), |mark| Err(mark.refusal(place)))
}

/// The address as far as there is room for it.
fn shown(role: Role, other: &str) -> String {
    let room = onlyonce_core::limits::EVIDENCE_BYTES_MAX - role.name().len() - 1;
    other[..other.floor_char_boundary(room)].to_owned()
}

/// An outcome that nobody knows is the one state that nothing but a person ends.
fn record(revision: Revision, copy: Fence, text: &str) -> Record {
    Record {
        revision,
        fingerprint: None,
        credential: None,
        first_fence: copy,
        fence: copy,
        attempt: 0,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: None,
        evidence: Evidence::new(text),
        history: History::default(),
        state: State::Unknown(Doubt { since: now(), cause: Cause::Restored, only: None }),
    }
}
