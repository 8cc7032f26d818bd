//! The procedures in SQL are held to the core: every cell of the table that they can meet, and the
//! bytes of every record that they may be given.

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use onlyonce_core::{Fence, Policy, Record, Reply};
use onlyonce_store::Row;
use onlyonce_testbed::MariaDb as Server;

use crate::common::{RUNTIME, database, init};
use crate::shop::{connect, hex};

#[path = "../../../conformance/tests/cells/mod.rs"]
mod held;

use held::{Asked, Sql, Told, hold, id, now};

/// The type of a record.
const RECORD: &str = include_str!("../../src/functions/row.sql");

struct Procedures(Conn);

/// Puts the record where the variable `stands` is, as SQL reads it from a row.
fn found(record: Option<&Record>) -> String {
    let Some(record) = record else { return String::new() };
    let row = Row::of(id(), record).unwrap();
    let (key, stored) = (hex(id().as_bytes()), hex(&row.bytes));
    format!("CALL onlyonce__read({key}, {}, {stored}, stands);", row.revision)
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Procedures {
    /// What a call makes of a record: it sets `outcome`, `changed` and `r`.
    fn told(&mut self, record: Option<&Record>, call: &str) -> Told {
        let (key, found) = (hex(id().as_bytes()), found(record));
        let text = format!(
            "BEGIN NOT ATOMIC
               DECLARE stands, r {RECORD};
               DECLARE outcome VARCHAR(16);
               DECLARE changed BOOLEAN;
               DECLARE due BIGINT;
               DECLARE said LONGBLOB;
               {found}
               {call}
               IF changed THEN
                 CALL onlyonce__write({key}, r, due, said);
               END IF;
               SELECT outcome, changed, CAST(r.revision AS SIGNED), r.state, due, said;
             END"
        );
        let row: Option<mysql_async::Row> = RUNTIME
            .block_on(self.0.query_first(&text))
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        let row = row.unwrap();
        let changed: bool = row.get(1).unwrap();
        let columns =
            || (row.get(2).unwrap(), row.get(3).unwrap(), row.get(4).unwrap(), row.get(5).unwrap());
        (row.get(0).unwrap(), changed.then(columns))
    }
}

impl Sql for Procedures {
    fn claim(&mut self, record: Option<&Record>, asked: &Asked<'_>) -> Told {
        let Asked { floor, policy, class, print, claim } = asked;
        let class = class.as_ref().map_or("NULL".to_owned(), |class| format!("'{class}'"));
        let carried = claim.key_time.map_or("NULL".to_owned(), |at| at.as_millis().to_string());
        let call = format!(
            "CALL onlyonce__claimed({}, {}, {}, {}, {}, {class}, stands, {}, {}, {}, {carried}, \
             outcome, changed, r);",
            now().as_millis(),
            floor.time().as_millis(),
            millis(policy.lease),
            millis(policy.remember),
            millis(policy.skew_max),
            hex(print),
            hex(claim.claim_id.as_bytes()),
            asked.is_committing(),
        );
        self.told(record, &call)
    }

    fn complete(&mut self, record: &Record, fence: Fence, reply: &Reply, policy: &Policy) -> Told {
        let content = reply.content().map_or("NULL".to_owned(), |it| hex(it));
        let call = format!(
            "CALL onlyonce__completed({}, {}, {}, stands, {}, {}, {content}, outcome, r);
             SET changed = outcome = 'done';",
            now().as_millis(),
            millis(policy.retention),
            millis(policy.skew_max),
            fence.get(),
            reply.status(),
        );
        self.told(Some(record), &call)
    }

    fn again(&mut self, record: &Record) -> Told {
        let call = "SET r = stands; SET changed = TRUE; SET outcome = 'done';";
        self.told(Some(record), call)
    }

    fn refused(&mut self, key: &[u8], revision: i64, stored: &[u8]) -> String {
        let (key, stored) = (hex(key), hex(stored));
        let text = format!(
            "BEGIN NOT ATOMIC
               DECLARE r {RECORD};
               CALL onlyonce__read({key}, {revision}, {stored}, r);
             END"
        );
        let error = RUNTIME.block_on(self.0.query_drop(&text)).unwrap_err();
        let mysql_async::Error::Server(said) = error else { panic!("{error}") };
        said.state
    }

    fn checksum(&mut self, of: &[u8]) -> Vec<u8> {
        let sum = format!("SELECT REVERSE(UNHEX(LPAD(HEX(CRC32C({})), 8, '0')))", hex(of));
        RUNTIME.block_on(self.0.query_first(&sum)).unwrap().unwrap()
    }
}

#[test]
fn the_procedures_in_sql_do_what_the_core_decides_in_every_cell() {
    let server = Server::start();
    let name = database(&server);
    init(&server, &name).unwrap();
    let mut procedures = Procedures(RUNTIME.block_on(connect(&server.url(&name))));
    hold(&mut procedures, "OO003");
    RUNTIME.block_on(procedures.0.disconnect()).unwrap();
}
