//! Claims and completions in the caller's own transaction on the store's file: the operation, its
//! answer and its record are committed together, or none of them is.
//!
//! The tables that the operation changes must be in the same file: with others that are attached a
//! transaction in write-ahead mode is not one across a crash. Nothing is decided here: what
//! `onlyonce-core` says is written to the same rows by the caller's connection.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use onlyonce_core::{
    ClaimId, Fence, Floor, Key, KeyId, Next, Outcome, Policy, Record, Reply, Scope, Secret,
    Timestamp, decide,
};
use onlyonce_store::transaction::{
    Claimed, ENCRYPTED, MARK, MARKED, NAMES, Request, TxError, TxErrorKind, complete,
};
use onlyonce_store::{Row, StoreError, StoreErrorKind, row};
use rusqlite::{OptionalExtension as _, Transaction};

use crate::error::{At, is_busy, kind};
use crate::schema;
use crate::sqlite::REPLY_MAX;

/// The least `PRAGMA synchronous` with which a commit is on disk in write-ahead mode: full.
const FULL: i64 = 2;

/// What claims in transactions on the file of one store. Cheap to clone.
///
/// ```no_run
/// # use onlyonce_core::*;
/// # use onlyonce_sqlite::{Claimed, Sqlite, TxError};
/// # fn order(store: &Sqlite, connection: &mut rusqlite::Connection)
/// # -> Result<Reply, Box<dyn std::error::Error>> {
/// let (once, policy) = (store.transactions(), Policy::default());
/// let (scope, key) = (Scope::new("orders")?, Key::new("7829")?);
/// let request = once.request(&scope, &key, b"one blender");
///
/// let immediate = rusqlite::TransactionBehavior::Immediate;
/// let tx = connection.transaction_with_behavior(immediate)?;
/// let reply = match once.claim(&tx, &request, &policy)? {
///     Claimed::Granted(granted) => {
///         tx.execute("UPDATE stock SET free = free - 1 WHERE item = 'blender'", ())?;
///         let reply = Reply::kept(201, "order confirmed, 7829");
///         granted.complete(reply.clone())?;
///         reply
///     }
///     Claimed::Replay(reply) => reply,
///     Claimed::Refused(outcome) => return Err(format!("not run: {outcome:?}").into()),
/// };
/// once.commit(tx)?;
/// # Ok(reply) }
/// ```
#[derive(Clone)]
pub struct Transactions {
    path: Arc<Path>,
    secret: Secret,
}

/// A claim that was granted in a transaction: run the operation in it, then
/// [`complete`](Self::complete), then commit.
///
/// To drop it and roll back is to take the claim back. A transaction that is committed without the
/// completion leaves the claim as it is: when its lease is over, its outcome is unknown.
#[must_use = "a claim that is committed without its completion becomes an unknown outcome"]
pub struct Granted<'t, 'c> {
    transactions: &'t Transactions,
    tx: &'t Transaction<'c>,
    id: KeyId,
    policy: Policy,
    record: Record,
}

impl Transactions {
    pub(crate) fn new(path: &Path, secret: &Secret) -> Self {
        Self { path: path.into(), secret: secret.clone() }
    }

    /// A request under a key of `scope`; see [`Request::new`].
    pub fn request(&self, scope: &Scope, key: &Key, request: &[u8]) -> Request {
        Request::new(&self.secret, scope, key, request)
    }

    /// Asks, within `tx`, to be the only one who runs the operation. Who else writes to the file is
    /// waited for, for as long as the connection's busy handler does. Begin `tx` as
    /// [`Immediate`](rusqlite::TransactionBehavior::Immediate): one that has read before it writes
    /// is told [`TxErrorKind::Again`] whenever another one has written meanwhile.
    ///
    /// After every answer that is no error the transaction goes on. The time is the machine's, read
    /// by SQLite once the file is ours.
    ///
    /// # Errors
    /// It did not happen; roll back.
    pub fn claim<'t, 'c>(
        &'t self,
        tx: &'t Transaction<'c>,
        request: &Request,
        policy: &Policy,
    ) -> Result<Claimed<Granted<'t, 'c>>, TxError> {
        self.check_policy(policy)?;
        self.check(tx)?;
        let (id, command) = (request.id, request.claim(self.claim_id()?));
        // The write lock first: what is read under it nobody else changes, nor was it read before.
        let (floor, now) = self.lock(tx)?;
        request.check(now)?;
        let found = self.get(tx, id)?;
        let decision = decide(now, floor, policy, found.as_ref(), &command);
        let next = match decision.next {
            Next::Write(next) => {
                self.write(tx, id, found.as_ref(), &next)?;
                Some(next)
            }
            Next::Keep => found,
            Next::Delete => None,
        };
        Ok(match (decision.outcome, next) {
            (Outcome::Granted(_), Some(record)) => {
                let policy = *policy;
                Claimed::Granted(Granted { transactions: self, tx, id, policy, record })
            }
            (outcome, _) => Claimed::refused(outcome),
        })
    }

    /// Says, within `tx`, that the operation happened in it under a claim that was granted outside:
    /// by an engine, or in an earlier transaction. It counts for the latest claim alone, and once;
    /// so the operation happens exactly once, whoever is late.
    ///
    /// # Errors
    /// [`TxErrorKind::Fenced`] if it does not count: `tx` must be rolled back. The others as for
    /// [`Transactions::claim`].
    pub fn complete(
        &self,
        tx: &Transaction<'_>,
        id: KeyId,
        fence: Fence,
        reply: Reply,
        policy: &Policy,
    ) -> Result<(), TxError> {
        self.check_policy(policy)?;
        self.check(tx)?;
        let (_, now) = self.lock(tx)?;
        let Some(found) = self.get(tx, id)? else {
            return Err(self.error(TxErrorKind::Fenced, "the key has no record"));
        };
        self.completed(tx, id, &found, (fence, reply), policy, now)
    }

    /// Commits, and says of an error whether the operation may have happened.
    ///
    /// # Errors
    /// See [`TxErrorKind`].
    pub fn commit(&self, tx: Transaction<'_>) -> Result<(), TxError> {
        // After some errors SQLite has rolled back by itself.
        if tx.is_autocommit() {
            let text = "a statement has failed, and the transaction was undone with it";
            return Err(self.error(TxErrorKind::Again, text));
        }
        // Another file may have been attached since the claim.
        self.check(&tx)?;
        tx.commit().map_err(|error| self.of(&error, At::Commit))
    }

    /// What an error of the caller's own statements means.
    pub fn failed(&self, error: &rusqlite::Error) -> TxError {
        self.of(error, At::Work)
    }

    /// Whether a commit of this connection is one, and durable.
    fn check(&self, tx: &Transaction<'_>) -> Result<(), TxError> {
        let refused = |text: &str| Err(self.error(TxErrorKind::NotExecuted, text));
        let synchronous = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let said = tx.query_row("PRAGMA main.synchronous", (), synchronous);
        if said.map_err(|error| self.failed(&error))? < FULL {
            return refused("`PRAGMA synchronous` must be full, or a crash would lose the answer");
        }
        let list = tx.prepare_cached(schema::ATTACHED).and_then(|mut statement| {
            let names = statement.query_map((), |row| row.get::<_, String>(0))?;
            names.collect::<rusqlite::Result<Vec<_>>>()
        });
        for name in list.map_err(|error| self.failed(&error))? {
            if !tx.is_readonly(name.as_str()).map_err(|error| self.failed(&error))? {
                return refused(
                    "another database is attached that can be written to: a crash could leave \
                     the change of one without that of the other",
                );
            }
        }
        Ok(())
    }

    /// Takes the write lock of the file, and reads the floor and the clock under it.
    fn lock(&self, tx: &Transaction<'_>) -> Result<(Floor, Timestamp), TxError> {
        let store = tx.execute(schema::LOCK, ()).and_then(|_| {
            let read = |row: &rusqlite::Row<'_>| {
                let whose: (Vec<u8>, i64, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
                Ok((whose, row.get(2)?, row.get(4)?))
            };
            let ids = [&MARK.as_bytes()[..], &NAMES.as_bytes()[..]];
            tx.query_row(schema::WHOSE, ids, read)
        });
        let ((secret, floor, now), is_marked, is_encrypted): (_, bool, bool) =
            store.map_err(|error| self.failed(&error))?;
        let read = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let version = tx.query_row(schema::TX_VERSION, (), read);
        if version.map_err(|error| self.failed(&error))? != i64::from(schema::VERSION) {
            let text = "the store's format is another one: `onlyonce doctor` says what to do";
            return Err(self.error(TxErrorKind::NotExecuted, text));
        }
        if secret != self.secret.as_bytes() {
            let text = "the transaction is in the file of another store";
            return Err(self.error(TxErrorKind::NotExecuted, text));
        }
        if is_marked {
            return Err(self.error(TxErrorKind::NotExecuted, MARKED));
        }
        if is_encrypted {
            return Err(self.error(TxErrorKind::NotExecuted, ENCRYPTED));
        }
        Ok((Floor::at(row::timestamp(floor)), row::timestamp(now)))
    }

    fn get(&self, tx: &Transaction<'_>, id: KeyId) -> Result<Option<Record>, TxError> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?));
        let found = tx.query_row(schema::TX_GET, [&id.as_bytes()[..]], read).optional();
        let Some((revision, bytes)) = found.map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        let place = self.path.display().to_string();
        let record = Row::read(&place, id, revision, Bytes::from(bytes));
        record.map(Some).map_err(|error| self.damaged(&error))
    }

    fn completed(
        &self,
        tx: &Transaction<'_>,
        id: KeyId,
        found: &Record,
        (fence, reply): (Fence, Reply),
        policy: &Policy,
        now: Timestamp,
    ) -> Result<(), TxError> {
        let fits = reply.content().is_none_or(|content| content.len() <= REPLY_MAX);
        let reply = if fits { reply } else { reply.without_content() };
        let next = complete(now, policy, found, fence, reply).map_err(|outcome| {
            let text = format!("claim {} does not count: {outcome:?}", fence.get());
            self.error(TxErrorKind::Fenced, &text)
        })?;
        self.write(tx, id, Some(found), &next)
    }

    fn write(
        &self,
        tx: &Transaction<'_>,
        id: KeyId,
        found: Option<&Record>,
        next: &Record,
    ) -> Result<(), TxError> {
        let row = Row::of(id, next).map_err(|error| self.damaged(&error))?;
        let revision = |record: &Record| i64::try_from(record.revision.get()).unwrap_or(i64::MAX);
        let expected = found.map(revision);
        let key = &id.as_bytes()[..];
        let values = (key, row.revision, row.state, row.due_at, row.bytes, expected);
        let sql = if found.is_some() { schema::TX_CHANGE } else { schema::TX_MAKE };
        let written = tx.execute(sql, values).and_then(|written| {
            tx.execute(schema::TX_REVISION, [row.revision])?;
            Ok(written)
        });
        match written.map_err(|error| self.failed(&error))? {
            0 => {
                let text = "its record was changed within this transaction";
                Err(self.error(TxErrorKind::Fenced, text))
            }
            _ => Ok(()),
        }
    }

    fn check_policy(&self, policy: &Policy) -> Result<(), TxError> {
        let wrong = |error| self.error(TxErrorKind::NotExecuted, &format!("the policy: {error}"));
        policy.check().map(drop).map_err(wrong)
    }

    fn claim_id(&self) -> Result<ClaimId, TxError> {
        let mut bytes = [0; 16];
        let filled = getrandom::fill(&mut bytes);
        let failed = |error| self.error(TxErrorKind::Again, &format!("no random numbers: {error}"));
        filled.map(|()| ClaimId::from_bytes(bytes)).map_err(failed)
    }

    fn of(&self, error: &rusqlite::Error, at: At) -> TxError {
        let meaning = match kind(error, at) {
            StoreErrorKind::NotApplied if is_busy(error) => TxErrorKind::Again,
            StoreErrorKind::NotApplied | StoreErrorKind::Full => TxErrorKind::NotExecuted,
            StoreErrorKind::Damaged => TxErrorKind::Damaged,
            // Before the commit nothing of it can be seen, whatever becomes of the file.
            StoreErrorKind::Poisoned if at == At::Work => TxErrorKind::NotExecuted,
            StoreErrorKind::Poisoned | StoreErrorKind::Unknown => TxErrorKind::Unknown,
        };
        self.error(meaning, &error.to_string())
    }

    fn damaged(&self, error: &StoreError) -> TxError {
        self.error(TxErrorKind::Damaged, &error.to_string())
    }

    fn error(&self, kind: TxErrorKind, text: &str) -> TxError {
        TxError::new(kind, format!("{}: {text}", self.path.display()))
    }
}

impl Granted<'_, '_> {
    /// The fence of this claim.
    pub const fn fence(&self) -> Fence {
        self.record.fence
    }

    /// Which attempt this is, from 1. Attempts in transactions that were rolled back do not count.
    pub const fn attempt(&self) -> u32 {
        self.record.attempt
    }

    /// Says that the operation happened in this transaction, with this reply: true from the commit
    /// on. A reply above 16 MiB is recorded as answered and not kept.
    ///
    /// # Errors
    /// It did not happen; roll back.
    pub fn complete(self, reply: Reply) -> Result<(), TxError> {
        let Self { transactions, tx, id, policy, record } = self;
        transactions.check(tx)?;
        let (_, now) = transactions.lock(tx)?;
        let said = (record.fence, reply);
        transactions.completed(tx, id, &record, said, &policy, now)
    }
}
