//! What an apply would do, and why: everything is looked at, and nothing is made.

use std::collections::BTreeMap;

use onlyonce_core::{Record, State};

use crate::apply::Became;
use crate::creation::told;
use crate::destroy::Departing;
use crate::error::ProvisionError;
use crate::kind::{Readiness, Seen};
use crate::plan::Resource;
use crate::provisioner::{Place, Provisioner, no_id, receipt_of};
use crate::receipt::Receipt;

/// What an apply would do about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Would {
    /// Nothing: it is there, recorded and ready.
    Nothing(Receipt),
    /// Make it; this is why.
    Create(String),
    /// Record that it is there: it has our marker. This is its id.
    Adopt(String),
    /// Make it once this one is there, of which it needs the id.
    After(String),
    /// What stands in the way, or is waited for; as an apply would say it.
    Stands(Became),
}

/// What an apply would do about one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// Its key.
    pub key: String,
    /// The name of its kind.
    pub kind: &'static str,
    /// What would be done.
    pub would: Would,
}

impl Would {
    /// One word for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Nothing(_) => "nothing",
            Self::Create(_) | Self::After(_) => "create",
            Self::Adopt(_) => "adopt",
            Self::Stands(became) => became.word(),
        }
    }
}

impl Provisioner {
    /// What an apply would do about each resource, in the order of the plan.
    ///
    /// # Errors
    /// The store could not say.
    pub async fn forecast(&self) -> Result<Vec<Forecast>, ProvisionError> {
        let ids = self.known_ids().await?;
        let mut forecasts = Vec::new();
        for resource in &self.plan.resources {
            let would = self.would(resource, &ids).await?;
            let (key, kind) = (resource.key.clone(), resource.kind.name());
            forecasts.push(Forecast { key, kind, would });
        }
        Ok(forecasts)
    }

    /// The ids of the resources that are recorded as there, by key.
    pub(crate) async fn known_ids(&self) -> Result<BTreeMap<String, String>, ProvisionError> {
        let mut ids = BTreeMap::new();
        for resource in &self.plan.resources {
            let place = self.place(&resource.key).await?;
            let Some(receipt) = place.record.as_ref().and_then(receipt_of) else { continue };
            if !matches!(self.departing(&place, resource).await?, Departing::Gone(..)) {
                ids.insert(resource.key.clone(), receipt.id);
            }
        }
        Ok(ids)
    }

    /// The record as it stands now: a claim whose holder is gone or whose lease is over has ended.
    pub(crate) async fn record_now(
        &self,
        place: &Place,
        resource: &Resource,
        inputs: &BTreeMap<String, String>,
    ) -> Result<Option<Record>, ProvisionError> {
        if place.record.is_none() {
            return Ok(None);
        }
        let request = self.request(place.id, resource, inputs);
        Ok(self.engine.look(&request, &resource.policy).await?.record)
    }

    async fn would(
        &self,
        resource: &Resource,
        ids: &BTreeMap<String, String>,
    ) -> Result<Would, ProvisionError> {
        let place = self.place(&resource.key).await?;
        if let Some(became) = self.departing(&place, resource).await?.in_the_way() {
            return Ok(Would::Stands(became));
        }
        let inputs = match resource.filled(|key| ids.get(key).cloned()) {
            Ok(inputs) => inputs,
            Err(on) => return Ok(Would::After(on)),
        };
        let record = self.record_now(&place, resource, &inputs).await?;
        let fingerprint = Some(self.request(place.id, resource, &inputs).fingerprint);
        let Some(record) = record else {
            return Ok(self.would_make(&place, resource, &inputs).await);
        };
        let is_other = record.fingerprint.is_some() && record.fingerprint != fingerprint;
        match &record.state {
            State::Released { .. } if is_other && record.may_have_run() => {
                Ok(Would::Stands(self.changed(Some(&record), &inputs)))
            }
            State::Released { .. } => Ok(self.would_make(&place, resource, &inputs).await),
            State::InFlight(_) | State::Completed { .. } | State::Unknown(_) if is_other => {
                Ok(Would::Stands(self.changed(Some(&record), &inputs)))
            }
            State::InFlight(flight) => {
                let text = format!("process {} is at it", flight.holder.pid);
                Ok(Would::Stands(Became::Busy(text)))
            }
            State::Unknown(_) => {
                let seen = self.seen(&place, resource, &inputs).await;
                let doubt = self.doubt(resource, &record, told(&seen));
                Ok(Would::Stands(Became::Unknown(doubt)))
            }
            State::Completed { .. } | State::Tombstone { .. } => {
                Ok(self.would_stay(&place, resource, &inputs, &record).await)
            }
        }
    }

    async fn seen(
        &self,
        place: &Place,
        resource: &Resource,
        inputs: &BTreeMap<String, String>,
    ) -> Seen {
        let identity = self.identity(&resource.key, place.generation);
        resource.kind.check(&self.call(resource, &identity, inputs, None)).await
    }

    async fn would_make(
        &self,
        place: &Place,
        resource: &Resource,
        inputs: &BTreeMap<String, String>,
    ) -> Would {
        if !resource.kind.can_check() {
            return Would::Create("it was not made yet, and cannot be looked for".into());
        }
        match self.seen(place, resource, inputs).await {
            Seen::Absent => Would::Create("nothing is there".into()),
            Seen::Ours(id) => Would::Adopt(id),
            Seen::NotOurs(text) => Would::Stands(Became::Conflict(text)),
            Seen::Several(ids) => Would::Stands(Became::Duplicate(ids)),
            Seen::CannotTell(text) => Would::Stands(Became::CannotTell(text)),
        }
    }

    async fn would_stay(
        &self,
        place: &Place,
        resource: &Resource,
        inputs: &BTreeMap<String, String>,
        record: &Record,
    ) -> Would {
        let Some(receipt) = receipt_of(record) else {
            return Would::Stands(Became::NoId(no_id(&resource.kind)));
        };
        if let Some(drifted) = self.drifted(place, resource, inputs, &receipt).await {
            return Would::Stands(drifted);
        }
        let identity = self.identity(&resource.key, place.generation);
        let call = self.call(resource, &identity, inputs, Some(&receipt.id));
        match resource.kind.ready(&call).await {
            Readiness::Ready => Would::Nothing(receipt),
            Readiness::NotYet(why) | Readiness::Failed(why) => {
                Would::Stands(Became::NotReady { receipt, why })
            }
        }
    }
}
