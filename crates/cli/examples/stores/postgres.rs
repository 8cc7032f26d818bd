//! PostgreSQL, and array statements of a bare client that looks at nothing that comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onlyonce_core::Floor;
use onlyonce_testbed::Postgres as Server;
use tokio_postgres::{Client, NoTls, Statement};

use crate::Bench;
use crate::load::{Batches, Engines};

/// The store's table, as it is, under another name.
const TABLE: &str = "
CREATE SCHEMA bare;
CREATE TABLE bare.records (LIKE onlyonce.records INCLUDING ALL) WITH (
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_cost_delay = 0,
  toast.autovacuum_vacuum_scale_factor = 0.02,
  toast.autovacuum_vacuum_cost_delay = 0
)";
const MAKE: &str = "
INSERT INTO bare.records (id, revision, state, due_at, record)
SELECT * FROM unnest($1::bytea[], $2::int8[], $3::int2[], $4::int8[], $5::bytea[])";
const CHANGE: &str = "
UPDATE bare.records r
SET revision = i.revision, state = i.state, due_at = i.due_at, record = i.record
FROM unnest($1::bytea[], $2::int8[], $3::int2[], $4::int8[], $5::bytea[])
  AS i (id, revision, state, due_at, record) WHERE r.id = i.id";

/// Without statistics of a table that is all new the server would read it whole for each change.
const BY_KEY: &str =
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

/// What is in a row beside the id.
struct Row {
    revision: i64,
    state: i16,
    due_at: i64,
    record: Vec<u8>,
}

pub(crate) struct Postgres {
    engines: Engines,
    client: Client,
    make: Statement,
    change: Statement,
    rows: [Row; 2],
    next: u64,
    _server: Server,
}

pub(crate) async fn start() -> Postgres {
    let server = tokio::task::block_in_place(Server::start);
    let url = server.url("postgres");
    let address: onlyonce_postgres::Address = url.parse().unwrap();
    onlyonce_postgres::Postgres::init(address.clone(), Floor::NONE).await.unwrap();
    let store = onlyonce_postgres::Postgres::open(address).await.unwrap();
    let engines = Engines::on(Arc::new(store)).await;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let (claimed, ended) = engines.samples().await;
    let rows = [row(&client, claimed).await, row(&client, ended).await];
    client.batch_execute(TABLE).await.unwrap();
    client.batch_execute(BY_KEY).await.unwrap();
    let make = client.prepare(MAKE).await.unwrap();
    let change = client.prepare(CHANGE).await.unwrap();
    Postgres { engines, client, make, change, rows, next: 0, _server: server }
}

/// The bytes that the store has written.
async fn row(client: &Client, id: [u8; 16]) -> Row {
    let sql = "SELECT revision, state, due_at, record FROM onlyonce.records WHERE id = $1";
    let row = client.query_one(sql, &[&&id[..]]).await.unwrap();
    Row { revision: row.get(0), state: row.get(1), due_at: row.get(2), record: row.get(3) }
}

impl Postgres {
    async fn swaps(&self, statement: &Statement, ids: &[[u8; 16]], row: &Row, step: i64) {
        if ids.is_empty() {
            return;
        }
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
        // Times go on, as those of the store do.
        let later = |time: i64| vec![time + step; ids.len()];
        let (revisions, due_at) = (later(row.revision), later(row.due_at));
        let (states, records) = (vec![row.state; ids.len()], vec![&row.record[..]; ids.len()]);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&ids, &revisions, &states, &due_at, &records];
        let changed = self.client.execute(statement, &values).await.unwrap();
        assert_eq!(changed, ids.len() as u64);
    }
}

impl Bench for Postgres {
    fn engines(&self) -> &Engines {
        &self.engines
    }

    async fn commits(&mut self) -> Option<u64> {
        // Whoever writes takes a number.
        let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
        let row = self.client.query_one(sql, &[]).await.unwrap();
        row.get::<_, &str>(0).parse().ok()
    }

    async fn bare(&mut self, _: usize, batch: usize, time: Duration) -> Option<f64> {
        let (begun, mut batches) = (Instant::now(), Batches::of(batch, self.next));
        while begun.elapsed() < time {
            let (made, ended) = batches.gather();
            // All of it in one round trip: it is sent in the order in which it is polled.
            let step = begun.elapsed().as_millis() as i64;
            let (begin, (), (), commit) = tokio::join!(
                self.client.batch_execute("BEGIN"),
                self.swaps(&self.make, &made, &self.rows[0], step),
                self.swaps(&self.change, &ended, &self.rows[1], step),
                self.client.batch_execute("COMMIT"),
            );
            begin.and(commit).unwrap();
        }
        self.next = batches.next();
        Some(batches.pairs as f64 / begun.elapsed().as_secs_f64())
    }

    async fn plain(&mut self, _: usize, _: Duration) -> Option<f64> {
        None
    }
}
