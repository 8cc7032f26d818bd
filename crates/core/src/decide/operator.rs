//! What operators and the sweeper say: verdicts on unknown outcomes, seals, deletions.

use super::{Context, Wish, current, ever_granted};
use crate::command::{Outcome, Verdict};
use crate::record::{Event, Record, State};
use crate::reply::Reply;
use crate::revision::Fence;
use crate::time::Timestamp;

impl Context<'_> {
    /// Rules 3, 4 and 8.
    pub(super) fn resolve(
        &self,
        record: &Record,
        fence: Fence,
        verdict: &Verdict,
        (by, why): (&str, &str),
    ) -> (Outcome, Wish) {
        let (event, rerun) = match verdict {
            Verdict::Happened(reply) => {
                return ever_granted(record, fence, || {
                    self.complete(record, fence, reply, Some((by, why)))
                });
            }
            Verdict::NotExecuted => (Event::ResolvedNotExecuted, false),
            Verdict::RunAgain => (Event::ResolvedRunAgain, true),
        };
        current(record, fence, || match &record.state {
            State::Unknown(_) => {
                let mut next = record.clone();
                next.state = State::Released { since: self.now };
                next.rerun |= rerun;
                next.runs_authorised = next.runs_authorised.saturating_add(1);
                self.enter(&mut next, event, by, why);
                (Outcome::Done, Wish::Become(next))
            }
            State::Released { .. } => (Outcome::Done, Wish::Stay),
            State::InFlight(_) => (self.standing(record), Wish::Stay),
            State::Completed { .. } | State::Tombstone { .. } => (Outcome::Fenced, Wish::Stay),
        })
    }

    /// Rule 11.
    pub(super) fn seal_present(
        &self,
        record: &Record,
        reply: &Reply,
        by: &str,
        why: &str,
    ) -> (Outcome, Wish) {
        match &record.state {
            State::Released { .. } => {
                let mut next = record.clone();
                self.seal(&mut next, reply, by, why);
                (Outcome::Done, Wish::Become(next))
            }
            State::Completed { reply: first, sealed: true, .. } if first == reply => {
                (Outcome::Done, Wish::Stay)
            }
            State::InFlight(_)
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => (self.standing(record), Wish::Stay),
        }
    }

    pub(super) fn seal(&self, record: &mut Record, reply: &Reply, by: &str, why: &str) {
        record.fingerprint = None;
        record.credential = None;
        record.state = self.completed(reply, true);
        self.enter(record, Event::Sealed, by, why);
    }

    /// Rule 14. How long the key is remembered stays as it is: when an answer without content
    /// becomes a tombstone, and when that goes, its own times and the sweeper's policy say.
    pub(super) fn erase(&self, record: &Record, by: &str, why: &str) -> (Outcome, Wish) {
        let mut next = record.clone();
        match &mut next.state {
            State::Completed { .. } | State::Tombstone { .. } if record.is_erased() => {
                return (Outcome::Done, Wish::Stay);
            }
            State::Completed { reply, .. } => *reply = reply.without_content(),
            // A short answer could be guessed from its digest.
            State::Tombstone { status, digest, .. } => *digest = Reply::not_kept(*status).digest(),
            State::InFlight(_) | State::Released { .. } | State::Unknown(_) => {
                return (self.standing(record), Wish::Stay);
            }
        }
        next.evidence = None;
        self.enter(&mut next, Event::Erased, by, why);
        (Outcome::Done, Wish::Become(next))
    }

    /// Rules 9 and 10: nothing timed is deleted before the durable floor has passed it. Where that
    /// is long after its own time, because memory was made longer since, its own time is moved:
    /// else each pass would find it again.
    pub(super) fn sweep(&self, record: &Record) -> (Outcome, Wish) {
        let due = match &record.state {
            State::Released { since } => since.plus(self.policy.remember) <= self.now,
            State::Tombstone { forget_at, .. } => *forget_at <= self.now,
            State::InFlight(_) | State::Completed { .. } | State::Unknown(_) => false,
        };
        let floor_passed = record.key_time.is_none() || self.floor.is_above(record.key_time);
        // A node whose clock is behind must not make the key again with a number that it had.
        let written = Timestamp::from_millis(record.revision.get());
        let rested = written.plus(self.policy.skew_max) < self.now;
        if due && floor_passed && rested {
            return (Outcome::Done, Wish::Delete);
        }
        let mut next = record.clone();
        let floor_comes = record.key_time.map(|time| time.plus(self.policy.remember));
        if let (State::Tombstone { forget_at, .. }, Some(then)) = (&mut next.state, floor_comes)
            && due
            && self.now < then
        {
            *forget_at = then;
            return (Outcome::Done, Wish::Become(next));
        }
        (Outcome::Done, Wish::Stay)
    }
}
