//! What holders say: that they begin, go on, have an answer, or have none.

use super::settle::ended;
use super::{Context, Wish};
use crate::command::Outcome;
use crate::limits::SECOND_REPLIES_MAX;
use crate::record::{Cause, Entry, Event, Flight, Phase, Record, State};
use crate::reply::Reply;
use crate::revision::Fence;

impl Context<'_> {
    /// Rules 3 and 8.
    pub(super) fn commit(&self, record: &Record) -> (Outcome, Wish) {
        match &record.state {
            // What was to be harmless when it was claimed no longer is: it is called off.
            State::InFlight(Flight { phase: Phase::Prepared, inherited: Some(doubt), .. })
                if !self.may_run_again(record) =>
            {
                (Outcome::Fenced, Wish::state(record, State::Unknown(*doubt)))
            }
            State::InFlight(flight) if flight.phase == Phase::Prepared => {
                let mut next = record.clone();
                next.first_commit_at.get_or_insert(self.now);
                next.state = State::InFlight(Flight {
                    phase: Phase::Committing,
                    lease_until: self.now.plus(self.policy.lease),
                    ..flight.clone()
                });
                (Outcome::Done, Wish::Become(next))
            }
            State::InFlight(_) => (Outcome::Done, Wish::Stay),
            State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => (Outcome::Fenced, Wish::Stay),
        }
    }

    pub(super) fn renew(&self, record: &Record) -> (Outcome, Wish) {
        match &record.state {
            State::InFlight(flight) => {
                let lease_until = self.now.plus(self.policy.lease).max(flight.lease_until);
                let flight = Flight { lease_until, ..flight.clone() };
                (Outcome::Done, Wish::state(record, State::InFlight(flight)))
            }
            State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => (Outcome::Fenced, Wish::Stay),
        }
    }

    /// Rule 4: that it happened is true however late it is said and whoever holds the claim now.
    pub(super) fn complete(
        &self,
        record: &Record,
        fence: Fence,
        reply: &Reply,
        resolver: Option<(&str, &str)>,
    ) -> (Outcome, Wish) {
        let late = match &record.state {
            State::InFlight(_) => fence != record.fence,
            State::Released { .. } | State::Unknown(_) => true,
            State::Completed { reply: first, .. } if first == reply => {
                return (Outcome::Done, Wish::Stay);
            }
            State::Tombstone { digest, .. } if *digest == reply.digest() => {
                return (Outcome::Done, Wish::Stay);
            }
            // Of what was erased only the status is left to compare, and it does not come back.
            State::Completed { reply: first, .. }
                if record.is_erased() && first.status() == reply.status() =>
            {
                return (Outcome::Done, Wish::Stay);
            }
            State::Tombstone { status, .. } if record.is_erased() && *status == reply.status() => {
                return (Outcome::Done, Wish::Stay);
            }
            State::Completed { .. } | State::Tombstone { .. } => {
                let (by, why) = resolver.unwrap_or(("holder", ""));
                return (Outcome::SecondReply, self.alarm(record, fence, reply, (by, why)));
            }
        };
        let mut next = Record { state: self.completed(reply, false), ..record.clone() };
        let entry = match resolver {
            Some((by, why)) => Some((Event::ResolvedHappened, by, why)),
            None if late => Some((Event::LateCompletion, "holder", "")),
            None => None,
        };
        if let Some((event, by, why)) = entry {
            self.enter_of(fence, &mut next, event, by, why);
        }
        (Outcome::Done, Wish::Become(next))
    }

    /// Notes a second reply, once however often it is said. Only its status: the first one stays
    /// the only answer, and what was erased must not come back by way of another.
    fn alarm(&self, record: &Record, fence: Fence, reply: &Reply, (by, why): (&str, &str)) -> Wish {
        if SECOND_REPLIES_MAX <= record.history.count(Event::SecondReply) {
            return Wish::Stay;
        }
        let note = format!("another answer, with {}", reply.status());
        let why = if why.is_empty() { note } else { format!("{note}: {why}") };
        let mut next = record.clone();
        self.enter_of(fence, &mut next, Event::SecondReply, by, &why);
        let told = next.history.entries().last().map(Entry::without_time);
        if record.history.entries().iter().any(|known| Some(known.without_time()) == told) {
            return Wish::Stay;
        }
        Wish::Become(next)
    }

    /// Rules 4, 7 and 12: "it did not happen" speaks for this claim alone.
    pub(super) fn release(&self, record: &Record, stranger: bool) -> (Outcome, Wish) {
        let released = State::Released { since: self.now };
        let state = match &record.state {
            State::InFlight(flight) => match flight.inherited {
                Some(doubt) => State::Unknown(doubt),
                None => released,
            },
            State::Unknown(doubt) if doubt.only == Some(record.fence) => released,
            State::Unknown(_) | State::Released { .. } => return (Outcome::Done, Wish::Stay),
            State::Completed { .. } | State::Tombstone { .. } => {
                return (Outcome::Fenced, Wish::Stay);
            }
        };
        let mut next = Record { state, ..record.clone() };
        if stranger && record.attempt == 1 {
            next.fingerprint = None;
            next.credential = None;
        }
        (Outcome::Done, Wish::Become(next))
    }

    pub(super) fn abandon(&self, record: &Record, cause: Cause) -> (Outcome, Wish) {
        match &record.state {
            State::InFlight(flight) => {
                (Outcome::Done, Wish::state(record, ended(flight, record.fence, self.now, cause)))
            }
            State::Released { .. } | State::Unknown(_) => (Outcome::Done, Wish::Stay),
            State::Completed { .. } | State::Tombstone { .. } => (Outcome::Fenced, Wish::Stay),
        }
    }

    pub(super) fn certify_death(&self, record: &Record) -> (Outcome, Wish) {
        match &record.state {
            State::InFlight(flight) => {
                let state = ended(flight, record.fence, self.now, Cause::HolderDied);
                let mut next = Record { state, ..record.clone() };
                self.enter(&mut next, Event::HolderDied, "engine", "its process is gone");
                (Outcome::Done, Wish::Become(next))
            }
            State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => (Outcome::Done, Wish::Stay),
        }
    }
}
