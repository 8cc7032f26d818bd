//! The whole table of command x state, written out in `docs/states.md` and compared cell by cell.
//!
//! The page is what was decided; a change of the code that changes a cell fails here until the
//! page is changed too, on purpose (`cargo xtask docs`).

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod world;

use std::fmt::Write as _;

use onlyonce_core::{Command, Decision, Floor, Next, Outcome, Policy, Record, decide, settle};
use world::{NOW, commands, shown, states};

/// One cell: the outcome, and what is stored if anything changes.
fn cell(record: Option<&Record>, command: &Command, policy: &Policy, floor: Floor) -> String {
    let Decision { outcome, next } = decide(NOW, floor, policy, record, command);
    let told = match outcome {
        Outcome::Granted(_) => "granted",
        Outcome::Replay { .. } => "replay",
        Outcome::InFlight { .. } => "in-flight",
        Outcome::Mismatch => "mismatch",
        Outcome::CredentialChanged => "credential-changed",
        Outcome::OutcomeUnknown { .. } => "outcome-unknown",
        Outcome::Gone { .. } => "gone",
        Outcome::Expired => "expired",
        Outcome::Done => "done",
        Outcome::Fenced => "fenced",
        Outcome::InvalidFence => "invalid-fence",
        Outcome::SecondReply => "second-reply",
        Outcome::Absent => "absent",
    };
    match next {
        Next::Keep => told.to_owned(),
        Next::Write(next) => format!("{told} → {}", shown(&next)),
        Next::Delete => format!("{told} → deleted"),
    }
}

fn table() -> String {
    let mut page = String::from("| command |");
    for (name, _) in states() {
        let _ = write!(page, " {name} |");
    }
    page.push_str("\n|---|");
    states().iter().for_each(|_| page.push_str("---|"));
    page.push('\n');
    for (name, make) in commands() {
        let _ = write!(page, "| {name} |");
        for (_, record) in states() {
            let (command, policy, floor) = make(record.as_ref());
            let _ = write!(page, " {} |", cell(record.as_ref(), &command, &policy, floor));
        }
        page.push('\n');
    }
    page
}

const BEGIN: &str = "<!-- table: compared by crates/core/tests/table.rs -->\n";
const END: &str = "<!-- end of table -->";

#[test]
fn every_cell_is_as_the_page_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/states.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os("ONLYONCE_BLESS").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}\n{table}\n{END}{after}")).unwrap();
        return;
    }
    let differing = written.trim().lines().zip(table.trim().lines()).find(|(a, b)| a != b);
    assert_eq!(differing, None, "docs/states.md says the first, decide() the second");
    assert_eq!(written.trim().lines().count(), table.lines().count());
}

/// What no cell may ever do, whatever the page says.
#[test]
fn no_cell_breaks_a_rule() {
    for (state, record) in states() {
        for (name, make) in commands() {
            let (command, policy, floor) = make(record.as_ref());
            let decision = decide(NOW, floor, &policy, record.as_ref(), &command);
            let at = format!("{name} on {state}: {decision:?}");
            rules(record.as_ref(), &command, &policy, floor, &decision, &at);
        }
    }
}

fn rules(
    record: Option<&Record>,
    command: &Command,
    policy: &Policy,
    floor: Floor,
    decision: &Decision,
    at: &str,
) {
    let Decision { outcome, next } = decision;
    if let (Next::Write(next), Some(record)) = (next, record) {
        assert!(record.revision < next.revision, "revisions rise: {at}");
        assert!(record.fence <= next.fence && record.attempt <= next.attempt, "{at}");
        assert!(record.runs_authorised <= next.runs_authorised, "{at}");
    }
    if *next == Next::Delete {
        assert_eq!(*command, Command::Sweep, "only the sweeper deletes: {at}");
        let timed = record.is_some_and(|record| record.key_time.is_some());
        let passed = record.is_some_and(|record| floor.is_above(record.key_time));
        assert!(!timed || passed, "the floor rises first: {at}");
    }
    if let Outcome::Granted(fence) = outcome {
        let settled = record.map(|record| settle(NOW, policy, record));
        let kind = settled.as_ref().map(|record| record.state.kind().name());
        assert!(!["completed", "tombstone"].contains(&kind.unwrap_or("")), "run again: {at}");
        match next {
            Next::Write(next) => assert_eq!(next.fence, *fence, "{at}"),
            Next::Keep => assert_eq!(record.map(|it| it.fence), Some(*fence), "{at}"),
            Next::Delete => panic!("{at}"),
        }
    }
    // Saying the same thing twice changes nothing more, and is told the same (rule 5).
    if let Next::Write(once) = next {
        let again = decide(NOW, floor, policy, Some(once), command);
        assert_eq!(again.next, Next::Keep, "{at}, then {again:?}");
        assert_eq!(again.outcome, *outcome, "{at}");
    }
}
