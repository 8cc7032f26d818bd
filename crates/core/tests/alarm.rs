//! A second, different reply: the first stays the only answer, and the record tells of the other.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

#[allow(dead_code, reason = "shared with the tests of the whole table")]
mod world;

use std::time::Duration;

use onlyonce_core::limits::{HISTORY_ENTRIES_MAX, SECOND_REPLIES_MAX};
use onlyonce_core::{
    Command, Entry, Event, Fence, Floor, History, Next, Outcome, Policy, Record, Reply, State,
    Timestamp, Verdict, decide, settle,
};
use world::{NOW, latest, older, policy, record, reply};

fn act(now: Timestamp, record: &Record, command: &Command) -> (Outcome, Record) {
    let decision = decide(now, Floor::NONE, &policy(), Some(record), command);
    match decision.next {
        Next::Write(next) => (decision.outcome, next),
        Next::Keep => (decision.outcome, record.clone()),
        Next::Delete => panic!("{decision:?}"),
    }
}

fn complete(fence: Fence, status: u16) -> Command {
    Command::Complete { fence, reply: Reply::kept(status, "another") }
}

fn answered() -> Record {
    let (answered_at, retain_until) = (NOW, NOW.plus(Duration::from_secs(60)));
    record(State::Completed { reply: reply(), answered_at, retain_until, sealed: false })
}

fn told(record: &Record) -> Vec<String> {
    let entries = record.history.entries().iter();
    entries.map(|it| format!("{} by {}: {}", it.event.name(), it.by, it.why)).collect()
}

#[test]
fn it_is_noted_once_however_often_it_is_said_and_the_first_stays_the_answer() {
    let first = answered();
    assert!(!first.has_alarm());
    let (outcome, noted) = act(NOW, &first, &complete(older(), 500));
    assert_eq!(outcome, Outcome::SecondReply);
    assert_eq!((noted.has_alarm(), &noted.state), (true, &first.state));
    assert_eq!(noted.history.entries()[0].fence, older());
    assert_eq!(told(&noted), ["second-reply by holder: another answer, with 500"]);
    let later = NOW.plus_millis(1_000);
    assert_eq!(act(later, &noted, &complete(older(), 500)), (Outcome::SecondReply, noted.clone()));
    // Another claim, another answer and another person are each news.
    let (_, more) = act(later, &noted, &complete(latest(), 500));
    let (_, more) = act(later, &more, &complete(older(), 409));
    let verdict = Verdict::Happened(Reply::kept(500, "another"));
    let (by, why) = ("anna".to_owned(), "seen at the bank".repeat(40));
    let resolve = Command::Resolve { fence: older(), verdict, by, why };
    let (outcome, more) = act(later, &more, &resolve);
    assert_eq!(outcome, Outcome::SecondReply);
    assert!(told(&more)[3].starts_with("second-reply by anna: another answer, with 500: seen at"));
    assert_eq!(act(later, &more, &resolve), (Outcome::SecondReply, more));
}

#[test]
fn the_list_of_them_is_bounded_and_drops_no_more_than_it_is_long() {
    let mut record = answered();
    let entry = |at| Entry {
        at: Timestamp::from_millis(at),
        event: Event::RetriedByPolicy,
        fence: older(),
        by: "policy".to_owned(),
        why: String::new(),
    };
    record.history = History::from_entries((0..HISTORY_ENTRIES_MAX as u64).map(entry));
    let before = record.history.clone();
    for (status, noted) in (400..450).zip(1..) {
        let (outcome, next) = act(NOW, &record, &complete(latest(), status));
        assert_eq!(outcome, Outcome::SecondReply, "each is an alarm");
        record = next;
        assert_eq!(record.history.count(Event::SecondReply), SECOND_REPLIES_MAX.min(noted));
    }
    let after = record.history.entries();
    assert_eq!(after[0], before.entries()[0]);
    let kept = HISTORY_ENTRIES_MAX - SECOND_REPLIES_MAX;
    assert_eq!(after[1..kept], before.entries()[1 + SECOND_REPLIES_MAX..]);
}

#[test]
fn what_is_said_once_more_is_no_alarm() {
    let again = Command::Complete { fence: older(), reply: reply() };
    assert_eq!(act(NOW, &answered(), &again), (Outcome::Done, answered()));
}

#[test]
fn it_stays_noted_when_the_reply_is_no_longer_kept_and_when_it_is_erased() {
    let (_, noted) = act(NOW, &answered(), &complete(latest(), 500));
    let over = NOW.plus(Duration::from_secs(120));
    let tombstone = settle(over, &Policy::default(), &noted);
    assert!(matches!(tombstone.state, State::Tombstone { .. }) && tombstone.has_alarm());
    assert!(act(over, &noted, &Command::Sweep).1.has_alarm());
    let erase = Command::Erase { by: "anna".to_owned(), why: "asked for".to_owned() };
    for record in [noted, tombstone] {
        let erased = act(over, &record, &erase).1;
        assert!(erased.has_alarm() && erased.is_erased(), "{erased:?}");
    }
    // A tombstone learns of it too.
    let plain = settle(over, &Policy::default(), &answered());
    let (outcome, noted) = act(over, &plain, &complete(latest(), 500));
    assert_eq!((outcome, noted.has_alarm()), (Outcome::SecondReply, true));
}
