//! Applying a plan: each resource once what it waits for is ready, several at a time.

mod making;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use onlyonce_core::{Cause, Fence, Remedy, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use crate::creation::Tell;
use crate::error::ProvisionError;
use crate::provisioner::Provisioner;
use crate::receipt::{Departure, Receipt};

/// What is being done about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is looked for.
    Looking,
    /// It is durable that it may be made from now on, and it is being made.
    Creating {
        /// Which attempt this is, from 1.
        attempt: u32,
    },
    /// It is there, and that is recorded.
    There(Receipt),
    /// It is there and not ready yet.
    Waiting(String),
    /// The end of it in this apply.
    Ended(Became),
}

/// What has become of a resource in one apply. Texts are for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// It is there, recorded and ready.
    Ready(Receipt),
    /// It is there and recorded, and was not ready in time. The next apply goes on waiting.
    NotReady {
        /// What is there.
        receipt: Receipt,
        /// What it said last.
        why: String,
    },
    /// It was definitely refused: nothing was made. The next apply tries again.
    Refused(String),
    /// Something else has its place. Nothing was made.
    Conflict(String),
    /// More than one thing carries its marker; these are their ids. Nothing was made or deleted.
    Duplicate(Vec<String>),
    /// Nobody can tell at present what is there, so nothing was made.
    CannotTell(String),
    /// It was made, and its record does not say which it is. This says what to do.
    NoId(&'static str),
    /// It was made, or may have been, with other inputs. Nothing was done.
    Changed {
        /// The inputs that differ, where that is known.
        inputs: Vec<String>,
        /// What is there, if that is known.
        receipt: Option<Receipt>,
    },
    /// It was there once, and is no longer what is there. Nothing was made.
    Missing {
        /// What was there.
        receipt: Receipt,
        /// What is there now.
        why: String,
    },
    /// Somebody has destroyed it. Nothing was made.
    Destroyed(Departure),
    /// Nobody knows whether it was made, or destroyed.
    Unknown(InDoubt),
    /// It was asked for, and what became of that could not be recorded.
    Unrecorded {
        /// What is there, if that is known.
        receipt: Option<Receipt>,
        /// What the next apply does about it.
        remedy: Remedy,
        /// What else is known.
        why: String,
    },
    /// The store could not be read or written, and nothing was made.
    NoStore(ProvisionError),
    /// Another apply is at it.
    Busy(String),
    /// Somebody is destroying it. Nothing was made.
    Destroying(String),
    /// It was not begun, since this one, which it waits for, is not ready.
    Waits(String),
    /// It was not begun, since this apply was asked to stop.
    Stopped,
}

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// To make it.
    Making,
    /// To destroy it.
    Destroying,
}

/// An attempt of which nobody knows what became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// What was attempted.
    pub work: Work,
    /// When knowledge was lost.
    pub since: Timestamp,
    /// How.
    pub cause: Cause,
    /// The claim, for [`Provisioner::resolve`].
    pub fence: Fence,
    /// What is known beyond that.
    pub why: String,
    /// What the next apply does about it, or whoever destroys it again.
    pub remedy: Remedy,
    /// If it is looked for: from when on it may be taken for not made if nothing is there, or for
    /// not destroyed if it is.
    pub final_from: Option<Timestamp>,
}

/// What has become of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its key.
    pub key: String,
    /// What has become of it.
    pub became: Became,
}

impl Became {
    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::NotReady { .. } => "created",
            Self::Refused(_) => "refused",
            Self::Conflict(_) => "conflict",
            Self::Duplicate(_) => "duplicate",
            Self::CannotTell(_) => "cannot-tell",
            Self::NoId(_) => "no-id",
            Self::Changed { .. } => "changed",
            Self::Missing { .. } => "missing",
            Self::Destroyed(_) => "destroyed",
            Self::Unknown(_) => "unknown",
            Self::Unrecorded { .. } => "unrecorded",
            Self::NoStore(_) => "no-store",
            Self::Busy(_) => "creating",
            Self::Destroying(_) => "destroying",
            Self::Waits(_) | Self::Stopped => "planned",
        }
    }

    /// What it is known by where it is, if it is or was there.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::Ready(receipt)
            | Self::NotReady { receipt, .. }
            | Self::Changed { receipt: Some(receipt), .. }
            | Self::Unrecorded { receipt: Some(receipt), .. }
            | Self::Missing { receipt, .. } => Some(&receipt.id),
            Self::Destroyed(departure) => Some(&departure.id),
            Self::Refused(_)
            | Self::Conflict(_)
            | Self::Duplicate(_)
            | Self::CannotTell(_)
            | Self::NoId(_)
            | Self::Changed { receipt: None, .. }
            | Self::Unknown(_)
            | Self::Unrecorded { receipt: None, .. }
            | Self::NoStore(_)
            | Self::Busy(_)
            | Self::Destroying(_)
            | Self::Waits(_)
            | Self::Stopped => None,
        }
    }
}

/// The resources of a plan on their way.
struct Round {
    /// What each still waits for.
    left: Vec<BTreeSet<usize>>,
    begun: Vec<bool>,
    became: Vec<Option<Became>>,
}

impl Provisioner {
    /// Makes what is not there, each resource once what it waits for is ready, at most `parallel`
    /// at a time. `wait` is how long another apply that is at a resource is waited for. After
    /// `stop`, or when the store fails, nothing is begun any more; what was begun is let end.
    /// `tell` is told each step.
    pub async fn apply(
        &self,
        parallel: usize,
        wait: Duration,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(&str, &Step),
    ) -> Vec<Applied> {
        let (sender, mut steps) = unbounded_channel();
        let mut stop = pin!(stop);
        let (mut stopped, mut failed) = (false, false);
        let mut round = Round::new(self);
        let mut running: JoinSet<(usize, Result<Became, ProvisionError>)> = JoinSet::new();
        let mut tell = |at: usize, step: &Step| tell(&self.plan.resources[at].key, step);
        loop {
            for (at, became) in round.blocked(self) {
                tell(at, &Step::Ended(became.clone()));
                round.became[at] = Some(became);
            }
            while running.len() < parallel.max(1)
                && !stopped
                && !failed
                && let Some(at) = round.next()
            {
                running.spawn(self.clone().begun(at, round.ids(self), wait, sender.clone()));
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                Some((at, step)) = steps.recv() => tell(at, &step),
                Some(joined) = running.join_next() => {
                    drain(&mut steps, &mut tell);
                    match joined {
                        Ok((at, became)) => {
                            let became = became.unwrap_or_else(Became::NoStore);
                            failed |= matches!(became, Became::NoStore(_));
                            tell(at, &Step::Ended(became.clone()));
                            round.ended(at, became);
                        }
                        // Its claim was abandoned, so the next apply finds it in doubt.
                        Err(error) => {
                            if let Ok(panic) = error.try_into_panic() {
                                std::panic::resume_unwind(panic);
                            }
                        }
                    }
                }
                () = &mut stop, if !stopped => stopped = true,
            }
        }
        round.all(self, &mut tell)
    }

    async fn begun(
        self,
        at: usize,
        ids: BTreeMap<String, String>,
        wait: Duration,
        tell: Tell,
    ) -> (usize, Result<Became, ProvisionError>) {
        (at, self.make(at, &ids, wait, &tell).await)
    }
}

fn drain(steps: &mut UnboundedReceiver<(usize, Step)>, tell: &mut impl FnMut(usize, &Step)) {
    while let Ok((at, step)) = steps.try_recv() {
        tell(at, &step);
    }
}

impl Round {
    fn new(provisioner: &Provisioner) -> Self {
        let resources = &provisioner.plan.resources;
        let left = resources.iter().map(|it| it.after.iter().copied().collect()).collect();
        Self { left, begun: vec![false; resources.len()], became: vec![None; resources.len()] }
    }

    /// One that waits for nothing, in the order of the plan.
    fn next(&mut self) -> Option<usize> {
        let at = (0..self.left.len()).find(|at| {
            !self.begun[*at] && self.became[*at].is_none() && self.left[*at].is_empty()
        })?;
        self.begun[at] = true;
        Some(at)
    }

    fn ended(&mut self, at: usize, became: Became) {
        if matches!(became, Became::Ready(_)) {
            self.left.iter_mut().for_each(|left| {
                left.remove(&at);
            });
        }
        self.became[at] = Some(became);
    }

    /// Those that wait for one that has ended and is not ready, and those that wait for them.
    fn blocked(&self, provisioner: &Provisioner) -> Vec<(usize, Became)> {
        let mut blocked: BTreeMap<usize, Became> = BTreeMap::new();
        loop {
            let found = (0..self.left.len()).find_map(|at| {
                let is_open = self.became[at].is_none() && !blocked.contains_key(&at);
                let on = self.left[at]
                    .iter()
                    .find(|on| self.became[**on].is_some() || blocked.contains_key(on));
                on.filter(|_| is_open).map(|on| (at, *on))
            });
            let Some((at, on)) = found else { return blocked.into_iter().collect() };
            blocked.insert(at, Became::Waits(provisioner.plan.resources[on].key.clone()));
        }
    }

    /// The ids of those that are ready, by key.
    fn ids(&self, provisioner: &Provisioner) -> BTreeMap<String, String> {
        let pairs = provisioner.plan.resources.iter().zip(&self.became);
        let ready = pairs.filter_map(|(resource, became)| match became {
            Some(Became::Ready(receipt)) => Some((resource.key.clone(), receipt.id.clone())),
            Some(_) | None => None,
        });
        ready.collect()
    }

    /// All of them; what was not begun was not because of a stop.
    fn all(self, provisioner: &Provisioner, tell: &mut impl FnMut(usize, &Step)) -> Vec<Applied> {
        let pairs = provisioner.plan.resources.iter().zip(self.became).enumerate();
        let all = pairs.map(|(at, (resource, became))| {
            let became = became.unwrap_or_else(|| {
                tell(at, &Step::Ended(Became::Stopped));
                Became::Stopped
            });
            Applied { key: resource.key.clone(), became }
        });
        all.collect()
    }
}
