//! How long what is known of messages is kept, and what is done about unknown outcomes.

use std::time::Duration;

use onlyonce_core::limits::FOREVER;
use onlyonce_core::{OnUnknown, Policy, Receiver};

use crate::probe::Asking;

/// The rules of a [`Sender`](crate::Sender).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long the receipt of a message is kept: the server's answer, or what a probe has found.
    /// That it has ended is known for ever. Default 30 d.
    pub retention: Duration,
    /// Who is asked about an unknown outcome. Default nobody: it is held.
    pub asking: Option<Asking>,
    /// For how long the receiver remembers a message's key: within this time an unknown outcome is
    /// sent again with it. Default not at all.
    pub keyed: Option<Keyed>,
    /// How often a message is tried at most: the last refusal for now is final. Default without
    /// an end.
    pub tries: Option<u32>,
    /// For how long it is tried, from when it was [asked for](crate::Message::posted): nothing is
    /// begun later. Default without an end.
    pub try_for: Option<Duration>,
}

/// A receiver that remembers keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// For how long, from when it first sees one.
    pub window: Duration,
    /// How long what was sent may need to be taken.
    pub late: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        let retention = Duration::from_secs(30 * 24 * 60 * 60);
        Self { retention, asking: None, keyed: None, tries: None, try_for: None }
    }
}

impl Rules {
    /// Whether nothing but a person ends a doubt.
    pub fn holds(&self) -> bool {
        self.asking.is_none() && self.keyed.is_none()
    }

    /// The policy of messages. No key is ever forgotten, since a message may wait in the spool for
    /// longer than anybody thought. Its numbers are to be checked ([`Policy::check`]).
    pub fn policy(&self) -> Policy {
        let queryable = |receiver: Receiver| match &self.asking {
            None => receiver,
            Some(it) => receiver.and_queryable(it.settle, it.late.max(receiver.late)),
        };
        let (on_unknown, receiver) = match (self.keyed, &self.asking) {
            (None, None) => (OnUnknown::Hold, Receiver::BARE),
            (None, Some(it)) => (OnUnknown::Probe, Receiver::queryable(it.settle, it.late)),
            (Some(Keyed { window, late }), _) => {
                (OnUnknown::Auto, queryable(Receiver { late, ..Receiver::keyed(window) }))
            }
        };
        let Self { retention, .. } = *self;
        Policy { retention, remember: FOREVER, on_unknown, receiver, ..Policy::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Place, Whom};

    #[test]
    fn all_rules_hold_by_themselves() {
        let rules = Rules::default();
        assert!(rules.policy().check().is_ok());
        let (settle, late) = (Duration::ZERO, Duration::ZERO);
        let asking = Asking { whom: Whom::Postfix(Place::default()), settle, late };
        assert!(Rules { asking: Some(asking), ..rules }.policy().check().is_ok());
    }
}
