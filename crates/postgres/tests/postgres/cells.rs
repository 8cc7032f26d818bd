//! The functions in SQL are held to the core: every cell of the table that they can meet, and the
//! bytes of every record that they may be given.

use onlyonce_core::{Command, Decision, Fence, Next, OnUnknown, Outcome, Policy, Record, decide};
use onlyonce_store::Row;
use onlyonce_store::transaction::complete;
use onlyonce_testbed::Postgres as Server;
use tokio_postgres::{Client, NoTls};

use crate::common::{RUNTIME, database, init};

#[allow(dead_code, unreachable_pub, reason = "the core's own tests use all of it")]
#[path = "../../../core/tests/world/mod.rs"]
mod world;

use world::{NOW, commands, record, reply, states};

fn id() -> onlyonce_core::KeyId {
    onlyonce_core::KeyId::from_bytes([7; 16])
}

fn client(server: &Server, database: &str) -> Client {
    let connected = RUNTIME.block_on(tokio_postgres::connect(&server.url(database), NoTls));
    let (client, connection) = connected.unwrap();
    RUNTIME.spawn(connection);
    client
}

/// A millisecond number as SQL takes it.
fn number(millis: u64) -> String {
    format!("{millis}::numeric")
}

fn bytes(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{hex}'::bytea")
}

/// The record as SQL reads it from a row.
fn found(record: Option<&Record>) -> String {
    let Some(record) = record else { return "NULL::onlyonce._record".to_owned() };
    let row = Row::of(id(), record).unwrap();
    let (key, stored) = (bytes(id().as_bytes()), bytes(&row.bytes));
    format!("onlyonce._read({key}, {}, {stored})", row.revision)
}

fn millis(duration: std::time::Duration) -> String {
    number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What a row would hold: the outcome, the columns and the bytes; or the outcome alone.
type Told = (String, Option<(i64, i16, i64, Vec<u8>)>);

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
        (row.revision, row.state, row.due_at, row.bytes)
    });
    (name.to_owned(), row)
}

fn sql(client: &Client, changed: &str, call: &str) -> Told {
    let key = bytes(id().as_bytes());
    let text = format!(
        "SELECT outcome, {changed}, (r).revision::int8, (r).state::int2, \
         CASE WHEN {changed} THEN onlyonce._due_at(r) END, \
         CASE WHEN {changed} THEN onlyonce._write({key}, r) END FROM {call} it"
    );
    let row = RUNTIME.block_on(client.query_one(&text, &[])).unwrap_or_else(|error| {
        panic!("{error}: {:?}\n{text}", error.as_db_error());
    });
    let changed: bool = row.get(1);
    let columns = || (row.get(2), row.get(3), row.get(4), row.get(5));
    (row.get(0), changed.then(columns))
}

fn class(policy: &Policy) -> String {
    match (policy.on_unknown, policy.receiver.always) {
        (OnUnknown::Retry, Some(_)) => {
            format!("'{}'", policy.class_at(None, NOW))
        }
        _ => "NULL".to_owned(),
    }
}

#[test]
fn the_functions_in_sql_do_what_the_core_decides_in_every_cell() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let client = client(&server, &name);
    a_claim_in_sql_does_what_the_core_decides(&client);
    a_completion_in_sql_does_what_the_rust_one_does(&client);
    every_record_reads_back_in_sql_as_it_was_written(&client);
    bytes_that_are_not_what_was_written_are_refused_in_sql(&client);
}

/// Every claim on every state. What only an unverified credential makes differ is not asked: a
/// claim in SQL has none.
fn a_claim_in_sql_does_what_the_core_decides(client: &Client) {
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
            let print = bytes(&[&[version], &digest[..]].concat());
            let committing = claim.phase == onlyonce_core::Phase::Committing;
            let carried = claim.key_time.map_or("NULL".to_owned(), |at| number(at.as_millis()));
            let call = format!(
                "onlyonce._claim({}, {}, {}, {}, {}, {}, {}, {print}, {}, {committing}, {carried})",
                number(NOW.as_millis()),
                number(floor.time().as_millis()),
                millis(policy.lease),
                millis(policy.remember),
                millis(policy.skew_max),
                class(&policy),
                found(record.as_ref()),
                bytes(claim.claim_id.as_bytes()),
            );
            let told = sql(client, "changed", &call);
            assert_eq!(told, rust(&outcome, next), "{name} on {state}\n{call}");
            cells += 1;
        }
    }
    assert!(150 < cells, "{cells}");
}

fn a_completion_in_sql_does_what_the_rust_one_does(client: &Client) {
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
                let content = reply.content().map_or("NULL".to_owned(), |it| bytes(it));
                let call = format!(
                    "onlyonce._complete({}, {}, {}, {}, {}, {}, {content})",
                    number(NOW.as_millis()),
                    millis(policy.retention),
                    millis(policy.skew_max),
                    found(Some(&record)),
                    number(fence.get()),
                    reply.status(),
                );
                let told = sql(client, "(outcome = 'done')", &call);
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
    vec![
        ("all there is", Some(all)),
        ("a history of one", Some(Record { history: history(1), ..record(unknown(None)) })),
        ("a history of fifteen", Some(Record { history: history(15), ..record(unknown(None)) })),
        ("no key time", {
            Some(Record { key_time: None, first_commit_at: None, ..record(ends(Timestamp::MAX)) })
        }),
        ("due at once", Some(record(ends(Timestamp::from_millis(0))))),
        ("long answer", Some(record(completed(Timestamp::MAX)))),
        ("long answer, over", Some(record(completed(NOW)))),
        ("no answer kept, over", {
            let reply = Reply::not_kept(201);
            let (answered_at, retain_until, sealed) = (NOW, NOW, true);
            Some(record(State::Completed { reply, answered_at, retain_until, sealed }))
        }),
    ]
}

/// Nothing is lost between the bytes and the parts, whatever the record.
fn every_record_reads_back_in_sql_as_it_was_written(client: &Client) {
    for (state, record) in states().into_iter().chain(others()) {
        // A claim of another holder is read, and never written.
        let Some(record) = record else { continue };
        let row = Row::of(id(), &record).unwrap();
        let key = bytes(id().as_bytes());
        let text = format!(
            "SELECT onlyonce._write({key}, r), onlyonce._due_at(r) FROM {} r",
            found(Some(&record))
        );
        let told = RUNTIME.block_on(client.query_one(&text, &[])).unwrap();
        assert_eq!(
            (told.get::<_, Vec<u8>>(0), told.get::<_, i64>(1)),
            (row.bytes, row.due_at),
            "{state}"
        );
    }
}

fn bytes_that_are_not_what_was_written_are_refused_in_sql(client: &Client) {
    let row = Row::of(id(), &states().remove(1).1.unwrap()).unwrap();
    let refused = |key: &[u8], revision: i64, stored: &[u8]| {
        let (key, stored) = (bytes(key), bytes(stored));
        let text = format!("SELECT onlyonce._read({key}, {revision}, {stored}) IS NULL");
        let error = RUNTIME.block_on(client.query_one(&text, &[])).unwrap_err();
        error.code().unwrap().code().to_owned()
    };
    let key = id();
    assert_eq!(refused(&[8; 16], row.revision, &row.bytes), "XX001");
    assert_eq!(refused(key.as_bytes(), row.revision + 1, &row.bytes), "XX001");
    for at in 0..row.bytes.len() {
        let mut wrong = row.bytes.clone();
        wrong[at] ^= 1;
        assert_eq!(refused(key.as_bytes(), row.revision, &wrong), "XX001", "byte {at}");
    }
    let mut newer = row.bytes[4..].to_vec();
    newer[0] = 4 << 4 | 1;
    let sum = format!("SELECT onlyonce._checksum({})", bytes(&newer));
    let sum: Vec<u8> = RUNTIME.block_on(client.query_one(&sum, &[])).unwrap().get(0);
    let newer = [sum, newer].concat();
    assert_eq!(refused(key.as_bytes(), row.revision, &newer), "0A000");
}
