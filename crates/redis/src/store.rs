//! The servers as a store.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, StateKind, Timestamp, limits};
use onlyonce_store::{
    BoxFuture, Checks, Cursor, Due, Filter, OpenError, OpenErrorKind, Page, Store, StoreError,
    StoreErrorKind, Swap, Teller, Warning,
};
use redis::Value;
use tokio::runtime::Handle;

use crate::error::Fault;
use crate::facts::{self, FORMAT};
use crate::homes::Homes;
use crate::inner::Inner;
use crate::layout::{BUCKETS, Layout};
use crate::link::Link;
use crate::map::{Map, Part};
use crate::notice;
use crate::script::Script;
use crate::target::Target;

/// What does not belong to the server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How far ahead of ours a client's clock may be: after a failover, keys with a time up to
    /// this much later are refused too.
    pub key_ahead_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { key_ahead_max: Duration::from_secs(300) }
    }
}

/// Records in Redis, for all processes of several machines. Cheap to clone; all clones are one.
///
/// It is a [`Store`]: a swap returns once the server has synced it. Its calls run on the tokio
/// runtime on which it was opened, and may be awaited anywhere.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<Inner>,
    runtime: Handle,
}

impl Redis {
    /// Makes a new store, with a new secret. Keys with a time below `floor` are refused;
    /// [`Floor::NONE`] if there was never a store before.
    ///
    /// # Errors
    /// There is one already, the server cannot be reached, or it would not keep what a store
    /// promises.
    pub async fn init(target: &Target, floor: Floor) -> Result<(), OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| {
            let text = format!("no random numbers: {error}");
            OpenError::new(OpenErrorKind::Unavailable, target.to_string(), text)
        })?;
        Self::init_with(target, floor, &Secret::from_bytes(secret)).await
    }

    /// The same with this secret, which is that of the store whose records are to be moved here:
    /// key ids are made with it.
    ///
    /// # Errors
    /// As [`Redis::init`].
    pub async fn init_with(
        target: &Target,
        floor: Floor,
        secret: &Secret,
    ) -> Result<(), OpenError> {
        let target = Arc::new(target.clone());
        let layout = Arc::new(Layout::new(&target.prefix));
        let map = Map::new(&target, &layout);
        let place = target.to_string();
        let failed = |error: Fault| {
            let text = StoreError::from(error).to_string();
            OpenError::new(OpenErrorKind::Unavailable, place.as_str(), text)
        };
        let facts = map.server(Part::Store).await?.link(0).await?;
        if facts::read(&facts, &layout).await.map_err(failed)?.is_some() {
            return Err(exists(&place));
        }
        // The buckets first: a store that is half made is none, and making it again finishes it.
        let mut left: Vec<u8> = (0..BUCKETS).collect();
        while let Some(bucket) = left.first().copied() {
            let link = map.server(Part::Bucket(bucket)).await?.link(0).await?;
            let buckets = map.neighbours(bucket).await;
            if !make_buckets(&link, &layout, &buckets).await.map_err(failed)? {
                let text = "there are records without the facts of their store, which were \
                            deleted: choose another prefix";
                return Err(OpenError::new(OpenErrorKind::Foreign, place.as_str(), text));
            }
            left.retain(|bucket| !buckets.contains(bucket));
        }
        let floor = floor.time().as_millis().to_be_bytes();
        let keys = [layout.store()];
        let made =
            facts.run_for_word(Script::Init, &keys, &[FORMAT, secret.as_bytes(), &floor]).await;
        match made.map_err(failed)?.0.as_str() {
            "done" => Ok(()),
            _ => Err(exists(&place)),
        }
    }

    /// Opens the store. It must be called on a tokio runtime, which then runs its calls.
    ///
    /// # Errors
    /// There is none, it is a newer program's, a server cannot be reached, or a setting would break
    /// what a store promises: the error names it.
    pub async fn open(target: &Target, settings: Settings) -> Result<Self, OpenError> {
        let target = Arc::new(target.clone());
        let layout = Arc::new(Layout::new(&target.prefix));
        let map = Map::new(&target, &layout);
        let place = target.to_string();
        let error = |kind, text: &str| OpenError::new(kind, place.as_str(), text);
        let failed =
            |fault: Fault| error(OpenErrorKind::Unavailable, &StoreError::from(fault).to_string());
        let facts = map.server(Part::Store).await?.link(0).await?;
        let mut checks = Checks::at(&*place);
        let secret = facts::look(&facts, &layout, &place, &mut checks).await?;
        let homes = Homes::new(secret.to_vec(), settings.key_ahead_max);
        let mut warnings = facts.warnings().to_vec();
        for bucket in 0..BUCKETS {
            let link = map.server(Part::Bucket(bucket)).await?.link(bucket).await?;
            homes.ensure(bucket, &link, &map, &layout).await.map_err(failed)?;
            warnings.extend(link.warnings().iter().cloned());
        }
        warnings.sort_unstable();
        warnings.dedup();
        let secret = Secret::from_bytes(secret);
        let turn = AtomicU8::new(0);
        let inner = Inner { target, layout, map, homes, secret, warnings, turn };
        Ok(Self { inner: Arc::new(inner), runtime: Handle::current() })
    }

    /// The store's secret.
    pub fn secret(&self) -> &Secret {
        &self.inner.secret
    }

    /// What the operator should know about the servers: risks that were accepted, and what a
    /// failover may lose.
    pub fn warnings(&self) -> &[Warning] {
        &self.inner.warnings
    }

    /// How many keys have a record, in all or in one state.
    ///
    /// # Errors
    /// A server cannot be reached.
    pub async fn count(&self, state: Option<StateKind>) -> Result<u64, StoreError> {
        self.spawn(move |inner| async move { inner.count(state).await }).await
    }

    /// Runs a call to its end, whether or not anybody still waits for it.
    async fn spawn<T, F>(&self, call: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.runtime.spawn(call(Arc::clone(&self.inner))).await.unwrap_or_else(|error| {
            let text = format!("{}: the call was given up: {error}", self.inner.target);
            Err(StoreError::new(StoreErrorKind::Unknown, text))
        })
    }
}

/// Makes the facts of buckets, unless there are records already.
async fn make_buckets(link: &Link, layout: &Layout, buckets: &[u8]) -> Result<bool, Fault> {
    let mut commands = redis::pipe();
    for bucket in buckets {
        let facts = commands.cmd("HSETNX").arg(layout.facts(*bucket));
        facts.arg("revision").arg(&0_u64.to_be_bytes()[..]);
        let records = commands.cmd("EXISTS");
        for state in StateKind::ALL {
            records.arg(layout.index(*bucket, state));
        }
    }
    let answers = link.ask_all(&commands).await?;
    Ok(answers.iter().skip(1).step_by(2).all(|count| *count == Value::Int(0)))
}

fn exists(place: &str) -> OpenError {
    OpenError::new(OpenErrorKind::Exists, place, "there is a store already; it is left as it is")
}

impl Store for Redis {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.get(id).await }))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        if let Some(next) = &next {
            assert!(expected < Some(next.revision), "a write must raise the revision");
        }
        Box::pin(self.spawn(move |inner| async move { inner.swap(id, expected, next).await }))
    }

    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(self.spawn(move |inner| async move {
            inner.facts("floor").await.map(|floor| Floor::at(Timestamp::from_millis(floor)))
        }))
    }

    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.clock().await.map(Some) }))
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.raise_floor(to).await }))
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.revision_max().await }))
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.due(due, limit).await }))
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.list(filter, after).await }))
    }

    fn notices(&self, teller: Teller) {
        drop(self.runtime.spawn(notice::run(Arc::clone(&self.inner), teller)));
    }

    fn reply_max(&self) -> usize {
        limits::REPLY_BYTES_MAX
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
