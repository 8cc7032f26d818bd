//! Makes states alike that differ in nothing that counts, so that there are finitely many, and few.

use std::hash::{Hash, Hasher};

use onlyonce_core::{
    Cause, ClaimId, Doubt, Entry, Event, Fence, Flight, History, Record, Revision, State, Timestamp,
};

use crate::Setup;
use crate::class::{Class, Modelled, TICK, at};
use crate::holder::Holder;
use crate::mutant::OLDEST;
use crate::world::World;

/// The claim in flight, whose holder may ask again.
const SAME_CLAIM: u8 = 1;
/// A claim that is no longer in flight.
const OTHER_CLAIM: u8 = 3;

impl World {
    /// Renames what only compares, drops what nobody reads, and sorts what has no order.
    pub(crate) fn normalise(&mut self, setup: &Setup) {
        if let Some(record) = &mut self.record {
            forget_unread(setup, record);
        }
        self.rename_claims();
        self.rename_numbers();
        for holder in &mut self.holders {
            if let Holder::Ready { marked: Some(marked), .. } = holder
                && !setup.class.is_bounded()
            {
                *marked = 0;
            }
        }
        self.holders.sort_unstable();
        self.net.sort_unstable();
    }

    /// Claim ids are only ever compared with the one in flight.
    fn rename_claims(&mut self) {
        let mut flight = self.record.as_mut().and_then(|record| match &mut record.state {
            State::InFlight(flight) => Some(flight),
            State::Released { .. }
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => None,
        });
        let in_flight = flight.as_ref().map(|flight| flight.claim_id);
        let mut asked_again = false;
        for holder in &mut self.holders {
            if let Holder::Unsure { claim_id, .. } = holder {
                let same = in_flight == Some(ClaimId::from_bytes([*claim_id; 16]));
                *claim_id = if same { SAME_CLAIM } else { OTHER_CLAIM };
                asked_again |= same;
            }
        }
        if let Some(flight) = &mut flight {
            let renamed = if asked_again { SAME_CLAIM } else { 0 };
            flight.claim_id = ClaimId::from_bytes([renamed; 16]);
        }
    }

    /// Revisions and fences are compared with each other and with the time of the last write, so
    /// their order counts, and whether they are of this instant.
    fn rename_numbers(&mut self) {
        let mut numbers = Vec::with_capacity(12);
        self.each_number(|number| {
            numbers.push(number);
            number
        });
        numbers.sort_unstable();
        numbers.dedup();
        let now = self.now().as_millis();
        let earlier = numbers.partition_point(|number| *number < now);
        self.each_number(|number| {
            let at = numbers.partition_point(|other| *other < number);
            let (base, rank) = if at < earlier { (TICK / 2, at) } else { (now, at - earlier) };
            base + rank as u64
        });
    }

    fn each_number(&mut self, mut rename: impl FnMut(u64) -> u64) {
        let mut fence = |fence: &mut Fence| {
            *fence = Fence::new(rename(fence.get())).unwrap_or(*fence);
        };
        for holder in &mut self.holders {
            match holder {
                Holder::Idle | Holder::Unsure { .. } => {}
                Holder::Holding { fence: it }
                | Holder::Ready { fence: it, .. }
                | Holder::Sent { fence: it, .. } => fence(it),
            }
        }
        self.net.iter_mut().for_each(|message| fence(&mut message.fence));
        let Self { receiver, found, top, forgotten, .. } = self;
        let found = found.as_mut().map(|(fence, _)| fence);
        let seen = [receiver.seen.as_mut(), receiver.sealed.as_mut(), found];
        seen.into_iter().flatten().for_each(&mut fence);
        [top, forgotten].into_iter().flatten().for_each(&mut fence);
        let Some(record) = &mut self.record else { return };
        fence(&mut record.first_fence);
        fence(&mut record.fence);
        if let Some(only) = doubt(&mut record.state).and_then(|doubt| doubt.only.as_mut()) {
            fence(only);
        }
        let renamed = Revision::new(rename(record.revision.get()));
        record.revision = renamed.unwrap_or(record.revision);
    }
}

fn doubt(state: &mut State) -> Option<&mut Doubt> {
    match state {
        State::InFlight(flight) => flight.inherited.as_mut(),
        State::Unknown(doubt) => Some(doubt),
        State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => None,
    }
}

/// Drops what neither `decide` nor the class reads.
fn forget_unread(setup: &Setup, record: &mut Record) {
    // Of all that is told there, only this is read.
    let erased = record.history.entries().iter().find(|entry| entry.event == Event::Erased);
    let erased = erased.cloned().map(|entry| Entry { at: at(0), fence: OLDEST, ..entry });
    record.history = History::from_entries(erased);
    record.attempt = record.attempt.min(1);
    record.runs_authorised = 0;
    if setup.class != Class::Keyed {
        record.first_commit_at = record.first_commit_at.map(|_| at(0));
    }
    if let Some(doubt) = doubt(&mut record.state) {
        doubt.cause = Cause::Lapsed;
        if setup.class != Class::Queryable {
            doubt.since = at(0);
        }
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { tick, record, holders, net, receiver, found, raised, losses, .. } = self;
        (tick, holders, net, receiver, found, raised, losses).hash(hasher);
        let Self { claims, reruns, top, forgotten, told, sealed, broken, .. } = self;
        (claims, reruns, top, forgotten, told, sealed, broken).hash(hasher);
        record.is_some().hash(hasher);
        if let Some(record) = record {
            hash_record(record, hasher);
        }
    }
}

/// Without `..`, so that a new field is not left out by mistake: two records with the same hash
/// are taken for the same.
fn hash_record(record: &Record, hasher: &mut impl Hasher) {
    let Record { revision, fingerprint, credential, first_fence, fence, attempt, .. } = record;
    (revision, fingerprint, credential, first_fence, fence, attempt).hash(hasher);
    let Record { first_commit_at, runs_authorised, rerun, key_time, evidence, .. } = record;
    (first_commit_at, runs_authorised, rerun, key_time).hash(hasher);
    evidence.as_ref().map(|evidence| evidence.as_bytes()).hash(hasher);
    (record.state.kind(), record.is_erased()).hash(hasher);
    match &record.state {
        State::InFlight(Flight { claim_id, holder, lease_until, phase, inherited }) => {
            (claim_id, holder, lease_until, phase).hash(hasher);
            inherited.as_ref().map(parts).hash(hasher);
        }
        State::Released { since } => since.hash(hasher),
        State::Completed { reply, answered_at, retain_until, sealed } => {
            (reply.status(), answered_at, retain_until, sealed).hash(hasher);
        }
        State::Unknown(doubt) => parts(doubt).hash(hasher),
        State::Tombstone { answered_at, status, forget_at, sealed, digest } => {
            (answered_at, status, forget_at, sealed, digest.as_bytes()).hash(hasher);
        }
    }
}

fn parts(doubt: &Doubt) -> (Timestamp, Cause, Option<Fence>) {
    let Doubt { since, cause, only } = doubt;
    (*since, *cause, *only)
}
