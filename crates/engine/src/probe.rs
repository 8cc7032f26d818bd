//! Asking the receiver of an effect about an outcome that nobody knows.

use onlyonce_core::{
    Cause, Evidence, Fence, OnUnknown, Outcome, Policy, Reply, Timestamp, Verdict,
};

use crate::act::Acted;
use crate::effect::Run;
use crate::engine::{Engine, Request};
use crate::error::EngineError;

/// An attempt whose outcome nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InDoubt {
    /// The claim it ran under.
    pub fence: Fence,
    /// When knowledge was lost.
    pub since: Timestamp,
    /// How it was lost.
    pub cause: Cause,
    /// When the record was last written: nothing of the attempt was sent later, but for what a
    /// process that was stopped meanwhile may still send.
    pub written_at: Timestamp,
    /// What the attempt noted, such as an external id.
    pub evidence: Option<Evidence>,
}

/// What the receiver has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It happened, and this is the reply. True whoever says it, and whenever.
    Happened(Reply),
    /// The receiver has nothing of it.
    DidNotHappen {
        /// And it never will: nothing can be on its way any more, and what it had done would show.
        /// Without that a "no" settles nothing.
        is_final: bool,
    },
    /// It is being carried out.
    StillRunning,
    /// Anything else.
    CannotTell,
}

impl Engine {
    /// Asks about an unknown outcome if the policy says so, and settles it if the answer is
    /// certain. `true` if the store is worth asking again.
    pub(crate) async fn probed<R: Run>(
        &self,
        request: &Request,
        policy: &Policy,
        refused: &Acted,
        effect: &mut R,
    ) -> Result<bool, EngineError> {
        let (Outcome::OutcomeUnknown { since, cause }, Some(record), OnUnknown::Probe) =
            (&refused.outcome, &refused.record, policy.on_unknown)
        else {
            return Ok(false);
        };
        let doubt = InDoubt {
            fence: record.fence,
            since: *since,
            cause: *cause,
            written_at: Timestamp::from_millis(record.revision.get()),
            evidence: record.evidence.clone(),
        };
        let (verdict, why) = match effect.probe(&doubt).await {
            Probed::Happened(reply) => (Verdict::Happened(reply), "the receiver has it"),
            Probed::DidNotHappen { is_final: true } => {
                (Verdict::NotExecuted, "the receiver does not have it and never will")
            }
            Probed::DidNotHappen { is_final: false }
            | Probed::StillRunning
            | Probed::CannotTell => {
                return Ok(false);
            }
        };
        self.resolve(request.id, policy, doubt.fence, verdict, "probe", why).await?;
        Ok(true)
    }
}
