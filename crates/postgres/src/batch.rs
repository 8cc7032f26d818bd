//! The swaps of one transaction, as arrays for a function in the database.

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

/// A function of ours that a server plans once for each of its connections.
const SWAP: &str = "SELECT onlyonce._swap($1, $2, $3, $4, $5, $6, $7)";

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

/// What the function is given.
struct Columns<'a> {
    ids: Vec<&'a [u8]>,
    expected: Vec<Option<i64>>,
    revisions: Vec<Option<i64>>,
    states: Vec<Option<i16>>,
    due_at: Vec<Option<i64>>,
    records: Vec<Option<&'a [u8]>>,
}

impl<'a> Columns<'a> {
    fn of(asks: &[&'a Ask]) -> Self {
        let mut asks = asks.to_vec();
        // Two processes that take rows in the same order never wait for each other.
        asks.sort_unstable_by_key(|ask| ask.id);
        let rows = || asks.iter().map(|ask| ask.next.as_ref());
        Self {
            ids: asks.iter().map(|ask| &ask.id.as_bytes()[..]).collect(),
            expected: asks.iter().map(|ask| ask.expected).collect(),
            revisions: rows().map(|row| row.map(|it| it.revision)).collect(),
            states: rows().map(|row| row.map(|it| it.state)).collect(),
            due_at: rows().map(|row| row.map(|it| it.due_at)).collect(),
            records: rows().map(|row| row.map(|it| &it.bytes[..])).collect(),
        }
    }

    fn values<'b>(&'b self, slot: &'b i16) -> [(&'b (dyn ToSql + Sync), Type); 7] {
        [
            (&self.ids, Type::BYTEA_ARRAY),
            (&self.expected, Type::INT8_ARRAY),
            (&self.revisions, Type::INT8_ARRAY),
            (&self.states, Type::INT2_ARRAY),
            (&self.due_at, Type::INT8_ARRAY),
            (&self.records, Type::BYTEA_ARRAY),
            (slot, Type::INT2),
        ]
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
    let columns = Columns::of(asks);
    let values = columns.values(&slot);
    let client = &session.client;
    // They are sent in the order in which they are polled first.
    let begin = format!("{}; SET LOCAL lock_timeout = {lock_max}", session.begin);
    let begin = client.batch_execute(&begin);
    let work = client.query_typed(SWAP, &values);
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
