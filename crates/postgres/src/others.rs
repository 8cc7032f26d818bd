//! What other processes wait for, and what has ended here lately: who waits says so first, so that
//! nothing is told, and nothing it costs, of keys that nobody waits for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onlyonce_core::KeyId;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Keys that others wait for, at most; of more, nothing is told.
const WANTED_MAX: usize = 65_536;
/// For how long a key counts as wanted after it was said to be. Who waits longer says it again.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// Keys that ended last: what was said to be wanted a moment too late is told all the same.
const LATELY_MAX: usize = 4_096;

#[derive(Default)]
pub(crate) struct Others {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Whether anything can be told at all.
    is_on: bool,
    wanted: HashMap<KeyId, Instant>,
    lately: VecDeque<KeyId>,
    /// Of what was wanted, what has ended and is to be told.
    ended: Vec<KeyId>,
}

impl Others {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What it is left as by a panic costs hints at most.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is told what has ended, or not any more.
    pub(crate) fn turn(&self, is_on: bool) {
        *self.lock() = State { is_on, ..State::default() };
    }

    /// Nobody is at work on these any more.
    pub(crate) fn ended(&self, ids: impl Iterator<Item = KeyId>) {
        let mut state = self.lock();
        if !state.is_on {
            return;
        }
        for id in ids {
            if state.wanted.remove(&id).is_some() {
                state.ended.push(id);
            }
            if state.lately.len() == LATELY_MAX {
                state.lately.pop_front();
            }
            state.lately.push_back(id);
        }
        if !state.ended.is_empty() {
            self.news.notify_one();
        }
    }

    /// Another process waits for these.
    #[allow(clippy::disallowed_methods, reason = "how long it counts, for no record")]
    pub(crate) fn wanted(&self, ids: &[KeyId]) {
        let (now, mut state) = (Instant::now(), self.lock());
        let asked: HashSet<&KeyId> = ids.iter().collect();
        let late: HashSet<KeyId> =
            state.lately.iter().filter(|id| asked.contains(id)).copied().collect();
        for id in asked {
            if state.wanted.len() < WANTED_MAX || state.wanted.contains_key(id) {
                state.wanted.insert(*id, now);
            }
        }
        if !late.is_empty() {
            // It may be at work again: then it is told of twice.
            state.ended.extend(late);
            self.news.notify_one();
        }
    }

    /// Forgets what was not said to be wanted for long.
    pub(crate) fn forget(&self) {
        self.lock().wanted.retain(|_, said| said.elapsed() < WANTED_FOR);
    }

    /// What is to be told; waits for it.
    pub(crate) async fn to_tell(&self) -> Vec<KeyId> {
        loop {
            let ended = std::mem::take(&mut self.lock().ended);
            if !ended.is_empty() {
                return ended;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> KeyId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        KeyId::from_bytes(bytes)
    }

    fn to_tell(others: &Others) -> Vec<KeyId> {
        std::mem::take(&mut others.lock().ended)
    }

    #[test]
    fn only_what_somebody_waits_for_is_told() {
        let others = Others::default();
        others.turn(true);
        others.wanted(&[id(1), id(2)]);
        others.ended([id(2), id(3)].into_iter());
        assert_eq!(to_tell(&others), [id(2)]);
        others.ended([id(2)].into_iter());
        assert_eq!(to_tell(&others), [], "it was told");
    }

    #[test]
    fn who_asks_a_moment_too_late_is_told_all_the_same() {
        let others = Others::default();
        others.turn(true);
        others.ended((0..10).map(id));
        others.wanted(&[id(3), id(20)]);
        assert_eq!(to_tell(&others), [id(3)]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let others = Others::default();
        others.ended((0..10).map(id));
        assert!(others.lock().lately.is_empty(), "nothing can be told");
        others.turn(true);
        others.ended((0..LATELY_MAX * 2).map(id));
        assert_eq!(others.lock().lately.len(), LATELY_MAX);
        let many: Vec<_> = (LATELY_MAX * 2..LATELY_MAX * 2 + WANTED_MAX + 9).map(id).collect();
        others.wanted(&many);
        assert_eq!(others.lock().wanted.len(), WANTED_MAX);
        others.turn(false);
        assert!(others.lock().wanted.is_empty());
    }
}
