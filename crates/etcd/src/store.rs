//! The cluster as a store.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use onlyonce_core::{Floor, KeyId, Record, Revision, Secret, StateKind};
use onlyonce_store::{
    BoxFuture, Checks, Cursor, Due, Filter, OpenError, OpenErrorKind, Page, Store, StoreError,
    StoreErrorKind, Swap, Teller, Warning,
};
use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::door;
use crate::error::Fault;
use crate::facts::{self, Brought};
use crate::fence::Fence;
use crate::inner::Inner;
use crate::layout::{FORMAT, Facts, Layout};
use crate::members::Members;
use crate::notice;
use crate::target::Target;
use crate::wire::{Compare, Op, Range, Txn, end_of};

/// The largest reply that is kept, in bytes. etcd takes requests of 1.5 MiB unless it is told
/// otherwise (`--max-request-bytes`).
const REPLY_MAX: usize = 1 << 20;

/// Records in etcd, for all processes of several machines. Cheap to clone; all clones are one.
///
/// It is a [`Store`]: a swap returns once a majority of the members has it. Its calls run on the
/// tokio runtime on which it was opened, and may be awaited anywhere.
#[derive(Clone)]
pub struct Etcd {
    inner: Arc<Inner>,
    runtime: Handle,
}

impl Etcd {
    /// Makes a new store, with a new secret. Keys with a time below `floor` are refused;
    /// [`Floor::NONE`] if there was never a store before.
    ///
    /// # Errors
    /// There is one already, the cluster cannot be reached, or it would not keep what a store
    /// promises.
    pub async fn init(target: &Target, floor: Floor) -> Result<(), OpenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|failure| {
            let text = format!("no random numbers: {failure}");
            OpenError::new(OpenErrorKind::Unavailable, target.to_string(), text)
        })?;
        Self::init_with(target, floor, &Secret::from_bytes(secret)).await
    }

    /// The same with this secret, which is that of the store whose records are to be moved here:
    /// key ids are made with it.
    ///
    /// # Errors
    /// As [`Etcd::init`].
    pub async fn init_with(
        target: &Target,
        floor: Floor,
        secret: &Secret,
    ) -> Result<(), OpenError> {
        let place = target.to_string();
        let error = |kind, text: &str| OpenError::new(kind, place.as_str(), text);
        let members = Members::new(target)?;
        let cluster = door::look(&members, target).await?.cluster;
        let layout = Layout::new(&target.prefix);
        let facts = Facts { format: FORMAT, cluster, secret: secret.clone() };
        let records = layout.records();
        let any = Range { range_end: end_of(&records), limit: 1, ..Range::default() };
        let txn = Txn {
            when: vec![Compare::absent(layout.store()), Compare::none_begins(records.clone())],
            then: vec![
                Op::put(layout.store(), facts.write()),
                Op::put(layout.floor(), floor.time().as_millis().to_be_bytes()),
                Op::put(layout.revision(), 0_u64.to_be_bytes()),
            ],
            otherwise: vec![
                Op::get(layout.store()),
                Op::range(Range { key: records, keys_only: true, ..any }),
            ],
        };
        let made = members.write(txn).await;
        let made = made.map_err(|fault| error(OpenErrorKind::Unavailable, fault.text()))?;
        if made.succeeded {
            return Ok(());
        }
        if made.first().is_none() {
            let text = "there are records without the facts of their store, which were deleted: \
                        choose another prefix";
            return Err(error(OpenErrorKind::Foreign, text));
        }
        Err(error(OpenErrorKind::Exists, "there is a store already; it is left as it is"))
    }

    /// Opens the store. It must be called on a tokio runtime, which then runs its calls.
    ///
    /// # Errors
    /// There is none, it is a newer program's, no member can be reached, or what would break a
    /// promise of a store: the error names it.
    pub async fn open(target: &Target) -> Result<Self, OpenError> {
        Self::opened(target, Brought::Refused).await
    }

    /// Opens the store also if it was made in another cluster and a snapshot has brought it here:
    /// for who makes it safe to use, and then says so by [`Etcd::settle_in`].
    ///
    /// # Errors
    /// As [`Etcd::open`], but for that.
    pub async fn open_restored(target: &Target) -> Result<Self, OpenError> {
        Self::opened(target, Brought::LetIn).await
    }

    async fn opened(target: &Target, brought: Brought) -> Result<Self, OpenError> {
        let place = target.to_string();
        let error = |kind, text: &str| OpenError::new(kind, place.as_str(), text);
        let members = Arc::new(Members::new(target)?);
        let seen = door::look(&members, target).await?;
        let layout = Arc::new(Layout::new(&target.prefix));
        let mut checks = Checks::at(&*place);
        let facts = facts::look(&members, &layout, (seen.cluster, brought), &mut checks).await;
        checks.verdict()?;
        let facts = facts?;
        let unavailable = |fault: Fault| error(OpenErrorKind::Unavailable, fault.text());
        let fence = Arc::new(Fence::new(&layout, &facts));
        fence.mark(&members).await.map_err(unavailable)?;
        let runtime = Handle::current();
        runtime.spawn(Fence::keep(Arc::downgrade(&fence), Arc::downgrade(&members)));
        let inner = Inner {
            target: target.clone(),
            layout,
            members,
            fence,
            cache: Cache::default(),
            facts,
            cluster: seen.cluster,
            warnings: seen.warnings,
            forget_until: AtomicI64::new(0),
        };
        Ok(Self { inner: Arc::new(inner), runtime })
    }

    /// The store's secret.
    pub fn secret(&self) -> &Secret {
        &self.inner.facts.secret
    }

    /// What the operator should know about the cluster: risks that were accepted, and members that
    /// were not reached.
    pub fn warnings(&self) -> &[Warning] {
        &self.inner.warnings
    }

    /// How many keys have a record, in all or in one state.
    ///
    /// # Errors
    /// No member answers.
    pub async fn count(&self, state: Option<StateKind>) -> Result<u64, StoreError> {
        self.spawn(move |inner| async move { inner.count(state).await }).await
    }

    /// Makes this cluster the one that the store was made in: [`Etcd::open`] lets it in from then
    /// on. Nothing is written to it any more by this process, or by others that have it open.
    ///
    /// # Errors
    /// No member answers, or the store has become another one. It may be said again.
    pub async fn settle_in(&self) -> Result<(), StoreError> {
        self.spawn(move |inner| async move { inner.settle_in().await }).await
    }

    /// What all clones share.
    #[cfg(test)]
    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
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

impl Store for Etcd {
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
        Box::pin(self.spawn(move |inner| async move { inner.floor().await }))
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.raise_floor(to).await }))
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.spawn(move |inner| async move {
            let key = inner.layout.revision();
            inner.number(key).await
        }))
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.due(due, limit).await }))
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.spawn(move |inner| async move { inner.reclaim().await }))
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
        REPLY_MAX
    }

    fn is_exclusive(&self) -> bool {
        false
    }
}
