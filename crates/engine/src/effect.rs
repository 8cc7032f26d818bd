//! An effect: an operation on the outside world that the engine runs once per key.

use std::fmt;
use std::future::Future;

use futures_channel::oneshot;
use onlyonce_core::{
    Cause, Entry, Event, Fence, Outcome, Phase, Policy, Record, Reply, State, StateKind,
};

use crate::act::Acted;
use crate::engine::{Claimed, Engine, Request};
use crate::error::EngineError;
use crate::lease::Lease;
use crate::probe::{InDoubt, PROBE, Probed, SEAL, Sealing};
use crate::ticket::Ticket;

/// What an effect may tell its receiver about the run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The fence of the claim: receivers that compare fences can refuse a late holder.
    pub fence: Fence,
    /// Which attempt this is, from 1.
    pub number: u32,
    /// Whether an earlier attempt may have happened. What this one is answered says nothing of
    /// that one.
    pub may_have_happened: bool,
    /// Whether a person has said of an earlier attempt that the operation may run again.
    pub allowed_by_person: bool,
}

/// How a run ended. Say [`CannotTell`](Self::CannotTell) unless you are sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It happened (or was definitely answered, if only with a refusal): this is the reply.
    Happened(Reply),
    /// It certainly did not happen and no longer can, such as a refused connection. `reply` is
    /// what this caller and those waiting for it are answered.
    NotExecuted(Reply),
    /// Nobody can tell, such as a time-out after sending.
    CannotTell(Cause),
}

/// What becomes of an effect whose lease ends: the store could not be reached to renew it, or said
/// that the claim is not ours any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLeaseEnd {
    /// Its future is dropped, so that nothing more of it starts; nobody can tell whether it
    /// happened.
    CutOff,
    /// It goes on, and promises to start nothing more by itself, but only to listen: so that the
    /// answer to what it has sent is not lost.
    Listens,
}

/// An operation on the outside world.
///
/// [`prepare`](Self::prepare) must not send anything that can take effect; it may be repeated.
/// Between it and [`commit`](Self::commit) the engine makes durable that the operation may now
/// happen, so that a crash leaves doubt only if it strikes after that mark.
pub trait Effect: Send + 'static {
    /// What `prepare` hands to `commit`, such as an open connection.
    type Prepared: Send;

    /// Takes the lease that it runs under, if it wants to ask it before it sends; and says what is
    /// to become of [`commit`](Self::commit) when that is over. What it has handed to other tasks
    /// the engine cannot cut off.
    fn lease(&mut self, _lease: Lease) -> AtLeaseEnd {
        AtLeaseEnd::CutOff
    }

    /// Everything that can be done before the first byte that can take effect.
    fn prepare(
        &mut self,
        attempt: Attempt,
    ) -> impl Future<Output = Result<Self::Prepared, Reply>> + Send;

    /// The bytes that can take effect, and the answer to them.
    fn commit(
        &mut self,
        prepared: Self::Prepared,
        attempt: Attempt,
    ) -> impl Future<Output = Ran> + Send;

    /// Asks a queryable receiver whether the operation happened, where the policy says so
    /// ([`onlyonce_core::Remedy::Probe`]). Without it nobody can tell.
    fn probe(&mut self, _doubt: &InDoubt) -> impl Future<Output = Probed> + Send {
        std::future::ready(Probed::CannotTell)
    }

    /// Seals a sealable receiver against every attempt up to `doubt.fence`, where the policy says
    /// so ([`onlyonce_core::Remedy::Seal`]). What is then run again must not be held up by that
    /// seal: it uses a name of its own there, made of its [`Attempt`].
    fn seal(&mut self, _doubt: &InDoubt) -> impl Future<Output = Sealing> + Send {
        std::future::ready(Sealing::CannotTell)
    }
}

/// An effect that is nothing but its commit: a closure.
///
/// It claims straight into the dangerous phase, which saves one write. When its lease ends without
/// having been renewed, it is cut off ([`AtLeaseEnd::CutOff`]).
pub struct Direct<F>(F);

/// Makes an effect of a closure that runs the operation and says how it ended.
pub fn direct<F, R>(run: F) -> Direct<F>
where
    F: FnOnce(Attempt) -> R + Send + 'static,
    R: Future<Output = Ran> + Send,
{
    Direct(run)
}

/// Runs under a granted ticket; implemented by [`Direct`] and every [`Effect`].
pub trait Run: Send + 'static {
    /// Where the claim starts.
    const PHASE: Phase;

    /// Runs, and says how it ended. `Err` means nothing was sent.
    fn run(self, ticket: &mut Ticket) -> impl Future<Output = Result<Ran, EngineError>> + Send;

    /// Asks whether it happened.
    fn probe(&mut self, _doubt: &InDoubt) -> impl Future<Output = Probed> + Send {
        std::future::ready(Probed::CannotTell)
    }

    /// Makes sure that it cannot happen any more, or finds that it has.
    fn seal(&mut self, _doubt: &InDoubt) -> impl Future<Output = Sealing> + Send {
        std::future::ready(Sealing::CannotTell)
    }
}

impl<F, R> Run for Direct<F>
where
    F: FnOnce(Attempt) -> R + Send + 'static,
    R: Future<Output = Ran> + Send + 'static,
{
    const PHASE: Phase = Phase::Committing;

    async fn run(self, ticket: &mut Ticket) -> Result<Ran, EngineError> {
        // A grant may have been long on its way: nothing is sent under a lease that is nearly over.
        ticket.check_start()?;
        let operation = (self.0)(attempt(ticket));
        Ok(ticket.hold(operation).await.unwrap_or_else(|| ticket.cut_off()))
    }
}

impl<E: Effect> Run for E {
    const PHASE: Phase = Phase::Prepared;

    async fn run(mut self, ticket: &mut Ticket) -> Result<Ran, EngineError> {
        let attempt = attempt(ticket);
        let at_end = self.lease(ticket.lease());
        let prepared = match ticket.hold(self.prepare(attempt)).await {
            Some(Ok(prepared)) => prepared,
            Some(Err(reply)) => return Ok(Ran::NotExecuted(reply)),
            None => return Err(ticket.why_not()),
        };
        ticket.commit().await?;
        ticket.check_start()?;
        let committing = self.commit(prepared, attempt);
        Ok(match at_end {
            AtLeaseEnd::CutOff => ticket.hold(committing).await.unwrap_or_else(|| ticket.cut_off()),
            AtLeaseEnd::Listens => ticket.listen(committing).await,
        })
    }

    async fn probe(&mut self, doubt: &InDoubt) -> Probed {
        Effect::probe(self, doubt).await
    }

    async fn seal(&mut self, doubt: &InDoubt) -> Sealing {
        Effect::seal(self, doubt).await
    }
}

fn attempt(ticket: &Ticket) -> Attempt {
    let record = ticket.record();
    let inherits = matches!(&record.state, State::InFlight(flight) if flight.inherited.is_some());
    Attempt {
        fence: ticket.fence(),
        number: ticket.attempt(),
        may_have_happened: record.rerun || inherits,
        allowed_by_person: record.history.entries().iter().any(is_a_persons_leave),
    }
}

/// Whether a person has let it run again. Receivers that were asked say so too, by their own names.
fn is_a_persons_leave(entry: &Entry) -> bool {
    let lets_run = matches!(entry.event, Event::ResolvedNotExecuted | Event::ResolvedRunAgain);
    lets_run && ![PROBE, SEAL].contains(&entry.by.as_str())
}

/// What a caller of [`Engine::once`] gets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The operation ran now, by this call: this is its recorded reply.
    Reply(Reply),
    /// It ran earlier, or for somebody else while we waited: the same reply again. Of a sealed
    /// key, which never ran, it is the refusal; [`Engine::look`] tells the two apart.
    Replayed(Reply),
    /// It did not happen, this time or ever; the key may be used again.
    NotExecuted(Reply),
    /// It ran now and this is its reply, but that could not be recorded: a later request will
    /// meet an unknown outcome.
    Unrecorded(Reply),
    /// Anything else: another request used the key, it still runs, nobody knows, it is too old.
    Refused(Outcome),
}

impl Engine {
    /// Runs `effect` unless its key was used before; then gives the stored answer.
    ///
    /// The run is a task of its own: dropping the returned future cancels nothing. A concurrent
    /// duplicate waits up to `wait` for the first one's answer and never runs anything.
    ///
    /// # Errors
    /// The store could not say in time; nothing was run by this call.
    pub async fn once<R: Run>(
        &self,
        request: &Request,
        policy: &Policy,
        wait: std::time::Duration,
        mut effect: R,
    ) -> Result<Answer, EngineError> {
        let mut claimed = self.claim(request, policy, R::PHASE).await?;
        if let Claimed::Refused(acted) = &claimed
            && self.probed(request, policy, acted, &mut effect).await?
        {
            claimed = self.claim(request, policy, R::PHASE).await?;
        }
        let ticket = match claimed {
            Claimed::Granted(ticket) => ticket,
            Claimed::Refused(acted) if acted.is_running() => {
                return self.attend(request, policy, wait).await;
            }
            Claimed::Refused(acted) => return Ok(told(acted.outcome)),
        };
        let (tell, told) = oneshot::channel();
        self.inner.runtime.spawn(Box::pin(async move {
            let answer = carry_out(ticket, effect).await;
            // Whoever asked may be gone; the record is what counts.
            let _ = tell.send(answer);
        }));
        // The task was dropped or panicked: its ticket was abandoned, so nobody can tell.
        told.await.unwrap_or_else(|_| {
            let (since, cause) = (self.now(), Cause::Abandoned);
            Ok(Answer::Refused(Outcome::OutcomeUnknown { since, cause }))
        })
    }

    async fn attend(
        &self,
        request: &Request,
        policy: &Policy,
        wait: std::time::Duration,
    ) -> Result<Answer, EngineError> {
        use crate::engine::Waited;
        Ok(match self.wait(request, policy, wait).await? {
            // It speaks for the key only if no earlier attempt may have happened.
            Waited::Ended {
                shared: Some(reply),
                acted: Acted { record: Some(record), outcome },
            } if outcome == Outcome::Absent && !record.may_have_run() => Answer::NotExecuted(reply),
            Waited::Ended { acted, .. } | Waited::StillRunning(acted) => told(acted.outcome),
        })
    }
}

async fn carry_out<R: Run>(mut ticket: Ticket, effect: R) -> Result<Answer, EngineError> {
    match effect.run(&mut ticket).await {
        Ok(Ran::Happened(reply)) => match ticket.complete(reply.clone()).await {
            Ok(Acted { outcome: Outcome::Done, .. }) => Ok(Answer::Reply(reply)),
            Ok(acted) => Ok(recorded(acted)),
            Err(_) => Ok(Answer::Unrecorded(reply)),
        },
        Ok(Ran::NotExecuted(reply)) => {
            let acted = ticket.release(false, Some(reply.clone())).await?;
            match acted.record {
                Some(record) if record.may_have_run() => {
                    Ok(recorded(Acted { record: Some(record), ..acted }))
                }
                Some(_) => Ok(Answer::NotExecuted(reply)),
                // The record was forgotten meanwhile, so nobody can speak for other attempts.
                None => Ok(Answer::Refused(acted.outcome)),
            }
        }
        Ok(Ran::CannotTell(cause)) => {
            let since = ticket.now();
            Ok(match ticket.abandon(cause, None).await {
                Ok(acted) => recorded(acted),
                // Not recorded, and as true: its lease ends, and then the record says the same.
                Err(_) => Answer::Refused(Outcome::OutcomeUnknown { since, cause }),
            })
        }
        Err(error) => {
            // Nothing was sent, so whatever the record says meanwhile, this attempt is over.
            match ticket.release(false, None).await {
                // It was called off for what an earlier attempt may have done.
                Ok(Acted { record: Some(record), outcome }) if is_unknown(&record) => {
                    Ok(recorded(Acted { record: Some(record), outcome }))
                }
                Ok(_) | Err(_) => Err(error),
            }
        }
    }
}

fn is_unknown(record: &Record) -> bool {
    record.state.kind() == StateKind::Unknown
}

/// What the record says when it is not what we wanted to record.
fn recorded(acted: Acted) -> Answer {
    match acted.record.map(|record| record.state) {
        Some(State::Completed { reply, sealed: false, .. }) => Answer::Replayed(reply),
        Some(State::Unknown(doubt)) => {
            Answer::Refused(Outcome::OutcomeUnknown { since: doubt.since, cause: doubt.cause })
        }
        // A seal's refusal is no answer to what was run.
        Some(
            State::Completed { .. }
            | State::InFlight(_)
            | State::Released { .. }
            | State::Tombstone { .. },
        )
        | None => Answer::Refused(acted.outcome),
    }
}

fn told(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Replay { reply, .. } => Answer::Replayed(reply),
        Outcome::Granted(_)
        | Outcome::InFlight { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Gone { .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => Answer::Refused(outcome),
    }
}

impl<F> fmt::Debug for Direct<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direct(..)")
    }
}
