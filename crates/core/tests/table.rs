//! The whole table of command x state, written out in `docs/states.md` and compared cell by cell.
//!
//! The page is what was decided; a change of the code that changes a cell fails here until the
//! page is changed too, on purpose (`cargo xtask docs`).

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod world;

use std::fmt::Write as _;

use std::time::Duration;

use onlyonce_core::{
    Command, Decision, Floor, Next, OnUnknown, Outcome, Policy, Receiver, Record, Remedy, State,
    decide, settle,
};
use world::{FIRST_COMMIT, Make, NOW, commands, policy, receivers, shown, states};

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

/// What is done about an unknown outcome, by what the policy says and what the receiver offers.
fn remedies() -> String {
    let mut page = String::from("| receiver |");
    for on_unknown in OnUnknown::ALL {
        let _ = write!(page, " {} |", on_unknown.name());
    }
    page.push_str("\n|---|---|---|---|---|\n");
    for (name, receiver) in receivers() {
        let _ = write!(page, "| {name} |");
        for on_unknown in OnUnknown::ALL {
            let policy = Policy { on_unknown, receiver, ..policy() };
            let first = Some(NOW.minus(Duration::from_millis(FIRST_COMMIT)));
            let _ = write!(page, " {} |", policy.remedy_at(first, NOW).name());
        }
        page.push('\n');
    }
    page
}

#[test]
fn every_cell_is_as_the_page_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/states.md");
    for (name, table) in [("table", table()), ("receivers", remedies())] {
        let begin = format!("<!-- {name}: compared by crates/core/tests/table.rs -->\n");
        let end = format!("<!-- end of {name} -->");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(&begin).unwrap();
        let (written, after) = rest.split_once(&end).unwrap();
        if std::env::var_os("ONLYONCE_BLESS").is_some() {
            std::fs::write(path, format!("{before}{begin}\n{table}\n{end}{after}")).unwrap();
            continue;
        }
        let differing = written.trim().lines().zip(table.trim().lines()).find(|(a, b)| a != b);
        assert_eq!(differing, None, "docs/states.md says the first, decide() the second");
        assert_eq!(written.trim().lines().count(), table.lines().count());
    }
}

/// Every state with every command.
fn cells() -> Vec<(&'static str, Option<Record>, &'static str, Make)> {
    let of = |(state, record): (&'static str, Option<Record>)| {
        commands().into_iter().map(move |(name, make)| (state, record.clone(), name, make))
    };
    states().into_iter().flat_map(of).collect()
}

/// Every command on every state, under every choice of policy and receiver.
#[test]
fn what_the_receiver_offers_decides_about_unknown_outcomes_and_about_nothing_else() {
    let (mut again, mut held) = (0, 0);
    for (receiver_name, receiver) in receivers() {
        for on_unknown in OnUnknown::ALL {
            for (state, record, name, make) in cells() {
                let (command, plain, floor) = make(record.as_ref());
                let policy = Policy { on_unknown, receiver, ..plain };
                let decision = decide(NOW, floor, &policy, record.as_ref(), &command);
                let at =
                    format!("{name} on {state}, {on_unknown:?}, {receiver_name}: {decision:?}");
                rules(record.as_ref(), &command, &policy, floor, &decision, &at);
                let bare =
                    Policy { on_unknown: OnUnknown::Hold, receiver: Receiver::BARE, ..plain };
                let holds = decide(NOW, floor, &bare, record.as_ref(), &command);
                let Some(record) = &record else { continue };
                let first = record.first_commit_at;
                let allowed = policy.remedy_at(first, NOW) == Remedy::RunAgain;
                let in_doubt = holds.outcome != decision.outcome || holds.next != decision.next;
                // Only a claim out of an unknown outcome, or the mark of one, makes a difference.
                if in_doubt {
                    assert!(allowed, "{at}");
                    assert!(is_doubtful(record, &policy), "{at}");
                    again += 1;
                } else if is_doubtful(record, &policy) {
                    held += 1;
                }
                let settled = settle(NOW, &policy, record);
                let unknown = matches!(settled.state, State::Unknown(_));
                if unknown && matches!(decision.outcome, Outcome::Granted(_)) {
                    assert!(allowed, "run again: {at}");
                }
            }
        }
    }
    assert!(100 < again && 100 < held, "{again} run again, {held} do not");
}

/// Whether an earlier attempt is in doubt, by now.
fn is_doubtful(record: &Record, policy: &Policy) -> bool {
    match settle(NOW, policy, record).state {
        State::Unknown(_) => true,
        State::InFlight(flight) => flight.inherited.is_some(),
        State::Released { .. } | State::Completed { .. } | State::Tombstone { .. } => false,
    }
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
