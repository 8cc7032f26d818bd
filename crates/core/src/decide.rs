//! The transition table: time acts first ([`settle`]), then the command. [`decide`] is the pair.
//!
//! `docs/states.md` states the table in words; `tests/table.rs` checks every cell. The rules are
//! numbered as there.

mod holder;
mod operator;
mod restored;
mod settle;

use crate::command::{Claim, Command, Decision, Look, Next, Outcome};
use crate::fingerprint::{Credential, Fingerprint};
use crate::policy::{Policy, Remedy};
use crate::record::{Doubt, Entry, Event, Flight, History, Phase, Record, State};
use crate::reply::Reply;
use crate::revision::{Fence, Revision};
use crate::time::{Floor, Timestamp};
pub use restored::restored;
pub use settle::settle;

/// What `command` means for `record` at `now`: what to tell the asker and what to store first.
///
/// `floor` is the store's durable floor and `policy` the route's or effect's. The caller may tell
/// the outcome only after the store has confirmed `next`; but [`Outcome::SecondReply`] is true of
/// `record` whether or not what notes it can be stored.
pub fn decide(
    now: Timestamp,
    floor: Floor,
    policy: &Policy,
    record: Option<&Record>,
    command: &Command,
) -> Decision {
    let context = Context { now, floor, policy };
    let Some(record) = record else {
        return context.absent(command);
    };
    // Of a copy time tells nothing: a lease in it may have been renewed since.
    let is_copy = matches!(command, Command::Restore { .. });
    let settled = if is_copy { record.clone() } else { settle(now, policy, record) };
    let (outcome, wish) = context.present(&settled, command);
    let revision = Revision::after(Some(record.revision), now);
    let next = match wish {
        Wish::Delete => return Decision { outcome, next: Next::Delete },
        // A claim is named after the write that grants it.
        Wish::Grant(next) => {
            let fence = Fence::of(revision);
            let next = Next::Write(Record { revision, fence, ..next });
            return Decision { outcome: Outcome::Granted(fence), next };
        }
        Wish::Become(next) => next,
        Wish::Stay => settled,
    };
    let next = if next == *record { Next::Keep } else { Next::Write(Record { revision, ..next }) };
    Decision { outcome, next }
}

/// What a command makes of a settled record.
#[allow(clippy::large_enum_variant, reason = "lives for one call, boxing would cost more")]
enum Wish {
    Stay,
    Become(Record),
    /// `Become`, by a claim whose fence is the revision of the coming write.
    Grant(Record),
    Delete,
}

impl Wish {
    fn state(record: &Record, state: State) -> Self {
        Self::Become(Record { state, ..record.clone() })
    }
}

struct Context<'a> {
    now: Timestamp,
    floor: Floor,
    policy: &'a Policy,
}

impl Context<'_> {
    fn absent(&self, command: &Command) -> Decision {
        let refuse = |outcome| Decision { outcome, next: Next::Keep };
        let revision = Revision::after(None, self.now);
        let fence = Fence::of(revision);
        match command {
            Command::Claim(claim) if self.floor.is_above(claim.key_time) => {
                refuse(Outcome::Expired)
            }
            Command::Look(look) if self.floor.is_above(look.key_time) => refuse(Outcome::Expired),
            Command::Seal { key_time, .. } if self.floor.is_above(*key_time) => {
                refuse(Outcome::Expired)
            }
            Command::Claim(claim) => {
                let mut record = blank(revision, claim.key_time);
                self.grant(&mut record, claim, None);
                Decision { outcome: Outcome::Granted(fence), next: Next::Write(record) }
            }
            Command::Seal { reply, key_time, by, why } => {
                let mut record = blank(revision, *key_time);
                self.seal(&mut record, reply, by, why);
                Decision { outcome: Outcome::Done, next: Next::Write(record) }
            }
            Command::Look(_)
            | Command::Commit { .. }
            | Command::Renew { .. }
            | Command::Note { .. }
            | Command::Complete { .. }
            | Command::Release { .. }
            | Command::Abandon { .. }
            | Command::CertifyDeath { .. }
            | Command::Resolve { .. }
            | Command::Erase { .. }
            | Command::Restore { .. }
            | Command::Sweep => refuse(Outcome::Absent),
        }
    }

    fn present(&self, record: &Record, command: &Command) -> (Outcome, Wish) {
        match command {
            Command::Claim(claim) => self.claim(record, claim),
            Command::Look(look) => (self.look(record, look), Wish::Stay),
            Command::Commit { fence } => current(record, *fence, || self.commit(record)),
            Command::Renew { fence } => current(record, *fence, || self.renew(record)),
            Command::Note { fence, evidence } => current(record, *fence, || match record.state {
                State::InFlight(_) | State::Unknown(_) => {
                    let evidence = Some(evidence.clone());
                    let next = Record { evidence, ..record.clone() };
                    (Outcome::Done, Wish::Become(next))
                }
                State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => {
                    (Outcome::Fenced, Wish::Stay)
                }
            }),
            Command::Complete { fence, reply } => {
                ever_granted(record, *fence, || self.complete(record, *fence, reply, None))
            }
            Command::Release { fence, stranger } => {
                current(record, *fence, || self.release(record, *stranger))
            }
            Command::Abandon { fence, cause } => {
                current(record, *fence, || self.abandon(record, *cause))
            }
            Command::CertifyDeath { fence } => {
                current(record, *fence, || self.certify_death(record))
            }
            Command::Resolve { fence, verdict, by, why } => {
                self.resolve(record, *fence, verdict, (by, why))
            }
            Command::Seal { reply, by, why, .. } => self.seal_present(record, reply, by, why),
            Command::Erase { by, why } => self.erase(record, by, why),
            Command::Restore { begun, by, why } => {
                let next = restored(self.now, *begun, record, by, why);
                (Outcome::Done, next.map_or(Wish::Stay, Wish::Become))
            }
            Command::Sweep => self.sweep(record),
        }
    }

    /// Rules 1, 6, 7, 8 and 9.
    fn claim(&self, record: &Record, claim: &Claim) -> (Outcome, Wish) {
        if let Some(refusal) = stranger(record, claim.fingerprint, claim.credential) {
            return (refusal, Wish::Stay);
        }
        let below_floor =
            self.floor.is_above(record.key_time) || self.floor.is_above(claim.key_time);
        let granted = |inherited| {
            let mut next = record.clone();
            self.grant(&mut next, claim, inherited);
            (Outcome::Granted(record.fence), Wish::Grant(next))
        };
        match &record.state {
            State::InFlight(flight) if flight.claim_id == claim.claim_id => {
                (Outcome::Granted(record.fence), Wish::Stay)
            }
            State::Released { .. } if !below_floor => granted(None),
            State::Unknown(doubt) if self.may_run_again(record) && !below_floor => {
                granted(Some(*doubt))
            }
            State::Released { .. } => (Outcome::Expired, Wish::Stay),
            State::InFlight(_)
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => (self.standing(record), Wish::Stay),
        }
    }

    /// Whether the receiver makes a run out of an unknown outcome harmless, now.
    fn may_run_again(&self, record: &Record) -> bool {
        self.policy.remedy_at(record.first_commit_at, self.now) == Remedy::RunAgain
    }

    fn look(&self, record: &Record, look: &Look) -> Outcome {
        if let Some(refusal) = stranger(record, look.fingerprint, look.credential) {
            return refusal;
        }
        self.standing(record)
    }

    /// What a record says about itself to whoever may ask.
    fn standing(&self, record: &Record) -> Outcome {
        match &record.state {
            State::InFlight(flight) => Outcome::InFlight { lease_until: flight.lease_until },
            State::Released { .. } if self.floor.is_above(record.key_time) => Outcome::Expired,
            State::Released { .. } => Outcome::Absent,
            State::Completed { reply, answered_at, sealed, .. } => match reply.content() {
                Some(_) => Outcome::Replay {
                    reply: reply.clone(),
                    answered_at: *answered_at,
                    sealed: *sealed,
                },
                None => Outcome::Gone {
                    answered_at: *answered_at,
                    status: reply.status(),
                    sealed: *sealed,
                },
            },
            State::Unknown(doubt) => {
                Outcome::OutcomeUnknown { since: doubt.since, cause: doubt.cause }
            }
            State::Tombstone { forget_at, .. }
                if *forget_at <= self.now && record.key_time.is_some() =>
            {
                Outcome::Expired
            }
            State::Tombstone { answered_at, status, sealed, .. } => {
                Outcome::Gone { answered_at: *answered_at, status: *status, sealed: *sealed }
            }
        }
    }

    fn grant(&self, record: &mut Record, claim: &Claim, inherited: Option<Doubt>) {
        record.fingerprint = Some(claim.fingerprint);
        record.credential = claim.credential;
        record.attempt = record.attempt.saturating_add(1);
        record.evidence = None;
        if claim.phase == Phase::Committing {
            record.first_commit_at.get_or_insert(self.now);
        }
        if inherited.is_some() {
            record.runs_authorised = record.runs_authorised.saturating_add(1);
            let class = self.policy.class_at(record.first_commit_at, self.now);
            let why = format!("the receiver is {class}");
            self.enter(record, Event::RetriedByPolicy, "policy", &why);
        }
        record.state = State::InFlight(Flight {
            claim_id: claim.claim_id,
            holder: claim.holder,
            lease_until: self.now.plus(self.policy.lease),
            phase: claim.phase,
            inherited,
        });
    }

    fn completed(&self, reply: &Reply, sealed: bool) -> State {
        State::Completed {
            reply: reply.clone(),
            answered_at: self.now,
            retain_until: self.now.plus(self.policy.retention),
            sealed,
        }
    }

    fn enter(&self, record: &mut Record, event: Event, by: &str, why: &str) {
        self.enter_of(record.fence, record, event, by, why);
    }

    /// [`Self::enter`] about a claim that need not be the latest.
    fn enter_of(&self, fence: Fence, record: &mut Record, event: Event, by: &str, why: &str) {
        let (by, why) = (by.to_owned(), why.to_owned());
        record.history.push(Entry { at: self.now, event, fence, by, why });
    }
}

/// A record before its first claim or seal; the write that makes it names its first fence.
fn blank(revision: Revision, key_time: Option<Timestamp>) -> Record {
    Record {
        revision,
        fingerprint: None,
        credential: None,
        first_fence: Fence::of(revision),
        fence: Fence::of(revision),
        attempt: 0,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time,
        evidence: None,
        history: History::default(),
        // Replaced at once by the claim or seal that the record is made for.
        state: State::Released { since: Timestamp::from_millis(0) },
    }
}

/// Whether the asker is not the one this record is about: another credential that nobody has
/// verified (rule 13), or another request (rule 1). Checked before anything else.
fn stranger(
    record: &Record,
    fingerprint: Fingerprint,
    credential: Option<Credential>,
) -> Option<Outcome> {
    let (open, sealed) = match &record.state {
        // Unless an earlier attempt may have happened after all, nothing has under the old
        // credential, so there is nothing to keep from a new one.
        State::Released { .. } => (!record.rerun, false),
        State::Completed { sealed, .. } | State::Tombstone { sealed, .. } => (*sealed, *sealed),
        State::InFlight(_) | State::Unknown(_) => (false, false),
    };
    if !open && credential.is_some() && credential != record.credential {
        return Some(Outcome::CredentialChanged);
    }
    match record.fingerprint {
        Some(stored) if stored != fingerprint && !sealed => Some(Outcome::Mismatch),
        Some(_) | None => None,
    }
}

/// Runs `then` if `fence` names the latest claim (rule 3).
fn current(
    record: &Record,
    fence: Fence,
    then: impl FnOnce() -> (Outcome, Wish),
) -> (Outcome, Wish) {
    match fence.cmp(&record.fence) {
        core::cmp::Ordering::Greater => (Outcome::InvalidFence, Wish::Stay),
        core::cmp::Ordering::Less => (Outcome::Fenced, Wish::Stay),
        core::cmp::Ordering::Equal => then(),
    }
}

/// Runs `then` if `fence` can name a claim of this record's life (rule 4).
fn ever_granted(
    record: &Record,
    fence: Fence,
    then: impl FnOnce() -> (Outcome, Wish),
) -> (Outcome, Wish) {
    if record.fence < fence {
        (Outcome::InvalidFence, Wish::Stay)
    } else if fence < record.first_fence {
        (Outcome::Fenced, Wish::Stay)
    } else {
        then()
    }
}
