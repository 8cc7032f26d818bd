//! A shop whose orders and records are in one database, and whose customers call at either door:
//! the Rust API or the procedures in SQL.

use std::time::{Duration, SystemTime};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, IsolationLevel, Opts, OptsBuilder, Row, Transaction, TxOpts};
pub(crate) use onlyonce_conformance::transactions::Told;
use onlyonce_conformance::transactions::{self, Ask, Counts, End, Line, Remote, name};
use onlyonce_core::{
    Fence, Key, KeyId, OnUnknown, Policy, Record, Reply, Scope, Secret, Timestamp,
};
use onlyonce_mysql::{Claimed, Mysql, Request, Transactions, TxError};
use onlyonce_store::Store;
use onlyonce_testbed::{MariaDb as Server, Relay, Way, until};

use crate::common::{RUNTIME, database, init, open, transactions};

pub(crate) const LEVELS: [IsolationLevel; 4] = [
    IsolationLevel::ReadCommitted,
    IsolationLevel::ReadUncommitted,
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
        server.sql(&name, "CREATE TABLE visits (name varchar(255) NOT NULL)");
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
        let door = DOORS.iter().position(|it| *it == door).unwrap();
        self.ask(conn, level, Ask::at(door, key)).await
    }

    async fn ask(
        &self,
        conn: &mut Conn,
        level: IsolationLevel,
        ask: Ask<'_>,
    ) -> Result<Told, TxError> {
        let failed = |error: mysql_async::Error| self.once.failed(&error);
        let mut opts = TxOpts::default();
        opts.with_isolation_level(level);
        let mut tx = conn.start_transaction(opts).await.map_err(failed)?;
        let told = match DOORS[ask.door] {
            Door::Rust => self.by_rust(&mut tx, ask).await?,
            Door::Sql => self.by_sql(&mut tx, ask).await?,
        };
        tx.query_drop(format!("INSERT INTO visits VALUES ('{}')", ask.key))
            .await
            .map_err(failed)?;
        if ask.end == End::RollBack {
            return tx.rollback().await.map(|()| told).map_err(failed);
        }
        self.once.commit(tx).await?;
        Ok(told)
    }

    pub(crate) async fn by_rust(
        &self,
        tx: &mut Transaction<'_>,
        ask: Ask<'_>,
    ) -> Result<Told, TxError> {
        let request = transactions::Shop::request(self, ask.key, ask.content);
        match self.once.claim(tx, &request, &ask.policy).await? {
            Claimed::Granted(granted) => {
                let sold = sell(tx, ask.key).await;
                let content = sold.map_err(|error| self.once.failed(&error))?;
                if ask.end != End::CommitHalf {
                    granted.complete(tx, Reply::kept(201, content.clone())).await?;
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

    async fn by_sql(&self, tx: &mut Transaction<'_>, ask: Ask<'_>) -> Result<Told, TxError> {
        let failed = |error: mysql_async::Error| self.once.failed(&error);
        let (outcome, fence, content) = claim_as(tx, ask).await.map_err(failed)?;
        let content = || String::from_utf8(content).unwrap();
        match outcome.as_str() {
            "granted" => {
                let content = sell(tx, ask.key).await.map_err(failed)?;
                if ask.end != End::CommitHalf {
                    tx.query_drop(said(ask.key, fence, &content)).await.map_err(failed)?;
                }
                Ok(Told::Ran(content))
            }
            "replay" => Ok(Told::Replayed(content())),
            _ => Ok(Told::Refused(outcome)),
        }
    }
}

/// What completes a claim by the procedures.
fn said(key: &str, fence: i64, content: &str) -> String {
    let content = hex(content.as_bytes());
    format!("CALL onlyonce_complete('orders', '{key}', {fence}, 201, {content}, NULL)")
}

/// What `onlyonce_claim` answers: outcome, fence and content.
pub(crate) async fn claim(
    tx: &mut Transaction<'_>,
    key: &str,
) -> Result<(String, i64, Vec<u8>), mysql_async::Error> {
    claim_as(tx, Ask::at(0, key)).await
}

async fn claim_as(
    tx: &mut Transaction<'_>,
    ask: Ask<'_>,
) -> Result<(String, i64, Vec<u8>), mysql_async::Error> {
    let (key, request) = (ask.key, hex(ask.content.as_bytes()));
    let retry = ask.policy.on_unknown == OnUnknown::Retry;
    let options = if retry { r#"'{"on_unknown": "retry"}'"# } else { "NULL" };
    tx.query_drop(format!(
        "CALL onlyonce_claim('orders', '{key}', {request}, {options}, @o, @f, @s, @c, @w, @x)"
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

    fn sees_what_is_not_committed(&self, level: usize) -> bool {
        LEVELS[level] == IsolationLevel::ReadUncommitted
    }

    async fn order(&self, ask: Ask<'_>) -> Result<Told, TxError> {
        let mut conn = connect_counting_all(&self.url()).await;
        let told = self.ask(&mut conn, LEVELS[ask.level], ask).await;
        conn.disconnect().await.unwrap();
        told
    }

    async fn complete(&self, door: usize, key: &str, fence: Fence) -> Result<(), TxError> {
        let mut conn = connect(&self.url()).await;
        let mut tx = begin(&mut conn, LEVELS[0]).await;
        sell(&mut tx, key).await.unwrap();
        let ended = match DOORS[door] {
            Door::Rust => {
                let (id, reply) = (self.id(key), Reply::kept(201, "done"));
                self.once.complete(&mut tx, id, fence, reply, &Policy::default()).await
            }
            Door::Sql => {
                let fence = i64::try_from(fence.get()).unwrap();
                let ended = tx.query_drop(said(key, fence, "done")).await;
                ended.map_err(|error| self.once.failed(&error))
            }
        };
        let ended = match ended {
            Ok(()) => self.once.commit(tx).await,
            Err(error) => tx.rollback().await.map_or_else(|it| panic!("{it}"), |()| Err(error)),
        };
        conn.disconnect().await.unwrap();
        ended
    }

    async fn pause(&self, tries: u32) {
        tokio::time::sleep(Duration::from_millis(5) * tries.min(40)).await;
    }

    fn counts(&self) -> Counts {
        let (orders, records) = self.counts();
        let visits = self.sql("SELECT COUNT(*) FROM visits").parse().unwrap();
        Counts { orders, records, visits }
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
        let url = format!("mysql://root@{}/{}", line.0.address(), self.name);
        let connected = try_connect(&url).await;
        let mut conn = connected.map_err(|error| self.once.failed(&error))?;
        self.ask(&mut conn, LEVELS[ask.level], ask).await
    }

    fn settle(&self) {
        let open = || transactions(|sql| self.sql(sql), "%");
        until("nothing is open", || (open() == "0").then_some(()));
    }
}
