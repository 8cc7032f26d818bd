//! A process that has run out of file handles. Alone in its program, since the limit is everyone's.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::fs;

use bytes::Bytes;
use futures_executor::block_on;
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, KeyId, Next, Phase, Policy, Record, Reply,
    Timestamp, decide,
};
use onlyonce_journal::{Journal, Settings, Start};
use onlyonce_store::{Store, Swap};

const SMALL: Settings = Settings { segment_bytes: 128 << 10, disk_max: None };

fn written(record: Option<&Record>, command: &Command) -> Record {
    let now = Timestamp::from_millis(1_764_000_000_000);
    match decide(now, Floor::NONE, &Policy::default(), record, command).next {
        Next::Write(record) => record,
        other @ (Next::Keep | Next::Delete) => panic!("{other:?}"),
    }
}

fn claim() -> Record {
    let claim = Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([1; 16]),
        holder: Holder::default(),
        key_time: None,
        credential: None,
        phase: Phase::Committing,
    };
    written(None, &Command::Claim(claim))
}

/// Claims a key and answers it.
fn pair(journal: &Journal, number: u8) {
    let first = claim();
    let reply = Reply::kept(201, Bytes::from(vec![7; 10_000]));
    let second = written(Some(&first), &Command::Complete { fence: first.fence, reply });
    for (before, next) in [(None, &first), (Some(first.revision), &second)] {
        let id = KeyId::from_bytes([number; 16]);
        assert_eq!(block_on(journal.swap(id, before, Some(next.clone()))).unwrap(), Swap::Done);
    }
}

#[test]
fn a_process_without_free_file_handles_goes_on_in_the_next_segment() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let folder = tempfile::tempdir().unwrap();
    let journal = {
        let dir = folder.path().join("journal");
        Journal::init(&dir, SMALL, Start::First).unwrap();
        Journal::open(&dir, SMALL).unwrap()
    };
    // The first write has the next segment prepared.
    pair(&journal, 1);
    while !folder.path().join("journal/0000000002.log.new").exists() {
        std::thread::yield_now();
    }
    let limit = getrlimit(Resource::Nofile);
    let mut taken = Vec::new();
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..limit }).unwrap();
    while let Ok(file) = fs::File::open("/dev/null") {
        taken.push(file);
    }
    for number in 2..14 {
        pair(&journal, number);
    }
    drop(taken);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(journal.stats().segments, 2);
}
