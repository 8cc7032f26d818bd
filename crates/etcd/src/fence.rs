//! What keeps a transaction that was given up from taking place later.
//!
//! A member that stood still reads what was sent before, whether or not the connection is still
//! there, and proposes it then. So each transaction compares a number that belongs to this process.
//! When an answer is lost the number is raised, through any member: what was sent before then finds
//! another one. If the process ends, its number goes with a lease.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use onlyonce_store::StoreErrorKind;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use crate::client::Client;
use crate::error::Fault;
use crate::layout::{Facts, Layout};
use crate::members::Members;
use crate::wire::{Compare, Is, Op, Txn};

/// How long the number of a process outlives it, in seconds. Shorter than a call may take to be
/// over.
const LEASE_SECONDS: i64 = 15;
/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// How soon the number is raised again if that did not succeed.
const RAISE_AGAIN: Duration = Duration::from_secs(1);

/// The number of this process.
pub(crate) struct Fence {
    layout: Arc<Layout>,
    facts: Vec<u8>,
    current: RwLock<Option<Mark>>,
    changing: Mutex<()>,
    /// How many answers were lost.
    doubts: AtomicU64,
    /// How many of them the current number excludes: counted only once it is written, so that
    /// nobody is handed the one before while it is being raised.
    excluded: AtomicU64,
    wake: Notify,
}

/// What transactions compare.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) key: Vec<u8>,
    number: u64,
    lease: i64,
}

impl Mark {
    /// The number, as it is written.
    pub(crate) fn value(&self) -> Vec<u8> {
        self.number.to_be_bytes().to_vec()
    }

    /// That the number is still this one.
    pub(crate) fn stands(&self) -> Compare {
        Compare::value(self.key.clone(), Is::Equal, self.value())
    }
}

impl Fence {
    pub(crate) fn new(layout: &Arc<Layout>, facts: &Facts) -> Self {
        Self {
            layout: Arc::clone(layout),
            facts: facts.write(),
            current: RwLock::default(),
            changing: Mutex::default(),
            doubts: AtomicU64::new(0),
            excluded: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// An answer was lost: what was asked must not take place from now on.
    pub(crate) fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// The number is gone: the lease has ended.
    pub(crate) fn lost(&self) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What a transaction has to compare.
    pub(crate) async fn mark(&self, members: &Members) -> Result<Mark, Fault> {
        if !self.in_doubt()
            && let Some(mark) = self.known()
        {
            return Ok(mark);
        }
        let _turn = self.changing.lock().await;
        let doubts = self.doubts.load(Ordering::Acquire);
        let mark = match self.known() {
            Some(mark) if !self.in_doubt() => return Ok(mark),
            Some(mark) => self.raise(members, mark).await?,
            None => self.make(members).await?,
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(mark.clone());
        self.excluded.fetch_max(doubts, Ordering::AcqRel);
        Ok(mark)
    }

    fn in_doubt(&self) -> bool {
        self.excluded.load(Ordering::Acquire) < self.doubts.load(Ordering::Acquire)
    }

    fn known(&self) -> Option<Mark> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn raise(&self, members: &Members, mark: Mark) -> Result<Mark, Fault> {
        let next = Mark { number: mark.number + 1, ..mark };
        // Not one that is gone: a transaction that was given up before it went may compare it.
        let there = Compare::present(next.key.clone());
        match self.put(members, &next, there).await {
            Ok(true) => Ok(next),
            Ok(false) => self.make(members).await,
            Err(fault) if fault.lease_gone => self.make(members).await,
            Err(fault) => Err(fault),
        }
    }

    /// A number of another name, which nothing that was sent before compares.
    async fn make(&self, members: &Members) -> Result<Mark, Fault> {
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|error| {
            Fault::new(StoreErrorKind::NotApplied, format!("no random numbers: {error}"))
        })?;
        let grant = |client: Client| async move { client.grant(LEASE_SECONDS).await };
        let lease = members.call(grant, true).await?.id;
        let mark = Mark { key: self.layout.fence(&name), number: 1, lease };
        let is_ours = Compare::value(self.layout.store(), Is::Equal, self.facts.clone());
        if self.put(members, &mark, is_ours).await? {
            return Ok(mark);
        }
        let text = "the store is gone: it was emptied, or another one has taken its place";
        Err(Fault::new(StoreErrorKind::Damaged, text.to_owned()))
    }

    /// Whether it was written.
    async fn put(&self, members: &Members, mark: &Mark, when: Compare) -> Result<bool, Fault> {
        let put = Op::put_with_lease(mark.key.clone(), mark.value(), mark.lease);
        let txn = Txn { when: vec![when], then: vec![put], otherwise: Vec::new() };
        // Twice is as good as once.
        members.read(txn).await.map(|answer| answer.succeeded)
    }

    /// Renews the lease, and raises the number after a lost answer, as long as the store is used.
    pub(crate) async fn keep(fence: std::sync::Weak<Self>, members: std::sync::Weak<Members>) {
        let mut pause = RENEW_EVERY;
        loop {
            let woken = {
                let Some(fence) = fence.upgrade() else { return };
                // The store may be dropped meanwhile, and is not kept by this.
                let waiting = async { fence.wake.notified().await };
                timeout(pause.min(RAISE_AGAIN), waiting).await.is_ok()
            };
            let (Some(fence), Some(members)) = (fence.upgrade(), members.upgrade()) else { return };
            if fence.in_doubt() && fence.mark(&members).await.is_err() {
                // Not at once again: nobody can be reached.
                tokio::time::sleep(RAISE_AGAIN).await;
                continue;
            }
            pause = match pause.checked_sub(RAISE_AGAIN).filter(|left| !woken && !left.is_zero()) {
                Some(left) => left,
                None => {
                    fence.renew(&members).await;
                    RENEW_EVERY
                }
            };
        }
    }

    async fn renew(&self, members: &Members) {
        let Some(mark) = self.known() else { return };
        let lease = mark.lease;
        let renew = |client: Client| async move { client.renew(lease).await };
        // What fails is tried again; a lease that is over is noticed by the next transaction too.
        if let Ok(left) = members.call(renew, true).await
            && left <= 0
        {
            self.lost();
        }
    }
}
