//! What is written in SQL is held to the core: every cell of the table that it can meet, and the
//! bytes of every record that it may be given. The tests of each store that has such functions
//! take this file in, as those of a claim stand in the core's own tests.

#[allow(dead_code, unreachable_pub, reason = "the core's own tests use all of it")]
#[path = "../../../core/tests/world/mod.rs"]
mod world;

use onlyonce_core::{
    Cause, Claim, Command, Credential, Decision, Doubt, Entry, Event, Evidence, Fence, Floor,
    History, KeyId, Next, OnUnknown, Outcome, Phase, Policy, Record, Reply, State, Timestamp,
    decide,
};
use onlyonce_store::Row;
use onlyonce_store::transaction::complete;

use world::{NOW, commands, record, reply, states};

/// What a row would hold: the outcome, the columns and the bytes; or the outcome alone.
pub(crate) type Told = (String, Option<(i64, i64, i64, Vec<u8>)>);

/// A claim, as the functions take it.
pub(crate) struct Asked<'a> {
    pub(crate) floor: Floor,
    pub(crate) policy: &'a Policy,
    /// Whom the policy declares, if a doubt may be run again.
    pub(crate) class: Option<String>,
    /// Version and digest.
    pub(crate) print: Vec<u8>,
    pub(crate) claim: &'a Claim,
}

impl Asked<'_> {
    /// Whether it may happen from the start.
    pub(crate) fn is_committing(&self) -> bool {
        self.claim.phase == Phase::Committing
    }
}

/// The functions of one store, at the time [`now`].
pub(crate) trait Sql {
    /// What a claim makes of a record.
    fn claim(&mut self, record: Option<&Record>, asked: &Asked<'_>) -> Told;

    /// What a completion makes of it.
    fn complete(&mut self, record: &Record, fence: Fence, reply: &Reply, policy: &Policy) -> Told;

    /// The record read and written again, with the outcome `done`.
    fn again(&mut self, record: &Record) -> Told;

    /// The SQLSTATE with which these bytes are refused.
    fn refused(&mut self, key: &[u8], revision: i64, stored: &[u8]) -> String;

    /// The checksum before these bytes.
    fn checksum(&mut self, bytes: &[u8]) -> Vec<u8>;
}

/// The time of all cells.
pub(crate) const fn now() -> Timestamp {
    NOW
}

/// Whose record it is.
pub(crate) fn id() -> KeyId {
    KeyId::from_bytes([7; 16])
}

/// All that they are held to; `damaged` is how they say that bytes are not what was written.
pub(crate) fn hold(sql: &mut impl Sql, damaged: &str) {
    every_record_reads_back_as_it_was_written(sql);
    a_claim_does_what_the_core_decides(sql);
    a_completion_does_what_the_rust_one_does(sql);
    bytes_that_are_not_what_was_written_are_refused(sql, damaged);
}

fn rust(outcome: &Outcome, next: Option<&Record>) -> Told {
    let row = next.map(|next| {
        let row = Row::of(id(), next).unwrap();
        (row.revision, i64::from(row.state), row.due_at, row.bytes)
    });
    (onlyonce_conformance::transactions::name(outcome).to_owned(), row)
}

/// Every claim on every state. What only an unverified credential makes differ is not asked: a
/// claim in SQL has none.
fn a_claim_does_what_the_core_decides(sql: &mut impl Sql) {
    let mut cells = 0;
    for (state, record) in states().into_iter().chain(others()) {
        for (name, make) in commands() {
            let (command, policy, floor) = make(record.as_ref());
            let Command::Claim(claim) = &command else { continue };
            if claim.credential.is_some() {
                continue;
            }
            let Decision { outcome, next } = decide(NOW, floor, &policy, record.as_ref(), &command);
            let next = match &next {
                Next::Write(next) => Some(next),
                Next::Keep => None,
                Next::Delete => panic!("a claim deletes nothing"),
            };
            let print = [&[claim.fingerprint.version()], &claim.fingerprint.digest()[..]].concat();
            let class = match (policy.on_unknown, policy.receiver.always) {
                (OnUnknown::Retry, Some(_)) => Some(policy.class_at(None, NOW).to_string()),
                _ => None,
            };
            let asked = Asked { floor, policy: &policy, class, print, claim };
            let told = sql.claim(record.as_ref(), &asked);
            assert_eq!(told, rust(&outcome, next), "{name} on {state}");
            cells += 1;
        }
    }
    assert!(150 < cells, "{cells}");
}

fn a_completion_does_what_the_rust_one_does(sql: &mut impl Sql) {
    for (state, record) in states().into_iter().chain(others()) {
        let Some(record) = record else { continue };
        let above = Fence::new(NOW.as_millis() + 1).unwrap();
        for fence in [record.fence, world::older(), above, Fence::new(1).unwrap()] {
            for reply in [reply(), Reply::not_kept(503)] {
                let policy = Policy::default();
                let expected = match complete(NOW, &policy, &record, fence, reply.clone()) {
                    Ok(next) => rust(&Outcome::Done, Some(&next)),
                    Err(outcome) => rust(&outcome, None),
                };
                let told = sql.complete(&record, fence, &reply, &policy);
                assert_eq!(told, expected, "{state}, {fence:?}");
            }
        }
    }
}

/// What is not among the states of the table: histories of every length, all optional parts, times
/// at the ends of what can be named.
fn others() -> Vec<(&'static str, Option<Record>)> {
    let entry = |at: u64| Entry {
        at: Timestamp::from_millis(NOW.as_millis() - 1_000_000 + at),
        event: Event::ALL[at as usize % Event::ALL.len()],
        fence: world::older(),
        by: "ännä".repeat(at as usize),
        why: "looked".repeat(30),
    };
    let history = |entries: u64| History::from_entries((0..entries).map(entry));
    let unknown = |only| State::Unknown(Doubt { since: NOW, cause: Cause::Restored, only });
    let all = Record {
        credential: Some(Credential::from_bytes([9; 16])),
        evidence: Evidence::new(vec![3; 200]),
        runs_authorised: u32::MAX,
        attempt: u32::MAX,
        rerun: true,
        history: history(16),
        ..record(unknown(Some(world::older())))
    };
    let ends = |at| State::Tombstone {
        answered_at: Timestamp::from_millis(0),
        status: u16::MAX,
        forget_at: at,
        sealed: true,
        digest: Reply::not_kept(1).digest(),
    };
    let completed = |retain_until| State::Completed {
        reply: Reply::kept(500, vec![0xA5; 3_000]),
        answered_at: NOW,
        retain_until,
        sealed: false,
    };
    let no_reply = State::Completed {
        reply: Reply::not_kept(201),
        answered_at: NOW,
        retain_until: NOW,
        sealed: true,
    };
    let timeless = Record { key_time: None, first_commit_at: None, ..record(ends(Timestamp::MAX)) };
    vec![
        ("all there is", Some(all)),
        ("a history of one", Some(Record { history: history(1), ..record(unknown(None)) })),
        ("a history of fifteen", Some(Record { history: history(15), ..record(unknown(None)) })),
        ("no key time", Some(timeless)),
        ("due at once", Some(record(ends(Timestamp::from_millis(0))))),
        ("long answer", Some(record(completed(Timestamp::MAX)))),
        ("long answer, over", Some(record(completed(NOW)))),
        ("no answer kept, over", Some(record(no_reply))),
    ]
}

/// Nothing is lost between the bytes and the parts, whatever the record.
fn every_record_reads_back_as_it_was_written(sql: &mut impl Sql) {
    for (state, record) in states().into_iter().chain(others()) {
        // A claim of another holder is read, and never written.
        let Some(record) = record else { continue };
        assert_eq!(sql.again(&record), rust(&Outcome::Done, Some(&record)), "{state}");
    }
}

fn bytes_that_are_not_what_was_written_are_refused(sql: &mut impl Sql, damaged: &str) {
    let row = Row::of(id(), &states().remove(1).1.unwrap()).unwrap();
    let key = id();
    assert_eq!(sql.refused(&[8; 16], row.revision, &row.bytes), damaged);
    assert_eq!(sql.refused(key.as_bytes(), row.revision + 1, &row.bytes), damaged);
    for at in 0..row.bytes.len() {
        let mut wrong = row.bytes.clone();
        wrong[at] ^= 1;
        assert_eq!(sql.refused(key.as_bytes(), row.revision, &wrong), damaged, "byte {at}");
    }
    let mut newer = row.bytes[4..].to_vec();
    newer[0] = 4 << 4 | 1;
    let newer = [sql.checksum(&newer), newer].concat();
    assert_eq!(sql.refused(key.as_bytes(), row.revision, &newer), "0A000");
}
