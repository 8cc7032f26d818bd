//! Notices: hints of a store to those who wait for a key that its record has changed.
//!
//! A notice says no more than "look again". One that is lost costs time and nothing else, since
//! whoever waits looks again by itself too, only later. So nothing here is durable or exact, and
//! all of it is bounded by the keys that are wanted.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use onlyonce_core::KeyId;

/// What those who wait hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nobody may be at work on this key any more: look again.
    Changed(KeyId),
    /// Notices come from now on.
    Flow,
    /// None come, until [`Notice::Flow`]: look by yourself. The text says why.
    Lost(String),
}

/// What a store hears of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Somebody waits for it.
    Begin(KeyId),
    /// Nobody does any more.
    End(KeyId),
}

/// The end of those who wait. The store is told when it is dropped.
#[derive(Debug)]
pub struct Notices(Arc<Shared>);

/// The end of a store. Those who wait are told when it is dropped.
#[derive(Debug)]
pub struct Teller(Arc<Shared>);

/// Both ends: those who wait, and the store that tells them. None flow until it says so.
pub fn notices() -> (Notices, Teller) {
    let shared = Arc::new(Shared::default());
    (Notices(Arc::clone(&shared)), Teller(shared))
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: HashSet<KeyId>,
    /// Of those, what the store has not heard yet; and what it has heard that is not wanted now.
    begun: HashSet<KeyId>,
    ended: HashSet<KeyId>,
    /// Of those that are wanted, what has changed.
    changed: HashSet<KeyId>,
    flows: bool,
    /// What is to be told of that.
    news: Option<Notice>,
    waits: Option<Waker>,
    tells: Option<Waker>,
    /// Whether an end is gone.
    unheard: bool,
    untold: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section below is a few steps of sets, which a panic cannot leave by half.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_waiting(&mut self) {
        self.waits.take().into_iter().for_each(Waker::wake);
    }

    fn wake_telling(&mut self) {
        self.tells.take().into_iter().for_each(Waker::wake);
    }

    fn next(&mut self, context: &Context<'_>) -> Poll<Option<Notice>> {
        if self.unheard {
            return Poll::Ready(None);
        }
        if let Some(news) = self.news.take() {
            return Poll::Ready(Some(news));
        }
        if let Some(id) = self.changed.iter().next().copied() {
            self.changed.remove(&id);
            return Poll::Ready(Some(Notice::Changed(id)));
        }
        if self.untold {
            return Poll::Ready(None);
        }
        self.waits = Some(context.waker().clone());
        Poll::Pending
    }

    fn wants(&mut self, context: &Context<'_>) -> Poll<Option<Vec<Want>>> {
        if self.unheard {
            return Poll::Ready(None);
        }
        if self.begun.is_empty() && self.ended.is_empty() {
            self.tells = Some(context.waker().clone());
            return Poll::Pending;
        }
        let begun = self.begun.drain().map(Want::Begin);
        Poll::Ready(Some(begun.chain(self.ended.drain().map(Want::End)).collect()))
    }
}

impl Notices {
    /// Somebody waits for this key: from now on it is told when its record changes.
    pub fn want(&self, id: KeyId) {
        let mut state = self.0.lock();
        if !state.untold && state.wanted.insert(id) && !state.ended.remove(&id) {
            state.begun.insert(id);
            state.wake_telling();
        }
    }

    /// Nobody does any more.
    pub fn leave(&self, id: KeyId) {
        let mut state = self.0.lock();
        state.changed.remove(&id);
        if state.wanted.remove(&id) && !state.begun.remove(&id) {
            state.ended.insert(id);
            state.wake_telling();
        }
    }

    /// Whether notices come.
    pub fn flow(&self) -> bool {
        self.0.lock().flows
    }

    /// The next one; `None` once the store tells nothing for good. One caller at a time.
    pub fn next(&self) -> impl Future<Output = Option<Notice>> + Send + use<> {
        let shared = Arc::clone(&self.0);
        poll_fn(move |context| shared.lock().next(context))
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.unheard = true;
        state.wake_telling();
        state.wake_waiting();
    }
}

impl Teller {
    /// What has become wanted, or is not any more, since the last call; waits for it. `None` once
    /// nobody listens for good. One caller at a time.
    pub fn wants(&self) -> impl Future<Output = Option<Vec<Want>>> + Send + '_ {
        poll_fn(|context| self.0.lock().wants(context))
    }

    /// All that is wanted, in no order.
    pub fn wanted(&self) -> Vec<KeyId> {
        self.0.lock().wanted.iter().copied().collect()
    }

    /// Whether nobody listens any more.
    pub fn is_over(&self) -> bool {
        self.0.lock().unheard
    }

    /// The record of this key may have changed. Heard only if it is wanted.
    pub fn tell(&self, id: KeyId) {
        let mut state = self.0.lock();
        if state.wanted.contains(&id) {
            state.changed.insert(id);
            state.wake_waiting();
        }
    }

    /// Notices come from now on. What changed before may not have been told, so all that is wanted
    /// is looked at once.
    pub fn flows(&self) {
        let mut state = self.0.lock();
        state.flows = true;
        state.news = Some(Notice::Flow);
        let State { changed, wanted, .. } = &mut *state;
        changed.extend(wanted.iter());
        state.wake_waiting();
    }

    /// None come any more, and why.
    pub fn lost(&self, why: &str) {
        let mut state = self.0.lock();
        state.flows = false;
        state.news = Some(Notice::Lost(why.to_owned()));
        state.wake_waiting();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.untold = true;
        state.flows = false;
        state.begun.clear();
        state.ended.clear();
        state.wake_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> KeyId {
        KeyId::from_bytes([number; 16])
    }

    /// What is there without waiting.
    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn only_what_is_wanted_is_told_and_once() {
        let (notices, teller) = notices();
        teller.tell(id(1));
        assert_eq!(now(notices.next()), None);
        notices.want(id(1));
        assert_eq!(now(teller.wants()), Some(Some(vec![Want::Begin(id(1))])));
        teller.tell(id(1));
        teller.tell(id(1));
        assert_eq!(now(notices.next()), Some(Some(Notice::Changed(id(1)))));
        assert_eq!(now(notices.next()), None);
        teller.tell(id(1));
        notices.leave(id(1));
        assert_eq!(now(notices.next()), None);
        assert_eq!(now(teller.wants()), Some(Some(vec![Want::End(id(1))])));
    }

    #[test]
    fn the_store_hears_the_difference_and_nothing_of_what_came_and_went() {
        let (notices, teller) = notices();
        notices.want(id(1));
        notices.leave(id(1));
        assert_eq!(now(teller.wants()), None);
        notices.want(id(2));
        assert!(now(teller.wants()).is_some());
        notices.leave(id(2));
        notices.want(id(2));
        assert_eq!(now(teller.wants()), None);
        assert_eq!(teller.wanted(), [id(2)]);
    }

    #[test]
    fn what_changed_while_none_came_is_looked_at_when_they_come_again() {
        let (notices, teller) = notices();
        notices.want(id(1));
        assert!(!notices.flow());
        teller.flows();
        assert!(notices.flow());
        assert_eq!(now(notices.next()), Some(Some(Notice::Flow)));
        assert_eq!(now(notices.next()), Some(Some(Notice::Changed(id(1)))));
        teller.lost("it was cut");
        assert!(!notices.flow());
        assert_eq!(now(notices.next()), Some(Some(Notice::Lost("it was cut".to_owned()))));
        assert_eq!(now(notices.next()), None);
    }

    #[test]
    fn each_end_hears_that_the_other_is_gone() {
        let (waiting, teller) = notices();
        drop(teller);
        waiting.want(id(1));
        assert_eq!(now(waiting.next()), Some(None));
        let (waiting, teller) = notices();
        let next = waiting.next();
        drop(waiting);
        assert_eq!(now(teller.wants()), Some(None));
        assert_eq!(now(next), Some(None));
    }
}
