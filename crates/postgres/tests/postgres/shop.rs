//! A shop whose orders and records are in one database, and whose customers call at either door:
//! the Rust API or the functions in SQL. Statements have no names, as behind a pooler they cannot.

use std::time::SystemTime;

pub(crate) use onlyonce_conformance::transactions::Told;
use onlyonce_conformance::transactions::{self, Ask, Counts, End, Line, Remote, name};
use onlyonce_core::{
    Fence, Key, KeyId, OnUnknown, Policy, Record, Reply, Scope, Secret, Timestamp,
};
use onlyonce_postgres::{Claimed, Postgres, Request, Transactions, TxError};
use onlyonce_store::Store;
use onlyonce_testbed::{Postgres as Server, Relay, Way};
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
        server.sql(&name, "CREATE TABLE visits (key text NOT NULL)");
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
        let door = DOORS.iter().position(|it| *it == door).unwrap();
        self.ask(client, level, Ask::at(door, key)).await
    }

    async fn ask(
        &self,
        client: &mut Client,
        level: IsolationLevel,
        ask: Ask<'_>,
    ) -> Result<Told, TxError> {
        let failed = |error: tokio_postgres::Error| self.once.failed(&error);
        let tx = client.build_transaction().isolation_level(level).start().await.map_err(failed)?;
        let told = match DOORS[ask.door] {
            Door::Rust => self.by_rust(&tx, ask).await?,
            Door::Sql => self.by_sql(&tx, ask).await?,
        };
        let visit = "INSERT INTO visits VALUES ($1)";
        tx.query_typed(visit, &[(&ask.key, Type::TEXT)]).await.map_err(failed)?;
        if ask.end == End::RollBack {
            return tx.rollback().await.map(|()| told).map_err(failed);
        }
        self.once.commit(tx).await?;
        Ok(told)
    }

    async fn by_rust(&self, tx: &Transaction<'_>, ask: Ask<'_>) -> Result<Told, TxError> {
        let request = transactions::Shop::request(self, ask.key, ask.content);
        match self.once.claim(tx, &request, &ask.policy).await? {
            Claimed::Granted(granted) => {
                let sold = sell(tx, ask.key).await;
                let content = sold.map_err(|error| self.once.failed(&error))?;
                if ask.end != End::CommitHalf {
                    granted.complete(Reply::kept(201, content.clone())).await?;
                }
                Ok(Told::Ran(content))
            }
            Claimed::Replay(reply) => {
                let content = reply.content().unwrap().to_vec();
                Ok(Told::Replayed(String::from_utf8(content).unwrap()))
            }
            Claimed::Refused(outcome) => Ok(Told::Refused(name(&outcome).to_owned())),
        }
    }

    async fn by_sql(&self, tx: &Transaction<'_>, ask: Ask<'_>) -> Result<Told, TxError> {
        let failed = |error: tokio_postgres::Error| self.once.failed(&error);
        let claim = "SELECT outcome, fence, content \
                     FROM onlyonce.claim('orders', $1, $2, on_unknown => $3)";
        let retry = ask.policy.on_unknown == OnUnknown::Retry;
        let asked: [(&(dyn ToSql + Sync), Type); 3] = [
            (&ask.key, Type::TEXT),
            (&ask.content.as_bytes(), Type::BYTEA),
            (&(if retry { "retry" } else { "hold" }), Type::TEXT),
        ];
        let row = tx.query_typed_one(claim, &asked).await.map_err(failed)?;
        let content = || String::from_utf8(row.get::<_, Vec<u8>>(2)).unwrap();
        match row.get(0) {
            "granted" => {
                let content = sell(tx, ask.key).await.map_err(failed)?;
                if ask.end != End::CommitHalf {
                    self.say(tx, ask.key, row.get(1), &content).await?;
                }
                Ok(Told::Ran(content))
            }
            "replay" => Ok(Told::Replayed(content())),
            other => Ok(Told::Refused(other.to_owned())),
        }
    }

    /// Completes a claim by the functions.
    async fn say(
        &self,
        tx: &Transaction<'_>,
        key: &str,
        fence: i64,
        content: &str,
    ) -> Result<(), TxError> {
        let complete = "SELECT onlyonce.complete('orders', $1, $2, 201, $3)";
        let said: [(&(dyn ToSql + Sync), Type); 3] =
            [(&key, Type::TEXT), (&fence, Type::INT8), (&content.as_bytes(), Type::BYTEA)];
        let said = tx.query_typed_one(complete, &said).await;
        said.map(drop).map_err(|error| self.once.failed(&error))
    }
}

/// What is to happen once: what it says is another each time.
async fn sell(tx: &Transaction<'_>, key: &str) -> Result<String, tokio_postgres::Error> {
    let sell = "INSERT INTO orders VALUES ($1) RETURNING ctid::text || gen_random_uuid()::text";
    tx.query_typed_one(sell, &[(&key, Type::TEXT)]).await.map(|row| row.get(0))
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
        DOORS.len()
    }

    fn levels(&self) -> usize {
        LEVELS.len()
    }

    async fn order(&self, ask: Ask<'_>) -> Result<Told, TxError> {
        self.ask(&mut connect(&self.url()).await, LEVELS[ask.level], ask).await
    }

    async fn complete(&self, door: usize, key: &str, fence: Fence) -> Result<(), TxError> {
        let mut client = connect(&self.url()).await;
        let tx = begin(&mut client, LEVELS[0]).await;
        sell(&tx, key).await.unwrap();
        match DOORS[door] {
            Door::Rust => {
                let (id, reply) = (self.id(key), Reply::kept(201, "done"));
                self.once.complete(&tx, id, fence, reply, &Policy::default()).await?;
            }
            Door::Sql => {
                self.say(&tx, key, i64::try_from(fence.get()).unwrap(), "done").await?;
            }
        }
        self.once.commit(tx).await
    }

    fn counts(&self) -> Counts {
        let count =
            |table: &str| self.sql(&format!("SELECT count(*) FROM {table}")).parse().unwrap();
        let records = count("onlyonce.records WHERE state = 3");
        Counts { orders: count("orders"), records, visits: count("visits") }
    }
}

/// A way to the server, and what is counted on it.
pub(crate) struct Cable(Relay, Way);

impl Line for Cable {
    fn passed(&self) -> usize {
        self.0.passed(self.1)
    }

    fn cut_after(&self, bytes: usize) {
        self.0.cut_after(self.1, bytes);
    }

    fn mend(&self) {
        self.0.mend();
    }
}

impl Remote for Shop {
    type Line = Cable;

    fn line(&self, to_server: bool) -> Cable {
        let way = if to_server { Way::ToServer } else { Way::ToClient };
        Cable(Relay::to(self.server.address()), way)
    }

    async fn order_by(&self, line: &Cable, ask: Ask<'_>) -> Result<Told, TxError> {
        let url = format!("postgres://postgres@{}/{}", line.0.address(), self.name);
        let connected = tokio_postgres::connect(&url, NoTls).await;
        let (mut client, connection) = connected.map_err(|error| self.once.failed(&error))?;
        tokio::spawn(connection);
        self.ask(&mut client, LEVELS[ask.level], ask).await
    }

    fn settle(&self) {}
}
