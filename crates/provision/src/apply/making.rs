//! One resource in one apply: made or found through the engine, then waited for until it is ready.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::Answer;
use onlyonce_core::{Outcome, Policy, Record, Reply, State, StateKind, Timestamp};
use tokio::time::sleep;

use super::{Became, InDoubt, Step, Work};
use crate::creation::{Course, Creation, Met, Tell, told};
use crate::destroy::Departing;
use crate::error::ProvisionError;
use crate::kind::{Readiness, Seen};
use crate::plan::Resource;
use crate::provisioner::{Place, Provisioner, is_over, no_id, policy_of_verdicts, receipt_of};
use crate::receipt::{How, Receipt};

/// How often one that is not ready is asked again.
const READY_EVERY: Duration = Duration::from_secs(1);
/// How often a generation with which nothing was made is given up before this is called contended.
const TRIES_MAX: u32 = 8;

impl Provisioner {
    /// Makes one resource, unless it is there, and waits until it is ready. `ids` has those of the
    /// resources that it waits for.
    pub(super) async fn make(
        &self,
        at: usize,
        ids: &BTreeMap<String, String>,
        wait: Duration,
        tell: &Tell,
    ) -> Result<Became, ProvisionError> {
        let resource = &self.plan.resources[at];
        let inputs = match resource.filled(|key| ids.get(key).cloned()) {
            Ok(inputs) => inputs,
            Err(on) => return Ok(Became::Waits(on)),
        };
        for _ in 0..TRIES_MAX {
            let place = self.place(&resource.key).await?;
            if let Some(became) = self.departing(&place, resource).await?.in_the_way() {
                return Ok(became);
            }
            let course = Arc::new(Mutex::new(Course::default()));
            let creation = Creation {
                provisioner: self.clone(),
                at,
                identity: self.identity(&resource.key, place.generation),
                inputs: inputs.clone(),
                digests: self.digests(&inputs),
                course: Arc::clone(&course),
                tell: tell.clone(),
            };
            let request = self.request(place.id, resource, &inputs);
            let answer = self.engine.once(&request, &resource.policy, wait, creation).await?;
            let course = Course::taken(&course);
            let outcome = match answer {
                Answer::Reply(reply) => {
                    return Ok(self.there(at, &place, &inputs, &reply, true, tell).await);
                }
                Answer::Replayed(reply) => {
                    let fresh = course.met.is_some();
                    return Ok(self.there(at, &place, &inputs, &reply, fresh, tell).await);
                }
                Answer::NotExecuted(reply) => return Ok(not_executed(course.met, &reply)),
                Answer::Unrecorded(reply) => {
                    return Ok(self.unrecorded(resource, Receipt::of(&reply), course.words()));
                }
                Answer::Refused(outcome) => outcome,
                other => return Ok(Became::CannotTell(format!("not understood: {other:?}"))),
            };
            if outcome != Outcome::Mismatch || !self.give_up(&place, &inputs).await? {
                return self.refused(&place, resource, outcome, &inputs, course).await;
            }
        }
        Ok(Became::Busy("others change it all the time".into()))
    }

    /// Ends a generation with which certainly nothing was made, so that other inputs can follow.
    pub(crate) async fn give_up(
        &self,
        place: &Place,
        inputs: &BTreeMap<String, String>,
    ) -> Result<bool, ProvisionError> {
        let record = self.engine.get(place.id).await?;
        let is_free = record.as_ref().is_some_and(|record| match record.state {
            State::Released { .. } => !record.may_have_run(),
            State::InFlight(_)
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => false,
        });
        if !is_free {
            return Ok(false);
        }
        let names = inputs.keys().cloned().collect::<Vec<_>>().join(", ");
        let why = format!("nothing was made with them, and the inputs have changed ({names})");
        let (policy, reply) = (policy_of_verdicts(), Reply::not_kept(410));
        let sealed = self.engine.seal(place.id, &policy, reply, None, "apply", &why).await?;
        // If somebody was faster it is looked at again all the same.
        Ok(sealed.outcome == Outcome::Done || sealed.record.is_some())
    }

    /// It is there by the record: whether it still is, and whether it can be used. If not, somebody
    /// may have destroyed it since that was asked: then that is why.
    async fn there(
        &self,
        at: usize,
        place: &Place,
        inputs: &BTreeMap<String, String>,
        reply: &Reply,
        fresh: bool,
        tell: &Tell,
    ) -> Became {
        let became = self.stands_by(at, place, inputs, reply, fresh, tell).await;
        if matches!(became, Became::Ready(_)) {
            return became;
        }
        let resource = &self.plan.resources[at];
        // What is known already is true, whatever the store says now.
        let Ok(place) = self.place(&resource.key).await else { return became };
        let departing = self.departing(&place, resource).await;
        departing.ok().and_then(Departing::in_the_way).unwrap_or(became)
    }

    async fn stands_by(
        &self,
        at: usize,
        place: &Place,
        inputs: &BTreeMap<String, String>,
        reply: &Reply,
        fresh: bool,
        tell: &Tell,
    ) -> Became {
        let resource = &self.plan.resources[at];
        let Some(receipt) = Receipt::of(reply) else {
            return Became::NoId(no_id(&resource.kind));
        };
        if !fresh && let Some(drifted) = self.drifted(place, resource, inputs, &receipt).await {
            return drifted;
        }
        // Whoever listened may be gone.
        let _ = tell.send((at, Step::There(receipt.clone())));
        let identity = self.identity(&resource.key, place.generation);
        let call = self.call(resource, &identity, inputs, Some(&receipt.id));
        let until = self.engine.now().plus(resource.ready_within);
        let mut last = String::new();
        loop {
            let why = match resource.kind.ready(&call).await {
                Readiness::Ready => return Became::Ready(receipt),
                Readiness::Failed(why) => return Became::NotReady { receipt, why },
                Readiness::NotYet(why) => why,
            };
            if until <= self.engine.now() {
                return Became::NotReady { receipt, why };
            }
            if why != last {
                let _ = tell.send((at, Step::Waiting(why.clone())));
                last = why;
            }
            sleep(READY_EVERY).await;
        }
    }

    /// What is in the way of what was once there. A record says what was; only a look says what is.
    pub(crate) async fn drifted(
        &self,
        place: &Place,
        resource: &Resource,
        inputs: &BTreeMap<String, String>,
        receipt: &Receipt,
    ) -> Option<Became> {
        let is_marked = match receipt.how {
            How::Created | How::Found => true,
            // It need not carry our marker.
            How::Told => false,
        };
        if !is_marked || !resource.kind.can_check() {
            return None;
        }
        let identity = self.identity(&resource.key, place.generation);
        let call = self.call(resource, &identity, inputs, Some(&receipt.id));
        match resource.kind.check(&call).await {
            Seen::Ours(id) if id == receipt.id => None,
            Seen::Several(ids) => Some(Became::Duplicate(ids)),
            Seen::CannotTell(why) => Some(Became::CannotTell(why)),
            seen @ (Seen::Absent | Seen::Ours(_) | Seen::NotOurs(_)) => {
                let why = told(&seen);
                Some(match self.may_lag(place, resource, receipt).await {
                    Ok(true) => {
                        let made = &receipt.id;
                        Became::CannotTell(format!("{why}: {made}, just made, may not show yet"))
                    }
                    Ok(false) => Became::Missing { receipt: receipt.clone(), why },
                    Err(error) => Became::CannotTell(format!("{why} ({error})")),
                })
            }
        }
    }

    /// Whether what is looked at may lag behind: it was made so shortly before.
    async fn may_lag(
        &self,
        place: &Place,
        resource: &Resource,
        receipt: &Receipt,
    ) -> Result<bool, ProvisionError> {
        let Some(settle) = settle_of(&resource.policy) else { return Ok(false) };
        // Another apply may have made it while this one waited.
        let Some(record) = self.engine.get(place.id).await? else { return Ok(false) };
        let is_it = receipt_of(&record).is_some_and(|it| it.id == receipt.id);
        Ok(match record.state {
            State::Completed { answered_at, .. } if is_it => {
                let shows_by = answered_at.plus(resource.policy.skew_max).plus(settle);
                self.engine.now() < shows_by
            }
            State::Completed { .. }
            | State::InFlight(_)
            | State::Released { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => false,
        })
    }

    async fn refused(
        &self,
        place: &Place,
        resource: &Resource,
        outcome: Outcome,
        inputs: &BTreeMap<String, String>,
        course: Course,
    ) -> Result<Became, ProvisionError> {
        let record = match self.engine.get(place.id).await {
            Ok(record) => record,
            // Whatever the store says now, this apply has asked for it.
            Err(error) if course.is_sent => {
                let why = format!("{} ({error})", course.words());
                return Ok(self.unrecorded(resource, None, why));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(match (outcome, record) {
            (Outcome::OutcomeUnknown { .. }, Some(record))
                if course.is_sent && record.state.kind() == StateKind::InFlight =>
            {
                self.unrecorded(resource, None, course.words())
            }
            (Outcome::OutcomeUnknown { .. }, Some(record)) => {
                Became::Unknown(self.doubt(resource, &record, course.words()))
            }
            (Outcome::Mismatch, record) => self.changed(record.as_ref(), inputs),
            (Outcome::InFlight { .. }, _) => Became::Busy("another apply is at it".into()),
            (Outcome::Gone { .. }, Some(record)) if is_over(&record) => {
                Became::Busy("somebody has forgotten it meanwhile".into())
            }
            // The store had no room for more when it was made.
            (Outcome::Gone { sealed: false, .. }, _) => Became::NoId(no_id(&resource.kind)),
            (
                Outcome::OutcomeUnknown { .. }
                | Outcome::Granted(_)
                | Outcome::Replay { .. }
                | Outcome::CredentialChanged
                | Outcome::Gone { sealed: true, .. }
                | Outcome::Expired
                | Outcome::Done
                | Outcome::Fenced
                | Outcome::InvalidFence
                | Outcome::SecondReply
                | Outcome::Absent,
                _,
            ) => Became::Busy("somebody else has changed its record meanwhile".into()),
        })
    }

    /// What was sent just now, and is not recorded.
    fn unrecorded(&self, resource: &Resource, receipt: Option<Receipt>, why: String) -> Became {
        let now = self.engine.now();
        Became::Unrecorded { receipt, remedy: resource.policy.remedy_at(Some(now), now), why }
    }

    pub(crate) fn changed(
        &self,
        record: Option<&Record>,
        inputs: &BTreeMap<String, String>,
    ) -> Became {
        let receipt = record.and_then(receipt_of);
        let inputs =
            receipt.as_ref().map(|it| it.changed(&self.digests(inputs))).unwrap_or_default();
        Became::Changed { inputs, receipt }
    }

    /// What is known of an outcome that nobody knows, and what the next apply does about it.
    pub(crate) fn doubt(&self, resource: &Resource, record: &Record, why: String) -> InDoubt {
        self.doubt_of(Work::Making, &resource.policy, record, why)
    }

    /// The same of any work, under its policy.
    pub(crate) fn doubt_of(
        &self,
        work: Work,
        policy: &Policy,
        record: &Record,
        why: String,
    ) -> InDoubt {
        let now = self.engine.now();
        let (since, cause) = match &record.state {
            State::Unknown(doubt) => (doubt.since, doubt.cause),
            State::InFlight(_)
            | State::Released { .. }
            | State::Completed { .. }
            | State::Tombstone { .. } => (now, onlyonce_core::Cause::Abandoned),
        };
        let remedy = policy.remedy_at(record.first_commit_at, now);
        let final_from = final_from(policy, record);
        InDoubt { work, since, cause, fence: record.fence, why, remedy, final_from }
    }
}

/// From when on "nothing is there" counts, if it ever does.
fn final_from(policy: &Policy, record: &Record) -> Option<Timestamp> {
    let settle = settle_of(policy)?;
    let written = Timestamp::from_millis(record.revision.get());
    Some(written.plus(policy.skew_max).plus(policy.receiver.late).plus(settle))
}

/// By when what was made shows, where somebody has said so.
fn settle_of(policy: &Policy) -> Option<Duration> {
    policy.receiver.settle.filter(|it| *it < onlyonce_core::limits::RETENTION_MAX)
}

fn not_executed(met: Option<Met>, reply: &Reply) -> Became {
    match met {
        Some(Met::Refused(text)) => Became::Refused(text),
        Some(Met::Waits(on)) => Became::Waits(on),
        Some(Met::Seen(Seen::NotOurs(text))) => Became::Conflict(text),
        Some(Met::Seen(Seen::Several(ids))) => Became::Duplicate(ids),
        Some(met @ (Met::Seen(_) | Met::Lost(_) | Met::StillRunning)) => {
            Became::CannotTell(met.words())
        }
        // Another apply was refused while this one waited for it.
        None => {
            let text = reply.content().map(|it| String::from_utf8_lossy(it).into_owned());
            Became::Refused(format!("another apply: {}", text.unwrap_or_default()))
        }
    }
}
