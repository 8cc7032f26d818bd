//! Changing the key loses nothing, wherever it ends and whoever writes meanwhile.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_executor::block_on;
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, KeyId, Next, Phase, Policy, Record, Reply,
    Revision, State, Timestamp, decide,
};
use onlyonce_store::transaction::NAMES;
use onlyonce_store::{
    BoxFuture, Filter, MemoryStore, Page, Store, StoreError, StoreErrorKind, Swap,
};
use onlyonce_vault::{EVERY, Encrypted, Keyring, Names, PLAIN, QUIET, Settled, Turned};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);
/// More than three pages of a pass.
const KEYS: u8 = 100;

/// A store that outlives those who use it, and that fails after some writes.
#[derive(Clone, Default)]
struct Shared {
    store: Arc<MemoryStore>,
    /// So many more writes take place before one is refused; `usize::MAX` refuses none.
    writes: Arc<AtomicUsize>,
    /// What somebody else writes right before the next write.
    meanwhile: Arc<Mutex<Option<(KeyId, Revision, Record)>>>,
}

impl Shared {
    fn new() -> Self {
        let shared = Self::default();
        shared.writes.store(usize::MAX, Ordering::SeqCst);
        shared
    }
}

impl Store for Shared {
    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(async move {
            let meanwhile = self.meanwhile.lock().unwrap().take();
            if let Some((id, revision, record)) = meanwhile {
                self.store.swap(id, Some(revision), Some(record)).await?;
            }
            let left = self.writes.load(Ordering::SeqCst);
            if left == 0 {
                return Err(StoreError::new(StoreErrorKind::Poisoned, "the power went out"));
            }
            self.writes.store(left - 1, Ordering::SeqCst);
            self.store.swap(id, expected, next).await
        })
    }

    fn is_exclusive(&self) -> bool {
        true
    }

    onlyonce_conformance::hands_on!(
        store: get, floor, raise_floor, revision_max, due, list, reply_max
    );
}

/// A key file with these keys, each a digit.
fn keys(digits: &str) -> Keyring {
    let lines: Vec<String> = digits.chars().map(|it| it.to_string().repeat(64)).collect();
    Keyring::parse(&lines.join("\n")).unwrap()
}

fn name(digit: &str) -> String {
    keys(digit).newest()
}

fn vault(shared: &Shared, digits: &str) -> Encrypted {
    Encrypted::new(Arc::new(shared.clone()), keys(digits))
}

fn id(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn reply(number: u8) -> Reply {
    Reply::kept(201, vec![number; 200])
}

/// Does to a key what the engine does, and says what stands there then.
fn act(store: &dyn Store, number: u8, command: &Command) -> Record {
    let before = block_on(store.get(id(number))).unwrap();
    let decision = decide(NOW, Floor::NONE, &Policy::default(), before.as_ref(), command);
    let Next::Write(next) = decision.next else { return before.unwrap() };
    let expected = before.map(|record| record.revision);
    let swap = block_on(store.swap(id(number), expected, Some(next.clone()))).unwrap();
    assert_eq!(swap, Swap::Done);
    next
}

fn claim(store: &dyn Store, number: u8) -> Record {
    let claim = Claim {
        fingerprint: Fingerprint::new(1, [7; 32]),
        claim_id: ClaimId::from_bytes([number; 16]),
        holder: Holder::default(),
        key_time: None,
        credential: None,
        phase: Phase::Committing,
    };
    act(store, number, &Command::Claim(claim))
}

fn answer(store: &dyn Store, number: u8) -> Record {
    let fence = claim(store, number).fence;
    act(store, number, &Command::Complete { fence, reply: reply(number) })
}

/// From the first page to the last, or to the first that fails.
fn pass(vault: &Encrypted) -> Result<Turned, StoreError> {
    let mut all = block_on(vault.renew(None))?;
    while let Some(next) = all.next.take() {
        all.and(block_on(vault.renew(Some(next)))?);
    }
    Ok(all)
}

/// All kept answers, by who has these keys; with nothing else of the records changed.
fn are_read(shared: &Shared, digits: &str, before: &[Record]) {
    let vault = vault(shared, digits);
    for (number, before) in (0..KEYS).zip(before) {
        let now = block_on(vault.get(id(number))).unwrap().unwrap();
        assert!(before.revision <= now.revision);
        assert_eq!(Record { revision: before.revision, ..now }, *before, "key {number}");
    }
}

#[test]
fn after_a_pass_the_old_keys_can_be_dropped() {
    let shared = Shared::new();
    let mut before: Vec<Record> = (0..30).map(|it| answer(&*shared.store, it)).collect();
    before.extend((30..60).map(|it| answer(&vault(&shared, "1"), it)));
    before.extend((60..KEYS).map(|it| answer(&vault(&shared, "21"), it)));
    let latest = vault(&shared, "321");
    let found = [(PLAIN.to_owned(), 30), (name("1"), 30), (name("2"), 40)].into();
    let all = pass(&latest).unwrap();
    assert_eq!((all.found, all.renewed, all.unread), (found, 100, Vec::new()));
    are_read(&shared, "3", &before);
    let again = pass(&latest).unwrap();
    assert_eq!((again.found, again.renewed), ([(name("3"), 100)].into(), 0), "nothing is left");
}

#[test]
fn a_pass_that_ends_anywhere_has_lost_nothing_and_is_taken_up_again() {
    for writes in [0, 1, 31, 32, 33, 70, 99] {
        let shared = Shared::new();
        let before: Vec<Record> = (0..KEYS).map(|it| answer(&vault(&shared, "1"), it)).collect();
        shared.writes.store(writes, Ordering::SeqCst);
        pass(&vault(&shared, "21")).unwrap_err();
        shared.writes.store(usize::MAX, Ordering::SeqCst);
        are_read(&shared, "21", &before);
        let rest = pass(&vault(&shared, "21")).unwrap();
        assert_eq!((rest.renewed, rest.unread), (100 - writes as u64, Vec::new()));
        are_read(&shared, "2", &before);
    }
}

#[test]
fn a_claim_that_is_held_meanwhile_is_not_touched_and_completes() {
    let shared = Shared::new();
    let old = vault(&shared, "1");
    let held = claim(&old, 1);
    answer(&old, 2);
    let new = vault(&shared, "21");
    assert_eq!(pass(&new).unwrap().renewed, 1);
    assert_eq!(block_on(new.get(id(1))).unwrap(), Some(held.clone()), "not even its revision");
    act(&new, 1, &Command::Complete { fence: held.fence, reply: reply(1) });
    for number in [1, 2] {
        let read = block_on(vault(&shared, "2").get(id(number))).unwrap().unwrap();
        assert!(matches!(&read.state, State::Completed { reply: it, .. } if *it == reply(number)));
    }
}

#[test]
fn what_somebody_else_writes_meanwhile_stands() {
    let shared = Shared::new();
    let answered = answer(&vault(&shared, "1"), 1);
    let erase = Command::Erase { by: "olga".to_owned(), why: "asked for".to_owned() };
    let erased = decide(NOW, Floor::NONE, &Policy::default(), Some(&answered), &erase);
    let Next::Write(erased) = erased.next else { panic!("{erased:?}") };
    *shared.meanwhile.lock().unwrap() = Some((id(1), answered.revision, erased));
    let all = pass(&vault(&shared, "21")).unwrap();
    assert_eq!((all.renewed, all.unread), (0, Vec::new()));
    let record = block_on(vault(&shared, "2").get(id(1))).unwrap().unwrap();
    assert!(record.is_erased(), "an erased answer does not come back: {record:?}");
}

#[test]
fn what_cannot_be_opened_stays_and_is_named() {
    let shared = Shared::new();
    for number in [1, 2, 3] {
        answer(&vault(&shared, "1"), number);
    }
    let lost = answer(&vault(&shared, "4"), 9);
    let stored = block_on(shared.get(id(9))).unwrap();
    let all = pass(&vault(&shared, "21")).unwrap();
    assert_eq!((all.renewed, all.answers(), all.plain()), (3, 4, 0));
    let [(unread, error)] = &all.unread[..] else { panic!("{:?}", all.unread) };
    assert_eq!(*unread, id(9));
    assert!(error.to_string().contains(&name("4")), "{error}");
    assert_eq!(block_on(shared.get(id(9))).unwrap(), stored);
    assert_eq!(block_on(vault(&shared, "24").get(id(9))).unwrap(), Some(lost));
}

#[test]
fn a_listing_shows_what_opens_and_names_what_does_not() {
    let shared = Shared::new();
    let told = answer(&vault(&shared, "1"), 1);
    answer(&vault(&shared, "4"), 9);
    let Page { records, damaged, .. } =
        block_on(vault(&shared, "1").list(Filter { state: None, limit: 0 }, None)).unwrap();
    assert_eq!(records, [(id(1), told)]);
    let [(unread, error)] = &damaged[..] else { panic!("{damaged:?}") };
    assert_eq!((*unread, error.kind()), (id(9), StoreErrorKind::Damaged));
}

#[test]
fn the_largest_answer_still_fits_when_it_is_encrypted() {
    let shared = Shared::new();
    let (vault, largest) = (vault(&shared, "1"), vault(&shared, "1").reply_max());
    let fence = claim(&vault, 1).fence;
    let reply = Reply::kept(201, vec![7; largest]);
    act(&vault, 1, &Command::Complete { fence, reply });
    let stored = block_on(shared.get(id(1))).unwrap().unwrap();
    let State::Completed { reply, .. } = stored.state else { panic!("{stored:?}") };
    assert!(largest < reply.content().unwrap().len());
    assert!(reply.content().unwrap().len() <= shared.reply_max());
}

/// What stands in a store in which these have named their keys, and a third says something then.
fn named(third: &str, at: Timestamp) -> Record {
    let shared = Shared::new();
    for name in ["one", "two"] {
        block_on(Names::begin(&shared, name, NOW)).unwrap();
    }
    block_on(Names::begin(&shared, third, at)).unwrap();
    block_on(shared.get(NAMES)).unwrap().unwrap()
}

#[test]
fn who_names_a_key_meanwhile_is_not_forgotten() {
    let meanwhile = |third: &str, at: Timestamp| {
        let shared = Shared::new();
        for name in ["one", "two"] {
            block_on(Names::begin(&shared, name, NOW)).unwrap();
        }
        let read = block_on(shared.get(NAMES)).unwrap().unwrap().revision;
        *shared.meanwhile.lock().unwrap() = Some((NAMES, read, named(third, at)));
        shared
    };
    let shared = meanwhile("three", NOW);
    let names = block_on(Names::begin(&shared, "four", NOW)).unwrap();
    assert_eq!(names.iter().collect::<Vec<_>>(), ["one", "two", "three", "four"]);
    assert_eq!(block_on(Names::read(&shared)), Ok(names));
    // While names are taken away.
    let began = NOW.plus(QUIET);
    let shared = meanwhile("one", began.plus(EVERY));
    let settled = block_on(Names::settle(&shared, "two", began)).unwrap();
    assert!(matches!(settled, Settled::Used(used) if used.name == "one"));
    assert_eq!(block_on(Names::read(&shared)).unwrap().iter().count(), 2);
}
