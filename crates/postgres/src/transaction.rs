//! Claims and completions in the caller's own transaction: the operation, its answer and its
//! record are committed together, or none of them is.
//!
//! Nothing is decided here either: what `onlyonce-core` says is written to the same rows by the
//! caller's connection. Who claims a key that another transaction has claimed waits for its end, by
//! the unique index. No lock and no setting outlives the transaction, so a pooler may be between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use onlyonce_core::{
    ClaimId, Command, Fence, Floor, Key, KeyId, Next, Outcome, Policy, Record, Reply, Scope,
    Secret, Timestamp, decide,
};
use onlyonce_store::transaction::{
    CONFLICTS_MAX, Claimed, ENCRYPTED, MARK, MARKED, NAMES, Request, TxError, TxErrorKind, complete,
};
use onlyonce_store::{Row, StoreError, row};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Transaction};

use crate::error::{of_commit, of_transaction};
use crate::postgres::REPLY_MAX;
use crate::schema;

type Values<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// What claims in transactions on the database of one store. Cheap to clone.
///
/// ```no_run
/// # use onlyonce_core::*;
/// # use onlyonce_postgres::{Claimed, Postgres, TxError};
/// # async fn order(store: &Postgres, client: &mut tokio_postgres::Client)
/// # -> Result<Reply, Box<dyn std::error::Error>> {
/// let (once, policy) = (store.transactions(), Policy::default());
/// let (scope, key) = (Scope::new("orders")?, Key::new("7829")?);
/// let request = once.request(&scope, &key, b"one blender");
///
/// let tx = client.transaction().await?;
/// let reply = match once.claim(&tx, &request, &policy).await? {
///     Claimed::Granted(granted) => {
///         tx.execute("UPDATE stock SET free = free - 1 WHERE item = 'blender'", &[]).await?;
///         let reply = Reply::kept(201, "order confirmed, 7829");
///         granted.complete(reply.clone()).await?;
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
}

/// A first claim that has waited longer than this for another transaction counts from its end.
const WAITED: Duration = Duration::from_millis(100);

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

/// What the row of the store says, and when.
#[derive(Clone, Copy)]
struct Store {
    /// The server's clock: it counts for all who use the store, whatever the caller's says.
    now: Timestamp,
    floor: Floor,
    /// Whether each statement sees what was committed before it.
    is_read_committed: bool,
}

impl Transactions {
    pub(crate) fn new(place: &Arc<str>, secret: &Secret) -> Self {
        Self { place: Arc::clone(place), secret: secret.clone() }
    }

    /// A request under a key of `scope`; see [`Request::new`].
    pub fn request(&self, scope: &Scope, key: &Key, request: &[u8]) -> Request {
        Request::new(&self.secret, scope, key, request)
    }

    /// Asks, within `tx`, to be the only one who runs the operation. If another transaction has
    /// claimed the key, it waits for the end of that one, for as long as the settings of `tx` allow
    /// (`lock_timeout`, `statement_timeout`).
    ///
    /// After every answer that is no error the transaction goes on. Two round trips for a first
    /// claim. The time is the server's, and the lease counts from the end of the wait. Any
    /// isolation level will do: under `REPEATABLE READ` and `SERIALIZABLE` a duplicate that has
    /// waited is told [`TxErrorKind::Again`], and reads the reply the next time.
    ///
    /// Await it to its end, or roll back: dropped in between, it may have claimed. A transaction
    /// that is committed then leaves a claim in flight, which becomes an unknown outcome.
    ///
    /// # Errors
    /// It did not happen; the transaction is of no use any more.
    pub async fn claim<'t, 'c>(
        &'t self,
        tx: &'t Transaction<'c>,
        request: &Request,
        policy: &Policy,
    ) -> Result<Claimed<Granted<'t, 'c>>, TxError> {
        self.check(policy)?;
        let (id, command) = (request.id, request.claim(self.claim_id()?));
        let granted = |record| {
            let policy = *policy;
            Claimed::Granted(Granted { transactions: self, tx, id, policy, record })
        };
        let before = self.store(tx).await?;
        request.check(before.now)?;
        for _ in 0..CONFLICTS_MAX {
            let (made, store) = self.make(tx, request, policy, before.now, &command).await?;
            if let Some(made) = made {
                let decision = decide(store.now, store.floor, policy, None, &command);
                let Next::Write(next) = decision.next else {
                    // What was made as a guess is not to be.
                    self.run(tx, schema::TX_UNMAKE, &[(&key(&id), Type::BYTEA)]).await?;
                    return Ok(Claimed::refused(decision.outcome));
                };
                if store.now <= before.now.plus(WAITED) {
                    return Ok(granted(made));
                }
                if self.write(tx, id, &made, &next).await? {
                    return Ok(granted(next));
                }
                continue;
            }
            let Some(found) = self.get(tx, id).await? else {
                // It was forgotten meanwhile.
                continue;
            };
            let decision = decide(store.now, store.floor, policy, Some(&found), &command);
            if !matches!(decision.next, Next::Write(_)) {
                return Ok(match (decision.outcome, found) {
                    (Outcome::Granted(_), found) => granted(found),
                    (outcome, _) => Claimed::refused(outcome),
                });
            }
            // It is to be changed: decided again once nobody else can, by the time of then.
            let (found, store) = self.lock(tx, id).await?;
            let Some(found) = found else { continue };
            let decision = decide(store.now, store.floor, policy, Some(&found), &command);
            let next = match decision.next {
                Next::Write(next) if self.write(tx, id, &found, &next).await? => next,
                Next::Write(_) => continue,
                Next::Keep | Next::Delete => found,
            };
            return Ok(match (decision.outcome, next) {
                (Outcome::Granted(_), next) => granted(next),
                (outcome, _) => Claimed::refused(outcome),
            });
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
        tx: &Transaction<'_>,
        id: KeyId,
        fence: Fence,
        reply: Reply,
        policy: &Policy,
    ) -> Result<(), TxError> {
        self.check(policy)?;
        let (found, store) = self.lock(tx, id).await?;
        let Some(found) = found else {
            return Err(self.error(TxErrorKind::Fenced, "the key has no record"));
        };
        if self.completed(tx, id, &found, (fence, reply), policy, store.now).await? {
            return Ok(());
        }
        Err(self.error(TxErrorKind::Again, CONFLICTS))
    }

    /// Commits, and says of an error whether the operation may have happened. It also finds out
    /// that a statement has failed in `tx` whose error was dropped: the server would roll back, and
    /// answer a commit as if nothing were wrong.
    ///
    /// # Errors
    /// See [`TxErrorKind`].
    pub async fn commit(&self, tx: Transaction<'_>) -> Result<(), TxError> {
        tx.batch_execute(schema::TX_ALIVE).await.map_err(|error| self.failed(&error))?;
        tx.commit().await.map_err(|error| of_commit(&self.place, &error))
    }

    /// What an error of the caller's own statements means.
    pub fn failed(&self, error: &Error) -> TxError {
        of_transaction(&self.place, error)
    }

    /// Makes the record of a first claim, if there is none, and reads the floor and the time. In
    /// this order: a record that is missing by now may have been deleted just now, under a floor
    /// that was raised before that, and whoever made it first may have been waited for.
    async fn make(
        &self,
        tx: &Transaction<'_>,
        request: &Request,
        policy: &Policy,
        now: Timestamp,
        command: &Command,
    ) -> Result<(Option<Record>, Store), TxError> {
        let guess = decide(now, Floor::NONE, policy, None, command);
        let Next::Write(guess) = guess.next else {
            return Err(self.error(TxErrorKind::NotExecuted, "a first claim is written"));
        };
        let row = Row::of(request.id, &guess).map_err(|error| self.damaged(&error))?;
        let values: [(&(dyn ToSql + Sync), Type); 5] = [
            (&key(&request.id), Type::BYTEA),
            (&row.revision, Type::INT8),
            (&row.state, Type::INT2),
            (&row.due_at, Type::INT8),
            (&row.bytes, Type::BYTEA),
        ];
        // They are sent in the order in which they are polled first.
        let making = self.run(tx, schema::TX_MAKE, &values);
        let (made, store) = join(making, self.store(tx)).await;
        let (made, store) = ((!made?.is_empty()).then_some(guess), store?);
        // A snapshot of before does not show a floor that was raised since; a lock of it does.
        if !store.is_read_committed && request.key_time.is_some() {
            let seen = tx.batch_execute(schema::TX_FLOOR_SEEN).await;
            seen.map_err(|error| self.failed(&error))?;
        }
        Ok((made, store))
    }

    async fn store(&self, tx: &Transaction<'_>) -> Result<Store, TxError> {
        let (mark, names) = (key(&MARK), key(&NAMES));
        let ids: [(&(dyn ToSql + Sync), Type); 2] = [(&mark, Type::BYTEA), (&names, Type::BYTEA)];
        let rows = self.run(tx, schema::TX_STORE, &ids).await?;
        let refused = |text: &str| self.error(TxErrorKind::NotExecuted, text);
        let Some(store) = rows.first() else { return Err(refused("the store's row is gone")) };
        if store.get::<_, i32>(0) != schema::VERSION {
            return Err(refused(
                "the store's format is another one: `onlyonce doctor` says what to do",
            ));
        }
        if store.get::<_, &[u8]>(1) != &self.secret.as_bytes()[..] {
            return Err(refused("the transaction is in the database of another store"));
        }
        if store.get(4) {
            return Err(refused(MARKED));
        }
        if store.get(6) {
            return Err(refused(ENCRYPTED));
        }
        let (floor, now) = (Floor::at(row::timestamp(store.get(2))), row::timestamp(store.get(5)));
        let isolation: &str = store.get(3);
        let is_read_committed = matches!(isolation, "read committed" | "read uncommitted");
        Ok(Store { now, floor, is_read_committed })
    }

    async fn get(&self, tx: &Transaction<'_>, id: KeyId) -> Result<Option<Record>, TxError> {
        let ids = [key(&id)];
        let rows = self.run(tx, schema::GET, &[(&&ids[..], Type::BYTEA_ARRAY)]).await?;
        self.read(id, &rows)
    }

    /// The record, once no other transaction can change it, and what the store says then.
    async fn lock(
        &self,
        tx: &Transaction<'_>,
        id: KeyId,
    ) -> Result<(Option<Record>, Store), TxError> {
        let values: [(&(dyn ToSql + Sync), Type); 1] = [(&key(&id), Type::BYTEA)];
        // They are sent in the order in which they are polled first.
        let locking = self.run(tx, schema::TX_LOCK, &values);
        let (locked, store) = join(locking, self.store(tx)).await;
        let (locked, store) = (locked?, store?);
        Ok((self.read(id, &locked)?, store))
    }

    fn read(&self, id: KeyId, rows: &[tokio_postgres::Row]) -> Result<Option<Record>, TxError> {
        let Some(row) = rows.first() else { return Ok(None) };
        let read = Row::read(&self.place, id, row.get(1), Bytes::copy_from_slice(row.get(2)));
        read.map(Some).map_err(|error| self.damaged(&error))
    }

    /// Completes `found`; `false` if another one stands there by now.
    async fn completed(
        &self,
        tx: &Transaction<'_>,
        id: KeyId,
        found: &Record,
        (fence, reply): (Fence, Reply),
        policy: &Policy,
        now: Timestamp,
    ) -> Result<bool, TxError> {
        let fits = reply.content().is_none_or(|content| content.len() <= REPLY_MAX);
        let reply = if fits { reply } else { reply.without_content() };
        let next = complete(now, policy, found, fence, reply).map_err(|outcome| {
            let text = format!("claim {} does not count: {outcome:?}", fence.get());
            self.error(TxErrorKind::Fenced, &text)
        })?;
        let written = self.write(tx, id, found, &next).await?;
        if written {
            // What is told after the commit must not be lost, whatever the caller's settings are.
            self.run(tx, schema::TX_DURABLE, &[]).await?;
        }
        Ok(written)
    }

    async fn write(
        &self,
        tx: &Transaction<'_>,
        id: KeyId,
        found: &Record,
        next: &Record,
    ) -> Result<bool, TxError> {
        let row = Row::of(id, next).map_err(|error| self.damaged(&error))?;
        let expected = i64::try_from(found.revision.get()).unwrap_or(i64::MAX);
        let values: [(&(dyn ToSql + Sync), Type); 6] = [
            (&key(&id), Type::BYTEA),
            (&row.revision, Type::INT8),
            (&row.state, Type::INT2),
            (&row.due_at, Type::INT8),
            (&row.bytes, Type::BYTEA),
            (&expected, Type::INT8),
        ];
        Ok(!self.run(tx, schema::TX_CHANGE, &values).await?.is_empty())
    }

    async fn run(
        &self,
        tx: &Transaction<'_>,
        sql: &str,
        values: Values<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, TxError> {
        tx.query_typed(sql, values).await.map_err(|error| self.failed(&error))
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
    pub async fn complete(self, reply: Reply) -> Result<(), TxError> {
        let Self { transactions, tx, id, policy, record } = self;
        let (said, store) = ((record.fence, reply), transactions.store(tx).await?);
        if transactions.completed(tx, id, &record, said, &policy, store.now).await? {
            return Ok(());
        }
        let text = "its record was changed within this transaction";
        Err(transactions.error(TxErrorKind::Fenced, text))
    }
}

const CONFLICTS: &str = "too many writers changed the record at once";

fn key(id: &KeyId) -> &[u8] {
    id.as_bytes()
}
