//! The making of one resource, as an effect of the engine: looked for before anything is sent, made
//! behind the durable mark, looked for again while nobody knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use onlyonce::{Attempt, Effect, InDoubt, Probed, Ran};
use onlyonce_core::{Cause, Reply};
use onlyonce_failpoint::failpoint;
use tokio::sync::mpsc::UnboundedSender;

use crate::apply::Step;
use crate::identity::Identity;
use crate::kind::{Call, Kind, Made, Seen};
use crate::plan::Resource;
use crate::provisioner::Provisioner;
use crate::receipt::{How, Receipt};
use crate::script::{Hold, Holds};

/// What the making or destroying of a resource has come upon: the record says what it means for the
/// key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// What was seen stands in the way, or nobody could see.
    Seen(Seen),
    /// It was definitely refused.
    Refused(String),
    /// Nobody can tell what has become of the attempt.
    Lost(String),
    /// An earlier attempt is still at it, or a script of it.
    StillRunning,
    /// Another one, which it waits for, is not there any more, or somebody destroys it.
    Waits(String),
}

/// How far an attempt has got, beside what its record says: for who has asked for it, and also if
/// the record cannot be read any more.
#[derive(Debug, Default)]
pub(crate) struct Course {
    pub(crate) met: Option<Met>,
    /// Whether something was sent that can take effect.
    pub(crate) is_sent: bool,
    /// Whether that has certainly happened.
    pub(crate) is_done: bool,
}

impl Course {
    /// What is known of it by now.
    pub(crate) fn taken(course: &Mutex<Self>) -> Self {
        std::mem::take(&mut course.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn meet(course: &Mutex<Self>, met: Met) {
        course.lock().unwrap_or_else(PoisonError::into_inner).met = Some(met);
    }

    pub(crate) fn sent(course: &Mutex<Self>) {
        course.lock().unwrap_or_else(PoisonError::into_inner).is_sent = true;
    }

    pub(crate) fn done(course: &Mutex<Self>) {
        course.lock().unwrap_or_else(PoisonError::into_inner).is_done = true;
    }

    /// What was met, in words.
    pub(crate) fn words(&self) -> String {
        self.met.as_ref().map_or_else(String::new, Met::words)
    }
}

impl Met {
    /// For a person.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Seen(seen) => told(seen),
            Self::Refused(text) | Self::Lost(text) => text.clone(),
            Self::StillRunning => "an earlier attempt, or a script of it, is still running".into(),
            Self::Waits(on) => format!("it waits for {on}, which somebody destroys"),
        }
    }
}

/// Whom progress is told: the place of the resource in its plan, and the step.
pub(crate) type Tell = UnboundedSender<(usize, Step)>;

/// The making of one resource.
pub(crate) struct Creation {
    pub(crate) provisioner: Provisioner,
    /// Its place in the plan.
    pub(crate) at: usize,
    pub(crate) identity: Identity,
    pub(crate) inputs: BTreeMap<String, String>,
    /// For the receipt.
    pub(crate) digests: BTreeMap<String, String>,
    pub(crate) course: Arc<Mutex<Course>>,
    pub(crate) tell: Tell,
}

/// What was found before anything is sent.
pub(crate) enum Found {
    /// Nothing: it is to be made, by scripts that hold this.
    Nothing(Option<Hold>),
    /// It is there and ours.
    There(String),
}

/// Nothing was sent, with what status. Nobody is told these numbers but other waiters.
const IN_THE_WAY: u16 = 409;
const REFUSED: u16 = 422;
const NOT_NOW: u16 = 503;

impl Creation {
    fn resource(&self) -> &Resource {
        &self.provisioner.plan.resources[self.at]
    }

    fn kind(&self) -> &Kind {
        &self.resource().kind
    }

    fn call<'a>(&'a self, attempt: Option<Attempt>, hold: Option<&'a Hold>) -> Call<'a> {
        let call = self.provisioner.call(self.resource(), &self.identity, &self.inputs, None);
        Call { attempt, hold, ..call }
    }

    fn receipt(&self, id: &str, how: How) -> Reply {
        Receipt { id: id.to_owned(), how, inputs: self.digests.clone() }.reply()
    }

    fn meet(&self, met: Met) {
        Course::meet(&self.course, met);
    }

    fn step(&self, step: Step) {
        // Whoever listened may be gone; what is recorded counts.
        let _ = self.tell.send((self.at, step));
    }

    fn hold(&self) -> Result<Option<Hold>, Met> {
        hold(self.kind(), &self.provisioner.holds, &self.identity.marker)
    }

    /// Whether what it waits for is still there by its record. Whoever destroys that looks, with
    /// a claim of his own, for claims such as ours: one of the two sees the other.
    async fn can_stand(&self) -> Result<(), Met> {
        for at in &self.resource().after {
            let on = &self.provisioner.plan.resources[*at];
            match self.provisioner.stands(on).await {
                Ok(true) => {}
                Ok(false) => return Err(Met::Waits(on.key.clone())),
                Err(error) => {
                    return Err(Met::Seen(Seen::CannotTell(format!("{}: {error}", on.key))));
                }
            }
        }
        Ok(())
    }

    /// In the way of making it.
    fn stop(&self, met: Met, status: u16) -> Reply {
        let text = met.words();
        self.meet(met);
        Reply::kept(status, text)
    }

    /// Something else has its place, if it is not ours after all: an earlier attempt may have made
    /// it, or this one when the answer came too late for a client that repeats by itself.
    async fn taken(&self, text: String, attempt: Attempt, hold: Option<&Hold>) -> Ran {
        let seen = match self.kind() {
            // Nobody can look, and a script says so only if it has made nothing.
            Kind::Command(command) if command.check.is_none() => Seen::NotOurs(text.clone()),
            // A server says the same of what this very request has made, if somebody on the way
            // repeats it; and of one that it is still at.
            kind @ (Kind::Command(_)
            | Kind::File(_)
            | Kind::Http(_)
            | Kind::Postgres(_)
            | Kind::Aws(_)) => kind.check(&self.call(Some(attempt), hold)).await,
        };
        match seen {
            Seen::Ours(id) => Ran::Happened(self.receipt(&id, How::Found)),
            Seen::NotOurs(_) => {
                Ran::NotExecuted(self.stop(Met::Seen(Seen::NotOurs(text)), IN_THE_WAY))
            }
            seen @ (Seen::Absent | Seen::Several(_) | Seen::CannotTell(_)) => {
                self.meet(Met::Lost(format!("its place is taken ({text}), and {}", told(&seen))));
                Ran::CannotTell(Cause::Abandoned)
            }
        }
    }
}

impl Effect for Creation {
    type Prepared = Found;

    async fn prepare(&mut self, attempt: Attempt) -> Result<Found, Reply> {
        self.can_stand().await.map_err(|met| self.stop(met, NOT_NOW))?;
        let hold = self.hold().map_err(|met| self.stop(met, NOT_NOW))?;
        if !self.kind().can_check() {
            return Ok(Found::Nothing(hold));
        }
        self.step(Step::Looking);
        let seen = self.kind().check(&self.call(Some(attempt), hold.as_ref())).await;
        failpoint!("resource.look.after", seen);
        match seen {
            Seen::Absent => Ok(Found::Nothing(hold)),
            Seen::Ours(id) => Ok(Found::There(id)),
            seen @ Seen::CannotTell(_) => Err(self.stop(Met::Seen(seen), NOT_NOW)),
            seen @ (Seen::NotOurs(_) | Seen::Several(_)) => {
                Err(self.stop(Met::Seen(seen), IN_THE_WAY))
            }
        }
    }

    async fn commit(&mut self, found: Found, attempt: Attempt) -> Ran {
        let hold = match found {
            Found::There(id) => return Ran::Happened(self.receipt(&id, How::Found)),
            Found::Nothing(hold) => hold,
        };
        self.step(Step::Creating { attempt: attempt.number });
        failpoint!("resource.create.before", attempt);
        Course::sent(&self.course);
        let made = self.kind().create(&self.call(Some(attempt), hold.as_ref())).await;
        failpoint!("resource.create.after", made);
        match made {
            Made::Created(id) => Ran::Happened(self.receipt(&id, How::Created)),
            Made::Refused(text) => Ran::NotExecuted(self.stop(Met::Refused(text), REFUSED)),
            Made::Taken(text) => self.taken(text, attempt, hold.as_ref()).await,
            Made::Unknown(cause, text) => {
                self.meet(Met::Lost(text));
                Ran::CannotTell(cause)
            }
        }
    }

    async fn probe(&mut self, _doubt: &InDoubt) -> Probed {
        let hold = match self.hold() {
            Ok(hold) => hold,
            Err(met) => {
                self.meet(met);
                return Probed::StillRunning;
            }
        };
        self.step(Step::Looking);
        let seen = self.kind().check(&self.call(None, hold.as_ref())).await;
        let probed = match &seen {
            Seen::Ours(id) => Probed::Happened(self.receipt(id, How::Found)),
            Seen::Absent => Probed::DidNotHappen,
            // To say which of them it is takes a person.
            Seen::NotOurs(_) | Seen::Several(_) | Seen::CannotTell(_) => Probed::CannotTell,
        };
        self.meet(Met::Seen(seen));
        probed
    }
}

/// The right to be at a resource on this machine; in doubt an earlier attempt may still be.
pub(crate) fn hold(kind: &Kind, holds: &Holds, marker: &str) -> Result<Option<Hold>, Met> {
    if !kind.is_held() {
        return Ok(None);
    }
    match holds.take(marker) {
        Ok(Some(hold)) => Ok(Some(hold)),
        Ok(None) => Err(Met::StillRunning),
        Err(error) => {
            let text = format!("{}: {error}", holds.0.display());
            Err(Met::Seen(Seen::CannotTell(text)))
        }
    }
}

/// What was seen, in words.
pub(crate) fn told(seen: &Seen) -> String {
    match seen {
        Seen::Absent => "nothing is there".into(),
        Seen::Ours(id) => format!("{id} is there and ours"),
        Seen::NotOurs(text) => format!("what is there is not ours: {text}"),
        Seen::Several(ids) => format!("there is more than one of ours: {}", ids.join(", ")),
        Seen::CannotTell(text) => format!("nobody can tell what is there: {text}"),
    }
}
