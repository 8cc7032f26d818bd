//! A ticket: the right, and the duty, to run an operation and to say how it ended.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use onlyonce_core::{
    Cause, Command, Evidence, Fence, KeyId, Outcome, Policy, Record, Reply, State, Timestamp,
};
use onlyonce_store::StoreErrorKind;

use crate::act::{Act, Acted};
use crate::effect::Ran;
use crate::error::EngineError;
use crate::inner::Inner;
use crate::lease::Lease;
use crate::observe::EngineEvent;

/// A granted claim. End it with [`complete`](Self::complete), [`release`](Self::release) or
/// [`abandon`](Self::abandon).
///
/// A ticket that is dropped is abandoned, never released: nobody can tell how far its holder got.
pub struct Ticket {
    inner: Arc<Inner>,
    id: KeyId,
    policy: Policy,
    fence: Fence,
    /// The record as we last wrote it; a swap from it costs one round trip.
    record: Record,
    lease: Lease,
    /// Whether some command has ended the claim, or tried to.
    ended: bool,
}

impl Ticket {
    pub(crate) fn new(
        inner: Arc<Inner>,
        id: KeyId,
        policy: Policy,
        fence: Fence,
        record: Record,
    ) -> Self {
        let lease = Lease::new(Arc::clone(&inner), &policy, &record);
        Self { inner, id, policy, fence, record, lease, ended: false }
    }

    /// The key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The fence of this claim, to be sent to the receiver if it can compare fences.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.record.attempt
    }

    /// The record as we last wrote it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// How much of the lease is left, by the engine's clock.
    pub fn lease_left(&self) -> Duration {
        self.lease.left()
    }

    /// The lease, for whatever sends under this claim: it starts nothing once that is over.
    pub fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// The present time, by the engine's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.inner.now()
    }

    /// Makes durable that the operation may happen from now on. Nothing that can take effect may
    /// be sent before this returns `Ok`. Needed only for claims in `Phase::Prepared`.
    ///
    /// # Errors
    /// [`EngineError::ClaimLost`] if the claim is no longer ours; a store error if nobody can
    /// say. Nothing may be sent then; let the ticket drop or release it.
    pub async fn commit(&mut self) -> Result<(), EngineError> {
        self.speak(Command::Commit { fence: self.fence }).await
    }

    /// Extends the lease.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn renew(&mut self) -> Result<(), EngineError> {
        self.speak(Command::Renew { fence: self.fence }).await
    }

    /// Keeps what was learnt about this attempt, such as an external id, durably.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn note(&mut self, evidence: Evidence) -> Result<(), EngineError> {
        self.speak(Command::Note { fence: self.fence, evidence }).await
    }

    /// Checks that at least `least` of the lease is left: call it before the first byte is sent.
    ///
    /// # Errors
    /// [`EngineError::LeaseShort`], or [`EngineError::ClaimLost`] if the claim is known not to be
    /// ours any more: release the ticket instead.
    pub fn check_lease(&self, least: Duration) -> Result<(), EngineError> {
        let left = self.lease_left();
        if left < least || left.is_zero() { Err(self.why_not()) } else { Ok(()) }
    }

    /// Why nothing may be begun under a lease that is over, or nearly so.
    pub(crate) fn why_not(&self) -> EngineError {
        if self.lease.is_lost() { EngineError::ClaimLost } else { EngineError::LeaseShort }
    }

    /// How an operation ended that [`hold`](Self::hold) has dropped. What was dropped under a lease
    /// that goes on had no more time at its receiver.
    pub(crate) fn cut_off(&self) -> Ran {
        let lapses = self.lease.is_lost() || self.lease.has_lapsed();
        Ran::CannotTell(if lapses { Cause::Lapsed } else { Cause::TimedOut })
    }

    /// [`Self::check_lease`] with a third of the lease, after which a renewal is due.
    pub(crate) fn check_start(&self) -> Result<(), EngineError> {
        self.check_lease(self.policy.lease / 3)
    }

    /// Runs `operation` while the lease is renewed, at a third of it and each tenth after a
    /// failure, and drops it when the lease is over, since it could not be renewed, or at once
    /// when the claim is found to be lost: `None`. Nothing that `operation` does itself comes
    /// after that; what it has handed to others (a task, a connection's buffer) may.
    pub async fn hold<F: Future>(&mut self, operation: F) -> Option<F::Output> {
        let lease = self.lease();
        self.listen(lease.bounds(operation)).await
    }

    /// Waits for `answer` while the lease is renewed, at a third of it, and goes on waiting when
    /// that fails: an answer to what was sent in time is true however late it is. For what only
    /// listens, and for what asks the [`Lease`] by itself before it sends.
    pub async fn listen<F: Future>(&mut self, answer: F) -> F::Output {
        let mut answer = pin!(answer);
        let mut pause = self.policy.lease / 3;
        loop {
            let sleep = self.inner.runtime.sleep(pause);
            match select(answer.as_mut(), sleep).await {
                Either::Left((output, _)) => return output,
                Either::Right(((), _)) => {}
            }
            // The renewal must not hold up the operation, nor the operation the renewal.
            let renewed = match select(answer.as_mut(), pin!(self.renew())).await {
                Either::Left((output, _)) => return output,
                Either::Right((renewed, _)) => renewed,
            };
            pause = match renewed {
                Ok(()) => self.policy.lease / 3,
                // Nobody will renew it any more. What happens under it is evidence all the same.
                Err(error) if is_final(&error) => return answer.await,
                // A store that is full or away may take it while the lease lasts.
                Err(_) => self.policy.lease / 10,
            };
        }
    }

    /// Records the reply and wakes everyone who waits for it. Repeats until the lease ends if
    /// the store fails; a reply the store has no room for is recorded as answered but not kept.
    ///
    /// The answer says what is recorded: [`Outcome::Done`] if it is this reply.
    ///
    /// # Errors
    /// Nobody can say whether it is recorded. The operation did happen; the record will lapse to
    /// unknown.
    pub async fn complete(mut self, reply: Reply) -> Result<Acted, EngineError> {
        self.ended = true;
        let fits = reply.content().is_none_or(|it| it.len() <= self.inner.store.reply_max());
        let first = if fits { reply.clone() } else { reply.without_content() };
        let result = match self.end(Command::Complete { fence: self.fence, reply: first }).await {
            Err(error) if is_full(&error) => {
                let reply = reply.without_content();
                let command = Command::Complete { fence: self.fence, reply };
                // Reads first: a store that is full may not have looked what stands.
                self.drive_to_end(Act::new(command, self.policy)).await
            }
            result => result,
        };
        let (id, fence) = (self.id, self.fence);
        match &result {
            // It is not what is recorded; of a second reply the alarm was given when it was found.
            Ok(acted) if acted.outcome != Outcome::Done => {}
            Ok(acted) => {
                self.inner.observer.on(&EngineEvent::Completed { id, fence });
                if !is_kept(acted) {
                    self.inner.observer.on(&EngineEvent::ReplyNotKept { id, fence });
                }
            }
            Err(error) => self.unrecorded(error),
        }
        self.wake(&result, None);
        result
    }

    /// Says that the operation certainly did not happen under this claim and no longer can. The
    /// key is free again, unless an earlier attempt is in doubt. `shared` is what those who wait
    /// are answered, as they never run it themselves.
    ///
    /// # Errors
    /// Nobody can say whether it is recorded; the record may lapse to unknown.
    pub async fn release(
        mut self,
        stranger: bool,
        shared: Option<Reply>,
    ) -> Result<Acted, EngineError> {
        self.ended = true;
        let result = self.end(Command::Release { fence: self.fence, stranger }).await;
        let (id, fence) = (self.id, self.fence);
        match &result {
            Ok(_) => self.inner.observer.on(&EngineEvent::Released { id, fence }),
            Err(error) => self.unrecorded(error),
        }
        self.wake(&result, shared);
        result
    }

    /// Says that nobody can tell whether the operation happened. `shared` is what those who wait
    /// are answered.
    ///
    /// # Errors
    /// Nobody can say whether it is recorded; the record will lapse to unknown all the same.
    pub async fn abandon(
        mut self,
        cause: Cause,
        shared: Option<Reply>,
    ) -> Result<Acted, EngineError> {
        self.ended = true;
        let result = self.end(Command::Abandon { fence: self.fence, cause }).await;
        let (id, fence) = (self.id, self.fence);
        match &result {
            Ok(_) => self.inner.observer.on(&EngineEvent::OutcomeUnknown { id, fence, cause }),
            Err(error) => self.unrecorded(error),
        }
        self.wake(&result, shared);
        result
    }

    async fn speak(&mut self, command: Command) -> Result<(), EngineError> {
        let act = Act::from_record(command, self.policy, self.record.clone());
        let deadline = self.inner.soon().min(self.lease.ends());
        let acted = self.inner.drive(self.id, act, deadline).await?;
        let is_ours = acted.outcome == Outcome::Done;
        if let Some(record) = acted.record {
            self.record = record;
        }
        if !is_ours {
            self.lease.lose();
            return Err(EngineError::ClaimLost);
        }
        self.lease.renewed(&self.record);
        Ok(())
    }

    async fn end(&self, command: Command) -> Result<Acted, EngineError> {
        self.drive_to_end(Act::from_record(command, self.policy, self.record.clone())).await
    }

    async fn drive_to_end(&self, act: Act) -> Result<Acted, EngineError> {
        self.inner.drive(self.id, act, self.lease.ends().max(self.inner.soon())).await
    }

    fn wake(&self, result: &Result<Acted, EngineError>, shared: Option<Reply>) {
        if let Ok(Acted { record: Some(record), .. }) = result {
            self.inner.wake(self.id, record, shared);
        }
    }

    fn unrecorded(&self, error: &EngineError) {
        let (id, fence, error) = (self.id, self.fence, error.clone());
        self.inner.observer.on(&EngineEvent::Unrecorded { id, fence, error });
    }
}

pub(crate) fn is_kept(acted: &Acted) -> bool {
    match acted.record.as_ref().map(|record| &record.state) {
        Some(State::Completed { reply, .. }) => reply.content().is_some(),
        Some(
            State::InFlight(_)
            | State::Released { .. }
            | State::Unknown(_)
            | State::Tombstone { .. },
        )
        | None => true,
    }
}

/// Whether no later renewal can be better than this one.
fn is_final(error: &EngineError) -> bool {
    match error {
        EngineError::Store(error) => error.kind() == StoreErrorKind::Poisoned,
        EngineError::ClaimLost => true,
        EngineError::StoreTimeout
        | EngineError::Contended
        | EngineError::LeaseShort
        | EngineError::ClockDoubtful { .. }
        | EngineError::ClockUncertain { .. } => false,
    }
}

/// Whether the store has no room for what it was given.
pub(crate) fn is_full(error: &EngineError) -> bool {
    match error {
        EngineError::Store(error) => error.kind() == StoreErrorKind::Full,
        EngineError::StoreTimeout
        | EngineError::Contended
        | EngineError::ClaimLost
        | EngineError::LeaseShort
        | EngineError::ClockDoubtful { .. }
        | EngineError::ClockUncertain { .. } => false,
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let ticket = Self {
            inner: Arc::clone(&self.inner),
            id: self.id,
            policy: self.policy,
            fence: self.fence,
            record: self.record.clone(),
            lease: self.lease(),
            ended: true,
        };
        self.inner.runtime.spawn(Box::pin(async move {
            // An error leaves the record to lapse, which says the same a little later.
            let _ = ticket.abandon(Cause::Abandoned, None).await;
        }));
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("id", &self.id).field("fence", &self.fence).finish()
    }
}
