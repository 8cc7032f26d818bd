//! A process that has run out of file handles. Alone in its program, since the limit is everyone's.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;

use std::fs;

use onlyonce_journal::{Journal, Start};

use common::{SMALL, pair};

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
    pair(&journal, 1, 10_000);
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
        pair(&journal, number, 10_000);
    }
    drop(taken);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(journal.stats().segments, 2);
}
