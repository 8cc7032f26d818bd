//! MariaDB, and statements of many rows of a bare client that looks at nothing that comes back.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_core::Floor;
use onlyonce_testbed::MariaDb as Server;

use crate::Bench;
use crate::load::{Batches, Engines};

/// What is in a row beside the id.
type Row = (i64, i8, i64, Vec<u8>);

pub(crate) struct Mysql {
    engines: Engines,
    conn: Conn,
    rows: [Row; 2],
    next: u64,
    _server: Server,
}

pub(crate) async fn start() -> Mysql {
    let server = tokio::task::block_in_place(Server::start);
    server.sql("mysql", "CREATE DATABASE shop");
    let url = server.url("shop");
    let address: onlyonce_mysql::Address = url.parse().unwrap();
    onlyonce_mysql::Mysql::init(address.clone(), Floor::NONE).await.unwrap();
    let store = onlyonce_mysql::Mysql::open(address).await.unwrap();
    let engines = Engines::on(Arc::new(store)).await;
    let mut conn = Conn::from_url(&url).await.unwrap();
    let (claimed, ended) = engines.samples().await;
    let rows = [row(&mut conn, claimed).await, row(&mut conn, ended).await];
    conn.query_drop("CREATE TABLE bare_records LIKE onlyonce_records").await.unwrap();
    Mysql { engines, conn, rows, next: 0, _server: server }
}

/// The bytes that the store has written.
async fn row(conn: &mut Conn, id: [u8; 16]) -> Row {
    let id = hex(&id);
    let sql = "SELECT revision, state, due_at, record FROM onlyonce_records WHERE id =";
    conn.query_first(format!("{sql} {id}")).await.unwrap().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = "x'".to_owned();
    bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
    text + "'"
}

/// One statement for all of these rows; nothing for none.
fn statement(ids: &[[u8; 16]], (revision, state, due_at, record): &Row, step: i64) -> String {
    if ids.is_empty() {
        return String::new();
    }
    let (revision, due_at, record) = (revision + step, due_at + step, hex(record));
    let rows: Vec<String> = ids
        .iter()
        .map(|id| format!("({}, {revision}, {state}, {due_at}, {record})", hex(id)))
        .collect();
    format!(
        "INSERT INTO bare_records (id, revision, state, due_at, record) VALUES {} \
         ON DUPLICATE KEY UPDATE revision = VALUES(revision), state = VALUES(state), \
         due_at = VALUES(due_at), record = VALUES(record);",
        rows.join(",")
    )
}

impl Bench for Mysql {
    fn engines(&self) -> &Engines {
        &self.engines
    }

    async fn commits(&mut self) -> Option<u64> {
        let sql = "SHOW GLOBAL STATUS LIKE 'Com_commit'";
        self.conn.query_first::<(String, u64), _>(sql).await.unwrap().map(|(_, count)| count)
    }

    async fn bare(&mut self, _: usize, batch: usize, time: Duration) -> Option<f64> {
        let (begun, mut batches) = (Instant::now(), Batches::of(batch, self.next));
        while begun.elapsed() < time {
            let (mut made, mut ended) = batches.gather();
            // As the store does, and anyone who would not wait for others in a circle.
            made.sort_unstable();
            ended.sort_unstable();
            let step = begun.elapsed().as_millis() as i64;
            let make = statement(&made, &self.rows[0], step);
            let change = statement(&ended, &self.rows[1], step);
            let text = format!("START TRANSACTION;{make}{change}COMMIT");
            self.conn.query_drop(text).await.unwrap();
        }
        self.next = batches.next();
        Some(batches.pairs as f64 / begun.elapsed().as_secs_f64())
    }

    async fn plain(&mut self, _: usize, _: Duration) -> Option<f64> {
        None
    }
}
