//! The functions in SQL are held to the core: every cell of the table that they can meet, and the
//! bytes of every record that they may be given.

use onlyonce_core::{Fence, Policy, Record, Reply};
use onlyonce_store::Row;
use onlyonce_testbed::Postgres as Server;
use tokio_postgres::{Client, NoTls};

use crate::common::{RUNTIME, database, init};

#[path = "../../../conformance/tests/cells/mod.rs"]
mod held;

use held::{Asked, Sql, Told, hold, id, now};

struct Functions(Client);

/// A millisecond number as SQL takes it.
fn number(millis: u64) -> String {
    format!("{millis}::numeric")
}

fn bytes(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'\\x{hex}'::bytea")
}

/// The record as SQL reads it from a row.
fn found(record: Option<&Record>) -> String {
    let Some(record) = record else { return "NULL::onlyonce._record".to_owned() };
    let row = Row::of(id(), record).unwrap();
    let (key, stored) = (bytes(id().as_bytes()), bytes(&row.bytes));
    format!("onlyonce._read({key}, {}, {stored})", row.revision)
}

fn millis(duration: std::time::Duration) -> String {
    number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Functions {
    /// What a call answers: `outcome`, whether something is `changed`, and the record `r`.
    fn told(&self, changed: &str, call: &str) -> Told {
        let key = bytes(id().as_bytes());
        let text = format!(
            "SELECT outcome, {changed}, (r).revision::int8, (r).state::int8, \
             CASE WHEN {changed} THEN onlyonce._due_at(r) END, \
             CASE WHEN {changed} THEN onlyonce._write({key}, r) END FROM {call} it"
        );
        let row = RUNTIME.block_on(self.0.query_one(&text, &[])).unwrap_or_else(|error| {
            panic!("{error}: {:?}\n{text}", error.as_db_error());
        });
        let changed: bool = row.get(1);
        let columns = || (row.get(2), row.get(3), row.get(4), row.get(5));
        (row.get(0), changed.then(columns))
    }
}

impl Sql for Functions {
    fn claim(&mut self, record: Option<&Record>, asked: &Asked<'_>) -> Told {
        let Asked { floor, policy, class, print, claim } = asked;
        let class = class.as_ref().map_or("NULL".to_owned(), |class| format!("'{class}'"));
        let carried = claim.key_time.map_or("NULL".to_owned(), |at| number(at.as_millis()));
        let call = format!(
            "onlyonce._claim({}, {}, {}, {}, {}, {class}, {}, {}, {}, {}, {carried})",
            number(now().as_millis()),
            number(floor.time().as_millis()),
            millis(policy.lease),
            millis(policy.remember),
            millis(policy.skew_max),
            found(record),
            bytes(print),
            bytes(claim.claim_id.as_bytes()),
            asked.is_committing(),
        );
        self.told("changed", &call)
    }

    fn complete(&mut self, record: &Record, fence: Fence, reply: &Reply, policy: &Policy) -> Told {
        let content = reply.content().map_or("NULL".to_owned(), |it| bytes(it));
        let call = format!(
            "onlyonce._complete({}, {}, {}, {}, {}, {}, {content})",
            number(now().as_millis()),
            millis(policy.retention),
            millis(policy.skew_max),
            found(Some(record)),
            number(fence.get()),
            reply.status(),
        );
        self.told("(outcome = 'done')", &call)
    }

    fn again(&mut self, record: &Record) -> Told {
        let call = format!("(SELECT 'done' AS outcome, r FROM {} r)", found(Some(record)));
        self.told("true", &call)
    }

    fn refused(&mut self, key: &[u8], revision: i64, stored: &[u8]) -> String {
        let (key, stored) = (bytes(key), bytes(stored));
        let text = format!("SELECT onlyonce._read({key}, {revision}, {stored}) IS NULL");
        let error = RUNTIME.block_on(self.0.query_one(&text, &[])).unwrap_err();
        error.code().unwrap().code().to_owned()
    }

    fn checksum(&mut self, of: &[u8]) -> Vec<u8> {
        let sum = format!("SELECT onlyonce._checksum({})", bytes(of));
        RUNTIME.block_on(self.0.query_one(&sum, &[])).unwrap().get(0)
    }
}

#[test]
fn the_functions_in_sql_do_what_the_core_decides_in_every_cell() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let connected = RUNTIME.block_on(tokio_postgres::connect(&server.url(&name), NoTls));
    let (client, connection) = connected.unwrap();
    RUNTIME.spawn(connection);
    hold(&mut Functions(client), "OO003");
}
