//! Which keys other transactions have at this moment, once a batch has waited for one as long as it
//! may: their callers are told so, and the others wait no longer. A row that somebody has deleted
//! and not committed is not seen: then all are told so.

use std::collections::HashSet;

use onlyonce_core::KeyId;
use onlyonce_store::StoreError;

use crate::batch::key;
use crate::many::RECORDS;
use crate::queue::Ask;
use crate::schema::{IDS, ids};
use crate::session::Session;

/// For the next statement, which then shows what is not committed: a row that is being made keeps
/// others from its key.
const ALSO_OPEN: &str = "SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED";

/// Those whose row is there and cannot be locked.
///
/// # Errors
/// It cannot be read, or by this server not (MariaDB before 10.6).
pub(crate) async fn find(
    session: &mut Session,
    asks: &[&Ask],
) -> Result<HashSet<KeyId>, StoreError> {
    let mut held = HashSet::new();
    for some in asks.chunks(IDS) {
        let ids = ids(some.iter().map(|ask| &ask.id));
        let rows = format!("SELECT id FROM {RECORDS} WHERE id IN ({ids})");
        session.read(ALSO_OPEN).await?;
        let there = session.read(&rows).await?;
        let free = session.read(&format!("{rows} FOR UPDATE SKIP LOCKED")).await?;
        let free: HashSet<KeyId> = free.iter().filter_map(key).collect();
        held.extend(there.iter().filter_map(key).filter(|id| !free.contains(id)));
    }
    Ok(held)
}
