//! The store and the line to it. A call can be lost on its way there, on its way back, or be given
//! up by its caller and take place later.

use std::time::Duration;

use onlyonce::FLOOR_AGE_MAX;
use onlyonce_core::{Event, Floor, Phase, Record, Revision, State};
use onlyonce_store::Swap;

use super::{Called, KEYS, World};
use crate::bug::Bug;
use crate::invariants::{floor, kept, revisions, sealed};
use crate::random::Random;

/// A call that was given up takes place within so many milliseconds or never, as the store contract
/// asks: below the age of a floor, so that the sweeper outwaits both.
const LATE_MAX: u64 = 25_000;

/// A swap that its caller has given up.
#[derive(Clone, Debug)]
pub(super) struct Late {
    key: usize,
    sent_at: u64,
    expected: Option<Revision>,
    next: Option<Record>,
}

/// What the line does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Fine,
    LostThere,
    LostBack,
    Late,
}

impl World {
    fn line(&self, random: &mut Random) -> Line {
        let line = match random.below(24) {
            0 => Line::LostThere,
            1 => Line::LostBack,
            2 => Line::Late,
            _ => Line::Fine,
        };
        if self.faults { line } else { Line::Fine }
    }

    pub(crate) fn get(&mut self, key: usize, random: &mut Random) -> Called<Option<Record>> {
        let line = self.line(random);
        if line == Line::Fine {
            return Called::Answer(self.keys[key].record.clone());
        }
        self.note(key, || format!("read: {line:?}"));
        if self.bug == Bug::LostIsAbsent { Called::Answer(None) } else { Called::Lost }
    }

    pub(crate) fn swap(
        &mut self,
        key: usize,
        expected: Option<Revision>,
        next: Option<Record>,
        random: &mut Random,
    ) -> Called<Swap> {
        let line = self.line(random);
        if line != Line::Fine {
            self.note(key, || format!("swap: {line:?}"));
        }
        match line {
            Line::Fine => Called::Answer(self.swap_now(key, expected, next)),
            Line::LostThere if self.bug == Bug::LostIsDone => Called::Answer(Swap::Done),
            Line::LostThere => Called::Lost,
            Line::LostBack => {
                self.swap_now(key, expected, next);
                Called::Lost
            }
            Line::Late => {
                self.late.push(Late { key, sent_at: self.now, expected, next });
                Called::Lost
            }
        }
    }

    /// A call that was given up arrives after all, unless it is too old.
    pub(super) fn arrive_late(&mut self, at: usize) {
        let Late { key, sent_at, expected, next } = self.late.swap_remove(at);
        if self.now <= sent_at + LATE_MAX {
            self.note(key, || "a swap that was given up arrives".to_owned());
            self.swap_now(key, expected, next);
        }
    }

    pub(super) fn swap_now(
        &mut self,
        key: usize,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Swap {
        let stands = self.keys[key].record.as_ref().map(|record| record.revision);
        if stands != expected && self.bug != Bug::StoreIgnoresRevision {
            self.note(key, || "swap: conflict".to_owned());
            return Swap::Conflict(self.keys[key].record.clone());
        }
        match &next {
            Some(next) => self.written(key, next),
            None => self.deleted(key),
        }
        self.keys[key].record = next;
        Swap::Done
    }

    /// The oracle looks at a write that takes place now.
    fn written(&mut self, key: usize, next: &Record) {
        self.note(key, || format!("written: {} {:?}", next.revision.get(), next.state));
        let (now, timed) = (self.now, self.key_time(key).is_some());
        let known = &mut self.keys[key];
        let late = FLOOR_AGE_MAX < Duration::from_millis(now.saturating_sub(next.fence.get()));
        known.reborn |= timed && late && known.record.is_none() && !known.revisions.is_empty();
        let known = &self.keys[key];
        let before = known.record.as_ref();
        // What was stopped on its way to a key that was deleted may bear a number of that time. It
        // is taken back, by a number of now.
        let is_old = late && before.is_none();
        let broken = (!is_old)
            .then(|| revisions::check(known, next))
            .flatten()
            .or_else(|| sealed::check(known, next))
            .or_else(|| floor::check(known, next));
        let allowed = allows(before, next);
        let ended = before.filter(|before| {
            let still = matches!(next.state, State::InFlight(_)) && before.fence == next.fence;
            matches!(before.state, State::InFlight(_)) && !still
        });
        let ended = ended.map(|before| before.fence);
        let known = &mut self.keys[key];
        known.given_up.extend(ended.map(|fence| (fence, now)));
        known.revisions.push(next.revision.get());
        known.allowed += usize::from(allowed);
        known.erased |= next.is_erased();
        match &next.state {
            State::InFlight(flight) if flight.phase == Phase::Committing => {
                if known.marked.last().is_none_or(|(last, _)| *last != next.fence) {
                    known.marked.push((next.fence, next.revision.get()));
                }
            }
            State::Completed { sealed, .. } => known.sealed |= *sealed,
            State::InFlight(_)
            | State::Released { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => {}
        }
        self.report(key, broken);
    }

    fn deleted(&mut self, key: usize) {
        self.note(key, || "deleted".to_owned());
        let timed = self.key_time(key).is_some();
        let broken = kept::check(&self.keys[key], timed, self.now);
        self.report(key, broken);
        if !timed {
            self.keys[key].forget();
        }
    }

    /// The sweeper's first step, durable at once. Returns the floor that it may rely on later.
    pub(crate) fn raise_floor(&mut self, to: Floor) -> Floor {
        self.floor = self.floor.max(to);
        for key in 0..KEYS {
            if self.floor.is_above(self.key_time(key)) {
                self.keys[key].passed_at.get_or_insert(self.now);
            }
        }
        self.floor
    }
}

/// Whether a write lets an operation run that may have happened: only a person can. What the policy
/// has run again the receiver makes harmless, or it is a fault.
fn allows(before: Option<&Record>, next: &Record) -> bool {
    let State::Released { .. } = next.state else { return false };
    let by_hand = next.history.entries().last().map(|entry| entry.event);
    let new = before.is_some_and(|it| it.runs_authorised < next.runs_authorised);
    new && by_hand == Some(Event::ResolvedRunAgain)
}
