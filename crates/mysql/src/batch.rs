//! The swaps of one transaction, and what stands in the way of those that did not take place.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use onlyonce_core::{KeyId, Record};
use onlyonce_store::{Row, StoreError};

use crate::held;
use crate::many;
use crate::queue::Ask;
use crate::schema::{self, hex};
use crate::script::{By, Note, Script, Stopped};
use crate::session::{Session, value};

/// How often a batch is sent that others were in the way of, without those that they stopped for
/// good; several swaps are one statement the first times.
const TRIES: u32 = 5;
const TOGETHER: u32 = 3;

/// What became of a batch.
pub(crate) struct Carried {
    /// The keys whose swap took place.
    pub(crate) done: HashSet<KeyId>,
    /// Those that another transaction had when a batch had waited for long. Nothing was done.
    pub(crate) held: HashSet<KeyId>,
}

/// The statement of a swap, which changes one row if it takes place and none if not. Where there
/// is a row already nothing is set to another value, and that counts as no row.
pub(crate) fn statement(ask: &Ask) -> Option<String> {
    let id = hex(ask.id.as_bytes());
    match (ask.expected, &ask.next) {
        (None, Some(row)) => Some(format!(
            "INSERT INTO onlyonce_records (id, revision, state, due_at, record) \
             VALUES ({id}, {}, {}, {}, {}) ON DUPLICATE KEY UPDATE id = id",
            row.revision,
            row.state,
            row.due_at,
            hex(&row.bytes)
        )),
        (Some(expected), Some(row)) => Some(format!(
            "UPDATE onlyonce_records SET revision = {}, state = {}, due_at = {}, record = {} \
             WHERE id = {id} AND revision = {expected}",
            row.revision,
            row.state,
            row.due_at,
            hex(&row.bytes)
        )),
        (Some(expected), None) => {
            Some(format!("DELETE FROM onlyonce_records WHERE id = {id} AND revision = {expected}"))
        }
        (None, None) => None,
    }
}

/// The largest revision that these keys have by now: what was written, and for a swap that was not
/// done what somebody else has written.
fn largest(asks: &[&Ask]) -> String {
    let ids: Vec<KeyId> = asks.iter().filter(|ask| ask.next.is_some()).map(|ask| ask.id).collect();
    let max = |some: &[KeyId]| {
        let ids = schema::ids(some.iter());
        format!(
            "COALESCE((SELECT MAX(r.revision) FROM onlyonce_records r WHERE r.id IN ({ids})), 0)"
        )
    };
    let all: Vec<String> = ids.chunks(schema::IDS).map(max).collect();
    format!("GREATEST(0, {})", all.join(", "))
}

/// Carries them out in one transaction and one round trip, each key at most once; again without
/// those that stand otherwise than expected or that somebody else has, if there are any. All keys
/// of which nothing is told are in conflict.
///
/// # Errors
/// Of [`onlyonce_store::StoreErrorKind::Unknown`] if nobody knows; of any other kind nothing was
/// changed.
pub(crate) async fn carry_out(
    session: &mut Session,
    slot: u8,
    asks: &[&Ask],
) -> Result<Carried, Stopped> {
    // Rows are locked in the order of their ids, so that two processes never wait for each other.
    let mut asks = asks.to_vec();
    asks.sort_unstable_by_key(|ask| ask.id);
    let mut held = HashSet::new();
    let mut tried = 0;
    loop {
        tried += 1;
        let writes = asks.iter().filter(|ask| ask.next.is_some()).count();
        let ended = if tried <= TOGETHER && 2 <= writes {
            many::carry_out(session, slot, &asks).await
        } else {
            one_by_one(session, slot, &asks).await
        };
        let stopped = match ended {
            Ok(done) => return Ok(Carried { done, held }),
            Err(stopped) if stopped.goes_on && tried < TRIES => stopped,
            Err(stopped) => return Err(stopped),
        };
        match stopped.by {
            By::Others => {}
            By::Demand => asks = many::expected(session, &asks).await?,
            By::Wait => {
                let theirs = held::find(session, &asks).await.unwrap_or_default();
                asks.retain(|ask| !theirs.contains(&ask.id));
                held.extend(theirs);
            }
            By::Else => return Err(stopped),
        }
    }
}

/// The server says of each statement whether it has changed a row.
async fn one_by_one(
    session: &mut Session,
    slot: u8,
    asks: &[&Ask],
) -> Result<HashSet<KeyId>, Stopped> {
    let mut script = Script::begin();
    let mut places = Vec::with_capacity(asks.len());
    for ask in asks {
        if let Some(statement) = statement(ask) {
            places.push((ask.id, script.add(&statement)));
        }
    }
    if places.is_empty() {
        return Ok(HashSet::new());
    }
    let revision = match asks {
        // If the statement before, which was that, has changed a row: so it need not be looked for.
        [ask] => ask.next.as_ref().map(|row| format!("IF(0 < ROW_COUNT(), {}, 0)", row.revision)),
        _ => asks.iter().any(|ask| ask.next.is_some()).then(|| largest(asks)),
    };
    if let Some(revision) = revision {
        script.note(Note { slot, revision, demand: None });
    }
    let answers = script.commit(session).await?;
    let done = places.into_iter().filter(|(_, at)| answers[*at].affected == 1);
    Ok(done.map(|(id, _)| id).collect())
}

pub(crate) type Found = HashMap<KeyId, Result<Record, StoreError>>;

/// The records of these keys that have one.
///
/// A server without a binary log shows a transaction to others before it is synced, and a crash
/// could take back what we would have told by then. So something is written too: once that is
/// synced, all that was seen before it is.
///
/// # Errors
/// They cannot be read.
pub(crate) async fn find(
    session: &mut Session,
    slot: u8,
    keys: &[KeyId],
) -> Result<Found, Stopped> {
    let lists = keys.chunks(schema::IDS).map(schema::records);
    let mut rows = Vec::with_capacity(keys.len());
    if session.syncs {
        let mut script = Script::begin();
        let places: Vec<usize> = lists.map(|list| script.add(&list)).collect();
        script.note(Note { slot, revision: "0".to_owned(), demand: None });
        let mut answers = script.commit(session).await?;
        places.into_iter().for_each(|at| rows.append(&mut answers[at].rows));
    } else {
        for list in lists {
            rows.extend(session.read(&list).await.map_err(Stopped::lost)?);
        }
    }
    let place = &session.place;
    let read = |row: &mysql_async::Row| {
        let id = key(row)?;
        let (revision, bytes) = (value(row, 1)?, value::<Vec<u8>>(row, 2)?);
        Some((id, Row::read(place, id, revision, Bytes::from(bytes))))
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// The id in the first column.
pub(crate) fn key(row: &mysql_async::Row) -> Option<KeyId> {
    value::<Vec<u8>>(row, 0)?.try_into().ok().map(KeyId::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MariaDB reads a list of a thousand as a table.
    #[test]
    fn no_list_of_ids_is_longer_than_a_server_reads_by_the_key() {
        let one = |at: u16| {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&at.to_be_bytes());
            let id = KeyId::from_bytes(id);
            let row = Row { id, revision: 1, state: 1, due_at: 0, bytes: Vec::new() };
            Ask { id, expected: None, next: Some(row) }
        };
        let asks: Vec<Ask> = (0..1_024).map(one).collect();
        let said = largest(&asks.iter().collect::<Vec<_>>());
        let lists: Vec<usize> =
            said.split("IN (").skip(1).map(|list| list.matches("x'").count()).collect();
        assert_eq!(lists, [512, 512]);
    }
}
