//! `onlyonce store choose`: a key that has a record at both of its homes is shown, and somebody
//! says which one counts. A member of the set may have been put back in the middle of a move, or a
//! process was stopped in the middle of a claim.

use clap::{Args, ValueEnum};
use onlyonce::Runtime as _;
use onlyonce_core::limits::SECOND_REPLIES_MAX;
use onlyonce_core::{
    Command, Entry, Event, Fence, Floor, Holder, KeyId, Next, Policy, Record, ReplyDigest,
    Revision, State, Timestamp, decide,
};
use onlyonce_spread::Number;
use onlyonce_tokio::TokioRuntime;

use crate::commands::keys::lines;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::refuse;
use crate::operate::{View, id_of, time};
use crate::output;
use crate::place::{Opened, Place, time_of};

#[derive(Args, Debug)]
pub(crate) struct ChooseArgs {
    /// The key's id, as `onlyonce store rebalance` names it
    #[arg(value_name = "ID")]
    id: String,
    /// The set: spread:FILE
    #[arg(long, value_name = "URL", env = "ONLYONCE_STORE", hide_env_values = true)]
    store: Place,
    /// Which record takes the place of both; without it both are shown, and nothing is changed
    #[arg(long, requires = "of")]
    keep: Option<Side>,
    /// The revisions of the two, as they were shown: a choice is about these and no others
    #[arg(long, value_name = "OLD,NEW", requires = "keep")]
    of: Option<String>,
    /// Why; kept in the key's history
    #[arg(long, value_name = "TEXT", default_value = "somebody has chosen")]
    why: String,
    /// Who you are; kept there too
    #[arg(
        long,
        value_name = "NAME",
        env = "USER",
        hide_env_values = true,
        default_value = "unnamed"
    )]
    by: String,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The record in the member that the key comes from
    Old,
    /// The record in the member that it moves to
    New,
}

pub(crate) async fn run(args: ChooseArgs) -> Result<(), Failure> {
    let Place::Spread(_) = &args.store else {
        let text = format!("--store {}: it must be spread:FILE", args.store);
        return Err(Failure::new(Exit::Usage, text));
    };
    let id = id_of(&args.id)?;
    let opened = args.store.open_marked(onlyonce_journal::Settings::default()).await?;
    let done = choose(&opened, id, &args).await;
    opened.close();
    done
}

async fn choose(opened: &Opened, id: KeyId, args: &ChooseArgs) -> Result<(), Failure> {
    let Opened::Spread(set) = opened else {
        return Err(Failure::new(Exit::Usage, format!("--store {}: it is no set", args.store)));
    };
    refuse(opened.store(), &args.store.to_string()).await?;
    let Some(both) = set.spread.both(id).await? else {
        let text = format!("{id}: it has no two records, or no keys move");
        return Err(Failure::new(Exit::Refused, text).with_hint("look at it with `keys get`"));
    };
    let place = |number: Number| {
        let found = set.members.iter().find(|(_, own, _)| *own == number);
        found.map_or_else(String::new, |(place, ..)| place.to_string())
    };
    for (side, (number, record)) in ["old", "new"].into_iter().zip(&both) {
        output::line(&format!("{side}: member {number}, {}", place(*number)))?;
        for line in said(id, record) {
            output::line(&format!("  {line}"))?;
        }
    }
    let [(old, there), (new, here)] = &both;
    output::line(compared(there, here).said())?;
    let of = format!("{},{}", there.revision.get(), here.revision.get());
    let Some(side) = args.keep else {
        let text = format!("say --keep old or --keep new with --of {of}; nothing was changed");
        return Ok(output::line(&text)?);
    };
    let now = time_of(&*opened.store()).await?;
    let gone = |holder: &Holder| TokioRuntime::new().is_gone(holder);
    refuse_held(id, [there, here], now, &gone)?;
    if args.of.as_ref() != Some(&of) {
        return Err(overtaken(format!(
            "{id}: its records are not those of --of: they are {of} now"
        )));
    }
    let (chosen, other, text) = match side {
        Side::Old => (there, here, format!("that of member {old} and not of {new}")),
        Side::New => (here, there, format!("that of member {new} and not of {old}")),
    };
    let View { about, fence, .. } = View::of(id, other);
    let why = format!("{text} (fence {fence}, {about}): {}", args.why);
    let kept = kept(chosen, other, now, &args.by, &why);
    let state = kept.state.kind().name();
    set.spread.choose(id, &both, kept).await.map_err(|error| {
        // Somebody else came first, at the same moment.
        if error.is_of_key() { overtaken(error.to_string()) } else { error.into() }
    })?;
    output::line(&format!("{id}: the record of two is {text}; it is {state} now, and has moved"))?;
    Ok(output::line(&format!(
        "`onlyonce store rebalance --store {}` goes on with the move",
        args.store
    ))?)
}

fn overtaken(text: String) -> Failure {
    Failure::new(Exit::Refused, text)
        .with_hint("look at both again; somebody else has chosen or changed one")
}

/// All there is to say of one of the two.
fn said(id: KeyId, record: &Record) -> Vec<String> {
    let mut lines = lines(&View::of(id, record)).split_off(1);
    lines.insert(0, format!("revision          {}", record.revision.get()));
    if let State::InFlight(flight) = &record.state {
        let host = u64::from_be_bytes(flight.holder.host);
        lines.push(format!("host              {host:016x}, process {}", flight.holder.pid));
    }
    lines.extend(record.first_commit_at.map(|at| format!("first sent        {}", time(at))));
    if record.rerun {
        lines.push("run again         by a person, although it may have happened".to_owned());
    }
    lines
}

/// Refuses a choice while a process may run the key by either record: what is chosen could be run
/// by another one at once.
fn refuse_held(
    id: KeyId,
    both: [&Record; 2],
    now: Timestamp,
    is_gone: &dyn Fn(&Holder) -> bool,
) -> Result<(), Failure> {
    let held = both.into_iter().filter_map(|record| {
        let State::InFlight(flight) = &record.state else { return None };
        let until = flight.lease_until.plus(Policy::default().skew_max);
        (now < until && !is_gone(&flight.holder)).then_some(until)
    });
    let Some(until) = held.max() else { return Ok(()) };
    let text = format!("{id}: a process may run it, and has a claim until {}", time(until));
    Err(Failure::new(Exit::Refused, text)
        .with_hint("stop its process, or wait: a claim whose process is gone ends with its time"))
}

/// What the answers of the two say about each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// One has none.
    Few,
    Same,
    Differ,
    /// One was erased, and only its status is left to compare.
    SameStatus,
    /// Both say that it is never to run.
    Sealed,
    /// One says so, and the other has an answer.
    AnsweredAndSealed,
}

impl Answers {
    const fn said(self) -> &'static str {
        match self {
            Self::Few => "not both are answered",
            Self::Same => "the answers are the same",
            Self::Differ => "the answers differ: it may have happened twice",
            Self::SameStatus => "one answer was erased; they have the same status",
            Self::Sealed => "both are sealed",
            Self::AnsweredAndSealed => {
                "one is sealed, the other was answered: it may have happened, and somebody was \
                 told that it never will"
            }
        }
    }
}

/// Compares as the core does what is reported a second time, also to what is sealed.
fn compared(one: &Record, other: &Record) -> Answers {
    let (Some(first), Some(second)) = (answer(one), answer(other)) else { return Answers::Few };
    let is_erased = one.is_erased() || other.is_erased();
    match (first, second) {
        ((.., true), (.., true)) => Answers::Sealed,
        ((.., true), _) | (_, (.., true)) => Answers::AnsweredAndSealed,
        ((one, ..), (other, ..)) if is_erased && one == other => Answers::SameStatus,
        ((_, one, _), (_, other, _)) if !is_erased && one == other => Answers::Same,
        _ => Answers::Differ,
    }
}

/// Its status, its digest, and whether it is that of a seal.
fn answer(record: &Record) -> Option<(u16, ReplyDigest, bool)> {
    match &record.state {
        State::Completed { reply, sealed, .. } => Some((reply.status(), reply.digest(), *sealed)),
        State::Tombstone { status, digest, sealed, .. } => Some((*status, *digest, *sealed)),
        State::InFlight(_) | State::Released { .. } | State::Unknown(_) => None,
    }
}

/// What takes the place of both: the chosen one, as a record that was put back. Claims may have
/// been granted in either, and count as granted before; none of them is the latest any more. Of the
/// other one there stays whatever lets it run less often, and that it was answered differently.
fn kept(chosen: &Record, other: &Record, now: Timestamp, by: &str, why: &str) -> Record {
    let highest = chosen.revision.max(other.revision);
    let sent = [chosen.first_commit_at, other.first_commit_at];
    let base = Record {
        revision: highest,
        first_fence: chosen.first_fence.min(other.first_fence),
        attempt: chosen.attempt.max(other.attempt),
        first_commit_at: sent.into_iter().flatten().min(),
        runs_authorised: chosen.runs_authorised.max(other.runs_authorised),
        rerun: chosen.rerun || other.rerun,
        key_time: chosen.key_time.or(other.key_time),
        ..chosen.clone()
    };
    let (by, why) = (by.to_owned(), why.to_owned());
    let restore = Command::Restore { begun: now, by: by.clone(), why: why.clone() };
    let decision = decide(now, Floor::NONE, &Policy::default(), Some(&base), &restore);
    let mut next = match decision.next {
        Next::Write(next) => next,
        // It was answered, and stays so.
        Next::Keep | Next::Delete => {
            let mut next = base;
            let (fence, by, why) = (next.fence, by.clone(), why.clone());
            next.history.push(Entry { at: now, event: Event::Restored, fence, by, why });
            next
        }
    };
    let differs = matches!(compared(chosen, other), Answers::Differ | Answers::AnsweredAndSealed);
    let is_new = differs || (other.has_alarm() && !next.has_alarm());
    if is_new && next.history.count(Event::SecondReply) < SECOND_REPLIES_MAX {
        let why = match answer(other) {
            Some((status, ..)) => format!("another answer, with {status}: {why}"),
            None => why,
        };
        next.history.push(Entry {
            at: now,
            event: Event::SecondReply,
            fence: other.fence,
            by,
            why,
        });
    }
    next.revision = Revision::after(Some(highest), now);
    next.fence = Fence::of(next.revision);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_core::Reply;

    fn record(at: u64, reply: Option<&'static str>) -> Record {
        let now = Timestamp::from_millis(at);
        let secret = onlyonce_core::Secret::from_bytes([7; 32]);
        let scope = onlyonce_core::Scope::new("shop").unwrap();
        let key = onlyonce_core::Key::new("order").unwrap();
        let request = onlyonce_store::transaction::Request::new(&secret, &scope, &key, b"");
        let claim = request.claim(onlyonce_core::ClaimId::from_bytes([1; 16]));
        let write = |record: Option<&Record>, command: &Command| match decide(
            now,
            Floor::NONE,
            &Policy::default(),
            record,
            command,
        )
        .next
        {
            Next::Write(next) => next,
            Next::Keep | Next::Delete => panic!("it is written"),
        };
        let claimed = write(None, &claim);
        let Some(text) = reply else { return claimed };
        let complete = Command::Complete { fence: claimed.fence, reply: Reply::kept(201, text) };
        write(Some(&claimed), &complete)
    }

    #[test]
    fn what_is_kept_is_above_both_and_what_was_open_is_in_doubt() {
        let (answered, open) = (record(1_000, Some("sold")), record(2_000, None));
        let now = Timestamp::from_millis(3_000);
        for (chosen, other) in [(&answered, &open), (&open, &answered)] {
            let next = kept(chosen, other, now, "anna", "looked");
            assert!(answered.revision.max(open.revision) < next.revision);
            assert!(answered.fence.max(open.fence) < next.fence);
            assert_eq!(next.first_fence, answered.first_fence.min(open.first_fence));
            let last = next.history.entries().last().unwrap();
            assert_eq!((last.event, &*last.by, &*last.why), (Event::Restored, "anna", "looked"));
            // Whoever reports by the other one is heard, and a second answer is an alarm.
            let complete =
                Command::Complete { fence: other.fence, reply: Reply::kept(201, "other") };
            let told = decide(now, Floor::NONE, &Policy::default(), Some(&next), &complete);
            let Next::Write(told) = told.next else { panic!("{told:?}") };
            assert_eq!(told.has_alarm(), chosen == &answered);
            match next.state {
                State::Completed { .. } => assert_eq!(chosen, &answered),
                State::Unknown(_) => assert_eq!(chosen, &open),
                other @ (State::InFlight(_) | State::Released { .. } | State::Tombstone { .. }) => {
                    panic!("{other:?}")
                }
            }
        }
    }

    #[test]
    fn a_key_that_a_process_may_run_by_either_is_not_chosen_for() {
        let id = KeyId::from_bytes([1; 16]);
        let (answered, open) = (record(1_000, Some("sold")), record(2_000, None));
        let State::InFlight(flight) = &open.state else { panic!("it is in flight") };
        let until = flight.lease_until.plus(Policy::default().skew_max);
        let before = Timestamp::from_millis(until.as_millis() - 1);
        for both in [[&answered, &open], [&open, &answered]] {
            let failure = refuse_held(id, both, before, &|_| false).unwrap_err();
            assert!(failure.what.contains(&time(until)), "{failure:?}");
            refuse_held(id, both, until, &|_| false).unwrap();
            refuse_held(id, both, before, &|_| true).unwrap();
        }
        refuse_held(id, [&answered; 2], before, &|_| false).unwrap();
    }

    #[test]
    fn what_keeps_a_key_from_running_stays_of_the_other_one_too() {
        let now = Timestamp::from_millis(9_000);
        let chosen = record(2_000, None);
        let at = Some(Timestamp::from_millis(1_500));
        let other = record(1_000, None);
        let other = Record { rerun: true, runs_authorised: 3, attempt: 4, ..other };
        let other = Record { first_commit_at: at, key_time: at, ..other };
        let next = kept(&chosen, &other, now, "anna", "looked");
        assert_eq!((next.rerun, next.runs_authorised, next.attempt), (true, 3, 4));
        assert_eq!((next.first_commit_at, next.key_time), (at, at));
    }

    #[test]
    fn two_answers_that_differ_are_an_alarm_and_the_same_ones_are_none() {
        let now = Timestamp::from_millis(9_000);
        let (sold, same) = (record(1_000, Some("sold")), record(2_000, Some("sold")));
        let (none, open) = (record(3_000, Some("sold out")), record(4_000, None));
        for (chosen, other, says) in [
            (&sold, &same, Answers::Same),
            (&sold, &none, Answers::Differ),
            (&none, &sold, Answers::Differ),
            (&sold, &open, Answers::Few),
        ] {
            assert_eq!(compared(chosen, other), says);
            let next = kept(chosen, other, now, "anna", "looked");
            assert_eq!(next.has_alarm(), says == Answers::Differ);
        }
        // The alarm of the one that is given up stays.
        let alarmed = kept(&sold, &none, now, "anna", "looked");
        assert!(kept(&open, &alarmed, now, "anna", "looked").has_alarm());
        let State::Completed { reply, answered_at, retain_until, .. } = none.state.clone() else {
            panic!("it is answered")
        };
        let state = State::Completed { reply, answered_at, retain_until, sealed: true };
        let sealed = Record { state, ..none };
        assert_eq!(compared(&sealed, &sealed), Answers::Sealed);
        assert!(!kept(&sealed, &sealed, now, "anna", "looked").has_alarm());
        for (one, other) in [(&sold, &sealed), (&sealed, &sold)] {
            assert_eq!(compared(one, other), Answers::AnsweredAndSealed);
            assert!(kept(one, other, now, "anna", "looked").has_alarm());
        }
    }
}
