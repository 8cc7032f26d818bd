//! The core passes what functions in SQL are held to, and each fault is found that one may have.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod cells;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cells::{Asked, Sql, Told, hold, id, now};
use onlyonce_conformance::transactions::name;
use onlyonce_core::{
    Command, Fence, Floor, History, Next, Outcome, Policy, Record, Reply, State, decide,
};
use onlyonce_store::transaction::complete;
use onlyonce_store::{Row, codec};

/// What is wrong with the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    RunsWhatWasForgotten,
    CompletesUnderAnyClaim,
    DropsHistories,
    TakesAnyBytes,
    GuessesWhatIsNewer,
    GrantsWhatIsRun,
    FreesWhatHasLapsed,
}

struct Functions(Bug);

impl Functions {
    fn told(&self, outcome: &Outcome, next: Option<&Record>) -> Told {
        let row = next.map(|next| {
            let mut next = next.clone();
            if self.0 == Bug::DropsHistories {
                next.history = History::default();
            }
            let row = Row::of(id(), &next).unwrap();
            (row.revision, i64::from(row.state), row.due_at, row.bytes)
        });
        (name(outcome).to_owned(), row)
    }

    /// What the functions take the record for.
    fn taken(&self, record: &Record, policy: &Policy) -> Record {
        let State::InFlight(flight) = &record.state else { return record.clone() };
        let bug = if flight.lease_until.plus(policy.skew_max) <= now() {
            Bug::FreesWhatHasLapsed
        } else {
            Bug::GrantsWhatIsRun
        };
        let free = State::Released { since: now() };
        let state = if self.0 == bug { free } else { record.state.clone() };
        Record { state, ..record.clone() }
    }
}

impl Sql for Functions {
    fn claim(&mut self, record: Option<&Record>, asked: &Asked<'_>) -> Told {
        let Asked { floor, policy, class, print, claim } = asked;
        assert_eq!(print[0], claim.fingerprint.version());
        assert!(class.is_none() || asked.is_committing() || policy.receiver.always.is_some());
        let floor = if self.0 == Bug::RunsWhatWasForgotten { Floor::NONE } else { *floor };
        let command = Command::Claim((*claim).clone());
        let record = record.map(|record| self.taken(record, policy));
        let decision = decide(now(), floor, policy, record.as_ref(), &command);
        match &decision.next {
            Next::Write(next) => self.told(&decision.outcome, Some(next)),
            Next::Keep | Next::Delete => self.told(&decision.outcome, None),
        }
    }

    fn complete(&mut self, record: &Record, fence: Fence, reply: &Reply, policy: &Policy) -> Told {
        let any = self.0 == Bug::CompletesUnderAnyClaim;
        let fence = if any { record.fence } else { fence };
        match complete(now(), policy, record, fence, reply.clone()) {
            Ok(next) => self.told(&Outcome::Done, Some(&next)),
            Err(outcome) => self.told(&outcome, None),
        }
    }

    fn again(&mut self, record: &Record) -> Told {
        self.told(&Outcome::Done, Some(record))
    }

    fn refused(&mut self, key: &[u8], revision: i64, stored: &[u8]) -> String {
        let is_newer = stored.starts_with(&[0; 4]) && self.0 != Bug::GuessesWhatIsNewer;
        let read = codec::decode(stored[4..].to_vec().into());
        if is_newer && read.is_err_and(|error| error.to_string().contains("newer")) {
            return "0A000".to_owned();
        }
        let id = onlyonce_core::KeyId::from_bytes(key.try_into().unwrap());
        let read = Row::read("here", id, revision, stored.to_vec().into());
        let taken = read.is_ok() || self.0 == Bug::TakesAnyBytes;
        if taken { String::new() } else { "XX001".to_owned() }
    }

    /// None that any bytes have.
    fn checksum(&mut self, _: &[u8]) -> Vec<u8> {
        vec![0; 4]
    }
}

#[test]
fn the_core_is_as_it_is_held_to_be() {
    hold(&mut Functions(Bug::None), "XX001");
}

#[test]
fn each_fault_of_functions_is_found() {
    for bug in [
        Bug::RunsWhatWasForgotten,
        Bug::CompletesUnderAnyClaim,
        Bug::DropsHistories,
        Bug::TakesAnyBytes,
        Bug::GuessesWhatIsNewer,
        Bug::GrantsWhatIsRun,
        Bug::FreesWhatHasLapsed,
    ] {
        let held = catch_unwind(AssertUnwindSafe(|| hold(&mut Functions(bug), "XX001")));
        assert!(held.is_err(), "{bug:?} is not found");
    }
}
