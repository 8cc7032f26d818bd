//! Claims and completions in the caller's own transaction: the operation, its answer and its
//! record are committed together, or none of them is.
//!
//! Nothing is decided here either: what `onlyonce-core` says is written to the same rows by the
//! caller's connection. Who claims a key that another transaction has claimed waits for its end, by
//! the primary key. What is read to be changed is locked first, and a lock shows what is newest,
//! whatever the isolation of the transaction.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Error, Row as Columns, Transaction};
use onlyonce_core::{
    ClaimId, Command, Fence, Floor, Key, KeyId, Next, Outcome, Policy, Record, Reply, Scope,
    Secret, StateKind, Timestamp, decide,
};
use onlyonce_store::transaction::{
    CONFLICTS_MAX, Claimed, ENCRYPTED, MARK, MARKED, NAMES, Request, TxError, TxErrorKind, complete,
};
use onlyonce_store::{Row, StoreError, row};

use crate::error::{of_commit, of_transaction};
use crate::schema;
use crate::session::value;

/// What claims in transactions on the database of one store. Cheap to clone. MariaDB only.
///
/// ```no_run
/// # use onlyonce_core::*;
/// # use onlyonce_mysql::{Claimed, Mysql, TxError};
/// # use mysql_async::prelude::Queryable as _;
/// # async fn order(store: &Mysql, conn: &mut mysql_async::Conn)
/// # -> Result<Reply, Box<dyn std::error::Error>> {
/// let (once, policy) = (store.transactions(), Policy::default());
/// let (scope, key) = (Scope::new("orders")?, Key::new("7829")?);
/// let request = once.request(&scope, &key, b"one blender");
///
/// let mut tx = conn.start_transaction(mysql_async::TxOpts::default()).await?;
/// let reply = match once.claim(&mut tx, &request, &policy).await? {
///     Claimed::Granted(granted) => {
///         tx.query_drop("UPDATE stock SET free = free - 1 WHERE item = 'blender'").await?;
///         let reply = Reply::kept(201, "order confirmed, 7829");
///         granted.complete(&mut tx, reply.clone()).await?;
///         reply
///     }
///     Claimed::Replay(reply) => reply,
///     Claimed::Refused(outcome) => return Err(format!("not run: {outcome:?}").into()),
/// };
/// once.commit(tx).await?;
/// # Ok(reply) }
/// ```
#[derive(Clone)]
pub struct Transactions {
    place: Arc<str>,
    secret: Secret,
    reply_max: usize,
}

/// A first claim that has waited longer than this for another transaction counts from its end.
const WAITED: Duration = Duration::from_millis(100);
/// A sweeper deletes what carries a time a minute after it has raised the floor, which it never
/// raises above its own time: a key that is younger than half of that has lost no record.
const YOUNG: Duration = Duration::from_secs(30);

/// A claim that was granted in a transaction: run the operation in it, then
/// [`complete`](Self::complete), then commit.
///
/// To drop it and roll back is to take the claim back. A transaction that is committed without the
/// completion leaves the claim as it is: when its lease is over, its outcome is unknown.
#[must_use = "a claim that is committed without its completion becomes an unknown outcome"]
pub struct Granted {
    transactions: Transactions,
    id: KeyId,
    policy: Policy,
    record: Record,
}

/// What the row of the store says, and when.
#[derive(Clone, Copy)]
struct Store {
    /// The server's clock: it counts for all who use the store, whatever the caller's says.
    now: Timestamp,
    floor: Floor,
    /// Whether others may see a transaction before it is synced.
    shows_unsynced: bool,
}

/// What others may do with a record that was read, until the end of the transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// Whatever they like. Under `READ UNCOMMITTED` it may never have been committed.
    Free,
    /// Read it, and not change it.
    Shared,
    /// Nothing.
    Ours,
}

impl Lock {
    const fn sql(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::Shared => " LOCK IN SHARE MODE",
            Self::Ours => " FOR UPDATE",
        }
    }
}

impl Transactions {
    pub(crate) fn new(place: &Arc<str>, secret: &Secret, reply_max: usize) -> Self {
        Self { place: Arc::clone(place), secret: secret.clone(), reply_max }
    }

    /// A request under a key of `scope`; see [`Request::new`].
    pub fn request(&self, scope: &Scope, key: &Key, request: &[u8]) -> Request {
        Request::new(&self.secret, scope, key, request)
    }

    /// Asks, within `tx`, to be the only one who runs the operation. If another transaction has
    /// claimed the key, it waits for the end of that one, for as long as the settings of `tx` allow
    /// (`innodb_lock_wait_timeout`).
    ///
    /// After every answer that is no error the transaction goes on, and is to be committed, also
    /// after a replay: what is told must be on disk. Seven round trips for a first claim. The time
    /// is the server's, and the lease counts from the end of the wait. Any isolation level will do.
    ///
    /// Await it to its end, or roll back: dropped in between, it may have claimed. A transaction
    /// that is committed then leaves a claim in flight, which becomes an unknown outcome.
    ///
    /// # Errors
    /// It did not happen; roll back. After a deadlock the server has done so, and what is sent
    /// later on the connection is committed by itself.
    pub async fn claim(
        &self,
        tx: &mut Transaction<'_>,
        request: &Request,
        policy: &Policy,
    ) -> Result<Claimed<Granted>, TxError> {
        self.check(policy)?;
        let (id, command) = (request.id, request.claim(self.claim_id()?));
        let answer = |outcome, record| match (outcome, record) {
            (Outcome::Granted(_), record) => {
                let (transactions, policy) = (self.clone(), *policy);
                Claimed::Granted(Granted { transactions, id, policy, record })
            }
            (other, _) => Claimed::refused(other),
        };
        let mut store = self.store(tx).await?;
        request.check(store.now)?;
        // What is to be changed is decided once nobody else can change it, by the time of then.
        let mut lock = Lock::Free;
        for _ in 0..CONFLICTS_MAX {
            let mut found = self.get(tx, id, lock).await?;
            if found.is_none() {
                match self.make(tx, request, policy, store, &command).await? {
                    Made::Ours(outcome, record) => return Ok(answer(outcome, record)),
                    Made::Expired => return Ok(Claimed::refused(Outcome::Expired)),
                    Made::Theirs(record) => found = record,
                }
                lock = Lock::Ours;
            }
            let Some(found) = found else { continue };
            if lock == Lock::Free && is_answered(&found) {
                // Nothing else is told to have happened: under READ UNCOMMITTED it may be that it
                // is yet taken back. What is in flight is not locked, since its end would wait.
                lock = Lock::Shared;
                continue;
            }
            store = self.store(tx).await?;
            let decision = decide(store.now, store.floor, policy, Some(&found), &command);
            match decision.next {
                Next::Write(next) if lock == Lock::Ours => {
                    if self.write(tx, id, &found, &next).await? {
                        return Ok(answer(decision.outcome, next));
                    }
                }
                Next::Write(_) => lock = Lock::Ours,
                Next::Keep | Next::Delete => {
                    if store.shows_unsynced {
                        self.note(tx, 0).await?;
                    }
                    return Ok(answer(decision.outcome, found));
                }
            }
        }
        Err(self.error(TxErrorKind::Again, CONFLICTS))
    }

    /// Says, within `tx`, that the operation happened in it under a claim that was granted outside:
    /// by an engine, by the record service, or in an earlier transaction. It counts for the latest
    /// claim alone, and once; so the operation happens exactly once, whoever is late. Of `policy`
    /// `retention` and `skew_max` count, from the server's time when nobody else has the record.
    ///
    /// # Errors
    /// [`TxErrorKind::Fenced`] if it does not count: `tx` must be rolled back. The others as for
    /// [`Transactions::claim`].
    pub async fn complete(
        &self,
        tx: &mut Transaction<'_>,
        id: KeyId,
        fence: Fence,
        reply: Reply,
        policy: &Policy,
    ) -> Result<(), TxError> {
        self.check(policy)?;
        let found = self.get(tx, id, Lock::Ours).await?;
        let store = self.store(tx).await?;
        let Some(found) = found else {
            return Err(self.error(TxErrorKind::Fenced, "the key has no record"));
        };
        let fits = reply.content().is_none_or(|content| content.len() <= self.reply_max);
        let reply = if fits { reply } else { reply.without_content() };
        let next = complete(store.now, policy, &found, fence, reply).map_err(|outcome| {
            let text = format!("claim {} does not count: {outcome:?}", fence.get());
            self.error(TxErrorKind::Fenced, &text)
        })?;
        if self.write(tx, id, &found, &next).await? {
            return Ok(());
        }
        Err(self.error(TxErrorKind::Again, CONFLICTS))
    }

    /// Commits, and says of an error whether the operation may have happened. It also finds out
    /// that the server has ended the transaction before.
    ///
    /// # Errors
    /// See [`TxErrorKind`].
    pub async fn commit(&self, mut tx: Transaction<'_>) -> Result<(), TxError> {
        let told = self.ask(&mut tx, schema::TX_INSIDE).await?;
        if told.first().and_then(|row| value::<u8>(row, 0)) != Some(1) {
            let _ = tx.rollback().await;
            return Err(self.error(TxErrorKind::Unknown, ENDED));
        }
        tx.commit().await.map_err(|error| of_commit(&self.place, &error))
    }

    /// What an error of the caller's own statements means.
    pub fn failed(&self, error: &Error) -> TxError {
        of_transaction(&self.place, error)
    }

    /// Makes the record of a first claim, if there is none, and reads the floor and the time after
    /// that: a record that is missing by now may have been deleted just now, under a floor that was
    /// raised before, and whoever made it first may have been waited for.
    async fn make(
        &self,
        tx: &mut Transaction<'_>,
        request: &Request,
        policy: &Policy,
        before: Store,
        command: &Command,
    ) -> Result<Made, TxError> {
        let id = request.id;
        let guess = self.decided(before.now, Floor::NONE, policy, command)?;
        let Some((_, guess)) = guess else { return Ok(Made::Expired) };
        let row = Row::of(id, &guess).map_err(|error| self.damaged(&error))?;
        self.run(tx, &schema::tx_make(&id, &row)).await?;
        // How many rows that counts as is told by the connection's own settings.
        let stands = self.get(tx, id, Lock::Ours).await?;
        if stands.as_ref() != Some(&guess) {
            return Ok(Made::Theirs(stands));
        }
        let mut store = self.store(tx).await?;
        if request.key_time.is_some_and(|time| time < store.now.minus(YOUNG)) {
            // The snapshot of a transaction may be older than the floor; what is locked is not.
            let told = self.ask(tx, schema::TX_FLOOR).await?;
            let floor = told.first().and_then(|row| value(row, 0)).unwrap_or(i64::MAX);
            store.floor = Floor::at(row::timestamp(floor));
        }
        let Some((outcome, next)) = self.decided(store.now, store.floor, policy, command)? else {
            // What was made as a guess is not to be.
            self.run(tx, &schema::tx_unmake(&id)).await?;
            return Ok(Made::Expired);
        };
        if store.now <= before.now.plus(WAITED) {
            self.note(tx, row.revision).await?;
            return Ok(Made::Ours(outcome, guess));
        }
        if self.write(tx, id, &guess, &next).await? {
            return Ok(Made::Ours(outcome, next));
        }
        Ok(Made::Theirs(None))
    }

    /// What becomes of a first claim; `None` if it is below the floor.
    fn decided(
        &self,
        now: Timestamp,
        floor: Floor,
        policy: &Policy,
        command: &Command,
    ) -> Result<Option<(Outcome, Record)>, TxError> {
        let decision = decide(now, floor, policy, None, command);
        match (decision.next, decision.outcome) {
            (Next::Write(record), outcome) => Ok(Some((outcome, record))),
            (Next::Keep | Next::Delete, Outcome::Expired) => Ok(None),
            (Next::Keep | Next::Delete, other) => {
                let text = format!("a first claim is written, and not {other:?}");
                Err(self.error(TxErrorKind::NotExecuted, &text))
            }
        }
    }

    /// Looks at the store. Who begins after it was marked as moved sees the mark. That no claim of
    /// before is committed later no look can tell, also not the one after a record was made, which
    /// under `REPEATABLE READ` shows the snapshot: who moves a store has ended all transactions.
    /// A lock on a mark that is not there would keep others from making records beside it.
    async fn store(&self, tx: &mut Transaction<'_>) -> Result<Store, TxError> {
        let rows = self.ask(tx, &schema::tx_store(&MARK, &NAMES)).await?;
        let refused = |text: &str| self.error(TxErrorKind::NotExecuted, text);
        let Some(store) = rows.first() else { return Err(refused("the store's row is gone")) };
        let number = |at| value::<i64>(store, at);
        if number(0) != Some(schema::VERSION) {
            return Err(refused(
                "the store's format is another one: `onlyonce doctor` says what to do",
            ));
        }
        if value::<Vec<u8>>(store, 1).as_deref() != Some(&self.secret.as_bytes()[..]) {
            return Err(refused("the transaction is in the database of another store"));
        }
        for (at, text) in [(3, MARKED), (4, ENCRYPTED), (6, ENDED), (7, schema::TX_LOSES)] {
            if number(at) != Some(0) {
                return Err(refused(text));
            }
        }
        let (Some(floor), Some(now), Some(logs)) = (number(2), number(5), number(8)) else {
            return Err(refused("the server does not tell its time"));
        };
        let (now, floor) = (row::timestamp(now), Floor::at(row::timestamp(floor)));
        Ok(Store { now, floor, shows_unsynced: logs == 0 })
    }

    /// The record; where it is locked, once no other transaction can change it, and the newest.
    async fn get(
        &self,
        tx: &mut Transaction<'_>,
        id: KeyId,
        lock: Lock,
    ) -> Result<Option<Record>, TxError> {
        let sql = format!("{}{}", schema::records(&[id]), lock.sql());
        let rows = self.ask(tx, &sql).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (Some(revision), Some(bytes)) = (value(row, 1), value::<Vec<u8>>(row, 2)) else {
            return Err(self.error(TxErrorKind::Damaged, "the record's row is none"));
        };
        let read = Row::read(&self.place, id, revision, bytes.into());
        read.map(Some).map_err(|error| self.damaged(&error))
    }

    async fn write(
        &self,
        tx: &mut Transaction<'_>,
        id: KeyId,
        found: &Record,
        next: &Record,
    ) -> Result<bool, TxError> {
        let row = Row::of(id, next).map_err(|error| self.damaged(&error))?;
        let expected = i64::try_from(found.revision.get()).unwrap_or(i64::MAX);
        self.run(tx, &schema::tx_change(&id, &row, expected)).await?;
        if tx.affected_rows() != 1 {
            return Ok(false);
        }
        self.note(tx, row.revision).await?;
        Ok(true)
    }

    /// Writes a number into a row that no other transaction has locked, of those that are for this:
    /// the largest revision, and that something was written. Where nothing is synced before others
    /// see it, whoever is told of a record so commits after it.
    async fn note(&self, tx: &mut Transaction<'_>, revision: i64) -> Result<(), TxError> {
        let free = self.ask(tx, schema::TX_SLOT).await?;
        let slot = free.first().and_then(|row| value::<i64>(row, 0));
        // If all are in use, one is waited for.
        let slot = slot.unwrap_or_else(|| -1 - i64::from(tx.id() % 128));
        self.run(tx, &schema::tx_note(slot, revision)).await?;
        if tx.affected_rows() != 1 {
            let text = "rows of onlyonce_revisions are missing: `onlyonce store functions`";
            return Err(self.error(TxErrorKind::NotExecuted, text));
        }
        Ok(())
    }

    async fn ask(&self, tx: &mut Transaction<'_>, sql: &str) -> Result<Vec<Columns>, TxError> {
        tx.query(sql).await.map_err(|error| self.failed(&error))
    }

    async fn run(&self, tx: &mut Transaction<'_>, sql: &str) -> Result<(), TxError> {
        tx.query_drop(sql).await.map_err(|error| self.failed(&error))
    }

    fn check(&self, policy: &Policy) -> Result<(), TxError> {
        let wrong = |error| self.error(TxErrorKind::NotExecuted, &format!("the policy: {error}"));
        policy.check().map(drop).map_err(wrong)
    }

    fn claim_id(&self) -> Result<ClaimId, TxError> {
        let mut bytes = [0; 16];
        let filled = getrandom::fill(&mut bytes);
        let failed = |error| self.error(TxErrorKind::Again, &format!("no random numbers: {error}"));
        filled.map(|()| ClaimId::from_bytes(bytes)).map_err(failed)
    }

    fn damaged(&self, error: &StoreError) -> TxError {
        self.error(TxErrorKind::Damaged, &error.to_string())
    }

    fn error(&self, kind: TxErrorKind, text: &str) -> TxError {
        TxError::new(kind, format!("{}: {text}", self.place))
    }
}

/// Whether it says that the operation happened.
fn is_answered(record: &Record) -> bool {
    [StateKind::Completed, StateKind::Tombstone].contains(&record.state.kind())
}

/// What became of the record of a first claim.
enum Made {
    Ours(Outcome, Record),
    /// The key's time lies below the floor, and nothing was made.
    Expired,
    /// Another one stands there, and is locked.
    Theirs(Option<Record>),
}

impl Granted {
    /// The fence of this claim.
    pub const fn fence(&self) -> Fence {
        self.record.fence
    }

    /// Which attempt this is, from 1. Attempts in transactions that were rolled back do not count.
    pub const fn attempt(&self) -> u32 {
        self.record.attempt
    }

    /// Says that the operation happened in `tx`, which must be the transaction of the claim, with
    /// this reply: true from the commit on. A reply above 16 MiB, or above what the server takes at
    /// once, is recorded as answered and not kept.
    ///
    /// # Errors
    /// It did not happen; roll back.
    pub async fn complete(self, tx: &mut Transaction<'_>, reply: Reply) -> Result<(), TxError> {
        let Self { transactions, id, policy, record } = self;
        transactions.complete(tx, id, record.fence, reply, &policy).await
    }
}

const CONFLICTS: &str = "too many writers changed the record at once";
const ENDED: &str = "the transaction has ended before, by a deadlock whose error was not heeded, \
                     or by a statement that commits, such as CREATE TABLE";
