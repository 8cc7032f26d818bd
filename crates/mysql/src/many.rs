//! The swaps of one transaction as one statement of many rows, which costs the server far less than
//! a statement for each.
//!
//! Such a statement says how many rows it has changed, not which. So it is refused at the first row
//! that is another than expected, the transaction demands that none was missing, and nothing is
//! carried out otherwise. Whoever asked then looks which keys stand otherwise than expected, and
//! tries the others again.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use onlyonce_core::KeyId;
use onlyonce_store::Row;

use crate::batch::{key, statement};
use crate::queue::Ask;
use crate::schema::{IDS, hex, ids};
use crate::script::{NEVER, Note, Script, Stopped};
use crate::session::{Session, value};

/// No other way to the rows locks just these.
pub(crate) const RECORDS: &str = "onlyonce_records FORCE INDEX (PRIMARY)";
const INSERT: &str = "INSERT INTO onlyonce_records \
                      (id, revision, state, due_at, record, expected) VALUES";
/// What becomes of a row that is there: it is changed if its revision is the expected one, and else
/// the server refuses the statement. The revision is compared, so it is set last.
fn there() -> String {
    format!(
        " ON DUPLICATE KEY UPDATE \
         record = IF(revision = VALUES(expected), VALUES(record), {NEVER}), \
         state = VALUES(state), due_at = VALUES(due_at), revision = VALUES(revision)"
    )
}

/// Carries them out, in the order of their ids: all that make or change a row, or none. The keys
/// whose swap took place.
///
/// # Errors
/// As [`crate::batch::carry_out`]; it was stopped [`crate::script::By::Demand`] if a row was not
/// as it was expected.
pub(crate) async fn carry_out(
    session: &mut Session,
    slot: u8,
    asks: &[&Ask],
) -> Result<HashSet<KeyId>, Stopped> {
    let mut script = Script::begin();
    let deletes: Vec<&Ask> = asks.iter().copied().filter(|ask| ask.next.is_none()).collect();
    if !deletes.is_empty() {
        // All that is there, before anything is written: each kind by itself is another order.
        for some in asks.chunks(IDS) {
            let ids = ids(some.iter().map(|ask| &ask.id));
            script.add(&format!("SELECT COUNT(*) FROM {RECORDS} WHERE id IN ({ids}) FOR UPDATE"));
        }
    }
    let place = |ask: &&Ask| Some((ask.id, script.add(&statement(ask)?)));
    let deletes: Vec<(KeyId, usize)> = deletes.iter().filter_map(place).collect();
    let (rows, counts) = write(asks);
    script.add(&rows);
    let top = asks.iter().filter_map(|ask| Some(ask.next.as_ref()?.revision)).max();
    let demand = Some(format!("ROW_COUNT() = {counts}"));
    script.note(Note { slot, revision: top.unwrap_or_default().to_string(), demand });
    let answers = script.commit(session).await?;
    let deleted = deletes.into_iter().filter(|(_, at)| answers[*at].affected == 1);
    let written = asks.iter().filter(|ask| ask.next.is_some()).map(|ask| ask.id);
    Ok(written.chain(deleted.map(|(id, _)| id)).collect())
}

/// The statement that makes or changes all of these rows, and how many it counts then: one for a
/// row that is made, two for one that is changed. One that was to be changed and is not there is
/// made, and so counts too little.
fn write(asks: &[&Ask]) -> (String, usize) {
    let mut sql = format!("{INSERT} ");
    let mut counts = 0;
    for (ask, row) in asks.iter().filter_map(|ask| Some((ask, ask.next.as_ref()?))) {
        let comma = if counts == 0 { "" } else { "," };
        let Row { revision, state, due_at, .. } = row;
        let (id, record) = (hex(ask.id.as_bytes()), hex(&row.bytes));
        let expected = ask.expected.map_or_else(|| "NULL".to_owned(), |it| it.to_string());
        let _ = write!(sql, "{comma}({id},{revision},{state},{due_at},{record},{expected})");
        counts += if ask.expected.is_some() { 2 } else { 1 };
    }
    (sql + &there(), counts)
}

/// The same statement, which says what it would do and does nothing.
pub(crate) fn explained() -> String {
    format!("EXPLAIN {INSERT} (x'00', 0, 0, 0, x'', 0){}", there())
}

/// Those that are as they are expected by now.
///
/// # Errors
/// It cannot be read; nothing was changed.
pub(crate) async fn expected<'a>(
    session: &mut Session,
    asks: &[&'a Ask],
) -> Result<Vec<&'a Ask>, Stopped> {
    let mut there = HashMap::with_capacity(asks.len());
    for some in asks.chunks(IDS) {
        let ids = ids(some.iter().map(|ask| &ask.id));
        let sql = format!("SELECT id, revision FROM {RECORDS} WHERE id IN ({ids})");
        let rows = session.read(&sql).await.map_err(Stopped::lost)?;
        there.extend(rows.iter().filter_map(|row| Some((key(row)?, value::<i64>(row, 1)?))));
    }
    let is_so = |ask: &&&Ask| there.get(&ask.id).copied() == ask.expected;
    Ok(asks.iter().filter(is_so).copied().collect())
}
