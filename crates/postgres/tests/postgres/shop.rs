//! A shop whose orders and records are in one database, and whose customers call at either door:
//! the Rust API or the functions in SQL. Statements have no names, as behind a pooler they cannot.

use std::time::{Duration, SystemTime};

use onlyonce_core::{
    ClaimId, Command, Floor, Key, KeyId, Next, Policy, Record, Reply, Revision, Scope, State,
    Timestamp, decide,
};
use onlyonce_postgres::{Claimed, Postgres, Request, Transactions, TxError};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::Postgres as Server;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, IsolationLevel, NoTls, Transaction};

use crate::common::{RUNTIME, database, init, open};

pub(crate) const LEVELS: [IsolationLevel; 3] =
    [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead, IsolationLevel::Serializable];

/// How a program claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Rust,
    Sql,
}

pub(crate) const DOORS: [Door; 2] = [Door::Rust, Door::Sql];

/// What a customer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ran(String),
    Replayed(String),
    Refused(String),
}

pub(crate) struct Shop {
    pub(crate) server: Server,
    pub(crate) name: String,
    pub(crate) store: Postgres,
    pub(crate) once: Transactions,
}

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn scope() -> Scope {
    Scope::new("orders").unwrap()
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn begin(client: &mut Client, level: IsolationLevel) -> Transaction<'_> {
    client.build_transaction().isolation_level(level).start().await.unwrap()
}

impl Shop {
    pub(crate) fn open() -> Self {
        let server = Server::start();
        let name = database(&server);
        init(&server, &name).unwrap();
        server.sql(&name, "CREATE TABLE orders (key text NOT NULL)");
        let store = open(&server, &name).unwrap();
        let once = store.transactions();
        Self { server, name, store, once }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        self.server.sql(&self.name, text)
    }

    pub(crate) fn request(&self, key: &str) -> Request {
        self.once.request(&scope(), &Key::new(key.to_owned()).unwrap(), key.as_bytes())
    }

    pub(crate) fn id(&self, key: &str) -> KeyId {
        self.request(key).id
    }

    pub(crate) fn record(&self, key: &str) -> Option<Record> {
        RUNTIME.block_on(self.store.get(self.id(key))).unwrap()
    }

    /// Leaves a record as an engine does whose operation did not happen.
    pub(crate) fn release(&self, key: &str) {
        let request = self.request(key);
        let mut stands: Option<Record> = None;
        let claim = request.claim(ClaimId::from_bytes([9; 16]));
        for command in [Some(claim), None] {
            let fence = stands.as_ref().map(|record| record.fence);
            let release = fence.map(|fence| Command::Release { fence, stranger: false });
            let command = command.or(release).unwrap();
            let before = stands.as_ref();
            let decision = decide(now(), Floor::NONE, &Policy::default(), before, &command);
            let Next::Write(next) = decision.next else { panic!("{decision:?}") };
            let expected = before.map(|record| record.revision);
            let swap = self.store.swap(request.id, expected, Some(next.clone()));
            assert_eq!(RUNTIME.block_on(swap), Ok(Swap::Done));
            stands = Some(next);
        }
    }

    /// Moves the end of a claim's lease back, as if this time had passed.
    pub(crate) async fn age(&self, key: &str, by: Duration) {
        let id = self.id(key);
        let mut record = self.store.get(id).await.unwrap().unwrap();
        let expected = record.revision;
        let State::InFlight(flight) = &mut record.state else { panic!("{record:?}") };
        flight.lease_until = flight.lease_until.minus(by);
        record.revision = Revision::after(Some(expected), Timestamp::from_millis(0));
        let swap = self.store.swap(id, Some(expected), Some(record)).await;
        assert_eq!(swap, Ok(Swap::Done));
    }

    /// How many orders there are, and how many records that say so.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let counts = "SELECT (SELECT count(*) FROM orders), \
                      (SELECT count(*) FROM onlyonce.records WHERE state = 3)";
        let row =
            RUNTIME.block_on(async { connect(&self.url()).await.query_one(counts, &[]).await });
        let row = row.unwrap();
        let number = |at| u64::try_from(row.get::<_, i64>(at)).unwrap();
        (number(0), number(1))
    }

    /// Orders once, in a transaction of its own.
    pub(crate) async fn order(
        &self,
        door: Door,
        client: &mut Client,
        level: IsolationLevel,
        key: &str,
    ) -> Result<Told, TxError> {
        let failed = |error: tokio_postgres::Error| self.once.failed(&error);
        let tx = client.build_transaction().isolation_level(level).start().await.map_err(failed)?;
        let told = match door {
            Door::Rust => self.by_rust(&tx, key).await?,
            Door::Sql => self.by_sql(&tx, key).await?,
        };
        self.once.commit(tx).await?;
        Ok(told)
    }

    async fn by_rust(&self, tx: &Transaction<'_>, key: &str) -> Result<Told, TxError> {
        let request = self.request(key);
        match self.once.claim(tx, &request, &Policy::default()).await? {
            Claimed::Granted(granted) => {
                let content = sell(tx, key).await.map_err(|error| self.once.failed(&error))?;
                granted.complete(Reply::kept(201, content.clone())).await?;
                Ok(Told::Ran(content))
            }
            Claimed::Replay(reply) => {
                let content = reply.content().unwrap().to_vec();
                Ok(Told::Replayed(String::from_utf8(content).unwrap()))
            }
            Claimed::Refused(outcome) => Ok(Told::Refused(format!("{outcome:?}"))),
        }
    }

    async fn by_sql(&self, tx: &Transaction<'_>, key: &str) -> Result<Told, TxError> {
        let failed = |error: tokio_postgres::Error| self.once.failed(&error);
        let claim = "SELECT outcome, fence, content FROM onlyonce.claim('orders', $1, $2)";
        let asked = [(&key as &(dyn ToSql + Sync), Type::TEXT), (&key.as_bytes(), Type::BYTEA)];
        let row = tx.query_typed_one(claim, &asked).await.map_err(failed)?;
        let content = || String::from_utf8(row.get::<_, Vec<u8>>(2)).unwrap();
        match row.get(0) {
            "granted" => {
                let content = sell(tx, key).await.map_err(failed)?;
                let complete = "SELECT onlyonce.complete('orders', $1, $2, 201, $3)";
                let fence: i64 = row.get(1);
                let said: [(&(dyn ToSql + Sync), Type); 3] =
                    [(&key, Type::TEXT), (&fence, Type::INT8), (&content.as_bytes(), Type::BYTEA)];
                tx.query_typed_one(complete, &said).await.map_err(failed)?;
                Ok(Told::Ran(content))
            }
            "replay" => Ok(Told::Replayed(content())),
            other => Ok(Told::Refused(other.to_owned())),
        }
    }
}

/// What is to happen once: what it says is another each time.
async fn sell(tx: &Transaction<'_>, key: &str) -> Result<String, tokio_postgres::Error> {
    let sell = "INSERT INTO orders VALUES ($1) RETURNING ctid::text || gen_random_uuid()::text";
    tx.query_typed_one(sell, &[(&key, Type::TEXT)]).await.map(|row| row.get(0))
}
