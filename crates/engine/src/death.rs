//! The death certificate: a claim whose process is provably gone ends at once. Age alone proves
//! nothing; without a proof only the lease ends a claim.

use onlyonce_core::{Command, Fence, Holder, KeyId, Policy, Record, State};

use crate::act::{Act, Acted, Step};
use crate::error::EngineError;
use crate::inner::Inner;
use crate::observe::EngineEvent;

impl Inner {
    /// What stands there once the claim that is in the way of `acted` has been ended, if its
    /// holder's process is gone; `None` if nothing proves that. What it completed just before it
    /// died is kept for as long as `policy` says.
    pub(crate) async fn after_death(
        &self,
        id: KeyId,
        acted: &Acted,
        policy: Policy,
    ) -> Result<Option<Option<Record>>, EngineError> {
        let Some(record) = acted.record.as_ref().filter(|_| acted.is_running()) else {
            return Ok(None);
        };
        let Some((fence, holder)) = holder(record) else { return Ok(None) };
        if holder == self.runtime.holder() || !self.runtime.is_gone(&holder) {
            return Ok(None);
        }
        let command = Command::CertifyDeath { fence };
        let mut act = Act::from_record(command, policy, record.clone());
        let stands = loop {
            match act.step(self.now(), self.floor(id).await?) {
                Step::Get => act.read(self.store.get(id).await?),
                Step::Swap { expected, next } => {
                    let swap = self.store.swap(id, expected, next).await?;
                    if let Some(done) = act.swapped(swap) {
                        self.observer.on(&EngineEvent::HolderBuried { id });
                        break done.record;
                    }
                }
                Step::Done(done) => break done.record,
                Step::Contended => return Err(EngineError::Contended),
            }
        };
        if let Some(record) = &stands {
            self.wake(id, record, None);
        }
        Ok(Some(stands))
    }
}

/// The claim that is open, and who holds it.
fn holder(record: &Record) -> Option<(Fence, Holder)> {
    match &record.state {
        State::InFlight(flight) => Some((record.fence, flight.holder)),
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    }
}
