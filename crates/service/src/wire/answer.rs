//! The documents of answers, as they are written in JSON. Times are in UTC (RFC 3339).

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use super::word::{HappenedWord, PhaseWord, StateWord};

/// The answer to a claim.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum ClaimAnswer {
    /// The caller, and nobody else, may run the operation under this fence.
    Granted {
        /// The claim: it is named in everything that is said of it, and can be sent to the
        /// receiver. A later claim has a higher one.
        fence: u64,
        /// Which attempt it is, from 1.
        attempt: u32,
        /// How far the attempt is taken to be.
        phase: PhaseWord,
        /// How long the claim is exclusive from when this was answered, in milliseconds. A holder
        /// counts it from when it sent the request, and renews at a third.
        lease_left_ms: u64,
        /// The same by the service's clock.
        #[schemars(extend("format" = "date-time"))]
        lease_until: String,
        /// Set if an earlier attempt may have happened and the scope lets it run again.
        #[serde(skip_serializing_if = "Option::is_none")]
        doubt: Option<DoubtView>,
    },
    /// The operation was answered: it is not run again, and this is the reply.
    Replay {
        /// What was answered.
        reply: ReplyView,
        /// When it was answered.
        #[schemars(extend("format" = "date-time"))]
        answered_at: String,
    },
}

/// What waiting has brought.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum WaitAnswer {
    /// The operation was answered, and this is the reply.
    Replay {
        /// What was answered.
        reply: ReplyView,
        /// When it was answered.
        #[schemars(extend("format" = "date-time"))]
        answered_at: String,
    },
}

/// An outcome that nobody knows.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Doubt")]
pub(crate) struct DoubtView {
    /// When knowledge was lost.
    #[schemars(extend("format" = "date-time"))]
    pub(crate) since: String,
    /// How it was lost.
    pub(crate) cause: String,
}

/// What was said is recorded, or was already.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    /// Always `done`.
    pub(crate) outcome: DoneWord,
    /// Where the key stands now.
    #[serde(flatten)]
    pub(crate) stands: Stands,
}

/// The word for it.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DoneWord {
    /// It is recorded.
    #[default]
    Done,
}

/// Where a key stands.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Stands {
    /// Its state.
    pub(crate) state: StateWord,
    /// Whether anything has happened under the key, in any attempt.
    pub(crate) happened: HappenedWord,
    /// The latest claim.
    pub(crate) fence: u64,
    /// If in flight: how far the attempt is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<PhaseWord>,
    /// If in flight: how long the claim is exclusive, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease_left_ms: Option<u64>,
    /// If in flight: the same by the service's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub(crate) lease_until: Option<String>,
    /// If answered: whether the reply's content is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<bool>,
}

/// A reply. Content comes back in the form that it was given in.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Reply")]
pub(crate) struct ReplyView {
    /// The code.
    pub(crate) status: u16,
    /// The media type of the content, if there is content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    /// Content in JSON, as it was spelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "serde_json::Value")]
    pub(crate) json: Option<Box<RawValue>>,
    /// Content in text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// Any other content, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base64: Option<String>,
}

/// All that is known of a key.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Record")]
pub(crate) struct RecordView {
    /// The id that logs show.
    pub(crate) id: String,
    /// Where the key stands.
    #[serde(flatten)]
    pub(crate) stands: Stands,
    /// How many claims were granted.
    pub(crate) attempt: u32,
    /// How many runs beyond the first a policy or a person has authorised.
    pub(crate) runs_authorised: u32,
    /// Whether another success was reported than the first: it may have happened twice. The
    /// history says when, and under which claim.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub(crate) alarm: bool,
    /// If answered, or sealed: when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub(crate) answered_at: Option<String>,
    /// If answered: with what code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// If answered: whether that was by a seal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<bool>,
    /// If the reply is kept: until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub(crate) retain_until: Option<String>,
    /// If the reply is kept: what it is. Not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply: Option<ReplyView>,
    /// If nobody knows whether it happened: since when, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) doubt: Option<DoubtView>,
    /// If nobody knows whether it happened: whether the scope's policy lets the next claim run it
    /// again, as things stand. Not in lists, nor where it was asked for by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runs_again: Option<bool>,
    /// The time that the key carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub(crate) key_time: Option<String>,
    /// What the latest holder noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<String>,
    /// Who changed the course of the key, when and why; the oldest first.
    pub(crate) history: Vec<HistoryView>,
}

/// A line of a key's history.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub(crate) struct HistoryView {
    /// When.
    #[schemars(extend("format" = "date-time"))]
    pub(crate) at: String,
    /// What happened.
    pub(crate) event: String,
    /// The claim it was about.
    pub(crate) fence: u64,
    /// Who did it.
    pub(crate) by: String,
    /// The reason given.
    pub(crate) why: String,
}

/// A page of records.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Page")]
pub(crate) struct ListAnswer {
    /// The records.
    pub(crate) records: Vec<RecordView>,
    /// Keys whose records cannot be read.
    pub(crate) damaged: Vec<DamagedView>,
    /// Where the next page begins; not there at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// A key whose record cannot be read.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Damaged")]
pub(crate) struct DamagedView {
    /// The id that logs show.
    pub(crate) id: String,
    /// What is wrong.
    pub(crate) why: String,
}
