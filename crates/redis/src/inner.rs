//! The calls of a store: which server they go to, and what its answers mean.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, StateKind, Timestamp};
use onlyonce_store::{StoreError, StoreErrorKind, Swap, Warning};
use redis::Value;

use crate::error::{Fault, Then, nonsense, not_opened};
use crate::homes::{self, Homes, lost};
use crate::layout::{self, BUCKETS, Layout, bucket};
use crate::link::Link;
use crate::map::{Map, Part};
use crate::script::{self, Script};
use crate::target::Target;

/// How long a write may take to get to the replicas, in milliseconds.
const REPLICAS_WITHIN: &str = "5000";

/// What all clones of a store share.
pub(crate) struct Inner {
    pub(crate) target: Arc<Target>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) map: Map,
    pub(crate) homes: Homes,
    pub(crate) secret: Secret,
    pub(crate) warnings: Vec<Warning>,
    /// Where the sweeper looks first, so that no bucket waits for the others.
    pub(crate) turn: AtomicU8,
}

impl Inner {
    pub(crate) async fn link(&self, bucket: u8) -> Result<Arc<Link>, Fault> {
        let found = async {
            let server = self.map.server(Part::Bucket(bucket)).await?;
            server.link(bucket).await
        };
        let link = match found.await {
            Ok(link) => link,
            Err(error) => {
                self.map.doubt().await;
                return Err(not_opened(&error));
            }
        };
        self.homes.ensure(bucket, &link, &self.map, &self.layout).await?;
        Ok(link)
    }

    pub(crate) async fn store_link(&self) -> Result<Arc<Link>, Fault> {
        // Through a bucket's, so that a failover is noticed before the floor is read.
        self.link(0).await?;
        let server = self.map.server(Part::Store).await.map_err(|error| not_opened(&error))?;
        server.link(0).await.map_err(|error| not_opened(&error))
    }

    /// After a fault: the map is made again if it led to the wrong place. Says whether the call
    /// can be made once more, since it certainly did not take place and may do so elsewhere.
    pub(crate) async fn heed(&self, fault: &Fault) -> bool {
        if fault.then == Then::LookElsewhere {
            self.map.doubt().await;
        }
        fault.then == Then::LookElsewhere && fault.is_refusal()
    }

    pub(crate) async fn get(&self, id: KeyId) -> Result<Option<Record>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.layout.record(id));
        let found = self.ask(bucket(id), &command).await?;
        self.record(id, found)
    }

    /// A command about one bucket that reads: asked once more where the map was wrong or the
    /// connection had ended.
    pub(crate) async fn ask(&self, bucket: u8, command: &redis::Cmd) -> Result<Value, StoreError> {
        let link = self.link(bucket).await.map_err(Fault::of_read)?;
        match link.ask(command).await {
            Err(fault) if fault.then == Then::LookElsewhere => {
                self.map.doubt().await;
                let link = self.link(bucket).await.map_err(Fault::of_read)?;
                link.ask(command).await.map_err(Fault::of_read)
            }
            other => other.map_err(Fault::of_read),
        }
    }

    pub(crate) fn record(&self, id: KeyId, found: Value) -> Result<Option<Record>, StoreError> {
        let place = self.target.to_string();
        let value = script::bytes(found).ok_or_else(|| nonsense(&place).of_read())?;
        value.map(|value| layout::record(&place, id, value)).transpose()
    }

    pub(crate) async fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        let next_value = next.as_ref().map(|record| layout::value(id, record)).transpose()?;
        let (value, score) = next_value.unwrap_or_default();
        let is_timed = next.as_ref().is_some_and(|record| record.key_time.is_some());
        let expected = expected.map(|revision| revision.get().to_be_bytes());
        let is_held = next.as_ref().is_some_and(|it| it.state.kind() == StateKind::InFlight);
        let channel = if is_held { String::new() } else { self.layout.ended(id) };
        let keys = self.swap_keys(id);
        let score = score.to_string();
        let mut tries = 0;
        loop {
            let link = self.link(bucket(id)).await?;
            if expected.is_none() && is_timed && self.homes.hold() {
                let text = format!(
                    "{}: another server has taken over; new keys with a time wait until everybody \
                     knows which ones are refused",
                    link.place()
                );
                return Err(StoreError::new(StoreErrorKind::NotApplied, text));
            }
            let deadline = link.deadline().to_string();
            let before = expected.as_ref().map_or(&[][..], |it| &it[..]);
            let (score, channel) = (score.as_bytes(), channel.as_bytes());
            let arguments = [deadline.as_bytes(), before, &value, id.as_bytes(), score, channel];
            let answer = link.run_for_word(Script::Swap, &keys, &arguments).await;
            let (word, rest) = match answer {
                Ok(answer) => answer,
                Err(fault) => {
                    tries += 1;
                    if self.heed(&fault).await && tries < 2 {
                        continue;
                    }
                    return Err(fault.into());
                }
            };
            return self.swapped(&link, id, &word, rest).await;
        }
    }

    pub(crate) fn swap_keys(&self, id: KeyId) -> Vec<String> {
        let bucket = bucket(id);
        let indexes = StateKind::ALL.into_iter().map(|state| self.layout.index(bucket, state));
        [self.layout.record(id), self.layout.facts(bucket)].into_iter().chain(indexes).collect()
    }

    pub(crate) async fn swapped(
        &self,
        link: &Link,
        id: KeyId,
        word: &str,
        rest: Vec<Value>,
    ) -> Result<Swap, StoreError> {
        let mut rest = rest.into_iter();
        if let Some(Value::Int(now)) = rest.next() {
            link.heard(u64::try_from(now).unwrap_or_default());
        }
        match word {
            "done" => {
                self.await_replicas(link).await?;
                Ok(Swap::Done)
            }
            "conflict" => self.record(id, rest.next().unwrap_or_default()).map(Swap::Conflict),
            "late" => {
                let text = format!("{}: it came too late to take place", link.place());
                Err(StoreError::new(StoreErrorKind::NotApplied, text))
            }
            "gone" => Err(lost(link.place(), "a part of the store is gone: it was emptied").into()),
            _ => Err(nonsense(link.place()).into()),
        }
    }

    /// Waits until as many replicas have the write as the operator asks for.
    pub(crate) async fn await_replicas(&self, link: &Link) -> Result<(), StoreError> {
        let wanted = self.target.replicas;
        if wanted == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("WAIT");
        command.arg(wanted).arg(REPLICAS_WITHIN);
        let lag = |text: String| {
            let text = format!("{}: {text}", link.place());
            StoreError::new(StoreErrorKind::Unknown, text)
        };
        // The write has taken place here; without an answer nobody knows whether it stays.
        let has = link.ask(&command).await.map_err(|fault| lag(fault.of_read().to_string()))?;
        let has: u32 = script::text(has).and_then(|has| has.parse().ok()).unwrap_or_default();
        if wanted <= has {
            return Ok(());
        }
        Err(lag(format!("of the {wanted} replicas asked for, {has} have it")))
    }

    pub(crate) async fn facts(&self, name: &str) -> Result<u64, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.layout.store()).arg(name);
        let link = self.store_link().await.map_err(Fault::of_read)?;
        number(link.place(), link.ask(&command).await.map_err(Fault::of_read)?)
    }

    /// The clock of the server that has the store's facts.
    pub(crate) async fn clock(&self) -> Result<Timestamp, StoreError> {
        let link = self.store_link().await.map_err(Fault::of_read)?;
        let told = link.ask(&redis::cmd("TIME")).await.map_err(Fault::of_read)?;
        let Ok((seconds, micros)) = redis::from_redis_value::<(u64, u64)>(told) else {
            return Err(nonsense(link.place()).into());
        };
        Ok(Timestamp::from_millis(seconds.saturating_mul(1_000).saturating_add(micros / 1_000)))
    }

    pub(crate) async fn raise_floor(&self, to: Floor) -> Result<(), StoreError> {
        let link = self.store_link().await?;
        homes::raise(&link, &self.layout, to).await?;
        self.await_replicas(&link).await
    }

    pub(crate) async fn revision_max(&self) -> Result<u64, StoreError> {
        let mut largest = 0;
        for bucket in 0..BUCKETS {
            let mut command = redis::cmd("HGET");
            command.arg(self.layout.facts(bucket)).arg("revision");
            let found = self.ask(bucket, &command).await?;
            largest = largest.max(number(&self.target.to_string(), found)?);
        }
        Ok(largest)
    }

    pub(crate) async fn count(&self, state: Option<StateKind>) -> Result<u64, StoreError> {
        let mut count = 0;
        for bucket in 0..BUCKETS {
            for kind in StateKind::ALL.into_iter().filter(|kind| state.is_none_or(|it| it == *kind))
            {
                let mut command = redis::cmd("ZCARD");
                command.arg(self.layout.index(bucket, kind));
                if let Value::Int(more) = self.ask(bucket, &command).await? {
                    count += u64::try_from(more).unwrap_or_default();
                }
            }
        }
        Ok(count)
    }
}

fn number(place: &str, value: Value) -> Result<u64, StoreError> {
    match script::bytes(value) {
        Some(Some(bytes)) => {
            let bytes = bytes.try_into().map_err(|_| nonsense(place).of_read())?;
            Ok(u64::from_be_bytes(bytes))
        }
        Some(None) => Err(lost(place, "a part of the store is gone: it was emptied").into()),
        None => Err(nonsense(place).of_read()),
    }
}
