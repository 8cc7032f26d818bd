//! All states a record can be in, and all commands, for tests over the whole table.

use std::time::Duration;

use onlyonce_core::{
    Always, Cause, Claim, ClaimId, Command, Credential, Doubt, Entry, Event, Evidence, Fence,
    Fingerprint, Flight, Floor, History, Holder, Look, OnUnknown, Phase, Policy, Receiver, Record,
    Reply, Revision, State, Timestamp, Verdict,
};

/// Now, in all tests.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const DAY: u64 = 86_400_000;

/// How long ago an attempt first may have been sent, in milliseconds.
pub(crate) const FIRST_COMMIT: u64 = 20_000;

fn ago(millis: u64) -> Timestamp {
    NOW.minus(Duration::from_millis(millis))
}

fn fence(number: u64) -> Fence {
    Fence::new(number).unwrap()
}

/// The claim before the latest one.
pub(crate) fn older() -> Fence {
    fence(ago(20_000).as_millis())
}

/// The latest claim.
pub(crate) fn latest() -> Fence {
    fence(ago(10_000).as_millis())
}

/// A policy with the defaults.
pub(crate) fn policy() -> Policy {
    Policy::default()
}

/// What it was answered.
pub(crate) fn reply() -> Reply {
    Reply::kept(201, "order 7829")
}

/// A record in this state, claimed twice so far.
pub(crate) fn record(state: State) -> Record {
    Record {
        revision: Revision::new(latest().get() + 1).unwrap(),
        fingerprint: Some(Fingerprint::new(1, [7; 32])),
        credential: None,
        first_fence: older(),
        fence: latest(),
        attempt: 2,
        first_commit_at: Some(ago(FIRST_COMMIT)),
        runs_authorised: 0,
        rerun: false,
        key_time: Some(ago(30_000)),
        evidence: None,
        history: History::default(),
        state,
    }
}

fn flight(phase: Phase, lease_until: Timestamp, inherited: Option<Doubt>) -> State {
    let (claim_id, holder) = (ClaimId::from_bytes([1; 16]), Holder::default());
    State::InFlight(Flight { claim_id, holder, lease_until, phase, inherited })
}

/// A doubt about the attempt before.
pub(crate) fn doubt() -> Doubt {
    Doubt { since: ago(15_000), cause: Cause::TimedOut, only: None }
}

fn completed(retain_until: Timestamp) -> State {
    State::Completed { reply: reply(), answered_at: ago(5_000), retain_until, sealed: false }
}

/// What a key that was sealed is answered.
fn refusal() -> Reply {
    Reply::kept(409, "sealed")
}

fn sealed() -> Record {
    let (answered_at, retain_until) = (ago(5_000), NOW.plus_millis(DAY));
    let reply = refusal();
    let state = State::Completed { reply, answered_at, retain_until, sealed: true };
    Record { fingerprint: None, ..record(state) }
}

/// What was answered, and erased since.
fn erased(mut state: State) -> Record {
    match &mut state {
        State::Completed { reply, .. } => *reply = reply.without_content(),
        State::Tombstone { status, digest, .. } => *digest = Reply::not_kept(*status).digest(),
        State::InFlight(_) | State::Released { .. } | State::Unknown(_) => {}
    }
    let (by, why) = ("anna".to_owned(), "asked for by its owner".to_owned());
    let entry = Entry { at: ago(1_000), event: Event::Erased, fence: latest(), by, why };
    Record { history: History::from_entries([entry]), ..record(state) }
}

/// What was answered a second time, differently.
fn alarmed(state: State) -> Record {
    let (by, why) = ("holder".to_owned(), "another answer, with 201".to_owned());
    let entry = Entry { at: ago(1_000), event: Event::SecondReply, fence: latest(), by, why };
    Record { history: History::from_entries([entry]), ..record(state) }
}

fn tombstone(forget_at: Timestamp) -> State {
    let (answered_at, status, sealed) = (ago(DAY), 201, false);
    State::Tombstone { answered_at, status, forget_at, sealed, digest: reply().digest() }
}

/// Every state, with the name of its column.
pub(crate) fn states() -> Vec<(&'static str, Option<Record>)> {
    let (held, lapsed) = (NOW.plus_millis(20_000), ago(1_000));
    let some = |state| Some(record(state));
    let only = Doubt { only: Some(latest()), ..doubt() };
    vec![
        ("absent", None),
        ("prepared", some(flight(Phase::Prepared, held, None))),
        ("prepared, doubt inherited", some(flight(Phase::Prepared, held, Some(doubt())))),
        ("committing", some(flight(Phase::Committing, held, None))),
        ("prepared, lapsed", some(flight(Phase::Prepared, lapsed, None))),
        ("prepared, doubt inherited, lapsed", {
            some(flight(Phase::Prepared, lapsed, Some(doubt())))
        }),
        ("committing, lapsed", some(flight(Phase::Committing, lapsed, None))),
        ("released", some(State::Released { since: ago(5_000) })),
        ("released, to run again", {
            Some(Record { rerun: true, ..record(State::Released { since: ago(5_000) }) })
        }),
        ("completed", some(completed(NOW.plus_millis(DAY)))),
        ("completed, retention over", some(completed(ago(1)))),
        ("unknown", some(State::Unknown(only))),
        ("unknown, of an earlier attempt", some(State::Unknown(doubt()))),
        ("tombstone", some(tombstone(NOW.plus_millis(DAY)))),
        ("tombstone, due", some(tombstone(ago(1)))),
        ("sealed", Some(sealed())),
        ("erased", Some(erased(completed(NOW.plus_millis(DAY))))),
        ("erased, tombstone", Some(erased(tombstone(NOW.plus_millis(DAY))))),
        ("completed, alarm", Some(alarmed(completed(NOW.plus_millis(DAY))))),
        ("committing, first attempt", {
            let state = flight(Phase::Committing, held, None);
            Some(Record { attempt: 1, first_fence: latest(), ..record(state) })
        }),
    ]
}

/// A state in a few words.
pub(crate) fn shown(record: &Record) -> String {
    let alarm = if record.has_alarm() { ", alarm" } else { "" };
    format!("{}{alarm}", stands(record))
}

fn stands(record: &Record) -> String {
    let kind = record.state.kind().name();
    match &record.state {
        State::InFlight(flight) => {
            let phase = match flight.phase {
                Phase::Prepared => "prepared",
                Phase::Committing => "committing",
            };
            let inherited = if flight.inherited.is_some() { ", doubt inherited" } else { "" };
            format!("{phase}{inherited}")
        }
        State::Unknown(doubt) => format!("{kind} ({})", doubt.cause.name()),
        State::Completed { .. } | State::Tombstone { .. } if record.is_erased() => {
            format!("{kind}, erased")
        }
        State::Completed { sealed: true, .. } => "sealed".to_owned(),
        State::Released { .. } if record.fingerprint.is_none() => {
            format!("{kind}, fingerprint forgotten")
        }
        State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => {
            kind.to_owned()
        }
    }
}

fn claim(claim_id: u8, phase: Phase) -> Claim {
    Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([claim_id; 16]),
        holder: Holder::default(),
        key_time: Some(ago(30_000)),
        credential: None,
        phase,
    }
}

fn look() -> Look {
    let Claim { fingerprint, key_time, credential, .. } = claim(2, Phase::Prepared);
    Look { fingerprint, key_time, credential }
}

/// The latest fence of the record that a command will meet.
fn current(record: Option<&Record>) -> Fence {
    record.map_or(latest(), |record| record.fence)
}

/// Makes a command for the record that it will meet, with the policy and the floor.
pub(crate) type Make = Box<dyn Fn(Option<&Record>) -> (Command, Policy, Floor)>;

fn plain(make: impl Fn(Option<&Record>) -> Command + 'static) -> Make {
    Box::new(move |record| (make(record), policy(), Floor::NONE))
}

/// Every receiver that makes a difference: what it is called, and what it offers. A window is one
/// millisecond too short, or just long enough, for a run to arrive in it that is granted now.
pub(crate) fn receivers() -> Vec<(&'static str, Receiver)> {
    let (settle, late) = (Duration::from_secs(10), Duration::from_secs(60));
    let Policy { lease, skew_max, .. } = policy();
    let arrives = Duration::from_millis(FIRST_COMMIT) + lease + skew_max;
    let (closed, open) = (Receiver::keyed(arrives), arrives + Duration::from_millis(1));
    vec![
        ("transactional", Receiver::always(Always::Transactional)),
        ("fenced", Receiver::always(Always::Fenced)),
        ("unique-name", Receiver::always(Always::UniqueName)),
        ("sealable", Receiver::always(Always::Sealable)),
        ("keyed, window open", Receiver::keyed(open)),
        ("keyed, window open without what is late", {
            Receiver { late: Duration::from_millis(1), ..Receiver::keyed(open) }
        }),
        ("keyed, window closed", closed),
        ("keyed, window closed, queryable", closed.and_queryable(settle, Duration::ZERO)),
        ("queryable", Receiver::queryable(settle, late)),
        ("bare", Receiver::BARE),
    ]
}

/// Every command with every choice that matters, with the name of its row.
pub(crate) fn commands() -> Vec<(&'static str, Make)> {
    let mut all = claims();
    all.extend(of_holders());
    all.extend(of_operators());
    all
}

fn claims() -> Vec<(&'static str, Make)> {
    let other = Fingerprint::new(1, [8; 32]);
    let credential = Some(Credential::from_bytes([9; 16]));
    let with = |change: fn(&mut Claim)| {
        plain(move |_| {
            let mut claim = claim(2, Phase::Prepared);
            change(&mut claim);
            Command::Claim(claim)
        })
    };
    let above = Floor::at(NOW);
    let retry = Policy { on_unknown: OnUnknown::Retry, ..policy() };
    let fenced = Policy { receiver: Receiver::always(Always::Fenced), ..retry };
    vec![
        ("Claim", with(|_| {})),
        ("Claim, committing", with(|claim| claim.phase = Phase::Committing)),
        ("Claim, repeated", plain(|_| Command::Claim(claim(1, Phase::Prepared)))),
        ("Claim, another request", {
            plain(move |_| {
                Command::Claim(Claim { fingerprint: other, ..claim(2, Phase::Prepared) })
            })
        }),
        ("Claim, another unverified credential", {
            plain(move |_| Command::Claim(Claim { credential, ..claim(2, Phase::Prepared) }))
        }),
        ("Claim, below the floor", {
            Box::new(move |_| (Command::Claim(claim(2, Phase::Prepared)), policy(), above))
        }),
        ("Claim, on_unknown = retry, bare receiver", {
            Box::new(move |_| (Command::Claim(claim(2, Phase::Prepared)), retry, Floor::NONE))
        }),
        ("Claim, on_unknown = retry, fenced receiver", {
            Box::new(move |_| (Command::Claim(claim(2, Phase::Prepared)), fenced, Floor::NONE))
        }),
        ("Look", plain(|_| Command::Look(look()))),
        ("Look, another request", {
            plain(move |_| Command::Look(Look { fingerprint: other, ..look() }))
        }),
        ("Look, below the floor", Box::new(move |_| (Command::Look(look()), policy(), above))),
    ]
}

fn of_holders() -> Vec<(&'static str, Make)> {
    let (on_unknown, receiver) = (OnUnknown::Retry, Receiver::always(Always::Fenced));
    let fenced = Policy { on_unknown, receiver, ..policy() };
    let evidence = || Evidence::new("charge-1".as_bytes().to_vec()).unwrap();
    let above = || fence(NOW.as_millis() + 1);
    let cause = Cause::ConnectionLost;
    let complete = |fence, reply| Command::Complete { fence, reply };
    let another = || Reply::kept(201, "order 7830");
    let release = |fence, stranger| Command::Release { fence, stranger };
    vec![
        ("Commit", plain(|it| Command::Commit { fence: current(it) })),
        ("Commit, on_unknown = retry, fenced receiver", {
            Box::new(move |it| (Command::Commit { fence: current(it) }, fenced, Floor::NONE))
        }),
        ("Commit, older fence", plain(|_| Command::Commit { fence: older() })),
        ("Commit, fence never granted", plain(move |_| Command::Commit { fence: above() })),
        ("Renew", plain(|it| Command::Renew { fence: current(it) })),
        ("Renew, older fence", plain(|_| Command::Renew { fence: older() })),
        ("Note", { plain(move |it| Command::Note { fence: current(it), evidence: evidence() }) }),
        ("Complete", plain(move |it| complete(current(it), reply()))),
        ("Complete, older fence", plain(move |_| complete(older(), reply()))),
        ("Complete, another reply", plain(move |it| complete(current(it), another()))),
        ("Complete, fence never granted", plain(move |_| complete(above(), reply()))),
        ("Complete, fence of an earlier life", plain(move |_| complete(fence(1), reply()))),
        ("Release", plain(move |it| release(current(it), false))),
        ("Release, older fence", plain(move |_| release(older(), false))),
        ("Release, of a stranger", plain(move |it| release(current(it), true))),
        ("Abandon", plain(move |it| Command::Abandon { fence: current(it), cause })),
        ("Abandon, older fence", plain(move |_| Command::Abandon { fence: older(), cause })),
        ("CertifyDeath", plain(|it| Command::CertifyDeath { fence: current(it) })),
    ]
}

fn of_operators() -> Vec<(&'static str, Make)> {
    let resolve = |fence, verdict| {
        let (by, why) = ("anna".to_owned(), "looked".to_owned());
        Command::Resolve { fence, verdict, by, why }
    };
    let seal = || Command::Seal {
        reply: refusal(),
        key_time: Some(ago(30_000)),
        by: "anna".to_owned(),
        why: "cancelled".to_owned(),
    };
    let erase = || Command::Erase { by: "anna".to_owned(), why: "asked for".to_owned() };
    let restore = || {
        let (by, why) = ("anna".to_owned(), "put back from a dump".to_owned());
        Command::Restore { begun: NOW, by, why }
    };
    let above = Floor::at(NOW);
    vec![
        ("Resolve, happened", plain(move |it| resolve(current(it), Verdict::Happened(reply())))),
        ("Resolve, happened, older fence", {
            plain(move |_| resolve(older(), Verdict::Happened(reply())))
        }),
        ("Resolve, not executed", plain(move |it| resolve(current(it), Verdict::NotExecuted))),
        ("Resolve, not executed, older fence", {
            plain(move |_| resolve(older(), Verdict::NotExecuted))
        }),
        ("Resolve, run again", plain(move |it| resolve(current(it), Verdict::RunAgain))),
        ("Seal", plain(move |_| seal())),
        ("Seal, below the floor", Box::new(move |_| (seal(), policy(), above))),
        ("Erase", plain(move |_| erase())),
        ("Restore", plain(move |_| restore())),
        ("Sweep", plain(|_| Command::Sweep)),
        ("Sweep, below the floor", Box::new(move |_| (Command::Sweep, policy(), above))),
    ]
}
