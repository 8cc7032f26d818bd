//! When a record may be forgotten for good: not while a new one could repeat its numbers.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::time::Duration;

use onlyonce_core::{
    Claim, ClaimId, Command, Decision, Fingerprint, Floor, Holder, Next, Outcome, Phase, Policy,
    Record, Reply, Timestamp, decide,
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
