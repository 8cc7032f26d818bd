//! What a sweeper leaves in the store for the next one: the floor that it has raised, and when. A
//! process that lives only for a moment cannot wait until everyone uses that floor; the next one
//! can know that they do.
//!
//! It is a record under an id that no key has, written by a swap as every record is. What it says
//! is counted in the time of records, so that a wait by it is longer by what two clocks may differ;
//! and by the host's boot too, where that is the same: a clock that is put forward is no wait.

use std::time::Duration;

use onlyonce_core::{Floor, Policy, Record, Revision, State, Timestamp};
use onlyonce_store::{Store, StoreError, own, transaction};

use crate::engine::FLOOR_AGE_MAX;
use crate::runtime::Uptime;

/// The word of sweepers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// A floor that everyone used when this was written, and when it was raised at the latest.
    pub(crate) ready: Option<(Floor, Timestamp)>,
    /// One that was raised after it, and a moment at which that was durable.
    pub(crate) raised: Option<(Floor, Timestamp)>,
    /// The same moment as that host counts it, if it does. Of an older program there is none.
    pub(crate) uptime: Option<Uptime>,
}

/// How long nobody can be using an older floor any more after one was raised, by another clock.
pub(crate) const fn wait(policy: &Policy) -> Duration {
    FLOOR_AGE_MAX.saturating_mul(2).saturating_add(policy.skew_max.saturating_mul(2))
}

impl Word {
    /// What stands there, and the revision that it is replaced by. One that can be read and is not
    /// understood says nothing, and is written anew.
    ///
    /// # Errors
    /// The store's. One that is damaged cannot be replaced, since its revision is not known.
    pub(crate) async fn read(store: &dyn Store) -> Result<(Self, Option<Revision>), StoreError> {
        let record = store.get(transaction::SWEPT).await?;
        let revision = record.as_ref().map(|record| record.revision);
        let word = record.as_ref().and_then(|record| parsed(text(record)?));
        Ok((word.unwrap_or_default(), revision))
    }

    /// The same at this time: what was raised long enough before is used by everyone.
    pub(crate) fn at(self, now: Timestamp, uptime: Option<Uptime>, policy: &Policy) -> Self {
        let wait = wait(policy);
        let passed = uptime.zip(self.uptime).and_then(|(now, then)| now.since(&then));
        match self.raised {
            Some((_, at)) if at.plus(wait) <= now && passed.is_none_or(|it| wait <= it) => {
                Self { ready: self.raised.max(self.ready), raised: None, uptime: None }
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
        let record = own::record(Revision::after(before, now), self.text(), now);
        store.swap(transaction::SWEPT, before, Some(record)).await.map(drop)
    }

    fn text(self) -> String {
        let line = |name: &str, said: Option<(Floor, Timestamp)>, more: &str| {
            said.map_or_else(String::new, |(floor, at)| {
                format!("{name} {} {}{more}\n", floor.time().as_millis(), at.as_millis())
            })
        };
        // An older program leaves out what follows the two numbers.
        let uptime = self.uptime.map_or_else(String::new, |it| {
            let (boot, since) = (u128::from_be_bytes(it.boot), it.since_boot.as_millis());
            format!(" {boot:032x} {} {since}", it.time_namespace)
        });
        line("ready", self.ready, "") + &line("raised", self.raised, &uptime)
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
            "raised" => {
                word.raised = said;
                if let Some(boot) = parts.next() {
                    word.uptime = Some(uptime(boot, parts)?);
                }
            }
            _ => return None,
        }
    }
    Some(word)
}

fn uptime<'a>(boot: &str, mut more: impl Iterator<Item = &'a str>) -> Option<Uptime> {
    let boot = u128::from_str_radix(boot, 16).ok()?.to_be_bytes();
    let time_namespace = more.next()?.parse().ok()?;
    let since_boot = Duration::from_millis(more.next()?.parse().ok()?);
    Some(Uptime { boot, time_namespace, since_boot })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written_and_so_is_one_of_an_older_program() {
        let said = |at| Some((Floor::at(Timestamp::from_millis(at)), Timestamp::from_millis(9)));
        let since_boot = Duration::from_millis(7);
        let uptime = Some(Uptime { boot: [0xA; 16], time_namespace: 5, since_boot });
        for word in [
            Word::default(),
            Word { ready: said(1), ..Word::default() },
            Word { raised: said(2), uptime, ..Word::default() },
            Word { ready: said(1), raised: said(2), uptime },
        ] {
            assert_eq!(parsed(&word.text()), Some(word));
        }
        let older = Word { ready: said(1), raised: said(2), uptime: None };
        assert_eq!(parsed("ready 1 9\nraised 2 9\n"), Some(older));
        for wrong in ["", "raised 2", "raised 2 9 x", "raised 2 9 a 5", "lowered 2 9"] {
            let word = parsed(wrong);
            assert_eq!(word, wrong.is_empty().then(Word::default), "{wrong}");
        }
    }
}
