//! What a plan is carried out with, and where the record of each of its resources is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use onlyonce::{Engine, Request};
use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Key, KeyId, Policy, Record, Scope, Secret, State};

use crate::error::ProvisionError;
use crate::identity::Identity;
use crate::kind::{Call, Kind};
use crate::plan::{Plan, Resource};
use crate::receipt::{self, Receipt};
use crate::script::Holds;

/// The most generations of a key that are looked through.
const GENERATIONS_MAX: u32 = 1_000;

/// The policy of what a person says about a resource: nothing of it is ever forgotten.
pub fn policy_of_verdicts() -> Policy {
    Policy {
        retention: onlyonce_core::limits::RETENTION_MAX,
        remember: FOREVER,
        ..Policy::default()
    }
}

/// Carries out a plan. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Provisioner {
    pub(crate) engine: Engine,
    pub(crate) secret: Secret,
    pub(crate) plan: Arc<Plan>,
    pub(crate) holds: Holds,
    pub(crate) scope: Scope,
}

/// The record of a resource that counts: that of its latest generation.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: KeyId,
    /// From 1. One ends when somebody has its record forgotten, or when other inputs take the place
    /// of those with which nothing was made.
    pub(crate) generation: u32,
    pub(crate) record: Option<Record>,
    /// What is recorded of its destroying, as it is stored. Only what is there is destroyed.
    pub(crate) destroying: Option<Record>,
}

impl Provisioner {
    /// One for this plan. The secret is that of the engine's store; `folder` is where the locked
    /// files of running scripts are put, and is made when it is needed.
    ///
    /// # Errors
    /// The plan's name is no scope. The reading of plans has seen that it is one.
    pub fn new(
        engine: Engine,
        secret: Secret,
        plan: Plan,
        folder: PathBuf,
    ) -> Result<Self, ProvisionError> {
        let scope = Scope::new(format!("plan/{}", plan.name))
            .map_err(|error| ProvisionError::Name(error.to_string()))?;
        Ok(Self { engine, secret, plan: Arc::new(plan), holds: Holds(folder), scope })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn resource(&self, key: &str) -> Result<(usize, &Resource), ProvisionError> {
        self.plan.find(key).ok_or_else(|| ProvisionError::NoSuchKey(key.to_owned()))
    }

    /// The record that counts for a key, as it is stored.
    pub(crate) async fn place(&self, key: &str) -> Result<Place, ProvisionError> {
        let mut generation = 1;
        loop {
            let id = self.id(key, generation)?;
            let record = self.engine.get(id).await?;
            let is_over = record.as_ref().is_some_and(is_over);
            if !is_over || generation == GENERATIONS_MAX {
                let is_there = record.as_ref().is_some_and(was_answered);
                let destroying = match is_there {
                    true => self.engine.get(self.destroy_id(key, generation)?).await?,
                    false => None,
                };
                return Ok(Place { id, generation, record, destroying });
            }
            generation += 1;
        }
    }

    /// Where the generation after this one is recorded; this one again if there are no more.
    pub(crate) fn successor(&self, key: &str, place: &Place) -> Result<KeyId, ProvisionError> {
        self.id(key, place.generation.saturating_add(1).min(GENERATIONS_MAX))
    }

    fn id(&self, key: &str, generation: u32) -> Result<KeyId, ProvisionError> {
        self.named(match generation {
            1 => key.to_owned(),
            // No key of a plan has this sign.
            generation => format!("{key}#{generation}"),
        })
    }

    /// Where the destroying of a generation is recorded: it is an operation of its own.
    pub(crate) fn destroy_id(&self, key: &str, generation: u32) -> Result<KeyId, ProvisionError> {
        self.named(format!("{key}#{generation}#destroy"))
    }

    fn named(&self, name: String) -> Result<KeyId, ProvisionError> {
        let key = Key::new(name).map_err(|error| ProvisionError::Name(error.to_string()))?;
        Ok(self.secret.key_id(&self.scope, &key))
    }

    pub(crate) fn identity(&self, key: &str, generation: u32) -> Identity {
        Identity::new(&self.plan.name, key, generation)
    }

    pub(crate) fn digests(&self, inputs: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        receipt::digests(&self.secret, inputs)
    }

    pub(crate) fn request(
        &self,
        id: KeyId,
        resource: &Resource,
        inputs: &BTreeMap<String, String>,
    ) -> Request {
        let kind = resource.kind.name();
        Request::new(id, receipt::fingerprint(&self.secret, kind, inputs))
    }

    pub(crate) fn call<'a>(
        &'a self,
        resource: &'a Resource,
        identity: &'a Identity,
        inputs: &'a BTreeMap<String, String>,
        id: Option<&'a str>,
    ) -> Call<'a> {
        let folder = &self.plan.folder;
        let (attempt, hold, now) = (None, None, self.engine.now());
        Call { key: &resource.key, identity, inputs, folder, now, attempt, id, hold }
    }
}

/// Whether it is recorded that it was made or found, or refused for ever.
const fn was_answered(record: &Record) -> bool {
    match &record.state {
        State::Completed { .. } | State::Tombstone { .. } => true,
        State::InFlight(_) | State::Released { .. } | State::Unknown(_) => false,
    }
}

/// Whether it is recorded that it is there, and not which it is.
pub(crate) fn has_no_id(record: &Record) -> bool {
    was_answered(record) && !is_over(record) && receipt_of(record).is_none()
}

/// Whether a generation has ended: forgotten, or given up before anything was made.
pub(crate) fn is_over(record: &Record) -> bool {
    match &record.state {
        State::Completed { sealed, .. } | State::Tombstone { sealed, .. } => {
            *sealed || record.is_erased()
        }
        State::InFlight(_) | State::Released { .. } | State::Unknown(_) => false,
    }
}

/// Why nothing is done about one that is there by a record that does not say which: it was settled
/// by other means, or the store had no room for more. What no look shows is made a second time
/// once it is forgotten.
pub(crate) const fn no_id(kind: &Kind) -> &'static str {
    match kind.can_check() {
        true => {
            "its record does not say which it is: import it; or forget it, if its `check` shows it"
        }
        false => {
            "its record does not say which it is: import it; if it is forgotten, another is made"
        }
    }
}

/// What is kept of a resource that is there.
pub(crate) fn receipt_of(record: &Record) -> Option<Receipt> {
    match &record.state {
        State::Completed { reply, .. } => Receipt::of(reply),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    }
}
