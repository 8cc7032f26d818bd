//! What a retry gets at each age from a journal that was made of an older copy: what ran after the
//! copy, and can be known to have, runs no second time.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use futures_executor::block_on;
use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Fingerprint, Floor, Holder, Next, Outcome, Phase, Policy,
    Record, Reply, Timestamp, decide,
};
use onlyonce_store::Store;

use super::{SMALL, get, id, put};
use crate::dir::Start;
use crate::journal::Journal;
use crate::restore::restore;

const EPOCH: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const AHEAD: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const AGES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(23 * 3_600),
    Duration::from_secs(29 * 86_400),
    Duration::from_secs(32 * 86_400),
    Duration::from_secs(3_650 * 86_400),
];

/// What had become of a key when the copy was made. It ran once before the journal was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    Absent,
    Running,
    Free,
    Answered,
}

/// Keys that are asked for again at this age: one of each kind, by its number, and the time that it
/// carries.
fn keys(at: usize) -> Vec<(u64, Was, Option<Timestamp>)> {
    let all = [Was::Absent, Was::Running, Was::Free, Was::Answered];
    let each = all.into_iter().flat_map(|was| [(was, Some(EPOCH)), (was, None)]);
    (10 * at as u64..).zip(each).map(|(number, (was, time))| (number, was, time)).collect()
}

fn all_keys() -> Vec<(u64, Was, Option<Timestamp>)> {
    (0..AGES.len()).flat_map(keys).collect()
}

/// A journal at a moment, and how often each operation ran, here or before.
struct World<'a> {
    journal: &'a Journal,
    now: Timestamp,
    runs: Vec<u64>,
    claims: u8,
}

impl World<'_> {
    fn tell(&self, number: u64, command: &Command) -> Outcome {
        let floor = block_on(self.journal.floor()).unwrap();
        self.tell_at(floor, number, command)
    }

    fn tell_at(&self, floor: Floor, number: u64, command: &Command) -> Outcome {
        let record: Option<Record> = get(self.journal, number);
        let (policy, now) = (Policy::default(), self.now);
        let decision = decide(now, floor, &policy, record.as_ref(), command);
        match decision.next {
            Next::Keep => {}
            Next::Write(next) => drop(put(self.journal, number, record.as_ref(), &next).unwrap()),
            Next::Delete => {
                let expected = record.map(|record| record.revision);
                block_on(self.journal.swap(id(number), expected, None)).unwrap();
            }
        }
        decision.outcome
    }

    fn claim(&mut self, number: u64, key_time: Option<Timestamp>) -> Outcome {
        self.claims += 1;
        let claim = Command::Claim(Claim {
            fingerprint: Fingerprint::new(1, [7; 32]),
            claim_id: ClaimId::from_bytes([self.claims; 16]),
            holder: Holder::default(),
            key_time,
            credential: None,
            phase: Phase::Committing,
        });
        self.tell(number, &claim)
    }

    /// Claims, and runs it and completes it if that is granted.
    fn ask(&mut self, number: u64, key_time: Option<Timestamp>) -> Outcome {
        let outcome = self.claim(number, key_time);
        if let Outcome::Granted(fence) = outcome {
            self.runs.push(number);
            let reply = Reply::kept(201, format!("order {number}"));
            assert_eq!(self.tell(number, &Command::Complete { fence, reply }), Outcome::Done);
        }
        outcome
    }

    fn ran(&self, number: u64) -> usize {
        self.runs.iter().filter(|it| **it == number).count()
    }

    /// What a sweeper does once everybody uses the floor that it has raised.
    fn sweep(&mut self) {
        let floor = Floor::at(self.now.minus(Policy::default().remember));
        block_on(self.journal.raise_floor(floor)).unwrap();
        for _ in 0..2 {
            all_keys().iter().for_each(|(number, ..)| {
                self.tell_at(floor, *number, &Command::Sweep);
            });
            self.now = self.now.plus(Duration::from_secs(2));
        }
    }
}

fn is_told(outcome: &Outcome, was: Was, is_timed: bool, age: Duration) {
    let at = format!("{was:?}, timed: {is_timed}, after {age:?}: {outcome:?}");
    let fits = match was {
        Was::Absent if is_timed => *outcome == Outcome::Expired,
        // It cannot be told from a new one, as the documents say.
        Was::Absent => matches!(outcome, Outcome::Granted(_)),
        Was::Running | Was::Free => {
            matches!(outcome, Outcome::OutcomeUnknown { cause: Cause::Restored, .. })
        }
        Was::Answered if age < DAY => matches!(outcome, Outcome::Replay { .. }),
        Was::Answered if age < 30 * DAY => matches!(outcome, Outcome::Gone { .. }),
        Was::Answered if is_timed => *outcome == Outcome::Expired,
        // Forgotten, if there was a sweeper.
        Was::Answered => matches!(outcome, Outcome::Granted(_) | Outcome::Gone { .. }),
    };
    assert!(fits, "{at}");
}

/// A journal whose keys all ran once, and the copy that was made of it before some did.
fn copied(folder: &Path) -> Vec<u64> {
    let data = folder.join("data");
    Journal::init(&data, SMALL, Start::First).unwrap();
    let journal = Journal::open(&data, SMALL).unwrap();
    let mut world = World { journal: &journal, now: EPOCH, runs: Vec::new(), claims: 0 };
    let mut fences = HashMap::new();
    for (number, was, time) in all_keys() {
        match was {
            Was::Absent => {}
            Was::Answered => drop(world.ask(number, time)),
            Was::Running | Was::Free => {
                let Outcome::Granted(fence) = world.claim(number, time) else { panic!() };
                fences.insert(number, fence);
                if was == Was::Free {
                    world.tell(number, &Command::Release { fence, stranger: false });
                }
            }
        }
    }
    journal.backup(&folder.join("copy"), EPOCH).unwrap();
    for (number, was, time) in all_keys() {
        match was {
            Was::Running => {
                world.runs.push(number);
                let (fence, reply) = (fences[&number], Reply::kept(201, "order"));
                assert_eq!(world.tell(number, &Command::Complete { fence, reply }), Outcome::Done);
            }
            Was::Absent | Was::Free => drop(world.ask(number, time)),
            Was::Answered => {}
        }
        assert_eq!(world.ran(number), 1, "{was:?}");
    }
    let runs = world.runs;
    journal.close();
    runs
}

/// Puts the copy back at a moment, and asks for the keys of these ages again, each at its own.
fn put_back(
    folder: &Path,
    runs: &[u64],
    now: Timestamp,
    ages: std::ops::Range<usize>,
    is_swept: bool,
) {
    let to = folder.join(format!("restored at {}, {is_swept}", now.as_millis()));
    restore(&folder.join("copy"), &to, now, AHEAD).unwrap();
    let journal = Journal::open(&to, SMALL).unwrap();
    let mut world = World { journal: &journal, now, runs: runs.to_vec(), claims: 100 };
    for at in ages {
        world.now = EPOCH.plus(AGES[at]);
        if is_swept {
            world.sweep();
        }
        for (number, was, time) in keys(at) {
            let outcome = world.ask(number, time);
            is_told(&outcome, was, time.is_some(), AGES[at]);
            let again = usize::from(matches!(outcome, Outcome::Granted(_)));
            assert_eq!(world.ran(number), 1 + again, "{was:?}");
        }
    }
    // What is made from then on is accepted.
    world.now = world.now.plus(HOUR);
    let new = Some(world.now);
    assert!(matches!(world.ask(99, new), Outcome::Granted(_)));
}

#[test]
fn no_key_runs_again_at_any_age_that_can_be_known_to_have_run_since_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let runs = copied(folder.path());
    // It is put back soon, and the retry comes late.
    for is_swept in [true, false] {
        put_back(folder.path(), &runs, EPOCH.plus_millis(500), 0..AGES.len(), is_swept);
    }
    // Both are late.
    for (at, age) in AGES.into_iter().enumerate() {
        put_back(folder.path(), &runs, EPOCH.plus(age), at..at + 1, true);
    }
}
