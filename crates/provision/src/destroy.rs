//! The one thing that deletes: a resource that somebody names, and whose id he confirms, is
//! destroyed once. No apply does this. It is an operation with a record of its own, beside the one
//! that says that the resource is there; which of the two counts is said here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::{Answer, Request};
use onlyonce_core::{
    Outcome, Phase, Policy, Receiver, Record, Remedy, Reply, State, StateKind, Timestamp,
};

use crate::apply::{Became, InDoubt, Work};
use crate::creation::Course;
use crate::destruction::{Destruction, is_visible, why_not};
use crate::error::ProvisionError;
use crate::identity::token_of_destroying;
use crate::plan::Resource;
use crate::provisioner::{Place, Provisioner, no_id, policy_of_verdicts, receipt_of};
use crate::receipt::{self, Departure, Receipt};

/// What has become of a resource that was to be destroyed. Texts are for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// It is gone, and that is recorded. Nothing makes it again until it is forgotten.
    Gone(Departure),
    /// It was definitely refused, and nothing was done.
    Refused(String),
    /// Nobody knows whether it was destroyed. Doing this again looks for it first, where its plan
    /// has a `check` that showed it; not for a `command` that was imported.
    Unknown(InDoubt),
    /// It was sent, and what became of it could not be recorded.
    Unrecorded {
        /// What is gone, if that is known.
        departure: Option<Departure>,
        /// What is done about it when this is done again.
        remedy: Remedy,
        /// Why the other is not known, and what the store has said.
        why: String,
    },
    /// Another one is at it.
    Busy,
}

/// How far the destroying of a resource has got, by its record.
pub(crate) enum Departing {
    /// Nobody has destroyed it.
    No,
    /// Somebody is at it.
    Running { attempt: u32, process: u32, may_be_gone: bool },
    /// Nobody knows.
    Unknown(InDoubt),
    /// It is gone.
    Gone(Timestamp, Departure),
}

impl Departing {
    /// What stands in the way of an apply.
    pub(crate) fn in_the_way(self) -> Option<Became> {
        match self {
            Self::No => None,
            Self::Running { process, .. } => {
                Some(Became::Destroying(format!("process {process} is at it; nothing was made")))
            }
            Self::Unknown(doubt) => Some(Became::Unknown(doubt)),
            Self::Gone(_, departure) => Some(Became::Destroyed(departure)),
        }
    }
}

impl Provisioner {
    /// Destroys a resource that is recorded as `id`, once: looked for first where its plan has a
    /// `check`, though not a `command` that was imported, with a durable mark before anything is
    /// sent. `wait` is how long another one that is at it is waited for.
    ///
    /// # Errors
    /// The plan has no such key, its inputs are made of what is not there any more, or the store
    /// could not say. Nothing was done.
    pub async fn destroy(
        &self,
        key: &str,
        id: &str,
        by: &str,
        why: &str,
        wait: Duration,
    ) -> Result<Destroyed, ProvisionError> {
        let (at, resource) = self.resource(key)?;
        let place = self.place(key).await?;
        if let Departing::Gone(_, departure) = self.departing(&place, resource).await? {
            return Ok(match departure.id == id {
                true => Destroyed::Gone(departure),
                false => Destroyed::Refused(format!("it was {}, and is destroyed", departure.id)),
            });
        }
        let receipt = match self.may_go(at, &place, id).await? {
            Ok(receipt) => receipt,
            Err(text) => return Ok(Destroyed::Refused(text)),
        };
        let inputs = match self.inputs_of(resource, &receipt).await? {
            Ok(inputs) => inputs,
            Err(text) => return Ok(Destroyed::Refused(text)),
        };
        let mut identity = self.identity(key, place.generation);
        identity.token = token_of_destroying(&self.plan.name, key, place.generation);
        let course = Arc::new(Mutex::new(Course::default()));
        let (by, why) = (by.to_owned(), why.to_owned());
        let departure = Departure { id: receipt.id.clone(), by, why };
        let request = self.request_to_destroy(&place, resource, &receipt)?;
        let policy = policy(resource, &receipt);
        let destruction = Destruction {
            provisioner: self.clone(),
            at,
            made: place.id,
            gone: request.id,
            policy,
            receipt,
            identity,
            inputs,
            departure: departure.clone(),
            course: Arc::clone(&course),
        };
        let answer = self.engine.once(&request, &policy, wait, destruction).await?;
        let course = Course::taken(&course);
        let now = self.engine.now();
        let remedy = policy.remedy_at(Some(now), now);
        let unrecorded = || {
            let departure = course.is_done.then(|| departure.clone());
            Destroyed::Unrecorded { departure, remedy, why: course.words() }
        };
        let Answer::Refused(Outcome::OutcomeUnknown { .. }) = answer else {
            return Ok(ended(answer, &course, &departure.id, unrecorded));
        };
        Ok(match self.engine.get(request.id).await {
            Ok(Some(record)) if record.state.kind() == StateKind::Unknown => {
                let why = course.words();
                Destroyed::Unknown(self.doubt_of(Work::Destroying, &policy, &record, why))
            }
            Ok(_) | Err(_) if course.is_sent => unrecorded(),
            Ok(_) => Destroyed::Refused("its record was changed meanwhile".into()),
            Err(error) => return Err(error.into()),
        })
    }

    /// What is there of it, if it may be destroyed under this id; else why not.
    async fn may_go(
        &self,
        at: usize,
        place: &Place,
        id: &str,
    ) -> Result<Result<Receipt, String>, ProvisionError> {
        let resource = &self.plan.resources[at];
        if let Some(text) = resource.kind.why_not_destroyed() {
            return Ok(Err(text.into()));
        }
        let Some(record) = &place.record else { return Ok(Err("nothing was made".into())) };
        let Some(receipt) = receipt_of(record) else {
            return Ok(Err(match &record.state {
                State::Released { .. } => "nothing was made",
                State::InFlight(_) => "an apply is at it, or was cut off: apply it again first",
                State::Unknown(_) => "nobody knows whether it was made: resolve that first",
                State::Completed { .. } | State::Tombstone { .. } => no_id(&resource.kind),
            }
            .into()));
        };
        if receipt.id != id {
            return Ok(Err(format!("it is recorded as {}, and not as {id}", receipt.id)));
        }
        Ok(self.is_free(at).await?.map(|()| receipt))
    }

    /// Whether nothing is there, or being made, that waits for it; else what is.
    pub(crate) async fn is_free(&self, at: usize) -> Result<Result<(), String>, ProvisionError> {
        for other in self.plan.resources.iter().filter(|it| it.after.contains(&at)) {
            if self.may_be_there(other).await? {
                let key = &other.key;
                return Ok(Err(format!(
                    "{key} waits for it, and may be there: destroy that first"
                )));
            }
        }
        Ok(Ok(()))
    }

    /// Whether it is recorded that it is there, and that nobody destroys it.
    pub(crate) async fn stands(&self, resource: &Resource) -> Result<bool, ProvisionError> {
        let place = self.place(&resource.key).await?;
        let is_made = place.record.as_ref().and_then(receipt_of).is_some();
        Ok(is_made && matches!(self.departing(&place, resource).await?, Departing::No))
    }

    /// The inputs that it was made with, if the plan still has them.
    async fn inputs_of(
        &self,
        resource: &Resource,
        receipt: &Receipt,
    ) -> Result<Result<BTreeMap<String, String>, String>, ProvisionError> {
        let ids = self.known_ids().await?;
        let inputs = resource
            .filled(|key| ids.get(key).cloned())
            .map_err(|on| ProvisionError::Waits { key: resource.key.clone(), on })?;
        let changed = receipt.changed(&self.digests(&inputs));
        if changed.is_empty() {
            return Ok(Ok(inputs));
        }
        // Its scripts would look, and destroy, where the new inputs say.
        let names = changed.join(", ");
        Ok(Err(format!("the plan has other inputs than it was made with ({names}): put them back")))
    }

    async fn may_be_there(&self, resource: &Resource) -> Result<bool, ProvisionError> {
        let place = self.place(&resource.key).await?;
        let is_gone = matches!(self.departing(&place, resource).await?, Departing::Gone(..));
        let may_be = place.record.as_ref().is_some_and(|record| match &record.state {
            State::Released { .. } => record.may_have_run(),
            State::InFlight(_)
            | State::Completed { .. }
            | State::Unknown(_)
            | State::Tombstone { .. } => true,
        });
        Ok(may_be && !is_gone)
    }

    fn request_to_destroy(
        &self,
        place: &Place,
        resource: &Resource,
        receipt: &Receipt,
    ) -> Result<Request, ProvisionError> {
        let inputs = [("id".to_owned(), receipt.id.clone())].into();
        let id = self.destroy_id(&resource.key, place.generation)?;
        Ok(Request::new(id, receipt::fingerprint(&self.secret, "destroy", &inputs)))
    }

    /// How far its destroying has got: a claim whose holder is gone or whose lease is over has
    /// ended.
    pub(crate) async fn departing(
        &self,
        place: &Place,
        resource: &Resource,
    ) -> Result<Departing, ProvisionError> {
        let made = place.record.as_ref().and_then(receipt_of);
        let (Some(receipt), Some(_)) = (made, &place.destroying) else { return Ok(Departing::No) };
        let request = self.request_to_destroy(place, resource, &receipt)?;
        let policy = policy(resource, &receipt);
        let Some(record) = self.engine.look(&request, &policy).await?.record else {
            return Ok(Departing::No);
        };
        Ok(match &record.state {
            State::Released { .. } => Departing::No,
            State::InFlight(flight) => Departing::Running {
                attempt: record.attempt,
                process: flight.holder.pid,
                may_be_gone: flight.phase == Phase::Committing || flight.inherited.is_some(),
            },
            State::Unknown(_) => {
                let doubt = self.doubt_of(Work::Destroying, &policy, &record, String::new());
                Departing::Unknown(doubt)
            }
            // Sealed: it is being forgotten.
            State::Completed { sealed: true, .. } | State::Tombstone { sealed: true, .. } => {
                Departing::No
            }
            State::Completed { answered_at, .. } | State::Tombstone { answered_at, .. } => {
                Departing::Gone(*answered_at, departure_of(&record, receipt))
            }
        })
    }

    /// Sees to it that nobody destroys what is about to be forgotten. `Err` if somebody is at it,
    /// or may have been.
    pub(crate) async fn never_destroy(
        &self,
        place: &Place,
        key: &str,
        by: &str,
    ) -> Result<Result<(), String>, ProvisionError> {
        let id = self.destroy_id(key, place.generation)?;
        let (policy, reply) = (policy_of_verdicts(), Reply::not_kept(410));
        let why = "it is forgotten that the resource is there";
        let sealed = self.engine.seal(id, &policy, reply, None, by, why).await?;
        let refused = |text: &str| Ok(Err(text.to_owned()));
        match sealed.outcome {
            // It was destroyed, or forgotten before.
            Outcome::Done | Outcome::Replay { .. } | Outcome::Gone { .. } => Ok(Ok(())),
            Outcome::InFlight { .. } => refused("it is being destroyed"),
            Outcome::OutcomeUnknown { .. } => {
                refused("nobody knows whether it was destroyed: resolve that first")
            }
            Outcome::Granted(_)
            | Outcome::Mismatch
            | Outcome::CredentialChanged
            | Outcome::Expired
            | Outcome::Fenced
            | Outcome::InvalidFence
            | Outcome::SecondReply
            | Outcome::Absent => refused("its record was changed meanwhile"),
        }
    }
}

/// What the place where it is offers to settle the unknown outcome of its destroying: it can be
/// looked at, if it carries the marker. What it offers to settle that of its making, such as that
/// names are given once, says nothing about this.
fn policy(resource: &Resource, receipt: &Receipt) -> Policy {
    let receiver = resource.kind.receiver_of_destroying();
    let Receiver { settle, late, .. } = receiver.unwrap_or(resource.policy.receiver);
    let settle = settle.filter(|_| is_visible(resource, receipt));
    Policy { receiver: Receiver { always: None, keyed: None, settle, late }, ..resource.policy }
}

/// Whoever wanted it gone is not known: it was said by other means, or there was no room for it.
const NOT_KEPT: &str = "who has said so, and why, is not kept";

fn departure_of(record: &Record, made: Receipt) -> Departure {
    let kept = match &record.state {
        State::Completed { reply, .. } => Departure::of(reply),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    };
    kept.unwrap_or_else(|| nobodys(made.id))
}

fn nobodys(id: String) -> Departure {
    Departure { id, by: String::new(), why: NOT_KEPT.into() }
}

/// What an answer says, unless that nobody knows.
fn ended(
    answer: Answer,
    course: &Course,
    id: &str,
    unrecorded: impl Fn() -> Destroyed,
) -> Destroyed {
    match answer {
        Answer::Reply(reply) | Answer::Replayed(reply) => gone(&reply),
        Answer::NotExecuted(reply) => Destroyed::Refused(why_not(course.met.as_ref(), &reply)),
        Answer::Unrecorded(_) => unrecorded(),
        // Its claim was settled by somebody else while it went on.
        Answer::Refused(_) | _ if course.is_sent => unrecorded(),
        Answer::Refused(Outcome::InFlight { .. }) => Destroyed::Busy,
        // Another one has destroyed it while this one waited.
        Answer::Refused(Outcome::Gone { sealed: false, .. }) => {
            Destroyed::Gone(nobodys(id.to_owned()))
        }
        Answer::Refused(_) | _ => Destroyed::Refused("its record was changed meanwhile".into()),
    }
}

/// What a recorded end says. A seal says that it is never destroyed, since it is forgotten.
fn gone(reply: &Reply) -> Destroyed {
    match Departure::of(reply) {
        Some(departure) => Destroyed::Gone(departure),
        None => Destroyed::Refused("it is being forgotten".into()),
    }
}
