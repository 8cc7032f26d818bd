//! `onlyonce store choose`: a key that has a record at both of its homes, since a member of the set
//! was put back in the middle of a move, is shown, and somebody says which one counts.

use clap::{Args, ValueEnum};
use onlyonce_core::{
    Command, Entry, Event, Fence, Floor, KeyId, Next, Policy, Record, Revision, Timestamp, decide,
};
use onlyonce_spread::Number;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::moved::refuse;
use crate::operate::{View, id_of};
use crate::output::{self, printable};
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
    #[arg(long)]
    keep: Option<Side>,
    /// Why; kept in the key's history
    #[arg(long, value_name = "TEXT", default_value = "somebody has chosen")]
    why: String,
    /// Who you are; kept there too
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unnamed")]
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
    let Opened::Spread(set) = opened else { return Ok(()) };
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
        let View { state, since, about, fence, attempt, history, .. } = View::of(id, record);
        output::line(&format!("{side}: member {number}, {}", place(*number)))?;
        output::line(&format!("  {state} since {since}: {}", printable(&about)))?;
        output::line(&format!("  fence {fence}, attempt {attempt}"))?;
        for note in history {
            let (by, why) = (printable(&note.by), printable(&note.why));
            output::line(&format!("  {} {} by {by}: {why}", note.at, note.event))?;
        }
    }
    let Some(side) = args.keep else {
        return Ok(output::line("say --keep old or --keep new; nothing was changed")?);
    };
    let now = time_of(&*opened.store()).await?;
    let [(old, there), (new, here)] = &both;
    let (chosen, other, text) = match side {
        Side::Old => (there, here, format!("that of member {old} and not of {new}")),
        Side::New => (here, there, format!("that of member {new} and not of {old}")),
    };
    let kept = kept(chosen, other, now, &args.by, &format!("{text}: {}", args.why));
    let state = kept.state.kind().name();
    set.spread.choose(id, &both, kept).await?;
    output::line(&format!("{id}: the record of two is {text}; it is {state} now, and has moved"))?;
    Ok(output::line(&format!(
        "`onlyonce store rebalance --store {}` goes on with the move",
        args.store
    ))?)
}

/// What takes the place of both: the chosen one, as a record that was put back. Claims may have
/// been granted in either, and count as granted before; none of them is the latest any more.
fn kept(chosen: &Record, other: &Record, now: Timestamp, by: &str, why: &str) -> Record {
    let highest = chosen.revision.max(other.revision);
    let first_fence = chosen.first_fence.min(other.first_fence);
    let base = Record { revision: highest, first_fence, ..chosen.clone() };
    let (by, why) = (by.to_owned(), why.to_owned());
    let restore = Command::Restore { begun: now, by: by.clone(), why: why.clone() };
    let decision = decide(now, Floor::NONE, &Policy::default(), Some(&base), &restore);
    let mut next = match decision.next {
        Next::Write(next) => next,
        // It was answered, and stays so.
        Next::Keep | Next::Delete => {
            let mut next = base;
            let fence = next.fence;
            next.history.push(Entry { at: now, event: Event::Restored, fence, by, why });
            next
        }
    };
    next.revision = Revision::after(Some(highest), now);
    next.fence = Fence::of(next.revision);
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_core::{Reply, State};

    fn record(at: u64, reply: bool) -> Record {
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
        let complete = Command::Complete { fence: claimed.fence, reply: Reply::kept(201, "sold") };
        if reply { write(Some(&claimed), &complete) } else { claimed }
    }

    #[test]
    fn what_is_kept_is_above_both_and_what_was_open_is_in_doubt() {
        let (answered, open) = (record(1_000, true), record(2_000, false));
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
}
