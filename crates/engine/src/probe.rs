//! Asking or sealing the receiver of an effect about an outcome that nobody knows.

use onlyonce_core::{Cause, Evidence, Fence, Outcome, Policy, Remedy, Reply, Timestamp, Verdict};

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
    /// When the record was last written. By then the attempt's lease was over, or it had said that
    /// it ended, and nothing more of it was begun; what was on its way, or lay in the buffers of a
    /// process that was stopped, may have gone out later.
    pub written_at: Timestamp,
    /// When the first attempt that may have happened was about to begin, this one or an earlier
    /// one: there is nothing older to be found.
    pub first_commit_at: Option<Timestamp>,
    /// What the attempt noted, such as an external id.
    pub evidence: Option<Evidence>,
}

/// What the receiver has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It happened, and this is the reply. True whoever says it, and whenever.
    Happened(Reply),
    /// The receiver has nothing of it. The engine takes that for final once the bounds have passed
    /// that the policy's receiver declares, counted from the record's last write to the question.
    DidNotHappen,
    /// It is being carried out.
    StillRunning,
    /// Anything else.
    CannotTell,
}

/// What has become of a seal at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// It happened before the seal could be set, and this is the reply.
    Found(Reply),
    /// It did not happen, and no attempt up to the one in doubt can take effect any more.
    Sealed,
    /// Anything else.
    CannotTell,
}

impl Engine {
    /// Asks or seals the receiver about an unknown outcome if the policy says so, and settles it
    /// if the answer is certain. `true` if the store is worth asking again.
    pub(crate) async fn probed<R: Run>(
        &self,
        request: &Request,
        policy: &Policy,
        refused: &Acted,
        effect: &mut R,
    ) -> Result<bool, EngineError> {
        let (Outcome::OutcomeUnknown { since, cause }, Some(record)) =
            (&refused.outcome, &refused.record)
        else {
            return Ok(false);
        };
        let doubt = InDoubt {
            fence: record.fence,
            since: *since,
            cause: *cause,
            written_at: Timestamp::from_millis(record.revision.get()),
            first_commit_at: record.first_commit_at,
            evidence: record.evidence.clone(),
        };
        // The answer speaks of the moment of the question, however long it takes to come.
        let asked_at = self.now();
        let found = match policy.remedy_at(record.first_commit_at, asked_at) {
            Remedy::Probe => {
                let is_final = policy.is_final(doubt.written_at, asked_at);
                verdict_of_probe(effect.probe(&doubt).await, is_final)
            }
            Remedy::Seal => verdict_of_seal(effect.seal(&doubt).await),
            Remedy::RunAgain | Remedy::Hold => None,
        };
        let Some((verdict, by, why)) = found else { return Ok(false) };
        self.resolve(request.id, policy, doubt.fence, verdict, by, why).await?;
        Ok(true)
    }
}

/// Who has settled what a receiver was asked about.
pub(crate) const PROBE: &str = "probe";
/// Who has settled what a receiver was sealed against.
pub(crate) const SEAL: &str = "seal";

type Found = Option<(Verdict, &'static str, &'static str)>;

fn verdict_of_probe(probed: Probed, is_final: bool) -> Found {
    match probed {
        Probed::Happened(reply) => Some((Verdict::Happened(reply), PROBE, "the receiver has it")),
        Probed::DidNotHappen if is_final => Some((
            Verdict::NotExecuted,
            PROBE,
            "the receiver does not have it, and its bounds have passed",
        )),
        Probed::DidNotHappen | Probed::StillRunning | Probed::CannotTell => None,
    }
}

fn verdict_of_seal(sealing: Sealing) -> Found {
    match sealing {
        Sealing::Found(reply) => Some((Verdict::Happened(reply), SEAL, "the receiver has it")),
        Sealing::Sealed => {
            Some((Verdict::NotExecuted, SEAL, "it is sealed at the receiver, and never will be"))
        }
        Sealing::CannotTell => None,
    }
}
