//! A shop whose orders and records are in one database, and whose customers call at either door:
//! the Rust API or the procedures in SQL.

use std::time::{Duration, SystemTime};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, IsolationLevel, Opts, OptsBuilder, Row, Transaction, TxOpts};
use onlyonce_core::{
    ClaimId, Command, Floor, Key, KeyId, Next, Policy, Record, Reply, Revision, Scope, State,
    Timestamp, decide,
};
use onlyonce_mysql::{Claimed, Mysql, Request, Transactions, TxError};
use onlyonce_store::{Store as _, Swap};
use onlyonce_testbed::MariaDb as Server;

use crate::common::{RUNTIME, database, init, open};

pub(crate) const LEVELS: [IsolationLevel; 4] = [
    IsolationLevel::ReadUncommitted,
    IsolationLevel::ReadCommitted,
    IsolationLevel::RepeatableRead,
    IsolationLevel::Serializable,
];

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
    pub(crate) store: Mysql,
    pub(crate) once: Transactions,
}

#[allow(clippy::disallowed_methods, reason = "a test's clock")]
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

fn opts(url: &str) -> OptsBuilder {
    OptsBuilder::from_opts(Opts::from_url(url).unwrap()).prefer_socket(false)
}

pub(crate) async fn try_connect(url: &str) -> Result<Conn, mysql_async::Error> {
    Conn::new(opts(url)).await
}

pub(crate) async fn connect(url: &str) -> Conn {
    try_connect(url).await.unwrap()
}

/// As some libraries do it: rows that are left as they are count too.
pub(crate) async fn connect_counting_all(url: &str) -> Conn {
    Conn::new(opts(url).client_found_rows(true)).await.unwrap()
}

pub(crate) async fn begin(conn: &mut Conn, level: IsolationLevel) -> Transaction<'_> {
    let mut opts = TxOpts::default();
    opts.with_isolation_level(level);
    conn.start_transaction(opts).await.unwrap()
}

impl Shop {
    pub(crate) fn open() -> Self {
        Self::on(Server::start())
    }

    pub(crate) fn on(server: Server) -> Self {
        let name = database(&server);
        init(&server, &name).unwrap();
        server.sql(&name, "CREATE TABLE orders (name varchar(255) NOT NULL)");
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
        let scope = Scope::new("orders").unwrap();
        self.once.request(&scope, &Key::new(key.to_owned()).unwrap(), key.as_bytes())
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
        let told = self.sql(
            "SELECT (SELECT COUNT(*) FROM orders), \
             (SELECT COUNT(*) FROM onlyonce_records WHERE state = 3)",
        );
        let (orders, records) = told.split_once('\t').unwrap();
        (orders.parse().unwrap(), records.parse().unwrap())
    }

    /// Orders once, in a transaction of its own.
    pub(crate) async fn order(
        &self,
        door: Door,
        conn: &mut Conn,
        level: IsolationLevel,
        key: &str,
    ) -> Result<Told, TxError> {
        let mut opts = TxOpts::default();
        opts.with_isolation_level(level);
        let begun = conn.start_transaction(opts).await;
        let mut tx = begun.map_err(|error| self.once.failed(&error))?;
        let told = match door {
            Door::Rust => self.by_rust(&mut tx, key).await?,
            Door::Sql => self.by_sql(&mut tx, key).await?,
        };
        self.once.commit(tx).await?;
        Ok(told)
    }

    pub(crate) async fn by_rust(
        &self,
        tx: &mut Transaction<'_>,
        key: &str,
    ) -> Result<Told, TxError> {
        let request = self.request(key);
        match self.once.claim(tx, &request, &Policy::default()).await? {
            Claimed::Granted(granted) => {
                let content = sell(tx, key).await.map_err(|error| self.once.failed(&error))?;
                granted.complete(tx, Reply::kept(201, content.clone())).await?;
                Ok(Told::Ran(content))
            }
            Claimed::Replay(reply) => {
                let content = reply.content().unwrap().to_vec();
                Ok(Told::Replayed(String::from_utf8(content).unwrap()))
            }
            Claimed::Refused(outcome) => Ok(Told::Refused(format!("{outcome:?}"))),
        }
    }

    async fn by_sql(&self, tx: &mut Transaction<'_>, key: &str) -> Result<Told, TxError> {
        let failed = |error: mysql_async::Error| self.once.failed(&error);
        let (outcome, fence, content) = claim(tx, key).await.map_err(failed)?;
        let content = || String::from_utf8(content).unwrap();
        match outcome.as_str() {
            "granted" => {
                let content = sell(tx, key).await.map_err(failed)?;
                let said = hex(content.as_bytes());
                let complete = format!(
                    "CALL onlyonce_complete('orders', '{key}', {fence}, 201, {said}, NULL)"
                );
                tx.query_drop(complete).await.map_err(failed)?;
                Ok(Told::Ran(content))
            }
            "replay" => Ok(Told::Replayed(content())),
            _ => Ok(Told::Refused(outcome)),
        }
    }
}

/// What `onlyonce_claim` answers: outcome, fence and content.
pub(crate) async fn claim(
    tx: &mut Transaction<'_>,
    key: &str,
) -> Result<(String, i64, Vec<u8>), mysql_async::Error> {
    let request = hex(key.as_bytes());
    tx.query_drop(format!(
        "CALL onlyonce_claim('orders', '{key}', {request}, NULL, @o, @f, @s, @c, @w, @x)"
    ))
    .await?;
    let row: Option<Row> = tx.query_first("SELECT @o, COALESCE(@f, 0), COALESCE(@c, '')").await?;
    let row = row.unwrap();
    Ok((row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap()))
}

/// What is to happen once: what it says is another each time.
async fn sell(tx: &mut Transaction<'_>, key: &str) -> Result<String, mysql_async::Error> {
    tx.query_drop(format!("INSERT INTO orders VALUES ('{key}')")).await?;
    let said: Option<String> = tx.query_first("SELECT UUID()").await?;
    Ok(said.unwrap())
}
