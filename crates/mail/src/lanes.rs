//! Which message is sent next: not too many at once to one destination, and not too many a second.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use onlyonce_core::Timestamp;

/// How much goes one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The most that is on its way at once; at least 1.
    pub(crate) at_once: usize,
    /// The time from one message to the next.
    pub(crate) apart: Duration,
}

/// How much goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The time from one message to the next, whoever gets it.
    pub(crate) apart: Duration,
    /// To each destination that is not named.
    pub(crate) usual: Flow,
    /// To those that are, by their names.
    pub(crate) named: HashMap<String, Flow>,
    /// The time from one message of a class to the next, by the class's name.
    pub(crate) classes: HashMap<String, Duration>,
}

/// Where a message goes, and by which rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    /// A domain, or what several are called together.
    pub(crate) destination: String,
    /// The message's class; empty if it is of none.
    pub(crate) class: String,
}

/// The messages that wait, by their lane where that has enough for now.
#[derive(Debug)]
pub(crate) struct Lanes {
    limits: Limits,
    /// Not looked at yet.
    waiting: VecDeque<String>,
    known: HashSet<String>,
    /// What has to wait, since there is enough on its way or was lately. None of them is empty.
    held: BTreeMap<Lane, VecDeque<String>>,
    /// The destinations with something on its way, or that had something lately.
    loads: HashMap<String, Load>,
    /// When a class may go on.
    classes: HashMap<String, Timestamp>,
    next_at: Timestamp,
    /// The lane that was served last: those behind it come first, so that each has its turn.
    last: Lane,
}

/// One destination.
#[derive(Debug, Default)]
struct Load {
    busy: usize,
    next_at: Timestamp,
}

impl Lanes {
    /// Without anything in them.
    pub(crate) fn new(limits: Limits) -> Self {
        let (waiting, known, next_at) = (VecDeque::new(), HashSet::new(), Timestamp::default());
        let (held, loads, classes) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        let last = Lane::default();
        Self { limits, waiting, known, held, loads, classes, next_at, last }
    }

    /// Whether all that was put in was looked at.
    pub(crate) fn wants_more(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing is left, but what is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.held.is_empty()
    }

    /// Puts in what is not there, and not on its way.
    pub(crate) fn put(&mut self, names: impl IntoIterator<Item = String>) {
        let known = &self.known;
        self.waiting.extend(names.into_iter().filter(|it| !known.contains(it)));
    }

    /// How long nothing more is sent; `None` if it is not the time that is waited for.
    pub(crate) fn pause(&self, now: Timestamp) -> Option<Duration> {
        let held = self.held.keys().filter_map(|lane| self.free_from(lane));
        let next = held.chain((!self.waiting.is_empty()).then_some(now)).min()?.max(self.next_at);
        Some(Duration::from_millis(next.as_millis().saturating_sub(now.as_millis())))
    }

    /// The next one that may be sent now, which is on its way then; `lane` says of a name where it
    /// goes, or `None` if it is not due.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        mut lane: impl FnMut(&str) -> Option<Lane>,
    ) -> Option<(String, Lane)> {
        if now < self.next_at {
            return None;
        }
        self.loads.retain(|_, load| 0 < load.busy || now < load.next_at);
        let is_free = |lane: &Lane| self.free_from(lane).is_some_and(|from| from <= now);
        let behind = self.held.range((Bound::Excluded(&self.last), Bound::Unbounded));
        let mut turns = behind.chain(self.held.range(..=&self.last)).map(|(lane, _)| lane);
        if let Some(lane) = turns.find(|lane| is_free(lane)).cloned()
            && let Some(name) = self.held.get_mut(&lane).and_then(VecDeque::pop_front)
        {
            if self.held.get(&lane).is_some_and(VecDeque::is_empty) {
                self.held.remove(&lane);
            }
            self.begin(&lane, now);
            return Some((name, lane));
        }
        while let Some(name) = self.waiting.pop_front() {
            let Some(lane) = lane(&name) else { continue };
            self.known.insert(name.clone());
            if self.free_from(&lane).is_some_and(|from| from <= now) {
                self.begin(&lane, now);
                return Some((name, lane));
            }
            self.held.entry(lane).or_default().push_back(name);
        }
        None
    }

    /// From when one more may go, as far as that is a matter of time.
    fn free_from(&self, lane: &Lane) -> Option<Timestamp> {
        let class = self.classes.get(&lane.class).copied().unwrap_or_default();
        let Some(load) = self.loads.get(&lane.destination) else { return Some(class) };
        (load.busy < self.flow(lane).at_once.max(1)).then(|| class.max(load.next_at))
    }

    fn flow(&self, lane: &Lane) -> Flow {
        self.limits.named.get(&lane.destination).copied().unwrap_or(self.limits.usual)
    }

    fn begin(&mut self, lane: &Lane, now: Timestamp) {
        self.last.clone_from(lane);
        self.next_at = now.plus(self.limits.apart);
        let apart = self.flow(lane).apart;
        let load = self.loads.entry(lane.destination.clone()).or_default();
        load.busy += 1;
        load.next_at = now.plus(apart);
        if let Some(apart) = self.limits.classes.get(&lane.class) {
            self.classes.insert(lane.class.clone(), now.plus(*apart));
        }
    }

    /// One is no longer on its way.
    pub(crate) fn ended(&mut self, name: &str, lane: &Lane) {
        self.known.remove(name);
        if let Some(load) = self.loads.get_mut(&lane.destination) {
            load.busy = load.busy.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn lanes(at_once: usize, millis: u64, names: &[&str]) -> Lanes {
        let (apart, usual) = (Duration::from_millis(millis), flow(at_once, 0));
        let (named, classes) = (HashMap::new(), HashMap::new());
        let mut lanes = Lanes::new(Limits { apart, usual, named, classes });
        lanes.put(names.iter().map(ToString::to_string));
        lanes
    }

    fn flow(at_once: usize, millis: u64) -> Flow {
        Flow { at_once, apart: Duration::from_millis(millis) }
    }

    /// The name's first letter is its destination, and what follows the number its class.
    fn lane(name: &str) -> Lane {
        Lane { destination: name[..1].to_owned(), class: name[2..].to_owned() }
    }

    fn take(lanes: &mut Lanes, now: Timestamp) -> Option<String> {
        lanes.take(now, |name| Some(lane(name))).map(|(name, _)| name)
    }

    fn all(lanes: &mut Lanes, now: Timestamp) -> Vec<String> {
        std::iter::from_fn(|| take(lanes, now)).collect()
    }

    #[test]
    fn a_domain_with_enough_on_its_way_holds_up_no_other() {
        let mut lanes = lanes(2, 0, &["a1", "a2", "a3", "a4", "b1"]);
        assert_eq!(all(&mut lanes, NOW), ["a1", "a2", "b1"]);
        assert!(lanes.wants_more());
        // What is held or on its way is not put in again.
        lanes.put(["a1", "a2", "a3", "a4", "b1"].map(str::to_owned));
        assert_eq!(take(&mut lanes, NOW), None);
        lanes.ended("b1", &lane("b1"));
        assert_eq!(take(&mut lanes, NOW), None);
        for (ends, next) in [("a2", Some("a3")), ("a1", Some("a4")), ("a3", None)] {
            lanes.ended(ends, &lane(ends));
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
        let there = Duration::from_millis(100);
        let mut lanes = lanes(9, 0, &["a1", "a2", "b1", "a3"]);
        lanes.limits.usual = flow(9, 100);
        assert_eq!(all(&mut lanes, NOW), ["a1", "b1"]);
        assert!(lanes.wants_more() && !lanes.is_empty());
        assert_eq!(lanes.pause(NOW), Some(there));
        // That one of them has ended does not let the next one go.
        lanes.ended("a1", &lane("a1"));
        let early = NOW.plus(Duration::from_millis(99));
        assert_eq!(all(&mut lanes, early), [""; 0]);
        assert_eq!(all(&mut lanes, NOW.plus(there)), ["a2"]);
        assert_eq!(all(&mut lanes, NOW.plus(2 * there)), ["a3"]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn messages_of_a_class_are_apart_wherever_they_go_and_hold_up_no_other() {
        let mut lanes = lanes(9, 0, &["a1!", "b2!", "b3", "a4"]);
        let apart = Duration::from_millis(100);
        lanes.limits.classes = [("!".to_owned(), apart)].into();
        assert_eq!(all(&mut lanes, NOW), ["a1!", "b3", "a4"]);
        assert_eq!(lanes.pause(NOW), Some(apart));
        lanes.ended("a1!", &lane("a1!"));
        assert_eq!(all(&mut lanes, NOW.plus(Duration::from_millis(99))), [""; 0]);
        assert_eq!(all(&mut lanes, NOW.plus(apart)), ["b2!"]);
        assert!(lanes.is_empty());
    }

    #[test]
    fn destinations_of_a_class_take_turns() {
        let mut lanes = lanes(9, 0, &["a0!", "a1!", "a2!", "a3!", "b1!", "c1!", "b2!"]);
        let apart = Duration::from_millis(100);
        lanes.limits.classes = [("!".to_owned(), apart)].into();
        let at = |turn| NOW.plus(turn * apart);
        assert_eq!(all(&mut lanes, NOW), ["a0!"]);
        let sent: Vec<_> = (1..7).filter_map(|turn| take(&mut lanes, at(turn))).collect();
        assert_eq!(sent, ["b1!", "c1!", "a1!", "b2!", "a2!", "a3!"]);
    }

    #[test]
    fn a_destination_that_is_named_has_limits_of_its_own() {
        let mut lanes = lanes(1, 0, &["a1", "a2", "a3", "b1", "b2"]);
        lanes.limits.named = [("a".to_owned(), flow(2, 0))].into();
        assert_eq!(all(&mut lanes, NOW), ["a1", "a2", "b1"]);
        assert_eq!(lanes.pause(NOW), None, "all are waited for");
    }

    #[test]
    fn what_is_not_due_is_passed_over() {
        let mut lanes = lanes(1, 0, &["a1", "a2"]);
        let due = |name: &str| (name != "a1").then(|| lane(name));
        assert_eq!(lanes.take(NOW, due).map(|(name, _)| name).as_deref(), Some("a2"));
        lanes.put(["a1".to_owned()]);
        lanes.ended("a2", &lane("a2"));
        assert_eq!(take(&mut lanes, NOW).as_deref(), Some("a1"));
    }
}
