//! Waiting for someone else's outcome: in this process waiters are woken and never polled, from
//! others the store's notices come, if it has any. A waiter never claims.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use onlyonce_core::{KeyId, Record, Reply};
use onlyonce_store::Notices;

/// How an attempt ended, as its waiters are told.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The record as it was left.
    pub(crate) record: Record,
    /// What the first caller is answered although it is not recorded, such as a 429 or 502.
    pub(crate) shared: Option<Reply>,
}

/// Everyone in this process who waits for an attempt to end.
#[derive(Debug)]
pub(crate) struct Waiters {
    /// What the store tells of the keys that are waited for.
    pub(crate) notices: Notices,
    count: AtomicUsize,
    next: AtomicUsize,
    by_key: Mutex<HashMap<KeyId, Vec<Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    number: usize,
    wake: oneshot::Sender<Ended>,
}

/// A place in the queue of one key; leaving it is dropping it.
pub(crate) struct Place {
    waiters: Arc<Waiters>,
    id: KeyId,
    number: usize,
    pub(crate) ended: oneshot::Receiver<Ended>,
}

impl Waiters {
    pub(crate) fn new(notices: Notices) -> Self {
        let (count, next) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { notices, count, next, by_key: Mutex::default() }
    }

    /// Joins those who wait for `id`, unless `max` wait already in all.
    pub(crate) fn join(self: &Arc<Self>, id: KeyId, max: usize) -> Option<Place> {
        if max <= self.count.fetch_add(1, Ordering::SeqCst) {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let (wake, ended) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut by_key = self.by_key();
        by_key.entry(id).or_default().push(Waiter { number, wake });
        self.notices.want(id);
        drop(by_key);
        Some(Place { waiters: Arc::clone(self), id, number, ended })
    }

    /// Whether anybody waits for `id`.
    pub(crate) fn wait_for(&self, id: KeyId) -> bool {
        self.by_key().contains_key(&id)
    }

    /// Tells everyone who waits for `id` how the attempt ended.
    pub(crate) fn wake(&self, id: KeyId, ended: impl FnOnce() -> Ended) {
        // A waiter joins before it reads the record, so whoever this check misses reads it new.
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let Some(waiters) = self.leave(&mut self.by_key(), id) else { return };
        let ended = ended();
        for waiter in waiters {
            // A receiver that is gone has stopped waiting.
            let _ = waiter.wake.send(ended.clone());
        }
    }

    /// Takes out all who wait for a key.
    fn leave(&self, by_key: &mut HashMap<KeyId, Vec<Waiter>>, id: KeyId) -> Option<Vec<Waiter>> {
        let waiters = by_key.remove(&id)?;
        self.notices.leave(id);
        Some(waiters)
    }

    fn by_key(&self) -> MutexGuard<'_, HashMap<KeyId, Vec<Waiter>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        let mut by_key = self.waiters.by_key();
        if let Some(waiters) = by_key.get_mut(&self.id) {
            waiters.retain(|waiter| waiter.number != self.number);
            if waiters.is_empty() {
                self.waiters.leave(&mut by_key, self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_waiters_is_bounded_and_a_leaver_makes_room() {
        let waiters = Arc::new(Waiters::new(onlyonce_store::notices().0));
        let id = KeyId::from_bytes([1; 16]);
        let first = waiters.join(id, 2);
        let second = waiters.join(id, 2);
        assert!(first.is_some() && second.is_some());
        assert!(waiters.join(id, 2).is_none());
        drop(first);
        assert!(waiters.join(id, 2).is_some());
        drop(second);
        assert!(waiters.by_key().is_empty());
    }
}
