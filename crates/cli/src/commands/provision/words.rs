//! What is said about a resource: one line for a person, one object for a program.

use onlyonce_core::Remedy;
use onlyonce_provision::{Became, How, InDoubt, Receipt};
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
        Became::Changed { inputs, receipt } => changed(inputs, receipt.is_some()),
        Became::Missing { why, .. } => format!("it was there, and now {why}; nothing was made"),
        Became::Unknown(doubt) => in_doubt(doubt),
        Became::Busy(text) => text.clone(),
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
        Became::Changed { .. } | Became::Missing { .. } => {
            resources(&format!("forget {file} {key} --why ... (then it is looked for anew)"))
        }
        Became::Unknown(doubt) => {
            let fence = doubt.fence.get();
            resources(&format!("resolve {file} {key} --fence {fence} ... (once you have looked)"))
        }
        Became::Ready(_)
        | Became::NotReady { .. }
        | Became::Refused(_)
        | Became::Duplicate(_)
        | Became::CannotTell(_)
        | Became::Busy(_)
        | Became::Waits(_)
        | Became::Stopped => None,
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
    let settles = match (doubt.remedy, doubt.final_from) {
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
    };
    let why = if doubt.why.is_empty() { doubt.cause.name() } else { &doubt.why };
    format!("nobody knows whether it was made, since {}: {why}; {settles}", time(doubt.since))
}
