//! The swaps of one transaction as statements of many rows, which cost the server about half.
//!
//! A statement of many rows says how many it has changed, not which. So the rows that decide are
//! read and locked before it, and the transaction demands that the statement has changed as many
//! as were seen: then it has changed just these. Somebody who makes a row in between, which no lock
//! can keep away, breaks the demand, and nothing is carried out.

use std::collections::HashSet;
use std::fmt::Write as _;

use onlyonce_core::KeyId;
use onlyonce_store::Row;

use crate::batch::{key, raise, statement};
use crate::queue::Ask;
use crate::schema::{IDS, hex, ids};
use crate::script::{Answer, Script, Stopped};
use crate::session::Session;

/// Rows of one statement, at most: it looks for each row's values among those of all.
const ROWS: usize = 64;
/// No other way to the rows locks just these.
const RECORDS: &str = "onlyonce_records FORCE INDEX (PRIMARY)";
/// What was seen before a statement, and whether any has changed another number of rows.
const BEGIN: &str = "SET @onlyonce_off = 0";
const SEEN: &str = "SET @onlyonce_seen = FOUND_ROWS()";

/// Statements of which an answer tells what took place.
enum Part<'a> {
    /// All of these but those that were there.
    Made(&'a [&'a Ask], usize),
    /// Those that were there as they were expected.
    Changed(usize),
    /// This one if it has changed a row.
    Deleted(KeyId, usize),
}

/// Carries them out, in the order of their ids.
///
/// # Errors
/// As [`crate::batch::carry_out`]; [`Stopped::unmet`] if somebody came between.
pub(crate) async fn carry_out(
    session: &mut Session,
    slot: u8,
    asks: &[&Ask],
) -> Result<HashSet<KeyId>, Stopped> {
    let of = |is: fn(&Ask) -> bool| asks.iter().copied().filter(|ask| is(ask)).collect::<Vec<_>>();
    let makes = of(|ask| ask.expected.is_none() && ask.next.is_some());
    let changes = of(|ask| ask.expected.is_some() && ask.next.is_some());
    let deletes = of(|ask| ask.expected.is_some() && ask.next.is_none());
    let (mut script, mut parts) = (Script::begin(), Vec::new());
    script.add(BEGIN);
    // All that is there, before anything is written: each kind by itself would be another order.
    for some in asks.chunks(IDS) {
        let ids = ids(some.iter().map(|ask| &ask.id));
        script.add(&format!("SELECT COUNT(*) FROM {RECORDS} WHERE id IN ({ids}) FOR UPDATE"));
    }
    for some in makes.chunks(ROWS) {
        parts.push(Part::Made(some, make(&mut script, some)));
    }
    for some in changes.chunks(ROWS) {
        parts.push(Part::Changed(change(&mut script, some)));
    }
    for ask in &deletes {
        let deleting = statement(ask).map(|statement| script.add(&statement));
        parts.extend(deleting.map(|at| Part::Deleted(ask.id, at)));
    }
    if parts.is_empty() {
        return Ok(HashSet::new());
    }
    if !(makes.is_empty() && changes.is_empty()) {
        script.add(&raise(slot, asks));
    }
    script.demand("@onlyonce_off = 0");
    let answers = script.commit(session).await?;
    Ok(parts.iter().flat_map(|part| done(part, &answers)).collect())
}

/// The place of the rows that are there already: at all others one is made.
fn make(script: &mut Script, asks: &[&Ask]) -> usize {
    let ids = ids(asks.iter().map(|ask| &ask.id));
    let there = script.add(&format!("SELECT id FROM {RECORDS} WHERE id IN ({ids}) FOR UPDATE"));
    script.add(SEEN);
    let mut sql =
        "INSERT INTO onlyonce_records (id, revision, state, due_at, record) VALUES ".to_owned();
    for (at, (ask, row)) in rows(asks).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (id, record) = (hex(ask.id.as_bytes()), hex(&row.bytes));
        let (revision, state, due_at) = (row.revision, row.state, row.due_at);
        let _ = write!(sql, "{comma}({id},{revision},{state},{due_at},{record})");
    }
    // Where there is one nothing is set to another value, and that counts as no row.
    script.add(&(sql + " ON DUPLICATE KEY UPDATE id = id"));
    script.add(&counted(&format!("{} - @onlyonce_seen", asks.len())));
    there
}

/// The place of the rows that are as they were expected: just these are changed.
fn change(script: &mut Script, asks: &[&Ask]) -> usize {
    let expected = each(asks, |ask, _| ask.expected.unwrap_or_default().to_string());
    let ids = ids(asks.iter().map(|ask| &ask.id));
    let are = format!("id IN ({ids}) AND revision = {expected}");
    let there = script.add(&format!("SELECT id FROM {RECORDS} WHERE {are} FOR UPDATE"));
    script.add(SEEN);
    let revision = each(asks, |_, row| row.revision.to_string());
    let state = each(asks, |_, row| row.state.to_string());
    let due_at = each(asks, |_, row| row.due_at.to_string());
    let record = each(asks, |_, row| hex(&row.bytes));
    script.add(&format!(
        "UPDATE {RECORDS} SET record = {record}, state = {state}, due_at = {due_at}, \
         revision = {revision} WHERE {are}"
    ));
    // MariaDB gathers the rows before it changes the first one, so nobody was seen to come between
    // here. A server that reads while it writes would find a row that has just become as expected.
    script.add(&counted("@onlyonce_seen"));
    there
}

/// Notes whether the statement before has changed another number of rows.
fn counted(is: &str) -> String {
    format!("SET @onlyonce_off = @onlyonce_off OR ROW_COUNT() <> {is}")
}

/// An expression that has a value for each of these ids.
fn each(asks: &[&Ask], value: impl Fn(&Ask, &Row) -> String) -> String {
    let mut sql = "CASE id".to_owned();
    for (ask, row) in rows(asks) {
        let _ = write!(sql, " WHEN {} THEN {}", hex(ask.id.as_bytes()), value(ask, row));
    }
    sql + " END"
}

fn rows<'a>(asks: &'a [&'a Ask]) -> impl Iterator<Item = (&'a Ask, &'a Row)> {
    asks.iter().filter_map(|ask| Some((*ask, ask.next.as_ref()?)))
}

/// The keys whose swap took place.
fn done(part: &Part<'_>, answers: &[Answer]) -> Vec<KeyId> {
    let there = |at: usize| answers[at].rows.iter().filter_map(key);
    match *part {
        Part::Made(asks, at) => {
            let there: HashSet<KeyId> = there(at).collect();
            asks.iter().map(|ask| ask.id).filter(|id| !there.contains(id)).collect()
        }
        Part::Changed(at) => there(at).collect(),
        Part::Deleted(id, at) => (answers[at].affected == 1).then_some(id).into_iter().collect(),
    }
}
