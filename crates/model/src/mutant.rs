//! The rules that can be taken out, one at a time. Those of `decide` are taken out around it.

use core::time::Duration;

use onlyonce_core::{
    Always, ClaimId, Command, Decision, Fence, Floor, History, Next, Outcome, Phase, Policy,
    Receiver, Record, Revision, State, Timestamp, decide, settle,
};

/// The rule that is taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    /// None.
    #[default]
    None,
    /// A claim that lapsed while committing is taken for one that did nothing.
    LapseIsRelease,
    /// A holder that cannot tell is taken for one that did nothing.
    AbandonIsRelease,
    /// A release clears the doubt that its claim was granted out of.
    ReleaseForgetsDoubt,
    /// A claim granted out of an unknown outcome carries no doubt.
    RetryForgetsDoubt,
    /// A claim granted out of an unknown outcome is not counted as authorised.
    RetryUncounted,
    /// "It did not happen" counts also from the holder of an older claim.
    OldReleaseCounts,
    /// A verdict counts for the latest claim, whichever it was about.
    VerdictHitsLatest,
    /// "It happened" counts only from the holder of the claim in flight.
    LateCompleteDropped,
    /// "It happened" counts also for a record that was deleted and made again.
    EarlierLifeCounts,
    /// A second reply replaces the first.
    SecondReplyReplaces,
    /// A second, different reply is no alarm.
    SecondReplyUnnoticed,
    /// A second, different reply is told, and the record says nothing of it.
    SecondReplyNotKept,
    /// A key whose reply was erased runs again.
    ErasedRunsAgain,
    /// A repeated completion of what was erased is taken for another one.
    ErasedIsAlarm,
    /// An unknown outcome is run again by itself.
    UnknownRunsAgain,
    /// A key whose reply is no longer kept runs again.
    TombstoneRunsAgain,
    /// A sealed key is granted.
    SealIgnored,
    /// A seal ends what may be happening.
    SealEnds,
    /// Whoever claims a key in flight is taken for its holder who asks again.
    ClaimIdIgnored,
    /// Another request with the key is taken for the same.
    MismatchIgnored,
    /// Fences begin anew with a record that is made again.
    RevisionsRestart,
    /// Claims are granted below the floor.
    FloorIgnored,
    /// The sweeper deletes before the floor has passed the key.
    SweepsWithoutFloor,
    /// The sweeper deletes as soon as it has raised the floor.
    SweepsAtOnce,
    /// The sweeper deletes what is in doubt.
    SweepsDoubt,
    /// A holder sends before its mark is durable.
    CommitSkipped,
    /// A holder whose mark was refused sends all the same.
    FencedGoesOn,
    /// A transaction writes the reply without entering the dangerous phase in it.
    TransactionUnchecked,
    /// The effect is not in the transaction that writes its reply.
    TransactionSplit,
    /// The mark is durable before the transaction that it belongs to.
    TransactionMarkedApart,
    /// A fenced receiver does not compare fences.
    FenceUnchecked,
    /// A name can be given again.
    NameReused,
    /// A seal at the receiver does not refuse what arrives after it.
    SealNotKept,
    /// A keyed receiver is taken to remember for ever.
    WindowIgnored,
    /// What a run may take to arrive is not taken off the window.
    MarginIgnored,
    /// "There is nothing" is believed at once.
    AbsentAtOnce,
    /// A holder sends, and a message arrives, later than the bound says.
    LateBoundBroken,
}

impl Mutant {
    /// All that take a rule out.
    pub const ALL: [Self; 37] = [
        Self::LapseIsRelease,
        Self::AbandonIsRelease,
        Self::ReleaseForgetsDoubt,
        Self::RetryForgetsDoubt,
        Self::OldReleaseCounts,
        Self::VerdictHitsLatest,
        Self::LateCompleteDropped,
        Self::EarlierLifeCounts,
        Self::SecondReplyReplaces,
        Self::SecondReplyUnnoticed,
        Self::SecondReplyNotKept,
        Self::ErasedRunsAgain,
        Self::ErasedIsAlarm,
        Self::UnknownRunsAgain,
        Self::TombstoneRunsAgain,
        Self::SealIgnored,
        Self::SealEnds,
        Self::ClaimIdIgnored,
        Self::MismatchIgnored,
        Self::RevisionsRestart,
        Self::FloorIgnored,
        Self::SweepsWithoutFloor,
        Self::SweepsAtOnce,
        Self::SweepsDoubt,
        Self::CommitSkipped,
        Self::FencedGoesOn,
        Self::TransactionUnchecked,
        Self::TransactionSplit,
        Self::TransactionMarkedApart,
        Self::RetryUncounted,
        Self::FenceUnchecked,
        Self::NameReused,
        Self::SealNotKept,
        Self::WindowIgnored,
        Self::MarginIgnored,
        Self::AbsentAtOnce,
        Self::LateBoundBroken,
    ];
}

/// The arguments of `decide`.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) now: Timestamp,
    pub(crate) floor: Floor,
    pub(crate) policy: Policy,
    pub(crate) record: Option<Record>,
    pub(crate) command: Command,
}

/// What `decide` makes of it without the rule.
pub(crate) fn decide_without(mutant: Mutant, mut asked: Asked) -> Decision {
    if let Some(record) = &mut asked.record {
        forget_state(mutant, asked.now, &asked.policy, record, &asked.command);
        forget_command(mutant, record, &mut asked.command);
        if mutant == Mutant::LateCompleteDropped && is_late(record, &asked.command) {
            return Decision { outcome: Outcome::Fenced, next: Next::Keep };
        }
    }
    if let Command::Claim(_) = asked.command {
        if mutant == Mutant::UnknownRunsAgain {
            asked.policy.receiver = Receiver::always(Always::UniqueName);
        }
        if mutant == Mutant::FloorIgnored {
            asked.floor = Floor::NONE;
        }
    }
    if mutant == Mutant::WindowIgnored {
        asked.policy.receiver.keyed = Some(Duration::MAX);
    }
    if mutant == Mutant::MarginIgnored {
        asked.policy.receiver.late = Duration::ZERO;
    }
    if mutant == Mutant::SweepsWithoutFloor && asked.command == Command::Sweep {
        asked.floor = Floor::at(Timestamp::MAX);
    }
    let Asked { now, floor, policy, record, command } = &asked;
    let decision = decide(*now, *floor, policy, record.as_ref(), command);
    forget_decision(mutant, &asked, decision)
}

/// What the record is wrongly taken for.
fn forget_state(
    mutant: Mutant,
    now: Timestamp,
    policy: &Policy,
    record: &mut Record,
    command: &Command,
) {
    let settled = settle(now, policy, record);
    let lapsed = settled != *record;
    let released = State::Released { since: now };
    let claims = matches!(command, Command::Claim(_));
    let erased = record.is_erased();
    match (mutant, &mut record.state, command) {
        (Mutant::LapseIsRelease, State::InFlight(flight), _)
            if lapsed && flight.phase == Phase::Committing =>
        {
            record.state = released;
        }
        (Mutant::ReleaseForgetsDoubt, State::InFlight(flight), Command::Release { fence, .. })
            if *fence == record.fence =>
        {
            flight.inherited = None;
        }
        (Mutant::EarlierLifeCounts, _, Command::Complete { .. }) => {
            record.first_fence = OLDEST;
        }
        (Mutant::SecondReplyReplaces, State::Completed { .. }, Command::Complete { .. }) => {
            record.state = released;
        }
        (Mutant::SealIgnored, State::Completed { sealed: true, .. }, _) if claims => {
            record.state = released;
        }
        (Mutant::SealEnds, State::InFlight(_) | State::Unknown(_), Command::Seal { .. }) => {
            record.state = released;
        }
        (Mutant::ErasedRunsAgain, _, _) if claims && erased => record.state = released,
        (Mutant::ErasedIsAlarm, _, Command::Complete { .. }) => record.history = History::default(),
        (Mutant::TombstoneRunsAgain, _, _)
            if claims && matches!(settled.state, State::Tombstone { .. }) =>
        {
            record.state = released;
        }
        _ => {}
    }
}

/// What the command is wrongly taken for.
fn forget_command(mutant: Mutant, record: &Record, command: &mut Command) {
    let mut replaced = None;
    match (mutant, &mut *command) {
        (Mutant::OldReleaseCounts, Command::Release { fence, .. })
        | (Mutant::VerdictHitsLatest, Command::Resolve { fence, .. }) => *fence = record.fence,
        (Mutant::AbandonIsRelease, Command::Abandon { fence, .. }) => {
            replaced = Some(Command::Release { fence: *fence, stranger: false });
        }
        (Mutant::ClaimIdIgnored, Command::Claim(claim)) => claim.claim_id = claim_id_of(record),
        (Mutant::MismatchIgnored, Command::Claim(claim)) => {
            claim.fingerprint = record.fingerprint.unwrap_or(claim.fingerprint);
        }
        _ => {}
    }
    if let Some(replaced) = replaced {
        *command = replaced;
    }
}

/// What the decision is wrongly carried out as.
fn forget_decision(mutant: Mutant, asked: &Asked, mut decision: Decision) -> Decision {
    match (mutant, &mut decision.next, &asked.record) {
        (Mutant::RetryForgetsDoubt, Next::Write(record), _) => {
            if let State::InFlight(flight) = &mut record.state
                && matches!(decision.outcome, Outcome::Granted(_))
            {
                flight.inherited = None;
            }
        }
        (Mutant::SecondReplyUnnoticed, _, _) if decision.outcome == Outcome::SecondReply => {
            decision.outcome = Outcome::Done;
        }
        (Mutant::SecondReplyNotKept, next, _) if decision.outcome == Outcome::SecondReply => {
            *next = Next::Keep;
        }
        (Mutant::RetryUncounted, Next::Write(next), Some(record)) => {
            next.runs_authorised = record.runs_authorised;
        }
        (Mutant::RevisionsRestart, Next::Write(record), None) => {
            (record.revision, record.fence, record.first_fence) = (FIRST, OLDEST, OLDEST);
            if matches!(decision.outcome, Outcome::Granted(_)) {
                decision.outcome = Outcome::Granted(OLDEST);
            }
        }
        (Mutant::SweepsDoubt, next, Some(record)) if asked.command == Command::Sweep => {
            let settled = settle(asked.now, &asked.policy, record);
            if matches!(settled.state, State::Unknown(_)) {
                *next = Next::Delete;
            }
        }
        _ => {}
    }
    decision
}

fn is_late(record: &Record, command: &Command) -> bool {
    let Command::Complete { fence, .. } = command else { return false };
    match record.state {
        State::InFlight(_) => *fence < record.fence,
        State::Released { .. } | State::Unknown(_) => true,
        State::Completed { .. } | State::Tombstone { .. } => false,
    }
}

/// The claim id in flight, or one that nobody has.
pub(crate) fn claim_id_of(record: &Record) -> ClaimId {
    match &record.state {
        State::InFlight(flight) => flight.claim_id,
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => ClaimId::from_bytes([u8::MAX; 16]),
    }
}

const FIRST: Revision = match Revision::new(1) {
    Some(first) => first,
    None => unreachable!(),
};
pub(crate) const OLDEST: Fence = Fence::of(FIRST);
