//! Holders in other processes: they have a fence where a holder here has a [`Ticket`].
//!
//! [`Ticket`]: crate::Ticket

use std::time::Duration;

use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Evidence, Fence, Holder, KeyId, Outcome, Phase, Policy, Record,
    Reply, State, Timestamp,
};

use crate::act::{Act, Acted};
use crate::engine::{Engine, Request};
use crate::error::EngineError;
use crate::observe::EngineEvent;
use crate::ticket::{is_full, is_kept};

/// A holder that nobody here can prove gone: its claims end by their leases alone, also when this
/// process begins anew.
const ELSEWHERE: Holder =
    Holder { host: [0; 8], boot: [0; 16], pid_namespace: 0, pid: 0, started: 0, time_namespace: 0 };

/// Whether a record's claim is held where its end cannot be proved.
pub(crate) fn is_held_elsewhere(record: &Record) -> bool {
    match &record.state {
        State::InFlight(flight) => flight.holder == ELSEWHERE,
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => false,
    }
}

/// How long until a holder elsewhere must have said something: it may end without a word, and then
/// nobody wakes those who wait. A holder in this process wakes them whatever happens.
pub(crate) fn word_due_in(acted: &Acted, now: Timestamp, policy: &Policy) -> Duration {
    let (Outcome::InFlight { lease_until }, Some(record)) = (&acted.outcome, &acted.record) else {
        return Duration::MAX;
    };
    if !is_held_elsewhere(record) {
        return Duration::MAX;
    }
    // Not zero: whoever looks at that very moment must not look in a circle.
    lease_until.plus(policy.skew_max).since(now).max(Duration::from_millis(1))
}

impl Engine {
    /// Asks for a holder in another process, under the claim id that it has made for this attempt.
    /// Unlike [`Engine::claim`] nothing is taken back if the answer is lost: the holder repeats
    /// the claim with the same id and is granted the same fence, or lets the lease lapse.
    ///
    /// # Errors
    /// The store could not say within [`Settings::store_wait`](crate::Settings::store_wait). The
    /// claim may have been granted.
    pub async fn claim_for(
        &self,
        request: &Request,
        policy: &Policy,
        phase: Phase,
        claim_id: ClaimId,
    ) -> Result<Acted, EngineError> {
        let command = Command::Claim(Claim {
            fingerprint: request.fingerprint,
            claim_id,
            holder: ELSEWHERE,
            key_time: request.key_time,
            credential: request.credential,
            phase,
        });
        let act = Act::new(command, *policy).with_refingerprint(request.refingerprint.clone());
        self.inner.check_clock().await?;
        let begun = self.inner.moment();
        let acted = self.inner.drive(request.id, act, self.inner.soon()).await?;
        // Not taken back: a holder that has heard of it from another process may be at work.
        self.inner.check_age(request, policy, &acted, begun).await?;
        if let (Outcome::Granted(fence), Some(record)) = (&acted.outcome, &acted.record) {
            let granted =
                EngineEvent::Granted { id: request.id, fence: *fence, attempt: record.attempt };
            self.inner.observer.on(&granted);
        }
        Ok(acted)
    }

    /// The claim `fence` of a key, for what its holder says in another process.
    pub fn held(&self, id: KeyId, policy: Policy, fence: Fence) -> Held<'_> {
        Held { engine: self, id, policy, fence }
    }
}

/// A claim by its fence. What is said of it may be repeated as often as answers are lost; the
/// answer is [`Outcome::Done`], or what stands in the way.
///
/// # Errors
/// Those of all methods: the store could not say. What was said may have been recorded.
#[derive(Clone, Copy)]
pub struct Held<'a> {
    engine: &'a Engine,
    id: KeyId,
    policy: Policy,
    fence: Fence,
}

impl Held<'_> {
    /// The operation may happen from now on. Nothing that can take effect may be sent before this
    /// is answered [`Outcome::Done`].
    ///
    /// # Errors
    /// See [`Held`].
    pub async fn commit(&self) -> Result<Acted, EngineError> {
        self.say(Command::Commit { fence: self.fence }).await
    }

    /// The holder is still at work: the lease counts from now.
    ///
    /// # Errors
    /// See [`Held`].
    pub async fn renew(&self) -> Result<Acted, EngineError> {
        self.say(Command::Renew { fence: self.fence }).await
    }

    /// Keeps what was learnt about the attempt, such as an external id.
    ///
    /// # Errors
    /// See [`Held`].
    pub async fn note(&self, evidence: Evidence) -> Result<Acted, EngineError> {
        self.say(Command::Note { fence: self.fence, evidence }).await
    }

    /// It happened, and this is the reply. A reply that the store has no room for is recorded as
    /// answered and not kept.
    ///
    /// # Errors
    /// See [`Held`].
    pub async fn complete(&self, reply: Reply) -> Result<Acted, EngineError> {
        let (id, fence) = (self.id, self.fence);
        let fits = reply.content().is_none_or(|it| it.len() <= self.engine.reply_max());
        let first = if fits { reply.clone() } else { reply.without_content() };
        let acted = match self.say(Command::Complete { fence, reply: first }).await {
            Err(error) if is_full(&error) => {
                self.say(Command::Complete { fence, reply: reply.without_content() }).await?
            }
            said => said?,
        };
        let observer = &self.engine.inner.observer;
        match acted.outcome {
            Outcome::Done => {
                observer.on(&EngineEvent::Completed { id, fence });
                if !is_kept(&acted) {
                    observer.on(&EngineEvent::ReplyNotKept { id, fence });
                }
            }
            // The alarm was given when it was found.
            Outcome::SecondReply
            | Outcome::Granted(_)
            | Outcome::Replay { .. }
            | Outcome::InFlight { .. }
            | Outcome::Mismatch
            | Outcome::CredentialChanged
            | Outcome::OutcomeUnknown { .. }
            | Outcome::Gone { .. }
            | Outcome::Expired
            | Outcome::Fenced
            | Outcome::InvalidFence
            | Outcome::Absent => {}
        }
        Ok(acted)
    }

    /// It certainly did not happen under this claim and no longer can.
    ///
    /// # Errors
    /// See [`Held`].
    pub async fn release(&self) -> Result<Acted, EngineError> {
        let (id, fence) = (self.id, self.fence);
        let acted = self.say(Command::Release { fence, stranger: false }).await?;
        if acted.outcome == Outcome::Done {
            self.engine.inner.observer.on(&EngineEvent::Released { id, fence });
        }
        Ok(acted)
    }

    /// The holder cannot tell whether it happened.
    ///
    /// # Errors
    /// See [`Held`].
    pub async fn abandon(&self, cause: Cause) -> Result<Acted, EngineError> {
        let (id, fence) = (self.id, self.fence);
        let acted = self.say(Command::Abandon { fence, cause }).await?;
        let is_unknown = acted.record.as_ref().is_some_and(|record| match record.state {
            State::Unknown(_) => true,
            State::InFlight(_)
            | State::Released { .. }
            | State::Completed { .. }
            | State::Tombstone { .. } => false,
        });
        if acted.outcome == Outcome::Done && is_unknown {
            self.engine.inner.observer.on(&EngineEvent::OutcomeUnknown { id, fence, cause });
        }
        Ok(acted)
    }

    async fn say(&self, command: Command) -> Result<Acted, EngineError> {
        self.engine.command(self.id, &self.policy, command).await
    }
}
