//! Records as the core makes them, for cases to write.

use bytes::Bytes;
use onlyonce_core::{
    Cause, Claim, ClaimId, Command, Credential, Evidence, Fingerprint, Floor, Holder, KeyId, Next,
    Phase, Policy, Record, Reply, Timestamp, decide,
};

/// Cases begin at this time, in milliseconds.
const BEGIN: u64 = 1_764_000_000_000;

/// A key id for each number, spread as digests are.
pub fn id(number: u64) -> KeyId {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mixed.to_be_bytes());
    bytes[8..].copy_from_slice(&mixed.rotate_left(29).to_be_bytes());
    KeyId::from_bytes(bytes)
}

fn write(record: Option<&Record>, at: u64, command: &Command) -> Record {
    let now = Timestamp::from_millis(BEGIN + at);
    match decide(now, Floor::NONE, &Policy::default(), record, command).next {
        Next::Write(record) => record,
        other @ (Next::Keep | Next::Delete) => unreachable!("{other:?}"),
    }
}

/// What a claim at `at` milliseconds after the beginning writes.
pub fn claimed(at: u64) -> Record {
    let claim = Claim {
        fingerprint: Fingerprint::new(1, [at as u8; 32]),
        claim_id: ClaimId::from_bytes([at as u8; 16]),
        holder: Holder { pid: 7, ..Holder::default() },
        key_time: Some(Timestamp::from_millis(BEGIN)),
        credential: Some(Credential::from_bytes([3; 16])),
        phase: Phase::Committing,
    };
    write(None, at, &Command::Claim(claim))
}

/// What its completion writes.
pub fn answered(record: &Record, at: u64, content: impl Into<Bytes>) -> Record {
    let evidence = Evidence::new(Bytes::from_static(b"charge-1")).unwrap();
    let noted = write(Some(record), at, &Command::Note { fence: record.fence, evidence });
    let reply = Reply::kept(201, content.into());
    write(Some(&noted), at, &Command::Complete { fence: record.fence, reply })
}

/// What its release writes.
pub fn released(record: &Record, at: u64) -> Record {
    write(Some(record), at, &Command::Release { fence: record.fence, stranger: false })
}

/// What giving it up in doubt writes.
pub fn in_doubt(record: &Record, at: u64) -> Record {
    let cause = Cause::ConnectionLost;
    write(Some(record), at, &Command::Abandon { fence: record.fence, cause })
}

/// What is left of an answered record once its reply has been dropped.
pub fn tombstone(record: &Record) -> Record {
    let day = 86_400_000;
    let answered = answered(record, 1, "gone");
    write(Some(&answered), 2 * day, &Command::Sweep)
}
