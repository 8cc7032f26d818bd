//! When a record may be forgotten for good: not while a new one could repeat its numbers.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::time::Duration;

use onlyonce_core::{
    Claim, ClaimId, Command, Decision, Fingerprint, Floor, Holder, Next, Outcome, Phase, Policy,
    Record, Reply, State, Timestamp, decide,
};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fn claim() -> Command {
    Command::Claim(Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([1; 16]),
        holder: Holder::default(),
        key_time: None,
        credential: None,
        phase: Phase::Committing,
    })
}

fn act(now: Timestamp, policy: &Policy, record: Option<&Record>, command: &Command) -> Decision {
    decide(now, Floor::NONE, policy, record, command)
}

#[test]
fn a_forgotten_key_never_gets_a_number_again_whatever_clock_makes_it_anew() {
    // Nothing is kept for any time, so that nothing but the clocks holds the sweeper back.
    let (retention, remember) = (Duration::ZERO, Duration::ZERO);
    let policy = Policy { retention, remember, ..Policy::default() }.check().unwrap();
    let Next::Write(claimed) = act(NOW, &policy, None, &claim()).next else { panic!() };
    let complete = Command::Complete { fence: claimed.fence, reply: Reply::kept(201, "order") };
    let Next::Write(last) = act(NOW, &policy, Some(&claimed), &complete).next else { panic!() };
    let mut swept = 0;
    for millis in 0..2 * policy.skew_max.as_millis() as u64 {
        let now = NOW.plus_millis(millis);
        if act(now, &policy, Some(&last), &Command::Sweep).next != Next::Delete {
            continue;
        }
        swept += 1;
        let behind = now.minus(policy.skew_max);
        let Outcome::Granted(fence) = act(behind, &policy, None, &claim()).outcome else {
            panic!("a forgotten key is a new one")
        };
        assert!(last.revision.get() < fence.get(), "swept after {millis} ms");
    }
    assert!(0 < swept, "it is forgotten in the end");
}

#[test]
fn what_a_longer_memory_keeps_is_due_when_that_is_over_and_not_before() {
    let hour = Duration::from_secs(3_600);
    let short = Policy { retention: hour, remember: hour, ..Policy::default() };
    let long = Policy { remember: 10 * hour, ..short };
    let Command::Claim(timed) = claim() else { panic!() };
    let timed = Command::Claim(Claim { key_time: Some(NOW), ..timed });
    let Next::Write(claimed) = act(NOW, &short, None, &timed).next else { panic!() };
    let complete = Command::Complete { fence: claimed.fence, reply: Reply::kept(201, "order") };
    let Next::Write(done) = act(NOW, &short, Some(&claimed), &complete).next else { panic!() };
    let over = NOW.plus(2 * hour);
    let Next::Write(tombstone) = act(over, &short, Some(&done), &Command::Sweep).next else {
        panic!("what is over becomes a tombstone")
    };
    // Under the memory that it was made for it waits for the floor, which is on its way.
    assert_eq!(act(over, &short, Some(&tombstone), &Command::Sweep).next, Next::Keep);

    let Next::Write(moved) = act(over, &long, Some(&tombstone), &Command::Sweep).next else {
        panic!("its floor is hours away")
    };
    let State::Tombstone { forget_at, .. } = moved.state else { panic!("{moved:?}") };
    assert_eq!(forget_at, NOW.plus(10 * hour));
    assert_eq!(act(over, &long, Some(&moved), &Command::Sweep).next, Next::Keep);
    let late = NOW.plus(11 * hour);
    let floor = Floor::at(NOW.plus_millis(1));
    assert_eq!(decide(late, floor, &long, Some(&moved), &Command::Sweep).next, Next::Delete);
}
