//! Rule 15: of a record that comes from an older copy of its store only "it happened" counts.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

#[allow(dead_code, reason = "the commands are for the table")]
mod world;

use onlyonce_core::{
    Command, Decision, Fence, Floor, Next, Outcome, Record, State, Timestamp, decide,
};
use world::{NOW, latest, policy, record, reply, states};

const LATER: Timestamp = NOW.plus_millis(60_000);

fn act(now: Timestamp, record: &Record, command: &Command) -> (Outcome, Record) {
    let Decision { outcome, next } = decide(now, Floor::NONE, &policy(), Some(record), command);
    match next {
        Next::Write(next) => (outcome, next),
        Next::Keep => (outcome, record.clone()),
        Next::Delete => panic!("{outcome:?}: it is deleted"),
    }
}

fn restore(begun: Timestamp) -> Command {
    Command::Restore { begun, by: "anna".to_owned(), why: "put back".to_owned() }
}

/// All that may have gone on after a copy was made of it.
fn open() -> Vec<(&'static str, Record)> {
    let is_open = |record: &Record| match record.state {
        State::InFlight(_) | State::Released { .. } | State::Unknown(_) => true,
        State::Completed { .. } | State::Tombstone { .. } => false,
    };
    let records = states().into_iter().filter_map(|(name, record)| Some((name, record?)));
    records.filter(|(_, record)| is_open(record)).collect()
}

#[test]
fn nobody_who_held_it_before_can_free_it_and_any_of_them_can_complete_it() {
    for (name, before) in open() {
        let record = act(NOW, &before, &restore(NOW)).1;
        // One that was granted after the copy was made, which the copy does not know.
        let since = Fence::new(NOW.as_millis() - 1).unwrap();
        for fence in [before.fence, since, record.fence] {
            let release = Command::Release { fence, stranger: false };
            let (_, next) = act(LATER, &record, &release);
            assert!(matches!(next.state, State::Unknown(_)), "{name}: {next:?}");
            let complete = Command::Complete { fence, reply: reply() };
            let (outcome, next) = act(LATER, &record, &complete);
            assert_eq!(outcome, Outcome::Done, "{name}");
            assert!(matches!(next.state, State::Completed { .. }), "{name}: {next:?}");
        }
    }
}

#[test]
fn what_was_answered_stays_as_it_was_also_when_its_time_is_over() {
    for (name, before) in states().into_iter().filter_map(|(name, it)| Some((name, it?))) {
        if let State::Completed { .. } | State::Tombstone { .. } = before.state {
            assert_eq!(act(NOW, &before, &restore(NOW)), (Outcome::Done, before), "{name}");
        }
    }
}

#[test]
fn a_mark_that_a_program_keeps_in_a_store_is_no_operation_and_stays() {
    let doubt = State::Unknown(world::doubt());
    let mark = Record { attempt: 0, ..record(doubt) };
    assert_eq!(act(NOW, &mark, &restore(NOW)).1, mark);
}

#[test]
fn it_is_written_anew_for_each_copy_and_once_for_each() {
    for (name, before) in open() {
        let once = act(NOW, &before, &restore(NOW)).1;
        assert!(NOW.as_millis() <= once.revision.get(), "bounds count from now: {name}");
        assert_eq!(act(LATER, &once, &restore(NOW)).1, once, "{name}: it goes on");
        // A copy of that one was made, and has come back.
        let again = act(LATER, &once, &restore(LATER)).1;
        assert!(LATER.as_millis() <= again.revision.get(), "{name}");
        assert!(once.fence < again.fence, "{name}");
        let (State::Unknown(first), State::Unknown(second)) = (&once.state, &again.state) else {
            panic!("{name}: {again:?}")
        };
        assert_eq!(first, second, "it has been in doubt since then: {name}");
    }
}

#[test]
fn the_history_says_of_which_claim_who_put_it_back_and_why() {
    let before = record(State::Released { since: NOW });
    let restored = act(NOW, &before, &restore(NOW)).1;
    let last = restored.history.entries().last().unwrap();
    assert_eq!((last.at, last.fence), (NOW, latest()));
    assert_eq!((&*last.by, &*last.why), ("anna", "put back"));
}
