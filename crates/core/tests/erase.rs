//! What is left of a reply that somebody had erased: that it was given, and nothing of it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::time::Duration;

use onlyonce_core::{
    Claim, ClaimId, Command, Evidence, Fingerprint, Floor, Holder, Next, Outcome, Phase, Policy,
    Record, Reply, State, Timestamp, decide,
};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

fn policy() -> Policy {
    Policy { retention: HOUR, ..Policy::default() }
}

fn reply() -> Reply {
    Reply::kept(201, "order 7829")
}

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

fn erase() -> Command {
    Command::Erase { by: "anna".to_owned(), why: "asked for by its owner".to_owned() }
}

fn act(now: Timestamp, record: Option<&Record>, command: &Command) -> (Outcome, Record) {
    let decision = decide(now, Floor::NONE, &policy(), record, command);
    let next = match decision.next {
        Next::Write(next) => Some(next),
        Next::Keep => record.cloned(),
        Next::Delete => None,
    };
    (decision.outcome, next.unwrap())
}

fn answered() -> Record {
    let claimed = act(NOW, None, &claim()).1;
    let fence = claimed.fence;
    let evidence = Evidence::new(&b"charge-1"[..]).unwrap();
    let noted = act(NOW, Some(&claimed), &Command::Note { fence, evidence }).1;
    act(NOW, Some(&noted), &Command::Complete { fence, reply: reply() }).1
}

/// The tombstone that time makes of it.
fn over(record: &Record) -> Record {
    act(NOW.plus(2 * HOUR), Some(record), &Command::Sweep).1
}

#[test]
fn nothing_of_the_reply_is_left_but_its_status_and_nobody_runs_it_again() {
    let records = [answered(), over(&answered())];
    for (record, now) in records.iter().zip([NOW, NOW.plus(3 * HOUR)]) {
        let (outcome, erased) = act(now, Some(record), &erase());
        assert_eq!((outcome, &erased.evidence), (Outcome::Done, &None));
        let shown = format!("{erased:?}");
        let digest = format!("{:?}", reply().digest());
        assert!(!shown.contains("bytes)") && !shown.contains(&digest), "{shown}");
        let entry = erased.history.entries().last().unwrap();
        assert_eq!((entry.at, &*entry.by, &*entry.why), (now, "anna", "asked for by its owner"));
        let gone = Outcome::Gone { answered_at: NOW, status: 201, sealed: false };
        assert_eq!(act(now, Some(&erased), &claim()).0, gone);
    }
}

#[test]
fn it_is_remembered_for_as_long_as_it_would_have_been() {
    let (_, erased) = act(NOW.plus_millis(1_000), Some(&answered()), &erase());
    let forget_at = |record: &Record| {
        let State::Tombstone { forget_at, .. } = over(record).state else { panic!() };
        forget_at
    };
    assert_eq!(forget_at(&erased), forget_at(&answered()));
    assert!(NOW.plus(Duration::from_secs(24 * 3_600)) < forget_at(&answered()));
}

#[test]
fn a_repeated_completion_brings_nothing_back_and_another_status_is_still_an_alarm() {
    let erased = act(NOW, Some(&answered()), &erase()).1;
    for record in [erased.clone(), over(&erased)] {
        let complete = |reply: Reply| Command::Complete { fence: record.fence, reply };
        let now = NOW.plus(3 * HOUR);
        assert_eq!(act(now, Some(&record), &complete(reply())).0, Outcome::Done);
        assert_eq!(
            act(now, Some(&record), &complete(Reply::kept(500, "no"))).0,
            Outcome::SecondReply
        );
        for reply in [reply(), Reply::kept(500, "no")] {
            let next = act(now, Some(&record), &complete(reply)).1;
            assert!(!format!("{next:?}").contains("bytes)"), "{next:?}");
        }
    }
}
