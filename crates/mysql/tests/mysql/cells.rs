//! The procedures in SQL are held to the core: every cell of the table that they can meet, and the
//! bytes of every record that they may be given.

use onlyonce_core::{Command, Decision, Fence, Next, OnUnknown, Outcome, Policy, Record, decide};
use onlyonce_store::Row;
use onlyonce_store::transaction::complete;
use onlyonce_testbed::MariaDb as Server;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use crate::common::{RUNTIME, database, init};
use crate::shop::{connect, hex};

#[allow(dead_code, unreachable_pub, reason = "the core's own tests use all of it")]
#[path = "../../../core/tests/world/mod.rs"]
mod world;

use world::{NOW, commands, record, reply, states};

/// The type of a record.
const RECORD: &str = include_str!("../../src/functions/row.sql");

fn id() -> onlyonce_core::KeyId {
    onlyonce_core::KeyId::from_bytes([7; 16])
}

/// Puts the record where the variable `stands` is, as SQL reads it from a row.
fn found(record: Option<&Record>) -> String {
    let Some(record) = record else { return String::new() };
    let row = Row::of(id(), record).unwrap();
    let (key, stored) = (hex(id().as_bytes()), hex(&row.bytes));
    format!("CALL onlyonce__read({key}, {}, {stored}, stands);", row.revision)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a row would hold: the outcome, the columns and the bytes; or the outcome alone.
type Told = (String, Option<(i64, i64, i64, Vec<u8>)>);

fn rust(outcome: &Outcome, next: Option<&Record>) -> Told {
    let name = match outcome {
        Outcome::Granted(_) => "granted",
        Outcome::Replay { .. } => "replay",
        Outcome::InFlight { .. } => "in-flight",
        Outcome::Mismatch => "mismatch",
        Outcome::OutcomeUnknown { .. } => "outcome-unknown",
        Outcome::Gone { .. } => "gone",
        Outcome::Expired => "expired",
        Outcome::Done => "done",
        Outcome::Fenced => "fenced",
        Outcome::InvalidFence => "invalid-fence",
        Outcome::CredentialChanged | Outcome::SecondReply | Outcome::Absent => "never",
    };
    let row = next.map(|next| {
        let row = Row::of(id(), next).unwrap();
        (row.revision, i64::from(row.state), row.due_at, row.bytes)
    });
    (name.to_owned(), row)
}

/// What a call makes of a record: it sets `outcome`, `changed` and `r`.
fn sql(conn: &mut Conn, record: Option<&Record>, call: &str) -> Told {
    let (key, found) = (hex(id().as_bytes()), found(record));
    let text = format!(
        "BEGIN NOT ATOMIC
           DECLARE stands, r {RECORD};
           DECLARE outcome VARCHAR(16);
           DECLARE changed BOOLEAN;
           DECLARE due BIGINT;
           DECLARE said LONGBLOB;
           {found}
           {call}
           IF changed THEN
             CALL onlyonce__write({key}, r, due, said);
           END IF;
           SELECT outcome, changed, CAST(r.revision AS SIGNED), r.state, due, said;
         END"
    );
    let row: Option<mysql_async::Row> =
        RUNTIME.block_on(conn.query_first(&text)).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let row = row.unwrap();
    let changed: bool = row.get(1).unwrap();
    let columns =
        || (row.get(2).unwrap(), row.get(3).unwrap(), row.get(4).unwrap(), row.get(5).unwrap());
    (row.get(0).unwrap(), changed.then(columns))
}

fn class(policy: &Policy) -> String {
    match (policy.on_unknown, policy.receiver.always) {
        (OnUnknown::Retry, Some(_)) => format!("'{}'", policy.class_at(None, NOW)),
        _ => "NULL".to_owned(),
    }
}

#[test]
fn the_procedures_in_sql_do_what_the_core_decides_in_every_cell() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let mut conn = RUNTIME.block_on(connect(&server.url(&name)));
    every_record_reads_back_in_sql_as_it_was_written(&mut conn);
    a_claim_in_sql_does_what_the_core_decides(&mut conn);
    a_completion_in_sql_does_what_the_rust_one_does(&mut conn);
    bytes_that_are_not_what_was_written_are_refused_in_sql(&mut conn);
    RUNTIME.block_on(conn.disconnect()).unwrap();
}

/// Every claim on every state. What only an unverified credential makes differ is not asked: a
/// claim in SQL has none.
fn a_claim_in_sql_does_what_the_core_decides(conn: &mut Conn) {
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
            let (version, digest) = (claim.fingerprint.version(), claim.fingerprint.digest());
            let print = hex(&[&[version], &digest[..]].concat());
            let committing = claim.phase == onlyonce_core::Phase::Committing;
            let carried = claim.key_time.map_or("NULL".to_owned(), |at| at.as_millis().to_string());
            let call = format!(
                "CALL onlyonce__claimed({}, {}, {}, {}, {}, {}, stands, {print}, {}, {committing}, \
                 {carried}, outcome, changed, r);",
                NOW.as_millis(),
                floor.time().as_millis(),
                millis(policy.lease),
                millis(policy.remember),
                millis(policy.skew_max),
                class(&policy),
                hex(claim.claim_id.as_bytes()),
            );
            let told = sql(conn, record.as_ref(), &call);
            assert_eq!(told, rust(&outcome, next), "{name} on {state}\n{call}");
            cells += 1;
        }
    }
    assert!(150 < cells, "{cells}");
}

fn a_completion_in_sql_does_what_the_rust_one_does(conn: &mut Conn) {
    for (state, record) in states().into_iter().chain(others()) {
        let Some(record) = record else { continue };
        let above = Fence::new(NOW.as_millis() + 1).unwrap();
        for fence in [record.fence, world::older(), above, Fence::new(1).unwrap()] {
            for reply in [reply(), onlyonce_core::Reply::not_kept(503)] {
                let policy = Policy::default();
                let done = complete(NOW, &policy, &record, fence, reply.clone());
                let expected = match &done {
                    Ok(next) => rust(&Outcome::Done, Some(next)),
                    Err(outcome) => rust(outcome, None),
                };
                let content = reply.content().map_or("NULL".to_owned(), |it| hex(it));
                let call = format!(
                    "CALL onlyonce__completed({}, {}, {}, stands, {}, {}, {content}, outcome, r);
                     SET changed = outcome = 'done';",
                    NOW.as_millis(),
                    millis(policy.retention),
                    millis(policy.skew_max),
                    fence.get(),
                    reply.status(),
                );
                let told = sql(conn, Some(&record), &call);
                assert_eq!(told, expected, "{state}, {fence:?}\n{call}");
            }
        }
    }
}

/// What is not among the states of the table: histories of every length, all optional parts, times
/// at the ends of what can be named.
fn others() -> Vec<(&'static str, Option<Record>)> {
    use onlyonce_core::{
        Cause, Credential, Doubt, Entry, Event, Evidence, History, Reply, State, Timestamp,
    };
    let entry = |at: u64| Entry {
        at: Timestamp::from_millis(NOW.as_millis() - 1_000_000 + at),
        event: Event::ALL[at as usize % 9],
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
fn every_record_reads_back_in_sql_as_it_was_written(conn: &mut Conn) {
    for (state, record) in states().into_iter().chain(others()) {
        // A claim of another holder is read, and never written.
        let Some(record) = record else { continue };
        let call = "SET r = stands; SET changed = TRUE; SET outcome = 'done';";
        let told = sql(conn, Some(&record), call);
        assert_eq!(told, rust(&Outcome::Done, Some(&record)), "{state}");
    }
}

fn bytes_that_are_not_what_was_written_are_refused_in_sql(conn: &mut Conn) {
    let row = Row::of(id(), &states().remove(1).1.unwrap()).unwrap();
    let mut refused = |key: &[u8], revision: i64, stored: &str| {
        let key = hex(key);
        let text = format!(
            "BEGIN NOT ATOMIC
               DECLARE r {RECORD};
               CALL onlyonce__read({key}, {revision}, {stored}, r);
             END"
        );
        let error = RUNTIME.block_on(conn.query_drop(&text)).unwrap_err();
        let mysql_async::Error::Server(said) = error else { panic!("{error}") };
        said.state
    };
    let key = id();
    assert_eq!(refused(&[8; 16], row.revision, &hex(&row.bytes)), "XX001");
    assert_eq!(refused(key.as_bytes(), row.revision + 1, &hex(&row.bytes)), "XX001");
    for at in 0..row.bytes.len() {
        let mut wrong = row.bytes.clone();
        wrong[at] ^= 1;
        assert_eq!(refused(key.as_bytes(), row.revision, &hex(&wrong)), "XX001", "byte {at}");
    }
    let mut newer = row.bytes[4..].to_vec();
    newer[0] = 4 << 4 | 1;
    let newer = hex(&newer);
    let summed = format!("CONCAT(REVERSE(UNHEX(LPAD(HEX(CRC32C({newer})), 8, '0'))), {newer})");
    assert_eq!(refused(key.as_bytes(), row.revision, &summed), "0A000");
}
