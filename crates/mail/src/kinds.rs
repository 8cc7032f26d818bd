//! Kinds of messages, with rules of their own, and destinations with limits of their own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use onlyonce_core::Policy;

use crate::lanes::{Flow, Lane};
use crate::message::Message;
use crate::probe::Asking;
use crate::rules::Rules;

/// Messages whose keys begin alike, and what is done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// What their keys begin with. The longest that fits counts.
    pub keys: String,
    /// How they are tried, and what is done about doubts.
    pub rules: Rules,
    /// The time from one of them to the next, in whole milliseconds; zero is none.
    pub apart: Duration,
}

/// Domains whose recipients are sent to as if they were one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The domains. Each is of one destination at most: of the last that names it.
    pub domains: Vec<String>,
    /// How many messages are on their way there at once; at least 1.
    pub workers: usize,
    /// The time from one message there to the next, in whole milliseconds; zero is none.
    pub apart: Duration,
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Kinds {
    /// The longest beginning first.
    classes: Vec<Kind>,
    /// Of messages of no class.
    rest: Kind,
    /// By domain in small letters: what its destination is called.
    names: HashMap<String, String>,
}

/// A class as it is used.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    keys: String,
    apart: Duration,
    pub(crate) policy: Policy,
    pub(crate) asking: Option<Arc<Asking>>,
    pub(crate) tries: Option<u32>,
    pub(crate) try_for: Option<Duration>,
}

impl Kind {
    fn of(Class { keys, rules, apart }: Class) -> Self {
        let policy = rules.policy();
        let Rules { asking, tries, try_for, .. } = rules;
        Self { keys, apart, policy, asking: asking.map(Arc::new), tries, try_for }
    }
}

impl Kinds {
    /// These classes, and the rules of messages of none of them.
    pub(crate) fn new(usual: Rules, classes: Vec<Class>, destinations: &[Destination]) -> Self {
        let rest = Kind::of(Class { keys: String::new(), rules: usual, apart: Duration::ZERO });
        let mut classes: Vec<Kind> = classes.into_iter().map(Kind::of).collect();
        classes.sort_by_key(|kind| std::cmp::Reverse(kind.keys.len()));
        let named = |it: &Destination| {
            let name = it.domains.first().map(|it| it.to_lowercase()).unwrap_or_default();
            let domains = it.domains.iter().map(|it| it.to_lowercase());
            domains.map(|domain| (domain, name.clone())).collect::<Vec<_>>()
        };
        Self { classes, rest, names: destinations.iter().flat_map(named).collect() }
    }

    /// What counts for a message.
    pub(crate) fn of(&self, message: &Message) -> &Kind {
        let key = message.key().as_str();
        self.classes.iter().find(|it| key.starts_with(&it.keys)).unwrap_or(&self.rest)
    }

    /// Where it goes, and which class it is of.
    pub(crate) fn lane(&self, message: &Message) -> Lane {
        let domain = message.to().domain().to_lowercase();
        let destination = self.names.get(&domain).cloned().unwrap_or(domain);
        Lane { destination, class: self.of(message).keys.clone() }
    }

    /// The time from one message to the next, of each class that has one: by its beginning.
    pub(crate) fn apart(&self) -> HashMap<String, Duration> {
        self.classes.iter().map(|kind| (kind.keys.clone(), kind.apart)).collect()
    }
}

/// How much goes to each destination, by its name.
pub(crate) fn flows(destinations: &[Destination]) -> HashMap<String, Flow> {
    let flow = |it: &Destination| {
        let name = it.domains.first().map(|it| it.to_lowercase()).unwrap_or_default();
        (name, Flow { at_once: it.workers, apart: it.apart })
    };
    destinations.iter().map(flow).collect()
}

#[cfg(test)]
mod tests {
    use onlyonce_core::Timestamp;
    use onlyonce_smtp::Mailbox;

    use super::*;
    use crate::message::frozen;

    #[test]
    fn the_domains_of_a_destination_are_one_way_and_others_are_not() {
        let domains = ["A.example", "b.example"].map(str::to_owned).into();
        let both = [Destination { domains, workers: 1, apart: Duration::ZERO }];
        let kinds = Kinds::new(Rules::default(), Vec::new(), &both);
        let lane = |to: &str| {
            let to = [Mailbox::new(to).unwrap()];
            let text = b"From: shop@shop.example\n\nHello\n";
            kinds.lane(&frozen("news", None, &to, text, Timestamp::default()).unwrap()[0])
        };
        let [a, b, other] = ["ann@a.example", "bob@B.example", "carl@c.example"].map(lane);
        assert_eq!((&a, &a.class), (&b, &String::new()));
        assert_ne!(a, other);
        assert!(flows(&both).contains_key(&a.destination), "its limits are found");
    }
}
