//! What to answer when the operation is not ours to run, or could not be run.

use http::StatusCode;
use onlyonce_core::{Cause, Fence, Outcome, Policy, Record, Remedy, Reply, State, Timestamp};

use crate::classify::FailureKind;
use crate::content::ContentError;
use crate::intake::Protected;
use crate::problem::{Happened, Problem, ProblemKind};
use crate::render::{self, Rendered, ReplayMarks};
use crate::route::RoutePolicy;
use crate::status::IdempotencyStatus;

/// What to do about an outcome.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub enum Answer {
    /// Run the operation under this fence.
    Run(Fence),
    /// Send the kept answer again.
    Replay(Rendered),
    /// Send this problem.
    Problem(Problem),
    /// Send this problem, and tell the operator: the kept answer cannot be read.
    Damaged(Problem, ContentError),
}

/// What a claim's or question's outcome means for the one who asked. `record` is the record
/// behind it, if there is one; `now` is the engine's time.
pub fn answer(
    outcome: &Outcome,
    record: Option<&Record>,
    request: &Protected,
    policy: &RoutePolicy,
    now: Timestamp,
) -> Answer {
    let happened = Happened::by_record(record);
    let problem = match outcome {
        Outcome::Granted(fence) => return Answer::Run(*fence),
        Outcome::Replay { reply, answered_at, sealed } => {
            return replay(reply, *answered_at, *sealed, record, request, policy);
        }
        Outcome::InFlight { lease_until } => in_progress(*lease_until, policy, now),
        Outcome::Mismatch => {
            Problem::new(ProblemKind::KeyReused).with_outcome(IdempotencyStatus::Mismatch, happened)
        }
        Outcome::CredentialChanged => Problem::new(ProblemKind::CredentialChanged),
        Outcome::OutcomeUnknown { since, cause } => {
            outcome_unknown(*since, *cause).with_retryable(settles(record, &policy.record, now))
        }
        Outcome::Gone { answered_at, status, sealed } => {
            gone(*answered_at, *status, *sealed, happened)
        }
        Outcome::Expired => Problem::new(ProblemKind::KeyExpired),
        Outcome::Absent if request.replay_only => not_seen(record, request),
        Outcome::Absent => attempt_released(record, policy),
        // None of these is the outcome of a claim or a question; not to run is safe.
        Outcome::Done | Outcome::Fenced | Outcome::InvalidFence | Outcome::SecondReply => {
            store_unavailable(policy)
        }
    };
    Answer::Problem(problem)
}

fn replay(
    reply: &Reply,
    answered_at: Timestamp,
    sealed: bool,
    record: Option<&Record>,
    request: &Protected,
    policy: &RoutePolicy,
) -> Answer {
    let marks = ReplayMarks {
        key: &request.key,
        answered_at,
        expires: record.map(|it| render::expires(it.fence, &policy.record, retained(it))),
        trailers: request.trailers,
        sealed,
    };
    let happened = Happened::by_record(record);
    match render::replay(reply, &marks) {
        Ok(Some(rendered)) => Answer::Replay(rendered),
        Ok(None) => Answer::Problem(gone(answered_at, reply.status(), sealed, happened)),
        // Who sealed it need not have written an HTTP answer.
        Err(_) if sealed => Answer::Problem(gone(answered_at, reply.status(), sealed, happened)),
        Err(error) => {
            let problem = Problem::new(ProblemKind::RecordDamaged)
                .with_outcome(IdempotencyStatus::NotEvaluated, happened);
            Answer::Damaged(problem, error)
        }
    }
}

fn retained(record: &Record) -> Option<Timestamp> {
    match &record.state {
        State::Completed { retain_until, .. } => Some(*retain_until),
        State::InFlight(_)
        | State::Released { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    }
}

fn gone(answered_at: Timestamp, status: u16, sealed: bool, happened: Happened) -> Problem {
    if sealed {
        let problem = Problem::new(ProblemKind::KeySealed).with_time("sealed_at", answered_at);
        // A person may have had it run again before somebody sealed it.
        return match happened {
            Happened::Unknown => problem.with_outcome(IdempotencyStatus::Sealed, happened),
            Happened::Yes | Happened::No => problem,
        };
    }
    Problem::new(ProblemKind::ReplyNotKept)
        .with_time("answered_at", answered_at)
        .with_member("original_status", status)
}

/// Nobody is told to wait longer than the claim can last without a word from its holder, however
/// far its clock is from ours.
fn in_progress(lease_until: Timestamp, policy: &RoutePolicy, now: Timestamp) -> Problem {
    let left = lease_until.plus(policy.record.skew_max).since(now).min(policy.record.lease);
    Problem::new(ProblemKind::RequestInProgress).with_retry_after(policy.retry_after.min(left))
}

fn outcome_unknown(since: Timestamp, cause: Cause) -> Problem {
    Problem::new(ProblemKind::OutcomeUnknown)
        .with_time("since", since)
        .with_member("cause", cause.name())
}

/// Whether sending the same request again is what settles an unknown outcome, at `now`. Without a
/// record nobody knows when it began, so that no window is known to be open.
fn settles(record: Option<&Record>, policy: &Policy, now: Timestamp) -> bool {
    let first_commit_at = record.and_then(|record| record.first_commit_at);
    match policy.remedy_at(first_commit_at, now) {
        Remedy::RunAgain | Remedy::Probe => true,
        // A front door cannot seal.
        Remedy::Seal | Remedy::Hold => false,
    }
}

/// A question found nothing. Only a key with time proves that nothing was ever run: a record of
/// one without time is forgotten after `remember`.
fn not_seen(record: Option<&Record>, request: &Protected) -> Problem {
    let problem = Problem::new(ProblemKind::NotSeen);
    match record {
        None if request.key_time.is_some() => {
            problem.with_outcome(IdempotencyStatus::NotExecuted, Happened::No)
        }
        None => problem,
        Some(_) => nothing_happened(problem, record),
    }
}

fn attempt_released(record: Option<&Record>, policy: &RoutePolicy) -> Problem {
    let problem = Problem::new(ProblemKind::AttemptReleased).with_retry_after(policy.retry_after);
    nothing_happened(problem, record)
}

/// This attempt did nothing; what is said of the key is what its record can vouch for.
fn nothing_happened(problem: Problem, record: Option<&Record>) -> Problem {
    let says = IdempotencyStatus::after_nothing_happened(record);
    problem.with_outcome(says, Happened::by_record(record))
}

/// The answer while the store cannot be asked.
pub fn store_unavailable(policy: &RoutePolicy) -> Problem {
    Problem::new(ProblemKind::StoreUnavailable).with_retry_after(policy.retry_after)
}

/// The answer to the first caller when the upstream gave none. `record` is what ending the claim
/// has left behind, `now` the time of the failure.
pub fn failed(
    kind: FailureKind,
    record: Option<&Record>,
    policy: &Policy,
    now: Timestamp,
) -> Problem {
    let unknown = |cause, status| {
        let retryable = settles(record, policy, now);
        outcome_unknown(now, cause).with_status(status).with_retryable(retryable)
    };
    match kind {
        FailureKind::NeverSent => {
            nothing_happened(Problem::new(ProblemKind::UpstreamUnreachable), record)
        }
        FailureKind::SentAndLost => unknown(Cause::ConnectionLost, StatusCode::BAD_GATEWAY),
        FailureKind::TimedOut => unknown(Cause::TimedOut, StatusCode::GATEWAY_TIMEOUT),
        FailureKind::AnswerCut => unknown(Cause::AnswerCut, StatusCode::BAD_GATEWAY),
    }
}

/// What the first caller of an attempt was answered, for those who waited for it: a refusal that
/// is not recorded, such as a 429. It is no replay, since nothing ran.
///
/// # Errors
/// The content is not one that [`crate::capture`] made.
///
/// `Ok(None)` if its content was not kept.
pub fn shared(
    reply: &Reply,
    record: Option<&Record>,
    request: &Protected,
    now: Timestamp,
) -> Result<Option<Rendered>, ContentError> {
    let marks = ReplayMarks {
        key: &request.key,
        answered_at: now,
        expires: None,
        trailers: request.trailers,
        sealed: false,
    };
    Ok(render::replay(reply, &marks)?.map(|mut rendered| {
        let says = IdempotencyStatus::after_nothing_happened(record);
        render::mark(&mut rendered.head.headers, says, Some(&request.key), None);
        rendered
    }))
}

#[cfg(test)]
mod tests;
