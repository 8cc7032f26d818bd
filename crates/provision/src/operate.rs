//! What a person asks and says about single resources: how they stand, what became of one that is
//! in doubt, that one is to be forgotten, that one is there already. See [`crate::destroy`] too.

use std::collections::BTreeMap;
use std::time::Duration;

use onlyonce::{Acted, Answer, Ran, direct};
use onlyonce_core::{Fence, KeyId, Outcome, Phase, Record, Reply, State, Timestamp, Verdict};

use crate::destroy::Departing;
use crate::error::ProvisionError;
use crate::plan::Resource;
use crate::provisioner::{Place, Provisioner, has_no_id, policy_of_verdicts, receipt_of};
use crate::receipt::{Departure, How, Receipt};

/// How a resource stands by its record. What is there now is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its key.
    pub key: String,
    /// The name of its kind.
    pub kind: &'static str,
    /// What is known.
    pub known: Known,
    /// Its marker.
    pub marker: String,
    /// Which making of the key this is, from 1: forgetting one begins the next.
    pub generation: u32,
}

/// What a record says of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing was made.
    Planned,
    /// An apply is at it.
    Creating {
        /// Which attempt it is.
        attempt: u32,
        /// Its process.
        process: u32,
        /// Whether it may have been made already.
        may_be_there: bool,
    },
    /// It was made or found.
    Created {
        /// When that was recorded.
        at: Timestamp,
        /// What it is; `None` if its record does not say.
        receipt: Option<Receipt>,
    },
    /// Somebody is destroying it.
    Destroying {
        /// Which attempt it is.
        attempt: u32,
        /// Its process.
        process: u32,
        /// Whether it may be gone already.
        may_be_gone: bool,
    },
    /// Somebody has destroyed it.
    Destroyed {
        /// When that was recorded.
        at: Timestamp,
        /// What it was.
        departure: Departure,
    },
    /// Nobody knows whether it was made, or destroyed.
    Unknown(crate::apply::InDoubt),
}

/// What a person has found out about an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The resource is there; this is its id.
    Made(String),
    /// It was not made and no longer will be.
    NotMade,
    /// The resource was destroyed.
    Destroyed,
    /// It was not destroyed and no longer will be.
    NotDestroyed,
    /// Nobody knows, and what was attempted may be done again all the same.
    RunAgain,
}

/// What became of something a person said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is recorded.
    Done,
    /// It was refused, and nothing was changed; this is why.
    Refused(String),
}

impl Known {
    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Creating { .. } => "creating",
            Self::Created { .. } => "created",
            Self::Destroying { .. } => "destroying",
            Self::Destroyed { .. } => "destroyed",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl Provisioner {
    /// How each resource stands, in the order of the plan.
    ///
    /// # Errors
    /// The store could not say.
    pub async fn status(&self) -> Result<Vec<Status>, ProvisionError> {
        let ids = self.known_ids().await?;
        let mut all = Vec::new();
        for resource in &self.plan.resources {
            let place = self.place(&resource.key).await?;
            let record = match resource.filled(|key| ids.get(key).cloned()) {
                Ok(inputs) => self.record_now(&place, resource, &inputs).await?,
                Err(_) => place.record.clone(),
            };
            all.push(Status {
                key: resource.key.clone(),
                kind: resource.kind.name(),
                known: self.known_of(&place, resource, record.as_ref()).await?,
                marker: self.identity(&resource.key, place.generation).marker,
                generation: place.generation,
            });
        }
        Ok(all)
    }

    async fn known_of(
        &self,
        place: &Place,
        resource: &Resource,
        record: Option<&Record>,
    ) -> Result<Known, ProvisionError> {
        Ok(match self.departing(place, resource).await? {
            Departing::No => self.known(resource, record),
            Departing::Running { attempt, process, may_be_gone } => {
                Known::Destroying { attempt, process, may_be_gone }
            }
            Departing::Unknown(doubt) => Known::Unknown(doubt),
            Departing::Gone(at, departure) => Known::Destroyed { at, departure },
        })
    }

    fn known(&self, resource: &Resource, record: Option<&Record>) -> Known {
        let Some(record) = record else { return Known::Planned };
        match &record.state {
            State::Released { .. } => Known::Planned,
            State::InFlight(flight) => Known::Creating {
                attempt: record.attempt,
                process: flight.holder.pid,
                may_be_there: flight.phase == Phase::Committing || flight.inherited.is_some(),
            },
            State::Unknown(_) => Known::Unknown(self.doubt(resource, record, String::new())),
            State::Completed { answered_at, .. } | State::Tombstone { answered_at, .. } => {
                Known::Created { at: *answered_at, receipt: receipt_of(record) }
            }
        }
    }

    /// Settles an attempt that is in doubt with what somebody has found out. `fence` is the claim
    /// that was looked at: what came after it is left as it is.
    ///
    /// # Errors
    /// The plan has no such key, or the store could not say; it may be repeated.
    pub async fn resolve(
        &self,
        key: &str,
        fence: Fence,
        finding: Finding,
        by: &str,
        why: &str,
    ) -> Result<Changed, ProvisionError> {
        let (_, resource) = self.resource(key)?;
        let place = self.place(key).await?;
        let destroying = self.destroy_id(key, place.generation)?;
        let (id, verdict) = match finding {
            Finding::Made(id) => {
                let inputs = self.digests_of_attempt(resource, &place).await?;
                (place.id, Verdict::Happened(Receipt { id, how: How::Told, inputs }.reply()))
            }
            Finding::NotMade => (place.id, Verdict::NotExecuted),
            Finding::Destroyed => {
                let receipt = place.record.as_ref().and_then(receipt_of);
                let id = receipt.map(|it| it.id).unwrap_or_default();
                let departure = Departure { id, by: by.to_owned(), why: why.to_owned() };
                (destroying, Verdict::Happened(departure.reply()))
            }
            Finding::NotDestroyed => (destroying, Verdict::NotExecuted),
            Finding::RunAgain => match self.departing(&place, resource).await? {
                Departing::Unknown(_) => (destroying, Verdict::RunAgain),
                Departing::No | Departing::Running { .. } | Departing::Gone(..) => {
                    (place.id, Verdict::RunAgain)
                }
            },
        };
        let policy = policy_of_verdicts();
        let Acted { outcome, .. } =
            self.engine.resolve(id, &policy, fence, verdict, by, why).await?;
        Ok(match outcome {
            Outcome::Done => Changed::Done,
            Outcome::Absent => Changed::Refused("nothing was attempted".into()),
            Outcome::InFlight { .. } => Changed::Refused("another process is at it".into()),
            Outcome::InvalidFence => Changed::Refused("no attempt ever had this fence".into()),
            Outcome::SecondReply => Changed::Refused("it is settled already".into()),
            Outcome::Fenced
            | Outcome::Granted(_)
            | Outcome::Replay { .. }
            | Outcome::Mismatch
            | Outcome::CredentialChanged
            | Outcome::OutcomeUnknown { .. }
            | Outcome::Gone { .. }
            | Outcome::Expired => Changed::Refused("it has moved on since".into()),
        })
    }

    /// The digests of the inputs that were attempted, if they are those of the plan.
    async fn digests_of_attempt(
        &self,
        resource: &Resource,
        place: &Place,
    ) -> Result<BTreeMap<String, String>, ProvisionError> {
        let ids = self.known_ids().await?;
        let Ok(inputs) = resource.filled(|key| ids.get(key).cloned()) else {
            return Ok(BTreeMap::new());
        };
        let ours = self.request(place.id, resource, &inputs).fingerprint;
        let theirs = place.record.as_ref().and_then(|record| record.fingerprint);
        let is_same = theirs == Some(ours);
        Ok(if is_same { self.digests(&inputs) } else { BTreeMap::new() })
    }

    /// Forgets what is recorded of a resource, so that it is looked for and made anew. What is
    /// there is left as it is; if it has our marker the next apply finds it.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn forget(&self, key: &str, by: &str, why: &str) -> Result<Changed, ProvisionError> {
        self.resource(key)?;
        let place = self.place(key).await?;
        if place.record.as_ref().and_then(receipt_of).is_some()
            && let Err(text) = self.never_destroy(&place, key, by).await?
        {
            return Ok(Changed::Refused(text));
        }
        let Acted { outcome, record } =
            self.engine.erase(place.id, &policy_of_verdicts(), by, why).await?;
        let refused = |text: &str| Ok(Changed::Refused(text.into()));
        match (outcome, record) {
            (Outcome::Done, _) => Ok(Changed::Done),
            (Outcome::InFlight { .. }, _) => refused("an apply is at it"),
            (Outcome::OutcomeUnknown { .. }, _) => {
                refused("nobody knows whether it was made: resolve it first")
            }
            (_, None | Some(_)) => refused("there is nothing to forget: nothing was made"),
        }
    }

    /// Records that a resource is there, as somebody has confirmed who has looked: it need not
    /// carry our marker. Only for one of which nothing is in doubt and nothing is recorded, or no
    /// id.
    ///
    /// # Errors
    /// As [`Self::resolve`]; or it is made of another one's id, which is not there yet.
    pub async fn import(&self, key: &str, id: &str) -> Result<Changed, ProvisionError> {
        let (_, resource) = self.resource(key)?;
        let ids = self.known_ids().await?;
        let inputs = resource
            .filled(|key| ids.get(key).cloned())
            .map_err(|on| ProvisionError::Waits { key: key.to_owned(), on })?;
        let refused = |text: &str| Ok(Changed::Refused(text.to_owned()));
        loop {
            let place = self.place(key).await?;
            match self.departing(&place, resource).await? {
                Departing::No => {}
                Departing::Running { .. } => return refused("it is being destroyed"),
                Departing::Unknown(_) => {
                    return refused("nobody knows whether it was destroyed: resolve it");
                }
                Departing::Gone(..) => {
                    return refused("it is recorded as destroyed: forget it first");
                }
            }
            // What does not say which it is is forgotten once its successor does: never is nothing
            // recorded, so that an apply would make another.
            let lacks_id = place.record.as_ref().is_some_and(has_no_id);
            let at = match lacks_id {
                true => self.successor(key, &place)?,
                false => place.id,
            };
            let inputs_then = self.digests(&inputs);
            let receipt = Receipt { id: id.to_owned(), how: How::Told, inputs: inputs_then };
            let reply = receipt.reply();
            let told = direct(move |_attempt| async move { Ran::Happened(reply) });
            let request = self.request(at, resource, &inputs);
            // Held: what is in doubt is not settled by the way.
            let policy = policy_of_verdicts();
            let answer = self.engine.once(&request, &policy, Duration::ZERO, told).await?;
            let changed = match answer {
                Answer::Reply(_) => Changed::Done,
                Answer::Replayed(reply) => same(&reply, &receipt),
                Answer::Refused(Outcome::Mismatch) if self.give_up(&place, &inputs).await? => {
                    continue;
                }
                Answer::Refused(Outcome::OutcomeUnknown { .. })
                    if lacks_id && self.take_over(&place, at).await? =>
                {
                    continue;
                }
                Answer::Refused(outcome) => return refused(why_not_imported(&outcome)),
                Answer::NotExecuted(_) | Answer::Unrecorded(_) => {
                    return refused("the store did not keep it: repeat this");
                }
                other => return refused(&format!("not understood: {other:?}")),
            };
            // A store without room keeps an answer without what it says.
            let kept = self.engine.get(at).await?;
            if changed == Changed::Done && kept.as_ref().is_some_and(has_no_id) {
                return refused(match lacks_id {
                    true => "the store had no room for the id: make room, forget it, and import it",
                    false => "the store had no room for the id: make room, and repeat this",
                });
            }
            if lacks_id && changed == Changed::Done {
                return self.follow(&place).await;
            }
            return Ok(changed);
        }
    }

    /// Settles an import that was cut off, if nobody else has: it would have made nothing.
    async fn take_over(&self, place: &Place, at: KeyId) -> Result<bool, ProvisionError> {
        let Some(record) = self.engine.get(at).await? else { return Ok(false) };
        // While the record before it stands, nothing but an import claims this one: so this is
        // looked at after the claim that is settled.
        if !self.engine.get(place.id).await?.as_ref().is_some_and(has_no_id) {
            return Ok(false);
        }
        let (policy, why) = (policy_of_verdicts(), "it was cut off, and makes nothing");
        let verdict = Verdict::NotExecuted;
        let settled = self.engine.resolve(at, &policy, record.fence, verdict, "import", why);
        Ok(settled.await?.outcome == Outcome::Done)
    }

    /// Forgets a record that does not say which it is, once the one after it does.
    async fn follow(&self, place: &Place) -> Result<Changed, ProvisionError> {
        let (policy, why) = (policy_of_verdicts(), "its record did not say which it is");
        let Acted { outcome, .. } = self.engine.erase(place.id, &policy, "import", why).await?;
        // Or somebody else has forgotten it.
        if matches!(outcome, Outcome::Done | Outcome::Gone { .. }) {
            return Ok(Changed::Done);
        }
        Ok(Changed::Refused("its record was changed meanwhile: repeat this".to_owned()))
    }
}

/// Why it is not recorded that it is there.
fn why_not_imported(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::OutcomeUnknown { .. } => "an attempt is in doubt: resolve it instead",
        Outcome::InFlight { .. } => "an apply is at it",
        Outcome::Mismatch => "it is recorded with other inputs: forget it first",
        Outcome::Gone { sealed: false, .. } => "it is recorded already: forget it first",
        Outcome::Granted(_)
        | Outcome::Replay { .. }
        | Outcome::CredentialChanged
        | Outcome::Gone { sealed: true, .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => "its record was changed meanwhile",
    }
}

/// The same said twice is done.
fn same(reply: &Reply, ours: &Receipt) -> Changed {
    match Receipt::of(reply) {
        Some(there) if there.id == ours.id => Changed::Done,
        Some(there) => {
            Changed::Refused(format!("it is recorded as {} already: forget it first", there.id))
        }
        None => Changed::Refused("it is recorded already: forget it first".into()),
    }
}
