//! What a sweeper leaves in the store for the next one: the floor that it has raised, and when. A
//! process that lives only for a moment cannot wait until everyone uses that floor; the next one
//! can know that they do.
//!
//! It is a record under an id that no key has, written by a swap as every record is. What it says
//! is counted in the time of records, so that a wait by it is longer by what two clocks may differ.

use std::time::Duration;

use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Fence, Floor, History, Policy, Record, Reply, Revision, State, Timestamp};
use onlyonce_store::{Store, StoreError, StoreErrorKind, transaction};

use crate::engine::FLOOR_AGE_MAX;

/// The word of sweepers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// A floor that everyone used when this was written, and when it was raised at the latest.
    pub(crate) ready: Option<(Floor, Timestamp)>,
    /// One that was raised after it, and a moment at which that was durable.
    pub(crate) raised: Option<(Floor, Timestamp)>,
}

/// How long nobody can be using an older floor any more after one was raised, by another clock.
pub(crate) const fn wait(policy: &Policy) -> Duration {
    FLOOR_AGE_MAX.saturating_mul(2).saturating_add(policy.skew_max.saturating_mul(2))
}

impl Word {
    /// What stands there, and the revision that it is replaced by. One that is not understood says
    /// nothing, and is written anew.
    pub(crate) async fn read(store: &dyn Store) -> Result<(Self, Option<Revision>), StoreError> {
        let record = match store.get(transaction::SWEPT).await {
            // Without the key that it was encrypted with.
            Err(error) if error.kind() == StoreErrorKind::Damaged => None,
            read => read?,
        };
        let revision = record.as_ref().map(|record| record.revision);
        let word = record.as_ref().and_then(|record| parsed(text(record)?));
        Ok((word.unwrap_or_default(), revision))
    }

    /// The same at this time: what was raised long enough before is used by everyone.
    pub(crate) fn at(self, now: Timestamp, policy: &Policy) -> Self {
        match self.raised {
            Some((_, at)) if at.plus(wait(policy)) <= now => {
                Self { ready: self.raised.max(self.ready), raised: None }
            }
            Some(_) | None => self,
        }
    }

    /// Puts it there if what was read still stands. Who is faster has said as much.
    pub(crate) async fn write(
        self,
        store: &dyn Store,
        before: Option<Revision>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let record = record(Revision::after(before, now), self.text(), now);
        store.swap(transaction::SWEPT, before, Some(record)).await.map(drop)
    }

    fn text(self) -> String {
        let line = |name: &str, said: Option<(Floor, Timestamp)>| {
            said.map_or_else(String::new, |(floor, at)| {
                format!("{name} {} {}\n", floor.time().as_millis(), at.as_millis())
            })
        };
        line("ready", self.ready) + &line("raised", self.raised)
    }
}

fn parsed(text: &str) -> Option<Word> {
    let mut word = Word::default();
    for line in text.lines() {
        let mut parts = line.split(' ');
        let name = parts.next()?;
        let mut time = || Some(Timestamp::from_millis(parts.next()?.parse().ok()?));
        let said = Some((Floor::at(time()?), time()?));
        match name {
            "ready" => word.ready = said,
            "raised" => word.raised = said,
            _ => return None,
        }
    }
    Some(word)
}

fn text(record: &Record) -> Option<&str> {
    match &record.state {
        State::Completed { reply, .. } => std::str::from_utf8(reply.content()?).ok(),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    }
}

/// One that time never ends and nobody claims.
fn record(revision: Revision, text: String, now: Timestamp) -> Record {
    let fence = Fence::of(revision);
    Record {
        revision,
        fingerprint: None,
        credential: None,
        first_fence: fence,
        fence,
        attempt: 0,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: None,
        evidence: None,
        history: History::default(),
        state: State::Completed {
            reply: Reply::kept(0, text),
            answered_at: now,
            retain_until: Timestamp::default().plus(FOREVER),
            sealed: true,
        },
    }
}
