//! What is said about a resource: one line for a person, one object for a program.

use onlyonce_core::Remedy;
use onlyonce_provision::{Became, Departure, How, InDoubt, Receipt, Work};
use serde::Serialize;

use crate::operate::time;

/// A resource, for a program. What is not known is left out.
#[derive(Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'a str>,
    /// What is being done, or has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<&'a str>,
    /// What an apply would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) would: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) marker: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) about: String,
}

impl Line<'_> {
    pub(super) fn json(&self) -> Result<String, std::io::Error> {
        serde_json::to_string(self).map_err(std::io::Error::from)
    }
}

/// What there is to say beyond the word and the id.
pub(super) fn about(became: &Became) -> String {
    match became {
        Became::Ready(receipt) => how(receipt).to_owned(),
        Became::NotReady { why, .. } => format!("it is there and not ready: {why}"),
        Became::Refused(text) => format!("definitely refused: {text}"),
        Became::Conflict(text) => {
            format!("what is there is not ours, and nothing was made: {text}")
        }
        Became::Duplicate(ids) => {
            format!("more than one is there, and nothing was deleted: {}", ids.join(", "))
        }
        Became::CannotTell(text) => format!("nothing was made: {text}"),
        Became::NoId(text) => format!("it was made, and {text}"),
        Became::Changed { inputs, receipt } => changed(inputs, receipt.is_some()),
        Became::Missing { why, .. } => format!("it was there, and now {why}; nothing was made"),
        Became::Destroyed(departure) => format!("{}; nothing was made", departed(departure)),
        Became::Unknown(doubt) => in_doubt(doubt),
        Became::Unrecorded { receipt, remedy, why } => {
            unrecorded("made", receipt.is_some(), *remedy, why)
        }
        Became::NoStore(error) => format!("nothing was made: {error}"),
        Became::Busy(text) | Became::Destroying(text) => text.clone(),
        Became::Waits(on) => format!("not begun: it waits for {on}"),
        Became::Stopped => "not begun: the apply was asked to stop".to_owned(),
    }
}

/// What a person does about it, if a person is needed.
pub(super) fn hint(file: &str, key: &str, became: &Became) -> Option<String> {
    let resources = |what: &str| Some(format!("onlyonce resources {what}"));
    match became {
        Became::Conflict(_) => {
            resources(&format!("import {file} {key} --id ID (if it is the one that is meant)"))
        }
        Became::NoId(_) => {
            resources(&format!("import {file} {key} --id ID (once you know which it is)"))
        }
        Became::Changed { .. } | Became::Missing { .. } | Became::Destroyed(_) => {
            let then = "then it is looked for anew, or made if it has no `check`";
            resources(&format!("forget {file} {key} --why ... ({then})"))
        }
        Became::Unknown(doubt) => Some(to_resolve(file, key, doubt)),
        Became::Ready(_)
        | Became::NotReady { .. }
        | Became::Refused(_)
        | Became::Duplicate(_)
        | Became::CannotTell(_)
        | Became::Unrecorded { .. }
        | Became::NoStore(_)
        | Became::Busy(_)
        | Became::Destroying(_)
        | Became::Waits(_)
        | Became::Stopped => None,
    }
}

/// What was sent, and could not be recorded. `done` is what was to become of it, `remedy` what is
/// done about it when it is asked for again.
pub(super) fn unrecorded(done: &str, is_known: bool, remedy: Remedy, why: &str) -> String {
    let what = match (is_known, why) {
        (true, _) => format!("it was {done}, and that could not be recorded"),
        (false, "") => format!("nobody knows whether it was {done}, nor could that be recorded"),
        (false, why) => {
            format!("nobody knows whether it was {done}: {why}; nor could that be recorded")
        }
    };
    let next = match remedy {
        Remedy::Probe => "do this again: it looks for it first",
        Remedy::RunAgain => "do this again: it does nothing twice",
        Remedy::Hold | Remedy::Seal if is_known => {
            "a person has to record it: `onlyonce resources resolve`"
        }
        Remedy::Hold | Remedy::Seal => "a person has to look",
    };
    format!("{what}; {next}")
}

/// How a person settles what is in doubt.
pub(super) fn to_resolve(file: &str, key: &str, doubt: &InDoubt) -> String {
    let fence = doubt.fence.get();
    format!("onlyonce resources resolve {file} {key} --fence {fence} ... (once you have looked)")
}

/// Who wanted it to be gone, and why.
pub(super) fn departed(departure: &Departure) -> String {
    match departure.by.as_str() {
        "" => departure.why.clone(),
        by => format!("by {by}: {}", departure.why),
    }
}

pub(super) const fn how(receipt: &Receipt) -> &'static str {
    match receipt.how {
        How::Created => "created",
        How::Found => "found by its marker",
        How::Told => "recorded as somebody has said",
    }
}

fn changed(inputs: &[String], is_there: bool) -> String {
    let what = if is_there { "it is there" } else { "it may have been made" };
    match inputs {
        [] => format!("{what}, and with other inputs than the plan has now"),
        names => format!("{what}, and these inputs were others: {}", names.join(", ")),
    }
}

/// How knowledge was lost, and what gets it back.
pub(super) fn in_doubt(doubt: &InDoubt) -> String {
    let why = if doubt.why.is_empty() { doubt.cause.name() } else { &doubt.why };
    let since = time(doubt.since);
    match doubt.work {
        Work::Making => format!(
            "nobody knows whether it was made, since {since}: {why}; {}",
            what_settles_making(doubt)
        ),
        Work::Destroying => format!(
            "nobody knows whether it was destroyed, since {since}: {why}; {}",
            what_settles_destroying(doubt)
        ),
    }
}

fn what_settles_making(doubt: &InDoubt) -> String {
    match (doubt.remedy, doubt.final_from) {
        (Remedy::RunAgain, _) => {
            "the next apply makes it again, which does nothing twice".to_owned()
        }
        (Remedy::Probe, Some(from)) => format!(
            "the next apply looks for it; from {} on it makes it if nothing is there",
            time(from)
        ),
        (Remedy::Probe, None) => "the next apply looks for it; that nothing is there is never \
                                  final, since the plan says no `settle` and `late`"
            .to_owned(),
        (Remedy::Hold | Remedy::Seal, _) => "a person has to look".to_owned(),
    }
}

fn what_settles_destroying(doubt: &InDoubt) -> String {
    match (doubt.remedy, doubt.final_from) {
        (Remedy::Probe, Some(from)) => format!(
            "`onlyonce resources destroy` looks for it; from {} on it destroys it again if it is \
             still there",
            time(from)
        ),
        (Remedy::Probe, None) => "`onlyonce resources destroy` looks for it; that it is still \
                                  there is never final, since the plan says no `settle` and `late`"
            .to_owned(),
        (Remedy::RunAgain | Remedy::Hold | Remedy::Seal, _) => "a person has to look".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_promised_only_where_one_takes_place() {
        for (remedy, is_known, next) in [
            (Remedy::Probe, false, "it looks for it first"),
            (Remedy::RunAgain, false, "it does nothing twice"),
            (Remedy::Hold, false, "a person has to look"),
            (Remedy::Hold, true, "a person has to record it: `onlyonce resources resolve`"),
        ] {
            let told = unrecorded("destroyed", is_known, remedy, "");
            assert!(told.ends_with(next), "{remedy:?}: {told}");
        }
    }
}
