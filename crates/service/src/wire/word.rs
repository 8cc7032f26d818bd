//! The words of requests and answers, and what they mean in the core.

use onlyonce_core::{Cause, OnUnknown, Phase, StateKind};
use onlyonce_http::Happened;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far an attempt has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Phase")]
pub(crate) enum PhaseWord {
    /// Certainly nothing was sent that can take effect.
    Prepared,
    /// The operation may have happened.
    #[default]
    Committing,
}

impl From<PhaseWord> for Phase {
    fn from(word: PhaseWord) -> Self {
        match word {
            PhaseWord::Prepared => Self::Prepared,
            PhaseWord::Committing => Self::Committing,
        }
    }
}

impl From<Phase> for PhaseWord {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Prepared => Self::Prepared,
            Phase::Committing => Self::Committing,
        }
    }
}

/// What may be done about an outcome that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "OnUnknown")]
pub(crate) enum UnknownWord {
    /// Nothing: a person or the application resolves it.
    Hold,
    /// Run it again while the receiver makes that harmless.
    Retry,
}

impl From<UnknownWord> for OnUnknown {
    fn from(word: UnknownWord) -> Self {
        match word {
            UnknownWord::Hold => Self::Hold,
            UnknownWord::Retry => Self::Retry,
        }
    }
}

/// How a holder lost knowledge of the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Cause")]
pub(crate) enum CauseWord {
    /// It gave up, such as on an exception.
    #[default]
    Abandoned,
    /// The connection broke after the request was sent.
    ConnectionLost,
    /// No answer came in time.
    TimedOut,
    /// A gateway answered in the receiver's place.
    GatewayAnswer,
    /// The answer broke off.
    AnswerCut,
}

impl From<CauseWord> for Cause {
    fn from(word: CauseWord) -> Self {
        match word {
            CauseWord::Abandoned => Self::Abandoned,
            CauseWord::ConnectionLost => Self::ConnectionLost,
            CauseWord::TimedOut => Self::TimedOut,
            CauseWord::GatewayAnswer => Self::GatewayAnswer,
            CauseWord::AnswerCut => Self::AnswerCut,
        }
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "State")]
pub(crate) enum StateWord {
    /// A holder may be running the operation.
    InFlight,
    /// It did not happen; the key is free.
    Released,
    /// It was answered or sealed, and the reply is kept.
    Completed,
    /// Nobody knows whether it happened.
    Unknown,
    /// It was answered or sealed; the reply is no longer kept.
    Tombstone,
}

impl From<StateWord> for StateKind {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::InFlight => Self::InFlight,
            StateWord::Released => Self::Released,
            StateWord::Completed => Self::Completed,
            StateWord::Unknown => Self::Unknown,
            StateWord::Tombstone => Self::Tombstone,
        }
    }
}

impl From<StateKind> for StateWord {
    fn from(kind: StateKind) -> Self {
        match kind {
            StateKind::InFlight => Self::InFlight,
            StateKind::Released => Self::Released,
            StateKind::Completed => Self::Completed,
            StateKind::Unknown => Self::Unknown,
            StateKind::Tombstone => Self::Tombstone,
        }
    }
}

/// What somebody found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Verdict")]
pub(crate) enum VerdictWord {
    /// It happened.
    Happened,
    /// It did not and no longer can: the key is free again.
    NotExecuted,
    /// Nobody knows, and it may run again all the same.
    RunAgain,
}

/// Whether anything has happened under the key, in any attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Happened")]
pub(crate) enum HappenedWord {
    /// It has.
    Yes,
    /// It certainly has not.
    No,
    /// Nobody knows, or this answer cannot say.
    Unknown,
}

impl From<Happened> for HappenedWord {
    fn from(happened: Happened) -> Self {
        match happened {
            Happened::Yes => Self::Yes,
            Happened::No => Self::No,
            Happened::Unknown => Self::Unknown,
        }
    }
}
