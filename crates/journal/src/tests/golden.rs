//! The format byte for byte: `docs/record-format.hex` holds a small segment and its snapshot, and a
//! shelf and the list of shelves.
//!
//! The file is what was decided. A change of a byte fails here until it is written anew on purpose
//! (`cargo xtask docs`), and what was written by an older program must open even then.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_executor::block_on;
use onlyonce_core::{
    Cause, ClaimId, Credential, Doubt, Entry, Event, Evidence, Fence, Fingerprint, Flight, Floor,
    History, Holder, KeyId, Phase, Record, Reply, ReplyDigest, Revision, State, Timestamp,
};
use onlyonce_store::{Store as _, codec};

use super::sim_disk::SimDisk;
use super::{SMALL, get, id, open};
use crate::disk::Disk as _;
use crate::entry::{self, Position};
use crate::filter;
use crate::keeper;
use crate::segment::{self, Header};
use crate::shelf::{self, Shelf};
use crate::shelf_builder::Builder;
use crate::shelves::{self, Shelves};
use crate::snapshot::{self, Snapshot};

const HEX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/record-format.hex");
const HEAD: &str = "# A segment and its snapshot, a shelf and the list of shelves, byte for byte:\n\
                    # see record-format.md. Compared by crates/journal/src/tests/golden.rs,\n\
                    # written by `cargo xtask docs`.\n";
const SNAPSHOT: &str = "# its snapshot";
const SHELF: &str = "# a shelf: header";
const LIST: &str = "# the list of shelves";
/// The shelf's number.
const SHELVED: u64 = 3;
const NUMBER: u64 = 7;
const DELETED: u64 = 100;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + millis)
}

fn fence(millis: u64) -> Fence {
    Fence::new(at(millis).as_millis()).unwrap()
}

fn header() -> Header {
    let previous = Position { segment: NUMBER - 1, offset: 4_242 };
    let (floor, revision_max) = (Floor::at(at(0)), at(2).as_millis());
    Header { number: NUMBER, previous, floor, revision_max }
}

/// A first attempt, with what every request has.
fn first(state: State) -> Record {
    Record {
        revision: Revision::new(at(300).as_millis()).unwrap(),
        fingerprint: Some(Fingerprint::new(1, [0xF1; 32])),
        credential: None,
        first_fence: fence(200),
        fence: fence(200),
        attempt: 1,
        first_commit_at: None,
        runs_authorised: 0,
        rerun: false,
        key_time: None,
        evidence: None,
        history: History::default(),
        state,
    }
}

/// A second attempt, with everything that a record can have.
fn second(state: State) -> Record {
    let (by, why) = ("anna".to_owned(), "nobody knows".to_owned());
    let entry = Entry { at: at(150), event: Event::ResolvedRunAgain, fence: fence(100), by, why };
    Record {
        credential: Some(Credential::from_bytes([0xC2; 16])),
        first_fence: fence(100),
        attempt: 2,
        first_commit_at: Some(at(110)),
        runs_authorised: 1,
        rerun: true,
        key_time: Some(at(90)),
        evidence: Evidence::new(&b"charge-1"[..]),
        history: History::from_entries(vec![entry]),
        ..first(state)
    }
}

fn erased(record: Record) -> Record {
    let (by, why) = ("olga".to_owned(), "ticket 4711".to_owned());
    let entry = Entry { at: at(300), event: Event::Erased, fence: fence(200), by, why };
    Record { history: History::from_entries(vec![entry]), ..record }
}

/// As [`flight`], with all that format 3 says of a holder.
fn timed(state: State) -> State {
    let State::InFlight(flight) = state else { panic!("{state:?}") };
    let holder = Holder { time_namespace: 0xB4B4_B4B4, ..flight.holder };
    State::InFlight(Flight { holder, ..flight })
}

fn alarmed(record: Record) -> Record {
    let (by, why) = ("holder".to_owned(), "another answer, with 500".to_owned());
    let entry = Entry { at: at(300), event: Event::SecondReply, fence: fence(200), by, why };
    Record { history: History::from_entries(vec![entry]), ..record }
}

fn flight(phase: Phase, inherited: Option<Doubt>) -> State {
    State::InFlight(Flight {
        claim_id: ClaimId::from_bytes([0xA1; 16]),
        holder: Holder {
            host: [0xB1; 8],
            boot: [0xB2; 16],
            pid_namespace: 0xB3B3_B3B3,
            pid: 4_711,
            started: 123_456,
            time_namespace: 0,
        },
        lease_until: at(30_200),
        phase,
        inherited,
    })
}

fn completed(reply: Reply, sealed: bool) -> State {
    let (answered_at, retain_until) = (at(300), at(86_400_300));
    State::Completed { reply, answered_at, retain_until, sealed }
}

/// A record of every state, with what it is called. The keys are their places.
fn records() -> Vec<(&'static str, Record)> {
    let doubt = Doubt { since: at(120), cause: Cause::TimedOut, only: None };
    let only = Doubt { only: Some(fence(200)), ..doubt };
    let digest = ReplyDigest::from_bytes([0xD1; 8]);
    let (answered_at, forget_at, sealed) = (at(250), at(2_592_000_250), false);
    let tombstone = State::Tombstone { answered_at, status: 201, forget_at, sealed, digest };
    vec![
        ("in flight, prepared", first(flight(Phase::Prepared, None))),
        ("in flight, committing, all parts", second(flight(Phase::Committing, Some(doubt)))),
        ("released", first(State::Released { since: at(250) })),
        ("completed", first(completed(Reply::kept(201, "order 7829"), false))),
        ("completed, not kept, all parts", second(completed(Reply::not_kept(200), false))),
        ("sealed", first(completed(Reply::kept(409, "cancelled"), true))),
        ("unknown", first(State::Unknown(only))),
        ("tombstone", first(tombstone)),
        ("completed, then erased", erased(first(completed(Reply::not_kept(201), false)))),
        ("in flight, its time namespace known", first(timed(flight(Phase::Committing, None)))),
        ("completed, another answer", {
            alarmed(first(completed(Reply::kept(201, "order 7829"), false)))
        }),
    ]
}

fn put(page: &mut String, title: &str, bytes: &[u8]) {
    let _ = write!(page, "\n{title}\n");
    for line in bytes.chunks(32) {
        for byte in line {
            let _ = write!(page, "{byte:02x}");
        }
        page.push('\n');
    }
}

/// What the program writes now.
fn page() -> String {
    let mut page = String::from(HEAD);
    let mut bytes = header().bytes().to_vec();
    put(&mut page, "# header", &bytes);
    let mut add = |title: &str, payload: &[u8]| {
        let from = bytes.len();
        entry::append(&mut bytes, NUMBER, 0, payload);
        put(&mut page, &format!("# {title}"), &bytes[from..]);
    };
    let synced = Position { segment: NUMBER, offset: segment::HEADER as u64 };
    add("a mark", &entry::mark(synced));
    add("the floor", &entry::floor(Floor::at(at(50))));
    let mut payload = Vec::new();
    for (number, (title, record)) in records().iter().enumerate() {
        payload.clear();
        codec::encode(id(number as u64), record, &mut payload);
        add(title, &payload);
    }
    let deleted = Revision::new(at(10).as_millis()).unwrap();
    add("a deletion", &entry::deleted(id(DELETED), deleted));
    let disk = disk_with(bytes);
    put(&mut page, SNAPSHOT, &snapshot_on(&disk));
    put_shelf(&mut page);
    page
}

/// Two tombstones; the second counts no more.
fn tombstones() -> Vec<(KeyId, Record)> {
    let (answered_at, forget_at, sealed) = (at(260), at(2_592_000_260), true);
    let digest = ReplyDigest::from_bytes([0xD2; 8]);
    let state = State::Tombstone { answered_at, status: 0, forget_at, sealed, digest };
    let (_, tombstone) = records().into_iter().find(|(title, _)| *title == "tombstone").unwrap();
    let mut both = vec![(id(200), tombstone), (id(201), second(state))];
    both.sort_by_key(|(id, _)| *id);
    both
}

fn shelf_on(disk: &SimDisk) -> Vec<u8> {
    let mut builder = Builder::new(disk, SHELVED, 2).unwrap();
    for (id, record) in tombstones() {
        let mut payload = Vec::new();
        codec::encode(id, &record, &mut payload);
        builder.add(id, &payload, record.revision.get(), segment::due(&record)).unwrap();
    }
    builder.finish().unwrap();
    disk.open(&shelf::name(SHELVED)).unwrap().read_all().unwrap()
}

fn list(disk: &SimDisk) -> Vec<u8> {
    let shelf = Shelf::open(disk, SHELVED, &[]).unwrap();
    shelf.set_gone(1);
    let shelves = Shelves::default().with(Some(Arc::new(shelf)), &[]);
    shelves::bytes(&shelves.listed())
}

fn put_shelf(page: &mut String) {
    let disk = SimDisk::default();
    let bytes = shelf_on(&disk);
    let end = bytes.len() - shelf::FOOTER;
    let fences = end - filter::LINE - shelf::FENCE;
    put(page, SHELF, &bytes[..shelf::HEADER]);
    put(page, "# its block", &bytes[shelf::HEADER..fences]);
    put(page, "# its fence", &bytes[fences..end - filter::LINE]);
    put(page, "# its filter", &bytes[end - filter::LINE..end]);
    put(page, "# its end", &bytes[end..]);
    put(page, LIST, &list(&disk));
}

fn disk_with(mut bytes: Vec<u8>) -> SimDisk {
    let disk = SimDisk::default();
    bytes.resize(SMALL.segment_bytes as usize, 0);
    let medium = keeper::zeros(&disk, &segment::name(NUMBER), SMALL.segment_bytes).unwrap();
    medium.write_at(&bytes, 0).unwrap();
    medium.sync().unwrap();
    disk
}

/// The snapshot that belongs to the segment on `disk`.
fn snapshot_on(disk: &SimDisk) -> Vec<u8> {
    let scan = segment::scan(disk, NUMBER).unwrap();
    snapshot::write(disk, &Snapshot::of(&scan)).unwrap();
    disk.open(&snapshot::name(NUMBER)).unwrap().read_all().unwrap()
}

/// The bytes of segment and snapshot in the file, and of shelf and list.
fn decided() -> [Vec<u8>; 4] {
    let page = std::fs::read_to_string(HEX).unwrap();
    let bytes = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let digits: Vec<char> = lines.flat_map(str::chars).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect::<Vec<u8>>()
    };
    let (segment, rest) = page.split_once(SNAPSHOT).unwrap();
    let (snapshot, rest) = rest.split_once(SHELF).unwrap();
    let (shelf, list) = rest.split_once(LIST).unwrap();
    [segment, snapshot, shelf, list].map(bytes)
}

fn is_blessed() -> bool {
    std::env::var_os("ONLYONCE_BLESS").is_some()
}

#[test]
fn every_byte_is_written_as_the_page_says() {
    if is_blessed() {
        return std::fs::write(HEX, page()).unwrap();
    }
    let (page, written) = (std::fs::read_to_string(HEX).unwrap(), page());
    let differing = page.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert_eq!(differing, None, "docs/record-format.hex says the first, the journal the second");
    assert_eq!(page.len(), written.len());
}

#[test]
fn a_segment_of_these_bytes_opens_and_reads_back() {
    if is_blessed() {
        return;
    }
    let [segment, snapshot, ..] = decided();
    let disk = disk_with(segment.clone());
    let journal = open(&disk).unwrap();
    for (number, (title, record)) in records().into_iter().enumerate() {
        assert_eq!(get(&journal, number as u64), Some(record), "{title}");
    }
    assert_eq!(get(&journal, DELETED), None);
    assert_eq!(block_on(journal.floor()).unwrap(), Floor::at(at(50)));
    assert_eq!(block_on(journal.revision_max()).unwrap(), at(300).as_millis());
    assert_eq!((journal.cut(), journal.stats().keys), (0, records().len()));
    journal.close();
    let scan = segment::scan(&disk, NUMBER).unwrap();
    assert_eq!(scan.header, header());
    assert_eq!((scan.end, scan.broken), (segment.len() as u64, None));
    assert_eq!(scan.synced, Position { segment: NUMBER, offset: segment::HEADER as u64 });
    assert_eq!(scan.all[..segment.len()], Bytes::from(segment), "opening changes nothing");
    // The snapshot is understood too, and says the same.
    disk.create(&snapshot::name(NUMBER)).unwrap().write_at(&snapshot, 0).unwrap();
    let read = snapshot::read(&disk, NUMBER, scan.end).unwrap();
    assert_eq!(read, Snapshot::of(&scan));
}

#[test]
fn a_shelf_of_these_bytes_opens_and_reads_back() {
    if is_blessed() {
        return;
    }
    let [segment, _, shelf, list] = decided();
    let disk = disk_with(segment);
    for (name, bytes) in [(shelf::name(SHELVED), &shelf), (shelves::LIST_FILE.to_owned(), &list)] {
        disk.create(&name).unwrap().write_at(bytes, 0).unwrap();
    }
    let journal = open(&disk).unwrap();
    let [(first, kept), (second, _)] = tombstones().try_into().unwrap();
    assert_eq!(block_on(journal.get(first)).unwrap(), Some(kept));
    assert_eq!(block_on(journal.get(second)).unwrap(), None);
    assert_eq!(journal.stats().shelved, 1);
    journal.close();
    let read = |name: &str| disk.open(name).unwrap().read_all().unwrap();
    assert_eq!((read(&shelf::name(SHELVED)), read(shelves::LIST_FILE)), (shelf, list));
}
