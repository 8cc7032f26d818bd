//! The destroying of one resource, as an effect of the engine: looked for before anything is sent,
//! destroyed behind the durable mark, looked for again while nobody knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use onlyonce::{Acted, Attempt, Effect, InDoubt, Probed, Ran};
use onlyonce_core::{Evidence, Fence, KeyId, Outcome, Policy, Reply};
use onlyonce_failpoint::failpoint;

use crate::creation::{Course, Met, hold, told};
use crate::identity::Identity;
use crate::kind::{Call, Seen, Undone};
use crate::plan::Resource;
use crate::provisioner::{Provisioner, is_over, receipt_of};
use crate::receipt::{self, Departure, How, Receipt};
use crate::script::Hold;

/// The destroying of one resource.
pub(crate) struct Destruction {
    pub(crate) provisioner: Provisioner,
    /// Its place in the plan.
    pub(crate) at: usize,
    /// Where it is recorded that it is there.
    pub(crate) made: KeyId,
    /// Where this is recorded, and under what policy.
    pub(crate) gone: KeyId,
    pub(crate) policy: Policy,
    /// What is there by that record.
    pub(crate) receipt: Receipt,
    pub(crate) identity: Identity,
    pub(crate) inputs: BTreeMap<String, String>,
    /// For the record.
    pub(crate) departure: Departure,
    pub(crate) course: Arc<Mutex<Course>>,
}

/// Nothing was sent. Nobody is told this number but other waiters.
const NOT_DONE: u16 = 409;

/// Why it is not known to be gone although nothing is seen.
const NEVER_SHOWN: &str = "nothing is there by a `check` that did not show it when it was to be \
                           destroyed, so a person has to look";

/// Whether what is there is known by its marker, so that a look can tell that it is gone.
pub(crate) const fn is_visible(resource: &Resource, receipt: &Receipt) -> bool {
    match receipt.how {
        How::Created | How::Found => resource.kind.can_check(),
        // It need not carry our marker, where a script knows what to do with such a one.
        How::Told => resource.kind.must_show() && resource.kind.can_check(),
    }
}

impl Destruction {
    fn resource(&self) -> &Resource {
        &self.provisioner.plan.resources[self.at]
    }

    fn call<'a>(&'a self, attempt: Option<Attempt>, hold: Option<&'a Hold>) -> Call<'a> {
        let id = Some(self.receipt.id.as_str());
        let call = self.provisioner.call(self.resource(), &self.identity, &self.inputs, id);
        Call { attempt, hold, ..call }
    }

    fn meet(&self, met: Met) {
        Course::meet(&self.course, met);
    }

    fn hold(&self) -> Result<Option<Hold>, Met> {
        hold(&self.resource().kind, &self.provisioner.holds, &self.identity.marker)
    }

    /// In the way of destroying it.
    fn stop(&self, met: Met) -> Reply {
        let text = met.words();
        self.meet(met);
        Reply::kept(NOT_DONE, text)
    }

    /// Whether its record still says that it is there, and nothing waits for it. Whoever forgets it
    /// seals this destroying first, so what is found now stays so until this has ended.
    async fn is_recorded(&self) -> Result<(), Met> {
        match self.provisioner.engine.get(self.made).await {
            Ok(Some(record)) if !is_over(&record) && self.is_of(receipt_of(&record)) => {}
            Ok(_) => return Err(Met::Refused("its record was changed meanwhile".into())),
            Err(error) => return Err(Met::Refused(format!("the store cannot say: {error}"))),
        }
        // Again, now that whoever makes such a thing sees this claim.
        match self.provisioner.is_free(self.at).await {
            Ok(free) => free.map_err(Met::Refused),
            Err(error) => Err(Met::Refused(format!("the store cannot say: {error}"))),
        }
    }

    /// That the `check` of this plan has shown it. A `check` that has not, since it came into the
    /// plan later or was another one then, can look where the thing never was.
    fn sight(&self) -> Option<Evidence> {
        let check = self.resource().kind.sight(&self.call(None, None))?;
        let script = [("check".to_owned(), check)].into();
        let digest = receipt::digests(&self.provisioner.secret, &script).remove("check")?;
        Evidence::new(format!("shown by check {digest}"))
    }

    /// Notes durably that it was seen, before anything is sent.
    async fn note(&self, fence: Fence) -> Result<(), Met> {
        let Some(sight) = self.sight() else { return Ok(()) };
        let held = self.provisioner.engine.held(self.gone, self.policy, fence);
        match held.note(sight).await {
            Ok(Acted { outcome: Outcome::Done, .. }) => Ok(()),
            Ok(_) => Err(Met::Refused("its record was changed meanwhile".into())),
            Err(error) => Err(Met::Refused(format!("the store cannot note it: {error}"))),
        }
    }

    /// Whether this attempt has noted that, with the `check` of today.
    fn was_seen(&self, doubt: &InDoubt) -> bool {
        doubt.evidence.is_some() && doubt.evidence == self.sight()
    }

    fn is_of(&self, receipt: Option<Receipt>) -> bool {
        receipt.is_some_and(|it| it.id == self.receipt.id)
    }
}

impl Effect for Destruction {
    type Prepared = Option<Hold>;

    async fn prepare(&mut self, attempt: Attempt) -> Result<Option<Hold>, Reply> {
        let hold = self.hold().map_err(|met| self.stop(met))?;
        self.is_recorded().await.map_err(|met| self.stop(met))?;
        if !is_visible(self.resource(), &self.receipt) {
            return Ok(hold);
        }
        let seen = self.resource().kind.check(&self.call(Some(attempt), hold.as_ref())).await;
        failpoint!("resource.look.after", seen);
        match seen {
            Seen::Ours(id) if id == self.receipt.id => {
                self.note(attempt.fence).await.map_err(|met| self.stop(met))?;
                Ok(hold)
            }
            // It may not show yet, and then it would be called gone and be there.
            seen @ (Seen::Absent
            | Seen::Ours(_)
            | Seen::NotOurs(_)
            | Seen::Several(_)
            | Seen::CannotTell(_)) => Err(self.stop(Met::Seen(seen))),
        }
    }

    async fn commit(&mut self, hold: Option<Hold>, attempt: Attempt) -> Ran {
        failpoint!("resource.destroy.before", attempt);
        Course::sent(&self.course);
        let undone = self.resource().kind.destroy(&self.call(Some(attempt), hold.as_ref())).await;
        failpoint!("resource.destroy.after", undone);
        match undone {
            Undone::Gone => {
                Course::done(&self.course);
                Ran::Happened(self.departure.reply())
            }
            Undone::Refused(text) => Ran::NotExecuted(self.stop(Met::Refused(text))),
            Undone::Unknown(cause, text) => {
                self.meet(Met::Lost(text));
                Ran::CannotTell(cause)
            }
        }
    }

    async fn probe(&mut self, doubt: &InDoubt) -> Probed {
        let hold = match self.hold() {
            Ok(hold) => hold,
            Err(met) => {
                self.meet(met);
                return Probed::StillRunning;
            }
        };
        let seen = self.resource().kind.check(&self.call(None, hold.as_ref())).await;
        let probed = match &seen {
            Seen::Absent if self.was_seen(doubt) => Probed::Happened(self.departure.reply()),
            Seen::Absent => {
                self.meet(Met::Lost(NEVER_SHOWN.into()));
                return Probed::CannotTell;
            }
            Seen::Ours(id) if *id == self.receipt.id => Probed::DidNotHappen,
            // To say what became of it takes a person.
            Seen::Ours(_) | Seen::NotOurs(_) | Seen::Several(_) | Seen::CannotTell(_) => {
                Probed::CannotTell
            }
        };
        self.meet(Met::Seen(seen));
        probed
    }
}

/// Why nothing was done, for a person.
pub(crate) fn why_not(met: Option<&Met>, reply: &Reply) -> String {
    match met {
        Some(Met::Seen(Seen::Absent)) => "nothing is there: it is gone already, or does not show \
                                          yet; forget it if it is gone"
            .into(),
        Some(Met::Seen(seen)) => told(seen),
        Some(met) => met.words(),
        // Another one was refused while this one waited for it.
        None => {
            let text = reply.content().map(|it| String::from_utf8_lossy(it).into_owned());
            format!("another one was at it: {}", text.unwrap_or_default())
        }
    }
}
