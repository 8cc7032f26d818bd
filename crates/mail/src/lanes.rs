//! Which message is sent next: not too many at once to one domain, and not too many a second.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use onlyonce_core::Timestamp;

/// The messages that wait, by the domain of their recipient where that has enough on its way.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The most that is on its way to one domain at once.
    per_domain: usize,
    /// The time from one message to the next.
    apart: Duration,
    /// Not looked at yet.
    waiting: VecDeque<String>,
    /// Those whose domain had enough, by the domain, and all of them.
    held: HashMap<String, VecDeque<String>>,
    known: HashSet<String>,
    busy: HashMap<String, usize>,
    next_at: Timestamp,
}

impl Lanes {
    /// Without anything in them. `per_domain` is at least 1.
    pub(crate) fn new(per_domain: usize, apart: Duration) -> Self {
        let (waiting, held, known) = (VecDeque::new(), HashMap::new(), HashSet::new());
        let (busy, next_at) = (HashMap::new(), Timestamp::from_millis(0));
        Self { per_domain: per_domain.max(1), apart, waiting, held, known, busy, next_at }
    }

    /// Whether all that was put in was looked at.
    pub(crate) fn wants_more(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts in what is not there, and not on its way.
    pub(crate) fn put(&mut self, names: impl IntoIterator<Item = String>) {
        let known = &self.known;
        self.waiting.extend(names.into_iter().filter(|it| !known.contains(it)));
    }

    /// How long nothing more is sent.
    pub(crate) fn pause(&self, now: Timestamp) -> Duration {
        Duration::from_millis(self.next_at.as_millis().saturating_sub(now.as_millis()))
    }

    /// The next one that may be sent now, which is on its way then; `domain` says of a name where
    /// it goes, or `None` if it is not due.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        mut domain: impl FnMut(&str) -> Option<String>,
    ) -> Option<(String, String)> {
        if now < self.next_at {
            return None;
        }
        while let Some(name) = self.waiting.pop_front() {
            let Some(domain) = domain(&name) else { continue };
            self.known.insert(name.clone());
            let busy = self.busy.entry(domain.clone()).or_default();
            if *busy < self.per_domain {
                *busy += 1;
                self.next_at = now.plus(self.apart);
                return Some((name, domain));
            }
            self.held.entry(domain).or_default().push_back(name);
        }
        None
    }

    /// One is no longer on its way: the next one to its domain is looked at first.
    pub(crate) fn ended(&mut self, name: &str, domain: &str) {
        self.known.remove(name);
        if let Some(busy) = self.busy.get_mut(domain) {
            *busy -= 1;
            if *busy == 0 {
                self.busy.remove(domain);
            }
        }
        let Some(held) = self.held.get_mut(domain) else { return };
        if let Some(next) = held.pop_front() {
            self.known.remove(&next);
            self.waiting.push_front(next);
        }
        if held.is_empty() {
            self.held.remove(domain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn lanes(per_domain: usize, millis: u64, names: &[&str]) -> Lanes {
        let mut lanes = Lanes::new(per_domain, Duration::from_millis(millis));
        lanes.put(names.iter().map(ToString::to_string));
        lanes
    }

    /// The name's first letter is its domain.
    fn take(lanes: &mut Lanes, now: Timestamp) -> Option<String> {
        lanes.take(now, |name| Some(name[..1].to_owned())).map(|(name, _)| name)
    }

    #[test]
    fn a_domain_with_enough_on_its_way_holds_up_no_other() {
        let mut lanes = lanes(2, 0, &["a1", "a2", "a3", "a4", "b1"]);
        let first: Vec<_> = std::iter::from_fn(|| take(&mut lanes, NOW)).collect();
        assert_eq!(first, ["a1", "a2", "b1"]);
        assert!(lanes.wants_more());
        // What is held or on its way is not put in again.
        lanes.put(["a1", "a2", "a3", "a4", "b1"].map(str::to_owned));
        assert_eq!(take(&mut lanes, NOW), None);
        lanes.ended("b1", "b");
        assert_eq!(take(&mut lanes, NOW), None);
        for (ends, next) in [("a2", Some("a3")), ("a1", Some("a4")), ("a3", None)] {
            lanes.ended(ends, "a");
            assert_eq!(take(&mut lanes, NOW).as_deref(), next);
        }
        lanes.put(["a3".to_owned()]);
        assert_eq!(take(&mut lanes, NOW).as_deref(), Some("a3"));
    }

    #[test]
    fn messages_are_apart_by_the_pause() {
        let mut lanes = lanes(9, 100, &["a1", "a2"]);
        assert_eq!(take(&mut lanes, NOW).as_deref(), Some("a1"));
        let early = NOW.plus(Duration::from_millis(99));
        assert_eq!((take(&mut lanes, early), lanes.pause(early)), (None, Duration::from_millis(1)));
        let then = NOW.plus(Duration::from_millis(100));
        assert_eq!(lanes.pause(then), Duration::ZERO);
        assert_eq!(take(&mut lanes, then).as_deref(), Some("a2"));
    }

    #[test]
    fn what_is_not_due_is_passed_over() {
        let mut lanes = lanes(1, 0, &["a1", "a2"]);
        let due = |name: &str| (name != "a1").then(|| "a".to_owned());
        assert_eq!(lanes.take(NOW, due).map(|(name, _)| name).as_deref(), Some("a2"));
        lanes.put(["a1".to_owned()]);
        lanes.ended("a2", "a");
        assert_eq!(take(&mut lanes, NOW).as_deref(), Some("a1"));
    }
}
