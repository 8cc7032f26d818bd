//! A store that was put back from an older copy of itself: nothing runs there any more of which
//! nobody can know whether it ran after the copy was made.

use std::time::Duration;

use futures_util::future::join_all;
use onlyonce_core::{Command, Floor, KeyId, Policy, Record, StateKind, Timestamp, restored};
use onlyonce_failpoint::failpoint;
use onlyonce_store::{Filter, StoreError};

use crate::act::Act;
use crate::engine::Engine;
use crate::error::EngineError;

/// Records that are written at once, so that they share syncs and round trips.
const TOGETHER: usize = 64;
/// The states out of which a key may have gone on after the copy was made; what is made unknown is
/// met again among the last ones, and left alone.
const OPEN: [StateKind; 3] = [StateKind::InFlight, StateKind::Released, StateKind::Unknown];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Records that were running or free in the copy, and are unknown now.
    pub made_unknown: u64,
    /// Keys with an earlier time that have no record are refused.
    pub floor: Floor,
    /// Records that may be open and cannot be read. Nothing runs under their keys, since whoever
    /// asks for one is told so.
    pub damaged: Vec<(KeyId, StoreError)>,
}

impl Engine {
    /// Makes a store safe to use that was put back from an older copy: a dump, or a snapshot.
    ///
    /// First the floor is raised, durably, to the present and `key_ahead_max` more: a key that
    /// carries an earlier time and has no record is refused. Then every record that was running or
    /// free is made unknown, and what was in doubt is written anew. What had been answered stays.
    /// Keys without a time that first ran after the copy was made have no record, and nothing can
    /// tell them from new ones.
    ///
    /// No other process may use the store meanwhile, since it may rely on a floor that it has read
    /// before. It may be done again, and must be if it was cut off. `progress` is called with how
    /// many records were looked at so far.
    ///
    /// # Errors
    /// The store could not be asked, or a change could not be confirmed. What was done so far is
    /// done, and none of it lets a key run.
    pub async fn restored(
        &self,
        key_ahead_max: Duration,
        by: &str,
        why: &str,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Restored, EngineError> {
        let (store, begun) = (&self.inner.store, self.now());
        // A store may have been put back on a server whose clock is behind.
        let latest = begun.max(self.inner.runtime.now());
        let floor = Floor::at(latest.plus(key_ahead_max));
        // Before any record is changed: who is cut off after it has refused too much, and not
        // forgotten that something may have run.
        failpoint!("restored.floor.before", floor);
        let floor = self.inner.raise_floor(floor).await?;
        failpoint!("restored.floor.after", floor);
        let mut restored = Restored { made_unknown: 0, floor, damaged: Vec::new() };
        let mut seen = 0;
        for state in OPEN {
            let mut after = None;
            loop {
                let page = store.list(Filter { state: Some(state), limit: 0 }, after).await?;
                for some in page.records.chunks(TOGETHER) {
                    let each = some
                        .iter()
                        .map(|(id, record)| self.restored_one(*id, record, begun, (by, why)));
                    for changed in join_all(each).await {
                        let is_new = changed? && state != StateKind::Unknown;
                        restored.made_unknown += u64::from(is_new);
                    }
                    seen += some.len() as u64;
                    progress(seen);
                }
                restored.damaged.extend(page.damaged);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(restored)
    }

    /// Whether the record had to be changed, and is in doubt now.
    async fn restored_one(
        &self,
        id: KeyId,
        record: &Record,
        begun: Timestamp,
        (by, why): (&str, &str),
    ) -> Result<bool, EngineError> {
        if restored(self.now(), begun, record, by, why).is_none() {
            return Ok(false);
        }
        let (by, why) = (by.to_owned(), why.to_owned());
        let command = Command::Restore { begun, by, why };
        let act = Act::from_record(command, Policy::default(), record.clone());
        let acted = self.inner.drive(id, act, self.inner.soon()).await?;
        Ok(acted.record.is_some_and(|record| record.state.kind() == StateKind::Unknown))
    }
}
