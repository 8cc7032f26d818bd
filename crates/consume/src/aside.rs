//! What is said of a message that was put aside: why, and what the record of its key tells.

use std::fmt;

use onlyonce_core::{KeyId, Record, State};
use serde_json::json;

/// Why a message was put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It cannot be told from others: it has no key, or its time is none.
    NoKey,
    /// Its key was used for another message.
    Mismatch,
    /// Its handler says that it can never be carried out. It did not happen.
    Never,
    /// It was tried as often as it may be.
    Exhausted,
    /// Nobody knows whether it happened.
    Unknown,
    /// It is too old to know whether it ran.
    Expired,
    /// What is recorded of it cannot be read.
    Damaged,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoKey,
        Self::Mismatch,
        Self::Never,
        Self::Exhausted,
        Self::Unknown,
        Self::Expired,
        Self::Damaged,
    ];

    /// The name used in the header `onlyonce-why`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoKey => "no-key",
            Self::Mismatch => "mismatch",
            Self::Never => "never",
            Self::Exhausted => "exhausted",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Damaged => "damaged",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A message that is not tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Why.
    pub why: Why,
    /// The reason, for a person.
    pub text: String,
    /// What its record is found by, if it has a key.
    pub id: Option<KeyId>,
    /// What was recorded of it when it was put aside. Newer things may be recorded since.
    pub record: Option<Record>,
}

impl Aside {
    /// Whether the operation happened: `yes`, `no`, or `unknown`. It speaks of this message alone:
    /// under the key of a mismatch another one may have happened.
    pub fn happened(&self) -> &'static str {
        match self.why {
            Why::NoKey | Why::Mismatch => "no",
            Why::Expired | Why::Damaged => "unknown",
            Why::Never | Why::Exhausted | Why::Unknown => match &self.record {
                Some(record) if !record.may_have_run() => "no",
                Some(record) => match record.state {
                    State::Completed { .. } | State::Tombstone { .. } => "yes",
                    State::InFlight(_) | State::Released { .. } | State::Unknown(_) => "unknown",
                },
                None => "unknown",
            },
        }
    }

    /// What the message carries from now on: names and values of headers.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("onlyonce-why", self.why.name().to_owned()),
            ("onlyonce-text", self.text.clone()),
            ("onlyonce-happened", self.happened().to_owned()),
        ];
        headers.extend(self.id.map(|id| ("onlyonce-key-id", id.to_string())));
        let Some(record) = &self.record else { return headers };
        headers.push(("onlyonce-state", record.state.kind().name().to_owned()));
        headers.push(("onlyonce-fence", record.fence.get().to_string()));
        headers.push(("onlyonce-attempts", record.attempt.to_string()));
        if let State::Unknown(doubt) = &record.state {
            headers.push(("onlyonce-cause", doubt.cause.name().to_owned()));
            headers.push(("onlyonce-since", doubt.since.as_millis().to_string()));
        }
        let entry = |it: &onlyonce_core::Entry| {
            json!({
                "at": it.at.as_millis(), "event": it.event.name(), "fence": it.fence.get(),
                "by": it.by, "why": it.why,
            })
        };
        let history: Vec<_> = record.history.entries().iter().map(entry).collect();
        headers.push(("onlyonce-history", serde_json::Value::from(history).to_string()));
        headers
    }
}
