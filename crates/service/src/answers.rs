//! What outcomes and records are in the documents of answers, and which are problems.

use std::time::Duration;

use onlyonce::{Acted, EngineError};
use onlyonce_core::{Doubt, KeyId, Outcome, Policy, Record, Remedy, State, Timestamp, settle};
use onlyonce_http::date::rfc3339;
use onlyonce_http::{Happened, IdempotencyStatus, Problem, ProblemKind};

use crate::reply;
use crate::wire::{
    ClaimAnswer, Done, DoneWord, DoubtView, HistoryView, Invalid, RecordView, ReplyView, Stands,
    WaitAnswer,
};

/// When it is worth asking again about something that runs or is away.
const SOON: Duration = Duration::from_secs(1);

/// A request that is not understood.
pub(crate) fn invalid(invalid: Invalid) -> Problem {
    let Invalid { field, text } = invalid;
    let problem = Problem::new(ProblemKind::RequestInvalid);
    if field.is_empty() {
        return problem.with_detail(text);
    }
    problem.with_detail(format!("{field}: {text}")).with_member("field", field)
}

/// The engine could not carry a command out.
pub(crate) fn failed(error: &EngineError) -> Problem {
    use onlyonce::store::StoreErrorKind;
    match error {
        EngineError::Store(error) if error.kind() == StoreErrorKind::Damaged => {
            tracing::error!(%error, "a record cannot be read");
            Problem::new(ProblemKind::RecordDamaged)
        }
        EngineError::Store(_)
        | EngineError::StoreTimeout
        | EngineError::Contended
        | EngineError::ClaimLost
        | EngineError::LeaseShort
        | EngineError::ClockDoubtful { .. }
        | EngineError::ClockUncertain { .. }
        | _ => {
            tracing::debug!(%error, "the store could not say");
            let text = "The store did not answer in time. What was asked may be recorded or not: \
                        send the same request again.";
            Problem::new(ProblemKind::StoreUnavailable).with_detail(text).with_retry_after(SOON)
        }
    }
}

/// What a claim is answered.
pub(crate) fn claim(acted: &Acted, now: Timestamp) -> Result<ClaimAnswer, Problem> {
    let Acted { outcome, record } = acted;
    let (Outcome::Granted(fence), Some(record)) = (outcome, record) else {
        let WaitAnswer::Replay { reply, answered_at } = wait(acted, now, None)?;
        return Ok(ClaimAnswer::Replay { reply, answered_at });
    };
    let State::InFlight(flight) = &record.state else {
        // A grant is a claim in flight; anything else must not run.
        return Err(Problem::new(ProblemKind::StoreUnavailable).with_retry_after(SOON));
    };
    Ok(ClaimAnswer::Granted {
        fence: fence.get(),
        attempt: record.attempt,
        phase: flight.phase.into(),
        lease_left_ms: millis(flight.lease_until.since(now)),
        lease_until: rfc3339(flight.lease_until),
        doubt: flight.inherited.as_ref().map(doubt),
    })
}

/// What one who waits is answered. `key_time` is the time of the key that was asked about.
pub(crate) fn wait(
    acted: &Acted,
    now: Timestamp,
    key_time: Option<Timestamp>,
) -> Result<WaitAnswer, Problem> {
    let Acted { outcome, record } = acted;
    match outcome {
        Outcome::Replay { reply, answered_at, sealed: false } => {
            let view = reply::view(reply).map_err(|error| {
                tracing::error!(%error, "a kept reply cannot be read");
                Problem::new(ProblemKind::RecordDamaged)
            })?;
            let reply = view.ok_or_else(|| refused(outcome, record.as_ref(), now, key_time))?;
            Ok(WaitAnswer::Replay { reply, answered_at: rfc3339(*answered_at) })
        }
        Outcome::Granted(_)
        | Outcome::Replay { .. }
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
        | Outcome::Absent => Err(refused(outcome, record.as_ref(), now, key_time)),
    }
}

/// What a holder or an operator is answered who has said something.
pub(crate) fn said(acted: &Acted, now: Timestamp) -> Result<Done, Problem> {
    match (&acted.outcome, &acted.record) {
        (Outcome::Done, Some(record)) => {
            Ok(Done { outcome: DoneWord::Done, stands: stands(record, now) })
        }
        (outcome, record) => Err(refused(outcome, record.as_ref(), now, None)),
    }
}

/// What who seals is answered: a key that is sealed already is sealed.
pub(crate) fn sealed(acted: &Acted, now: Timestamp) -> Result<Done, Problem> {
    let (sealed, answered) = match &acted.outcome {
        Outcome::Replay { sealed, .. } | Outcome::Gone { sealed, .. } => (*sealed, !sealed),
        Outcome::Granted(_)
        | Outcome::InFlight { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Expired
        | Outcome::Done
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => (false, false),
    };
    match &acted.record {
        Some(record) if sealed => Ok(Done { outcome: DoneWord::Done, stands: stands(record, now) }),
        record if answered => {
            let text = "The operation was answered already, so the key cannot be sealed.";
            Err(fenced(record.as_ref(), now).with_detail(text))
        }
        Some(_) | None => said(acted, now),
    }
}

/// The problem that an outcome is for whoever was to be told something else.
fn refused(
    outcome: &Outcome,
    record: Option<&Record>,
    now: Timestamp,
    key_time: Option<Timestamp>,
) -> Problem {
    let happened = Happened::by_record(record);
    match outcome {
        Outcome::InFlight { lease_until } => {
            let left = lease_until.since(now);
            Problem::new(ProblemKind::RequestInProgress)
                .with_member("lease_left_ms", millis(left))
                .with_retry_after(SOON.min(left))
        }
        Outcome::Mismatch => {
            Problem::new(ProblemKind::KeyReused).with_outcome(IdempotencyStatus::Mismatch, happened)
        }
        Outcome::CredentialChanged => Problem::new(ProblemKind::CredentialChanged),
        Outcome::OutcomeUnknown { since, cause } => {
            // Nothing was sent by this service, as the table has it.
            let detail = "Whoever ran it could not tell, or fell silent. It is not run again \
                          until somebody has found out, unless the scope says that this is \
                          harmless.";
            let problem = Problem::new(ProblemKind::OutcomeUnknown)
                .with_detail(detail)
                .with_time("since", *since)
                .with_member("cause", cause.name());
            // Whoever settles it names the claim.
            record.map_or(problem.clone(), |it| problem.with_member("fence", it.fence.get()))
        }
        Outcome::Replay { answered_at, sealed, reply } => {
            gone(*answered_at, reply.status(), *sealed, happened)
        }
        Outcome::Gone { answered_at, status, sealed } => {
            gone(*answered_at, *status, *sealed, happened)
        }
        Outcome::Expired => Problem::new(ProblemKind::KeyExpired),
        Outcome::Fenced => fenced(record, now),
        Outcome::InvalidFence => Problem::new(ProblemKind::FenceInvalid)
            .with_outcome(IdempotencyStatus::NotEvaluated, happened),
        Outcome::SecondReply => Problem::new(ProblemKind::SecondReply)
            .with_outcome(IdempotencyStatus::NotEvaluated, Happened::Yes),
        Outcome::Absent => absent(record, key_time),
        // None of these is a refusal; to say that nobody knows is safe.
        Outcome::Granted(_) | Outcome::Done => {
            Problem::new(ProblemKind::StoreUnavailable).with_retry_after(SOON)
        }
    }
}

fn gone(answered_at: Timestamp, status: u16, sealed: bool, happened: Happened) -> Problem {
    if !sealed {
        return Problem::new(ProblemKind::ReplyNotKept)
            .with_time("answered_at", answered_at)
            .with_member("original_status", status);
    }
    let problem = Problem::new(ProblemKind::KeySealed).with_time("sealed_at", answered_at);
    // A person may have had it run again before somebody sealed it.
    match happened {
        Happened::Unknown => problem.with_outcome(IdempotencyStatus::Sealed, happened),
        Happened::Yes | Happened::No => problem,
    }
}

fn fenced(record: Option<&Record>, now: Timestamp) -> Problem {
    let happened = Happened::by_record(record);
    let problem =
        Problem::new(ProblemKind::Fenced).with_outcome(IdempotencyStatus::NotEvaluated, happened);
    let Some(record) = record else { return problem };
    let stands = stands(record, now);
    let state = serde_json::to_value(stands.state).unwrap_or_default();
    problem.with_member("state", state).with_member("fence", stands.fence)
}

/// Nothing stands there. Only a key with time proves that nothing was ever run: a record of one
/// without time is forgotten.
pub(crate) fn absent(record: Option<&Record>, key_time: Option<Timestamp>) -> Problem {
    let problem = Problem::new(ProblemKind::NoRecord);
    if record.is_none() && key_time.is_some() {
        return problem.with_outcome(IdempotencyStatus::NotExecuted, Happened::No);
    }
    let says = IdempotencyStatus::after_nothing_happened(record);
    problem.with_outcome(says, Happened::by_record(record))
}

fn doubt(doubt: &Doubt) -> DoubtView {
    DoubtView { since: rfc3339(doubt.since), cause: doubt.cause.name().to_owned() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn stands(record: &Record, now: Timestamp) -> Stands {
    let mut stands = Stands {
        state: record.state.kind().into(),
        happened: Happened::by_record(Some(record)).into(),
        fence: record.fence.get(),
        phase: None,
        lease_left_ms: None,
        lease_until: None,
        kept: None,
    };
    match &record.state {
        State::InFlight(flight) => {
            stands.phase = Some(flight.phase.into());
            stands.lease_left_ms = Some(millis(flight.lease_until.since(now)));
            stands.lease_until = Some(rfc3339(flight.lease_until));
        }
        State::Completed { reply, .. } => stands.kept = Some(reply.content().is_some()),
        State::Tombstone { .. } => stands.kept = Some(false),
        State::Released { .. } | State::Unknown(_) => {}
    }
    stands
}

/// All that is known of a key at `now`. Its reply only if that is wanted.
pub(crate) fn record(
    id: KeyId,
    record: &Record,
    policy: &Policy,
    now: Timestamp,
    with_reply: bool,
) -> RecordView {
    let record = &settle(now, policy, record);
    let history = record.history.entries().iter().map(|entry| HistoryView {
        at: rfc3339(entry.at),
        event: entry.event.name().to_owned(),
        fence: entry.fence.get(),
        by: entry.by.clone(),
        why: entry.why.clone(),
    });
    let evidence = record.evidence.as_ref();
    let mut view = RecordView {
        id: id.to_string(),
        stands: stands(record, now),
        attempt: record.attempt,
        runs_authorised: record.runs_authorised,
        alarm: record.has_alarm(),
        answered_at: None,
        status: None,
        sealed: None,
        retain_until: None,
        reply: None,
        doubt: None,
        runs_again: None,
        key_time: record.key_time.map(rfc3339),
        evidence: evidence.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()),
        history: history.collect(),
    };
    match &record.state {
        State::Completed { reply, answered_at, retain_until, sealed } => {
            view.answered_at = Some(rfc3339(*answered_at));
            view.status = Some(reply.status());
            view.sealed = Some(*sealed);
            view.retain_until = Some(rfc3339(*retain_until));
            let shown: Option<ReplyView> =
                if with_reply { reply::view(reply).ok().flatten() } else { None };
            view.reply = shown;
        }
        State::Tombstone { answered_at, status, sealed, .. } => {
            view.answered_at = Some(rfc3339(*answered_at));
            view.status = Some(*status);
            view.sealed = Some(*sealed);
        }
        State::Unknown(it) => view.doubt = Some(doubt(it)),
        State::InFlight(flight) => view.doubt = flight.inherited.as_ref().map(doubt),
        State::Released { .. } => {}
    }
    view
}

/// If nobody knows whether it happened: whether a claim at `now` would be granted.
pub(crate) fn runs_again(record: &Record, policy: &Policy, now: Timestamp) -> Option<bool> {
    let record = settle(now, policy, record);
    let remedy = policy.remedy_at(record.first_commit_at, now);
    matches!(record.state, State::Unknown(_)).then_some(remedy == Remedy::RunAgain)
}
