//! Each case fails for a store with the fault that it is there to find.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use onlyonce_conformance::{StoreBuilder, case_names, each_case};
use onlyonce_core::{Floor, KeyId, Record, Revision, Timestamp};
use onlyonce_store::{BoxFuture, Cursor, Due, Filter, MemoryStore, Page, Store, StoreError, Swap};

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    CreatesOverWhatIsThere,
    ReplacesWhateverIsThere,
    DeletesWhateverIsThere,
    HidesWhatConflicts,
    NeverDeletes,
    DropsHistoryAndEvidence,
    CutsReplies,
    MixesKeysUp,
    LowersTheFloor,
    ForgetsRevisions,
    ListsTwice,
    ListsOtherStates,
    ListsForEver,
    OverlooksDue,
    NamesTooManyDue,
    TellsSeconds,
}

struct Broken {
    bug: Bug,
    inner: MemoryStore,
}

struct Builder(Bug);

impl StoreBuilder for Builder {
    type Store = Broken;

    fn fresh(&self) -> Broken {
        Broken { bug: self.0, inner: MemoryStore::new() }
    }

    fn after_crash(&self, store: Broken) -> Broken {
        store
    }

    fn has_clock(&self) -> bool {
        self.0 == Bug::TellsSeconds
    }
}

impl Broken {
    fn key(&self, id: KeyId) -> KeyId {
        if self.bug == Bug::MixesKeysUp {
            KeyId::from_bytes([id.as_bytes()[0] & 7; 16])
        } else {
            id
        }
    }

    fn spoil(&self, mut record: Record) -> Record {
        use onlyonce_core::{Reply, State};
        if self.bug == Bug::DropsHistoryAndEvidence {
            record.evidence = None;
        }
        if self.bug == Bug::CutsReplies
            && let State::Completed { reply, .. } = &mut record.state
            && let Some(content) = reply.content()
        {
            *reply = Reply::kept(reply.status(), content.slice(..content.len().min(1_000)));
        }
        record
    }

    async fn swap_now(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        let id = self.key(id);
        let stands = self.inner.get(id).await?;
        let there = stands.as_ref().map(|record| record.revision);
        let blind = match (expected, &next) {
            (None, Some(_)) => self.bug == Bug::CreatesOverWhatIsThere,
            (Some(_), Some(_)) => self.bug == Bug::ReplacesWhateverIsThere,
            (_, None) => self.bug == Bug::DeletesWhateverIsThere,
        };
        if self.bug == Bug::NeverDeletes && next.is_none() && there == expected {
            return Ok(Swap::Done);
        }
        let expected = if blind { there } else { expected };
        let next = next.filter(|next| !blind || there < Some(next.revision) || stands.is_none());
        let swapped = self.inner.swap(id, expected, next.map(|it| self.spoil(it))).await?;
        Ok(match swapped {
            Swap::Conflict(Some(_)) if self.bug == Bug::HidesWhatConflicts => Swap::Conflict(None),
            swapped @ (Swap::Done | Swap::Conflict(_)) => swapped,
        })
    }
}

impl Store for Broken {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.inner.get(self.key(id))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(self.swap_now(id, expected, next))
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async move {
            let floor = self.inner.floor().await?;
            let low = Floor::at(floor.time().minus(std::time::Duration::from_millis(1)));
            Ok(if self.bug == Bug::LowersTheFloor { low } else { floor })
        })
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        let told = (self.bug == Bug::TellsSeconds).then(|| Timestamp::from_millis(1_764_000_000));
        Box::pin(std::future::ready(Ok(told)))
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.raise_floor(to)
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let page = self.inner.list(Filter::default(), None).await?;
            let stored = page.records.iter().map(|(_, record)| record.revision.get()).max();
            if self.bug == Bug::ForgetsRevisions {
                return Ok(stored.unwrap_or(0));
            }
            self.inner.revision_max().await
        })
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        Box::pin(async move {
            let limit = if self.bug == Bug::NamesTooManyDue { limit + 1 } else { limit };
            let mut due = self.inner.due(due, limit).await?;
            if self.bug == Bug::OverlooksDue && 40 < due.len() {
                due.pop();
            }
            Ok(due)
        })
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.reclaim()
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let state = if self.bug == Bug::ListsOtherStates { None } else { filter.state };
            let first = after.is_none();
            let mut page = self.inner.list(Filter { state, ..filter }, after).await?;
            if self.bug == Bug::ListsTwice && !first {
                let again = self.inner.list(Filter { state, limit: 1 }, None).await?;
                page.records.extend(again.records);
            }
            if self.bug == Bug::ListsForEver && page.next.is_none() {
                page.next = Some(Cursor(vec![0xFF; 16]));
            }
            Ok(page)
        })
    }

    fn reply_max(&self) -> usize {
        1 << 20
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

/// A case's name and what it does.
type Case = (&'static str, fn(&Builder));

/// The cases that fail for a store with this bug.
fn failing(bug: Bug) -> Vec<&'static str> {
    let cases: [Case; 23] = each_case!(as_cases, ());
    let builder = Builder(bug);
    let failed =
        cases.iter().filter(|(_, case)| catch_unwind(AssertUnwindSafe(|| case(&builder))).is_err());
    failed.map(|(name, _)| *name).collect()
}

#[test]
fn every_fault_is_found_by_the_case_that_is_there_for_it() {
    std::panic::set_hook(Box::new(|_| {}));
    assert_eq!(failing(Bug::None), Vec::<&str>::new());
    for (bug, case) in [
        (Bug::CreatesOverWhatIsThere, "of_many_creators_exactly_one_wins"),
        (Bug::ReplacesWhateverIsThere, "of_many_writers_exactly_one_wins"),
        (Bug::DeletesWhateverIsThere, "a_deletion_with_an_old_revision_changes_nothing"),
        (Bug::HidesWhatConflicts, "a_conflict_changes_nothing_and_returns_what_is_there"),
        (Bug::NeverDeletes, "a_record_can_be_deleted_by_its_revision"),
        (Bug::DropsHistoryAndEvidence, "every_part_of_a_record_comes_back"),
        (Bug::CutsReplies, "a_reply_of_the_largest_size_comes_back"),
        (Bug::MixesKeysUp, "keys_do_not_disturb_each_other"),
        (Bug::LowersTheFloor, "the_floor_only_rises"),
        (Bug::ForgetsRevisions, "the_largest_revision_is_never_forgotten"),
        (Bug::ListsTwice, "pages_hold_every_record_once"),
        (Bug::ListsOtherStates, "a_listing_can_be_of_one_state"),
        (Bug::ListsForEver, "an_empty_listing_has_no_next_page"),
        (Bug::OverlooksDue, "due_names_what_time_may_have_ended"),
        (Bug::NamesTooManyDue, "due_names_at_most_so_many"),
        (Bug::TellsSeconds, "a_clock_tells_milliseconds_and_goes_on"),
    ] {
        let failed = failing(bug);
        assert!(failed.contains(&case), "{bug:?} is found by {failed:?}, not by {case}");
    }
}

#[test]
fn the_contract_names_every_case_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/store-contract.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut named: Vec<&str> = page
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- `"))
        .filter_map(|line| line.split('`').next())
        .collect();
    let mut cases = case_names();
    named.sort_unstable();
    cases.sort_unstable();
    assert_eq!(named, cases);
}
