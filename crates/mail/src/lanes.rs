//! Which message is sent next: not too many at once to one domain, and not too many a second.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use onlyonce_core::Timestamp;

/// How many go to one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The time from one message to the next, whoever gets it.
    pub(crate) apart: Duration,
    /// The most that is on its way to one domain at once; at least 1.
    pub(crate) per_domain: usize,
    /// The time from one message to a domain to the next one to it.
    pub(crate) apart_there: Duration,
}

/// The messages that wait, by the domain of their recipient where that has enough for now.
#[derive(Debug)]
pub(crate) struct Lanes {
    limits: Limits,
    /// Not looked at yet.
    waiting: VecDeque<String>,
    known: HashSet<String>,
    /// Those with something on its way or held, and those that had something lately.
    lanes: BTreeMap<String, Lane>,
    next_at: Timestamp,
}

/// One domain.
#[derive(Debug, Default)]
struct Lane {
    busy: usize,
    next_at: Timestamp,
    /// What has to wait, since there is enough on its way or was lately.
    held: VecDeque<String>,
}

impl Lane {
    fn is_needed(&self, now: Timestamp) -> bool {
        0 < self.busy || !self.held.is_empty() || now < self.next_at
    }

    /// Whether what is held waits for nothing but the time.
    fn waits_for_time(&self, limits: &Limits) -> bool {
        !self.held.is_empty() && self.busy < limits.per_domain.max(1)
    }

    fn has_room(&self, limits: &Limits, now: Timestamp) -> bool {
        self.busy < limits.per_domain.max(1) && self.next_at <= now
    }
}

impl Lanes {
    /// Without anything in them.
    pub(crate) fn new(limits: Limits) -> Self {
        let (waiting, known, lanes) = (VecDeque::new(), HashSet::new(), BTreeMap::new());
        Self { limits, waiting, known, lanes, next_at: Timestamp::default() }
    }

    /// Whether all that was put in was looked at.
    pub(crate) fn wants_more(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing is left, but what is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.lanes.values().all(|it| it.held.is_empty())
    }

    /// Puts in what is not there, and not on its way.
    pub(crate) fn put(&mut self, names: impl IntoIterator<Item = String>) {
        let known = &self.known;
        self.waiting.extend(names.into_iter().filter(|it| !known.contains(it)));
    }

    /// How long nothing more is sent; `None` if it is not the time that is waited for.
    pub(crate) fn pause(&self, now: Timestamp) -> Option<Duration> {
        let held = self.lanes.values().filter(|it| it.waits_for_time(&self.limits));
        let held = held.map(|it| it.next_at);
        let next = held.chain((!self.waiting.is_empty()).then_some(now)).min()?.max(self.next_at);
        Some(Duration::from_millis(next.as_millis().saturating_sub(now.as_millis())))
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
        self.lanes.retain(|_, lane| lane.is_needed(now));
        let limits = self.limits;
        let free = |lane: &Lane| !lane.held.is_empty() && lane.has_room(&limits, now);
        let held = self.lanes.iter_mut().find(|(_, lane)| free(lane));
        if let Some((domain, lane)) = held
            && let Some(name) = lane.held.pop_front()
        {
            let domain = domain.clone();
            self.begin(&domain, now);
            return Some((name, domain));
        }
        while let Some(name) = self.waiting.pop_front() {
            let Some(domain) = domain(&name) else { continue };
            self.known.insert(name.clone());
            let lane = self.lanes.entry(domain.clone()).or_default();
            if lane.has_room(&limits, now) {
                self.begin(&domain, now);
                return Some((name, domain));
            }
            lane.held.push_back(name);
        }
        None
    }

    fn begin(&mut self, domain: &str, now: Timestamp) {
        self.next_at = now.plus(self.limits.apart);
        if let Some(lane) = self.lanes.get_mut(domain) {
            lane.busy += 1;
            lane.next_at = now.plus(self.limits.apart_there);
        }
    }

    /// One is no longer on its way.
    pub(crate) fn ended(&mut self, name: &str, domain: &str) {
        self.known.remove(name);
        if let Some(lane) = self.lanes.get_mut(domain) {
            lane.busy = lane.busy.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn lanes(per_domain: usize, millis: u64, names: &[&str]) -> Lanes {
        let (apart, apart_there) = (Duration::from_millis(millis), Duration::ZERO);
        let mut lanes = Lanes::new(Limits { apart, per_domain, apart_there });
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
        let pause = Some(Duration::from_millis(1));
        assert_eq!((take(&mut lanes, early), lanes.pause(early)), (None, pause));
        let then = NOW.plus(Duration::from_millis(100));
        assert_eq!(lanes.pause(then), Some(Duration::ZERO));
        assert_eq!(take(&mut lanes, then).as_deref(), Some("a2"));
        assert_eq!(lanes.pause(then), None, "nothing waits for a time");
    }

    #[test]
    fn messages_to_a_domain_are_apart_and_hold_up_no_other() {
        let (apart, apart_there) = (Duration::ZERO, Duration::from_millis(100));
        let mut lanes = Lanes::new(Limits { apart, per_domain: 9, apart_there });
        lanes.put(["a1", "a2", "b1", "a3"].map(str::to_owned));
        let all = |lanes: &mut Lanes, now| -> Vec<String> {
            std::iter::from_fn(|| take(lanes, now)).collect()
        };
        assert_eq!(all(&mut lanes, NOW), ["a1", "b1"]);
        assert!(lanes.wants_more() && !lanes.is_empty());
        assert_eq!(lanes.pause(NOW), Some(apart_there));
        // That one of them has ended does not let the next one go.
        lanes.ended("a1", "a");
        let early = NOW.plus(Duration::from_millis(99));
        assert_eq!(all(&mut lanes, early), [""; 0]);
        assert_eq!(all(&mut lanes, NOW.plus(apart_there)), ["a2"]);
        assert_eq!(all(&mut lanes, NOW.plus(2 * apart_there)), ["a3"]);
        assert!(lanes.is_empty());
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
