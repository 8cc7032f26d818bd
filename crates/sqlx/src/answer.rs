//! What the functions in SQL answer to a claim, in types.

use onlyonce_core::{Reply, Timestamp};
use onlyonce_store::transaction::TxError;

use crate::error::refused;
use crate::{Claimed, Granted, Refused};

/// The row that they answer.
#[derive(Debug)]
pub struct Answer {
    pub(crate) outcome: String,
    pub(crate) fence: Option<i64>,
    pub(crate) status: Option<i64>,
    pub(crate) content: Option<Vec<u8>>,
    /// In milliseconds since 1970.
    pub(crate) since: Option<i64>,
    pub(crate) cause: Option<String>,
}

impl Answer {
    /// What it says.
    pub(crate) fn told(self, granted: impl FnOnce(i64) -> Granted) -> Result<Claimed, TxError> {
        let unfit =
            || refused(&format!("the functions answer {}, which does not fit", self.outcome));
        let since = || -> Result<Timestamp, TxError> {
            let millis = self.since.and_then(|it| u64::try_from(it).ok());
            millis.map(Timestamp::from_millis).ok_or_else(unfit)
        };
        let status = || self.status.and_then(|it| u16::try_from(it).ok()).ok_or_else(unfit);
        Ok(match self.outcome.as_str() {
            "granted" => Claimed::Granted(granted(self.fence.ok_or_else(unfit)?)),
            "replay" => {
                let content = self.content.as_ref().ok_or_else(unfit)?;
                Claimed::Replay(Reply::kept(status()?, content.clone()))
            }
            "in-flight" => Claimed::Refused(Refused::InFlight { until: since()? }),
            "mismatch" => Claimed::Refused(Refused::Mismatch),
            "outcome-unknown" => {
                let cause = self.cause.clone().ok_or_else(unfit)?;
                Claimed::Refused(Refused::OutcomeUnknown { since: since()?, cause })
            }
            // A tombstone has the time and the status of what it was answered.
            "gone" => Claimed::Refused(Refused::Gone { answered_at: since()?, status: status()? }),
            "expired" => Claimed::Refused(Refused::Expired),
            _ => return Err(unfit()),
        })
    }
}
