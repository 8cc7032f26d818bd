//! Claims and completions in the caller's own transaction: what happens, happens with its record.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use futures_executor::block_on;
use onlyonce_conformance::transactions::{self, Ask, Counts, End, name};
use onlyonce_core::{Fence, Floor, Key, Policy, Reply, Scope, Secret, Timestamp};
use onlyonce_sqlite::{Claimed, Request, Sqlite, Transactions, TxError, TxErrorKind};
use onlyonce_store::Store;
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
        let tables =
            "CREATE TABLE orders (key TEXT NOT NULL); CREATE TABLE visits (key TEXT NOT NULL)";
        connect(&file).execute_batch(tables).unwrap();
        let store = Sqlite::open(&file).unwrap();
        let once = store.transactions();
        Self { _folder: folder, file, store, once }
    }

    fn connect(&self) -> Connection {
        connect(&self.file)
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

impl transactions::Shop for Shop {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    fn secret(&self) -> &Secret {
        self.store.secret()
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn doors(&self) -> usize {
        1
    }

    async fn order(&self, ask: Ask<'_>) -> Result<transactions::Told, TxError> {
        use transactions::Told::{Ran, Refused, Replayed};
        let failed = |error: rusqlite::Error| self.once.failed(&error);
        let mut connection = self.connect();
        let tx = connection.transaction_with_behavior(Immediate).map_err(failed)?;
        let request = transactions::Shop::request(self, ask.key, ask.content);
        let told = match self.once.claim(&tx, &request, &ask.policy)? {
            Claimed::Granted(granted) => {
                let content = sell(&tx, ask.key).map_err(failed)?;
                if ask.end != End::CommitHalf {
                    granted.complete(Reply::kept(201, content.clone()))?;
                }
                Ran(content)
            }
            Claimed::Replay(reply) => {
                Replayed(String::from_utf8(reply.content().unwrap().to_vec()).unwrap())
            }
            Claimed::Refused(outcome) => Refused(name(&outcome).to_owned()),
        };
        tx.execute("INSERT INTO visits VALUES (?1)", [ask.key]).map_err(failed)?;
        if ask.end == End::RollBack {
            return tx.rollback().map(|()| told).map_err(failed);
        }
        self.once.commit(tx)?;
        Ok(told)
    }

    async fn complete(&self, _: usize, key: &str, fence: Fence) -> Result<(), TxError> {
        let mut connection = self.connect();
        let tx = connection.transaction_with_behavior(Immediate).unwrap();
        sell(&tx, key).unwrap();
        let (id, reply) = (transactions::Shop::id(self, key), Reply::kept(201, "done"));
        self.once.complete(&tx, id, fence, reply, &Policy::default())?;
        self.once.commit(tx)
    }

    fn counts(&self) -> Counts {
        let count = |table: &str| {
            let count = format!("SELECT count(*) FROM {table}");
            let count: i64 = self.connect().query_row(&count, (), |row| row.get(0)).unwrap();
            u64::try_from(count).unwrap()
        };
        let records = count("records WHERE state = 3");
        Counts { orders: count("orders"), records, visits: count("visits") }
    }
}

onlyonce_conformance::transaction_suite!(block_on, Shop::open());
