//! Notices: hints of a store to those who wait for a key that its record has changed.
//!
//! A notice says no more than "look again". One that is lost costs time and nothing else, since
//! whoever waits looks again by itself too, only later. So nothing here is durable or exact, and
//! all of it is bounded by the keys that are wanted.

use std::collections::HashSet;
use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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

/// The end of a store, or of one of its parts. Those who wait are told when it is dropped.
#[derive(Debug)]
pub struct Teller {
    shared: Arc<Shared>,
    /// Which of the parts it is the end of.
    part: usize,
}

/// Says which parts of a store hear of a key; see [`Teller::split`].
#[derive(Debug)]
pub struct Router(Weak<Shared>);

/// Both ends: those who wait, and the store that tells them. None flow until it says so.
pub fn notices() -> (Notices, Teller) {
    let shared = Arc::new(Shared::default());
    shared.lock().parts.push(Part::default());
    (Notices(Arc::clone(&shared)), Teller { shared, part: 0 })
}

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: HashSet<KeyId>,
    /// Of those, what has changed.
    changed: HashSet<KeyId>,
    parts: Vec<Part>,
    route: Route,
    /// What is to be told of whether notices come.
    news: Option<Notice>,
    waits: Option<Waker>,
    /// Whether nobody waits any more.
    unheard: bool,
}

/// What one part of the store hears; a store that is not split is one.
#[derive(Debug, Default)]
struct Part {
    wanted: HashSet<KeyId>,
    /// Of those, what the part has not heard yet; and what it has heard that is not wanted now.
    begun: HashSet<KeyId>,
    ended: HashSet<KeyId>,
    flows: bool,
    tells: Option<Waker>,
    /// Whether its end is gone.
    untold: bool,
}

/// Which parts hear of a key; without one the first does.
#[derive(Default)]
struct Route(Option<Box<dyn Fn(KeyId) -> Vec<usize> + Send>>);

impl Route {
    fn of(&self, id: KeyId) -> Vec<usize> {
        self.0.as_ref().map_or_else(|| vec![0], |route| route(id))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section below is a few steps of sets, which a panic cannot leave by half.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Somebody waits for a key that it may have; whether it did not hear of it before.
    fn begin(&mut self, id: KeyId) -> bool {
        let is_new = !self.untold && self.wanted.insert(id);
        if is_new && !self.ended.remove(&id) {
            self.begun.insert(id);
            self.wake();
        }
        is_new
    }

    fn end(&mut self, id: KeyId) {
        if self.wanted.remove(&id) && !self.begun.remove(&id) {
            self.ended.insert(id);
            self.wake();
        }
    }

    fn wake(&mut self) {
        self.tells.take().into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn wake_waiting(&mut self) {
        self.waits.take().into_iter().for_each(Waker::wake);
    }

    fn flows(&self) -> bool {
        self.parts.iter().all(|part| part.flows)
    }

    fn untold(&self) -> bool {
        self.parts.iter().all(|part| part.untold)
    }

    /// Lets each part hear of what it may have, and of nothing else. What one has not heard of
    /// before may have changed there.
    fn reroute(&mut self) {
        for id in &self.wanted {
            let route = self.route.of(*id);
            for (number, part) in self.parts.iter_mut().enumerate() {
                if !route.contains(&number) {
                    part.end(*id);
                } else if part.begin(*id) {
                    self.changed.insert(*id);
                }
            }
        }
        self.wake_waiting();
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
        if self.untold() {
            return Poll::Ready(None);
        }
        self.waits = Some(context.waker().clone());
        Poll::Pending
    }

    fn wants(&mut self, part: usize, context: &Context<'_>) -> Poll<Option<Vec<Want>>> {
        if self.unheard {
            return Poll::Ready(None);
        }
        let part = &mut self.parts[part];
        if part.begun.is_empty() && part.ended.is_empty() {
            part.tells = Some(context.waker().clone());
            return Poll::Pending;
        }
        let begun = part.begun.drain().map(Want::Begin);
        Poll::Ready(Some(begun.chain(part.ended.drain().map(Want::End)).collect()))
    }
}

impl Notices {
    /// Somebody waits for this key: from now on it is told when its record changes.
    pub fn want(&self, id: KeyId) {
        let mut state = self.0.lock();
        if !state.untold() && state.wanted.insert(id) {
            for part in state.route.of(id) {
                state.parts[part].begin(id);
            }
        }
    }

    /// Nobody does any more.
    pub fn leave(&self, id: KeyId) {
        let mut state = self.0.lock();
        state.changed.remove(&id);
        if state.wanted.remove(&id) {
            state.parts.iter_mut().for_each(|part| part.end(id));
        }
    }

    /// Whether notices come, whatever key they are about.
    pub fn flow(&self) -> bool {
        self.0.lock().flows()
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
        state.parts.iter_mut().for_each(Part::wake);
        state.wake_waiting();
    }
}

impl Teller {
    /// So many in its place, at least one, for a store of several parts. `route` says by their
    /// numbers which of them hear of a key. Notices flow while they do from all of them.
    pub fn split(
        self,
        parts: usize,
        route: impl Fn(KeyId) -> Vec<usize> + Send + 'static,
    ) -> (Vec<Self>, Router) {
        let shared = Arc::clone(&self.shared);
        let router = Router(Arc::downgrade(&shared));
        shared.lock().parts.resize_with(parts.max(1), Part::default);
        let others = (1..parts).map(|part| Self { shared: Arc::clone(&shared), part });
        let tellers: Vec<Self> = others.collect();
        router.route(route);
        (std::iter::once(self).chain(tellers).collect(), router)
    }

    /// What has become wanted, or is not any more, since the last call; waits for it. `None` once
    /// nobody listens for good. One caller at a time.
    pub fn wants(&self) -> impl Future<Output = Option<Vec<Want>>> + Send + '_ {
        poll_fn(|context| self.shared.lock().wants(self.part, context))
    }

    /// All that is wanted of it, in no order.
    pub fn wanted(&self) -> Vec<KeyId> {
        self.shared.lock().parts[self.part].wanted.iter().copied().collect()
    }

    /// Whether nobody listens any more.
    pub fn is_over(&self) -> bool {
        self.shared.lock().unheard
    }

    /// The record of this key may have changed. Heard only if it is wanted.
    pub fn tell(&self, id: KeyId) {
        let mut state = self.shared.lock();
        if state.parts[self.part].wanted.contains(&id) {
            state.changed.insert(id);
            state.wake_waiting();
        }
    }

    /// Notices come from now on. What changed before may not have been told, so all that is wanted
    /// is looked at once.
    pub fn flows(&self) {
        let mut state = self.shared.lock();
        let State { changed, parts, .. } = &mut *state;
        let part = &mut parts[self.part];
        part.flows = true;
        changed.extend(part.wanted.iter());
        if state.flows() {
            state.news = Some(Notice::Flow);
        }
        state.wake_waiting();
    }

    /// None come any more, and why.
    pub fn lost(&self, why: &str) {
        let mut state = self.shared.lock();
        state.parts[self.part].flows = false;
        state.news = Some(Notice::Lost(why.to_owned()));
        state.wake_waiting();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let flowed = state.flows();
        let part = &mut state.parts[self.part];
        *part = Part { untold: true, ..Part::default() };
        if flowed && !state.untold() {
            state.news = Some(Notice::Lost("a part of the store tells nothing more".to_owned()));
        }
        state.wake_waiting();
    }
}

impl Router {
    /// From now on these parts hear of a key. Returns whether somebody listens.
    pub fn route(&self, route: impl Fn(KeyId) -> Vec<usize> + Send + 'static) -> bool {
        let Some(shared) = self.0.upgrade() else { return false };
        let mut state = shared.lock();
        state.route = Route(Some(Box::new(route)));
        state.reroute();
        !state.unheard
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
    fn each_part_hears_of_its_own_keys_and_of_others_once_they_have_moved_there() {
        let (notices, teller) = notices();
        notices.want(id(1));
        let (parts, router) = teller.split(2, |_| vec![0]);
        assert_eq!(now(parts[0].wants()), Some(Some(vec![Want::Begin(id(1))])));
        assert_eq!(now(parts[1].wants()), None);
        // While it moves both are listened to.
        assert!(router.route(|_| vec![0, 1]));
        assert_eq!(now(notices.next()), Some(Some(Notice::Changed(id(1)))), "it may be there");
        assert_eq!(now(parts[1].wants()), Some(Some(vec![Want::Begin(id(1))])));
        assert!(router.route(|_| vec![1]));
        assert_eq!(now(parts[0].wants()), Some(Some(vec![Want::End(id(1))])));
        assert_eq!((parts[0].wanted(), parts[1].wanted()), (vec![], vec![id(1)]));
        parts[1].tell(id(1));
        assert_eq!(now(notices.next()), Some(Some(Notice::Changed(id(1)))));
        notices.leave(id(1));
        assert_eq!(now(parts[1].wants()), Some(Some(vec![Want::End(id(1))])));
        drop(notices);
        assert!(!router.route(|_| vec![0]));
    }

    #[test]
    fn notices_flow_while_they_do_from_all_parts() {
        let (notices, teller) = notices();
        let (mut parts, _router) = teller.split(2, |id| vec![usize::from(id.as_bytes()[0])]);
        notices.want(id(1));
        parts[0].flows();
        assert!(!notices.flow());
        assert_eq!(now(notices.next()), None, "the other may have what was missed");
        parts[1].flows();
        assert!(notices.flow());
        assert_eq!(now(notices.next()), Some(Some(Notice::Flow)));
        assert_eq!(now(notices.next()), Some(Some(Notice::Changed(id(1)))));
        parts[0].lost("it was cut");
        assert!(!notices.flow());
        assert_eq!(now(notices.next()), Some(Some(Notice::Lost("it was cut".to_owned()))));
        parts[0].flows();
        assert_eq!(now(notices.next()), Some(Some(Notice::Flow)));
        parts.pop();
        assert!(!notices.flow());
        assert!(matches!(now(notices.next()), Some(Some(Notice::Lost(_)))));
        parts.pop();
        assert_eq!(now(notices.next()), Some(None));
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
