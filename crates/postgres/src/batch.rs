//! The swaps of one transaction as array statements.

use std::collections::HashSet;

use futures_util::future::join3;
use onlyonce_core::KeyId;
use onlyonce_store::StoreError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{of_statement, text, unknown};
use crate::queue::Ask;
use crate::session::{COMMIT, Session};

/// What a transaction of somebody else's that has one of the keys comes to.
const HELD: [SqlState; 2] = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];

const INPUT: &str = "WITH input AS (
  SELECT * FROM unnest($1::bytea[], $2::int8[], $3::int8[], $4::int2[], $5::int8[], $6::bytea[])
    AS input (id, expected, revision, state, due_at, record)
)";

/// In the order of ids, so that two processes never wait for each other.
const MADE: &str = ", made AS (
  INSERT INTO onlyonce.records (id, revision, state, due_at, record)
  SELECT id, revision, state, due_at, record FROM input WHERE expected IS NULL ORDER BY id
  ON CONFLICT (id) DO NOTHING RETURNING id
)";

const LOCKED: &str = ", locked AS MATERIALIZED (
  SELECT r.id FROM onlyonce.records r JOIN input i ON i.id = r.id
  WHERE i.expected IS NOT NULL ORDER BY r.id FOR UPDATE OF r
)";

const CHANGED: &str = ", changed AS (
  UPDATE onlyonce.records r
  SET revision = i.revision, state = i.state, due_at = i.due_at, record = i.record
  FROM input i JOIN locked l ON l.id = i.id
  WHERE r.id = i.id AND r.revision = i.expected AND i.record IS NOT NULL RETURNING r.id
)";

const GONE: &str = ", gone AS (
  DELETE FROM onlyonce.records r USING input i JOIN locked l ON l.id = i.id
  WHERE r.id = i.id AND r.revision = i.expected AND i.record IS NULL RETURNING r.id
)";

/// Notes the largest revision that was written.
const RAISED: &str = ", raised AS (
  UPDATE onlyonce.revisions v SET revision = top.revision
  FROM (SELECT max(i.revision) AS revision FROM input i JOIN done d ON d.id = i.id) top
  WHERE v.slot = $7 AND v.revision < top.revision
)";

/// Those parts of the statement that these swaps need: what is not in it need not be planned.
fn statement(asks: &[&Ask]) -> String {
    let makes = asks.iter().any(|ask| ask.expected.is_none());
    let changes = asks.iter().any(|ask| ask.expected.is_some() && ask.next.is_some());
    let deletes = asks.iter().any(|ask| ask.expected.is_some() && ask.next.is_none());
    let parts = [(makes, MADE, "made"), (changes, CHANGED, "changed"), (deletes, GONE, "gone")];
    let (mut sql, mut done) = (INPUT.to_owned(), Vec::new());
    for (is_needed, part, name) in parts {
        if is_needed {
            if part != MADE && !sql.contains(LOCKED) {
                sql += LOCKED;
            }
            sql += part;
            done.push(format!("SELECT id FROM {name}"));
        }
    }
    format!("{sql}, done AS ({}){RAISED} SELECT id FROM done", done.join(" UNION ALL "))
}

/// Why a batch was not carried out. If the error is of
/// [`onlyonce_store::StoreErrorKind::Unknown`] nobody knows; of any other kind nothing was changed.
pub(crate) struct Failed {
    pub(crate) error: StoreError,
    /// Whether the session can be used further.
    pub(crate) goes_on: bool,
    /// Whether another transaction has one of the keys: the others could be written.
    pub(crate) is_held: bool,
}

impl Failed {
    const fn lost(error: StoreError) -> Self {
        Self { error, goes_on: false, is_held: false }
    }
}

/// Carries them out in one transaction and one round trip, each key at most once. The keys whose
/// swap took place; all others are in conflict. For rows that other transactions have it waits at
/// most `lock_max` milliseconds; if that is zero, for as long as a statement may take.
pub(crate) async fn carry_out(
    session: &Session,
    place: &str,
    slot: i16,
    asks: &[&Ask],
    lock_max: u32,
) -> Result<HashSet<KeyId>, Failed> {
    let ids: Vec<&[u8]> = asks.iter().map(|ask| &ask.id.as_bytes()[..]).collect();
    let expected: Vec<Option<i64>> = asks.iter().map(|ask| ask.expected).collect();
    let rows = || asks.iter().map(|ask| ask.next.as_ref());
    let revisions: Vec<Option<i64>> = rows().map(|row| row.map(|it| it.revision)).collect();
    let states: Vec<Option<i16>> = rows().map(|row| row.map(|it| it.state)).collect();
    let due_at: Vec<Option<i64>> = rows().map(|row| row.map(|it| it.due_at)).collect();
    let records: Vec<Option<&[u8]>> = rows().map(|row| row.map(|it| &it.bytes[..])).collect();
    let values: [(&(dyn ToSql + Sync), Type); 7] = [
        (&ids, Type::BYTEA_ARRAY),
        (&expected, Type::INT8_ARRAY),
        (&revisions, Type::INT8_ARRAY),
        (&states, Type::INT2_ARRAY),
        (&due_at, Type::INT8_ARRAY),
        (&records, Type::BYTEA_ARRAY),
        (&slot, Type::INT2),
    ];
    let sql = statement(asks);
    let client = &session.client;
    // They are sent in the order in which they are polled first.
    let begin = format!("{}; SET LOCAL lock_timeout = {lock_max}", session.begin);
    let begin = client.batch_execute(&begin);
    let work = client.query_typed(&sql, &values);
    let (begun, worked, committed) = join3(begin, work, client.batch_execute(COMMIT)).await;
    // Without a transaction around it the statement is one by itself.
    let lost = |error: Error| Failed::lost(unknown(place, &text(&error)));
    begun.map_err(lost)?;
    let rows = match worked {
        Ok(rows) => rows,
        Err(error) => {
            // The commit was refused too, and with it all that followed in its message.
            let goes_on = client.batch_execute("ROLLBACK").await.is_ok();
            let is_held = error.code().is_some_and(|code| HELD.contains(code));
            return Err(Failed { error: of_statement(place, &error), goes_on, is_held });
        }
    };
    committed.map_err(lost)?;
    let ids = rows.iter().filter_map(|row| row.get::<_, &[u8]>(0).try_into().ok());
    Ok(ids.map(KeyId::from_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_store::Row;

    fn ask(expected: Option<i64>, is_deletion: bool) -> Ask {
        let id = KeyId::from_bytes([1; 16]);
        let row = Row { id, revision: 2, state: 1, due_at: 3, bytes: Vec::new() };
        Ask { id, expected, next: (!is_deletion).then_some(row) }
    }

    #[test]
    fn only_what_is_needed_is_asked_of_the_server() {
        let (makes, changes, deletes) = (ask(None, false), ask(Some(1), false), ask(Some(1), true));
        let first = statement(&[&makes]);
        assert!(first.contains("INSERT INTO onlyonce.records"));
        assert!(!first.contains("FOR UPDATE") && !first.contains("DELETE"));
        let all = statement(&[&makes, &changes, &deletes]);
        for part in [MADE, LOCKED, CHANGED, GONE, RAISED] {
            assert_eq!(all.matches(part).count(), 1);
        }
    }
}
