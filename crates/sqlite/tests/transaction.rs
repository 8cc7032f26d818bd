//! Claims and completions in the caller's own transaction: what happens, happens with its record.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use futures_executor::block_on;
use onlyonce_conformance::claimed;
use onlyonce_core::{
    Fence, Floor, Key, KeyId, Policy, Reply, Revision, Scope, State, StateKind, Timestamp,
};
use onlyonce_sqlite::{Claimed, Request, Sqlite, Transactions, TxError, TxErrorKind};
use onlyonce_store::transaction::{MARK, NAMES};
use onlyonce_store::{Store as _, Swap};
use rusqlite::TransactionBehavior::{self, Deferred, Immediate};
use rusqlite::{Connection, Transaction};
use tempfile::TempDir;

struct Shop {
    _folder: TempDir,
    file: PathBuf,
    store: Sqlite,
    once: Transactions,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Ran(String),
    Replayed(String),
    Refused(String),
}

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

fn connect(file: &Path) -> Connection {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
}

impl Shop {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.db");
        Sqlite::init(&file, Floor::NONE).unwrap();
        connect(&file).execute_batch("CREATE TABLE orders (key TEXT NOT NULL)").unwrap();
        let store = Sqlite::open(&file).unwrap();
        let once = store.transactions();
        Self { _folder: folder, file, store, once }
    }

    fn connect(&self) -> Connection {
        connect(&self.file)
    }

    fn id(&self, key: &str) -> KeyId {
        request(&self.once, key).id
    }

    /// Moves the end of a claim's lease back, as if this time had passed.
    fn age(&self, id: KeyId, by: Duration) {
        let mut record = block_on(self.store.get(id)).unwrap().unwrap();
        let expected = record.revision;
        let State::InFlight(flight) = &mut record.state else { panic!("{record:?}") };
        flight.lease_until = flight.lease_until.minus(by);
        record.revision = Revision::after(Some(expected), Timestamp::from_millis(0));
        let swap = self.store.swap(id, Some(expected), Some(record));
        assert_eq!(block_on(swap), Ok(Swap::Done));
    }

    /// How many orders there are, and how many records that say so.
    fn counts(&self) -> (i64, i64) {
        let counts = "SELECT (SELECT count(*) FROM orders), \
                      (SELECT count(*) FROM records WHERE state = 3)";
        let both = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        self.connect().query_row(counts, (), both).unwrap()
    }

    fn order(&self, connection: &mut Connection, key: &str) -> Result<Told, TxError> {
        order(&self.once, connection, Immediate, key, &|_| {})
    }
}

fn request(once: &Transactions, key: &str) -> Request {
    let scope = Scope::new("orders").unwrap();
    once.request(&scope, &Key::new(key.to_owned()).unwrap(), key.as_bytes())
}

/// Orders once, and calls `at` between any two steps.
fn order(
    once: &Transactions,
    connection: &mut Connection,
    begin: TransactionBehavior,
    key: &str,
    at: &dyn Fn(u32),
) -> Result<Told, TxError> {
    let failed = |error: rusqlite::Error| once.failed(&error);
    at(0);
    let tx = connection.transaction_with_behavior(begin).map_err(failed)?;
    at(1);
    let told = match once.claim(&tx, &request(once, key), &Policy::default())? {
        Claimed::Granted(granted) => {
            at(2);
            let content = sell(&tx, key).map_err(failed)?;
            at(3);
            granted.complete(Reply::kept(201, content.clone()))?;
            at(4);
            Told::Ran(content)
        }
        Claimed::Replay(reply) => {
            Told::Replayed(String::from_utf8(reply.content().unwrap().to_vec()).unwrap())
        }
        Claimed::Refused(outcome) => Told::Refused(format!("{outcome:?}")),
    };
    once.commit(tx)?;
    at(5);
    Ok(told)
}

fn sell(tx: &Transaction<'_>, key: &str) -> rusqlite::Result<String> {
    let sell = "INSERT INTO orders VALUES (?1) RETURNING hex(randomblob(16))";
    tx.query_row(sell, [key], |row| row.get(0))
}

#[test]
fn many_at_once_with_one_key_run_it_once_and_all_get_its_answer() {
    let shop = Shop::open();
    for (begin, key) in [(Immediate, "immediate"), (Deferred, "deferred")] {
        let told: Vec<Told> = std::thread::scope(|scope| {
            let caller = || {
                let mut connection = shop.connect();
                loop {
                    match order(&shop.once, &mut connection, begin, key, &|_| {}) {
                        Ok(told) => return told,
                        Err(error) => assert_eq!(error.kind(), TxErrorKind::Again, "{error}"),
                    }
                }
            };
            let callers: Vec<_> = (0..24).map(|_| scope.spawn(caller)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        let first = told.iter().find_map(|it| match it {
            Told::Ran(content) => Some(content.clone()),
            Told::Replayed(_) | Told::Refused(_) => None,
        });
        let replayed = Told::Replayed(first.unwrap());
        assert_eq!(told.iter().filter(|it| **it == replayed).count(), 23, "{told:?}");
    }
    assert_eq!(shop.counts(), (2, 2));
}

/// A process that ends itself at a step, with no word and no clean-up: see the next test.
#[test]
fn a_process_of_the_next_test() {
    let Ok(asked) = std::env::var("ONLYONCE_TX_STEP") else { return };
    let (step, file) = asked.split_once(' ').unwrap();
    let (step, file): (u32, PathBuf) = (step.parse().unwrap(), file.into());
    let once = Sqlite::open(&file).unwrap().transactions();
    let ends = |at| {
        if at == step {
            std::process::abort();
        }
    };
    order(&once, &mut connect(&file), Immediate, "killed", &ends).unwrap();
}

#[test]
fn a_process_that_is_killed_at_any_step_leaves_the_order_and_its_record_or_neither() {
    for step in 0..=5 {
        let shop = Shop::open();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "a_process_of_the_next_test"]);
        child.env("ONLYONCE_TX_STEP", format!("{step} {}", shop.file.display()));
        assert!(!child.output().unwrap().status.success());
        let done = i64::from(step == 5);
        assert_eq!(shop.counts(), (done, done), "step {step}");
        let told = shop.order(&mut shop.connect(), "killed").unwrap();
        assert_eq!(matches!(told, Told::Ran(_)), step != 5, "step {step}: {told:?}");
        assert_eq!(shop.counts(), (1, 1), "step {step}");
    }
}

#[test]
fn what_is_rolled_back_runs_the_next_time_and_what_is_half_committed_never() {
    let shop = Shop::open();
    let (mut connection, policy) = (shop.connect(), Policy::default());
    let tx = connection.transaction_with_behavior(Immediate).unwrap();
    let claim = shop.once.claim(&tx, &request(&shop.once, "back"), &policy).unwrap();
    assert!(matches!(claim, Claimed::Granted(_)));
    drop(tx);
    assert!(matches!(shop.order(&mut connection, "back").unwrap(), Told::Ran(_)));

    let half = request(&shop.once, "half");
    let tx = connection.transaction_with_behavior(Immediate).unwrap();
    let claim = shop.once.claim(&tx, &half, &policy).unwrap();
    assert!(matches!(claim, Claimed::Granted(_)));
    sell(&tx, "half").unwrap();
    shop.once.commit(tx).unwrap();
    for says in ["InFlight", "OutcomeUnknown"] {
        if says == "OutcomeUnknown" {
            shop.age(half.id, policy.lease + policy.skew_max);
        }
        let tx = connection.transaction_with_behavior(Immediate).unwrap();
        let Claimed::Refused(outcome) = shop.once.claim(&tx, &half, &policy).unwrap() else {
            panic!("it is not to run");
        };
        assert!(format!("{outcome:?}").starts_with(says), "{outcome:?}");
        shop.once.commit(tx).unwrap();
    }
    let record = block_on(shop.store.get(half.id)).unwrap().unwrap();
    assert_eq!(record.state.kind(), StateKind::Unknown);
    assert_eq!(shop.counts(), (2, 1));
}

#[test]
fn a_completion_counts_once_and_for_the_latest_claim_and_the_store_sees_it() {
    let shop = Shop::open();
    let (id, policy, mut connection) = (shop.id("out"), Policy::default(), shop.connect());
    let first = onlyonce_conformance::claimed(1);
    assert_eq!(block_on(shop.store.swap(id, None, Some(first.clone()))).unwrap(), Swap::Done);
    let mut say = |number: u64| {
        let tx = connection.transaction_with_behavior(Immediate).unwrap();
        sell(&tx, "out").unwrap();
        let (fence, reply) = (Fence::new(number).unwrap(), Reply::kept(201, "done"));
        shop.once.complete(&tx, id, fence, reply, &policy).map(|()| tx.commit().unwrap())
    };
    let fence = first.fence.get();
    for number in [fence - 1, fence + 1] {
        assert_eq!(say(number).unwrap_err().kind(), TxErrorKind::Fenced);
    }
    say(fence).unwrap();
    // The same answer under the same claim is another order all the same.
    assert_eq!(say(fence).unwrap_err().kind(), TxErrorKind::Fenced);
    assert_eq!(shop.counts(), (1, 1));
    let record = block_on(shop.store.get(id)).unwrap().unwrap();
    assert_eq!(record.state.kind(), StateKind::Completed);
    assert_eq!(block_on(shop.store.revision_max()).unwrap(), record.revision.get());
}

#[test]
fn a_key_below_the_floor_is_expired_although_the_transaction_began_before() {
    let shop = Shop::open();
    let time = now();
    let hex = format!("{:012x}", time.as_millis());
    let key = format!("{}-{}-7000-8000-000000000000", &hex[..8], &hex[8..]);
    let mut connection = shop.connect();
    let tx = connection.transaction_with_behavior(Deferred).unwrap();
    tx.query_row("SELECT count(*) FROM orders", (), |_| Ok(())).unwrap();
    block_on(shop.store.raise_floor(Floor::at(time.plus_millis(1)))).unwrap();
    let claim = shop.once.claim(&tx, &request(&shop.once, &key), &Policy::default());
    // It has read what was there before, and cannot write any more.
    assert_eq!(claim.err().map(|error| error.kind()), Some(TxErrorKind::Again));
    drop(tx);
    let told = shop.order(&mut connection, &key).unwrap();
    assert_eq!(told, Told::Refused("Expired".to_owned()));
    assert_eq!(shop.counts(), (0, 0));
}

#[test]
fn a_connection_whose_commit_would_not_be_one_or_not_durable_is_refused() {
    let (shop, other) = (Shop::open(), Shop::open());
    let refused = |prepare: &str, says: &str| {
        let mut connection = shop.connect();
        connection.execute_batch(prepare).unwrap();
        let error = shop.order(&mut connection, "refused").unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::NotExecuted);
        assert!(error.to_string().contains(says), "{error}");
    };
    refused("PRAGMA synchronous = normal", "must be full");
    let attach = format!("ATTACH '{}' AS other", other.file.display());
    refused(&attach, "another database is attached");
    // Attached within the transaction, after the claim.
    let mut connection = shop.connect();
    let tx = connection.transaction_with_behavior(Immediate).unwrap();
    let late = request(&shop.once, "late");
    let Claimed::Granted(granted) = shop.once.claim(&tx, &late, &Policy::default()).unwrap() else {
        panic!("it is the first");
    };
    tx.execute_batch(&attach).unwrap();
    let error = granted.complete(Reply::kept(201, "late")).unwrap_err();
    assert!(error.to_string().contains("another database is attached"), "{error}");
    drop(tx);
    connection.execute_batch("DETACH other").unwrap();
    let attached = order(&shop.once, &mut connection, Immediate, "late", &|_| ());
    assert!(matches!(attached.unwrap(), Told::Ran(_)));
    connection.execute_batch("DELETE FROM orders; DELETE FROM records").unwrap();
    let newer = shop.connect();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    let error = shop.order(&mut shop.connect(), "refused").unwrap_err();
    assert!(error.to_string().contains("format is another one"), "{error}");
    newer.execute_batch("PRAGMA user_version = 1").unwrap();
    let wrong = Policy { skew_max: Duration::MAX, ..Policy::default() };
    let tx = connection.transaction_with_behavior(Immediate).unwrap();
    let error = shop.once.claim(&tx, &late, &wrong).err().unwrap();
    assert!(error.to_string().contains("skew_max"), "{error}");
    drop(tx);
    let error = shop.order(&mut other.connect(), "refused").unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
    let mut connection = shop.connect();
    let read = format!("ATTACH 'file:{}?mode=ro' AS other", other.file.display());
    connection.execute_batch(&read).unwrap();
    assert!(matches!(shop.order(&mut connection, "fine").unwrap(), Told::Ran(_)));
    assert_eq!((shop.counts(), other.counts()), ((1, 1), (0, 0)));
}

#[test]
fn a_store_that_was_moved_or_is_encrypted_takes_no_claim() {
    for (id, says) in [(MARK, "was moved"), (NAMES, "are encrypted")] {
        let shop = Shop::open();
        assert_eq!(block_on(shop.store.swap(id, None, Some(claimed(1)))), Ok(Swap::Done));
        let error = shop.order(&mut shop.connect(), "order").unwrap_err();
        assert_eq!(error.kind(), TxErrorKind::NotExecuted);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(shop.counts(), (0, 0));
    }
}
