//! The connections that read, made when they are needed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mysql_async::Row as Columns;
use onlyonce_core::{KeyId, Record, StateKind};
use onlyonce_store::{Cursor, Due, Filter, Page, Row, StoreError, row};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::batch::{find, key};
use crate::error::not_applied;
use crate::schema::{self, hex};
use crate::session::{Known, Session, Way, value};

const PAGE: usize = 1_000;
/// Bytes of records in one page of a listing, about.
const PAGE_BYTES: u64 = 64 << 20;
/// How long a read may take.
const READ_MAX: Duration = Duration::from_secs(20);
/// Connections that read at once.
const READERS: usize = 4;

pub(crate) struct Reader {
    pub(crate) way: Way,
    pub(crate) known: Known,
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
}

impl Reader {
    pub(crate) fn new(way: Way, known: Known) -> Self {
        Self { way, known, idle: Mutex::default(), permits: Semaphore::new(READERS) }
    }

    /// One that was used before, or a new one.
    async fn session(&self) -> Result<Session, StoreError> {
        while let Some(mut session) = self.take() {
            if session.is_alive().await {
                return Ok(session);
            }
        }
        self.way.reopen(&self.known).await
    }

    fn take(&self) -> Option<Session> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, session: Session) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    pub(crate) async fn ask(&self, sql: &str) -> Result<Vec<Columns>, StoreError> {
        let asking = async {
            let _permit = self.permits.acquire().await;
            let mut session = self.session().await?;
            let rows = session.read(sql).await?;
            self.give_back(session);
            Ok(rows)
        };
        timeout(READ_MAX, asking).await.map_err(|_| self.late())?
    }

    /// The one number that a statement asks for; zero if there is none.
    pub(crate) async fn number(&self, sql: &str) -> Result<i64, StoreError> {
        let rows = self.ask(sql).await?;
        Ok(rows.first().and_then(|row| value(row, 0)).unwrap_or_default())
    }

    pub(crate) async fn get(&self, id: KeyId) -> Result<Option<Record>, StoreError> {
        // Reads that come together are counted in different rows, which do not wait for each other.
        let slot = id.as_bytes()[0] % schema::SLOTS;
        let getting = async {
            let _permit = self.permits.acquire().await;
            let mut session = self.session().await?;
            let found = find(&mut session, slot, &[id]).await;
            let mut found = found.map_err(|stopped| {
                // A read has changed nothing, whatever became of what was written beside it.
                not_applied(&self.way.place, &stopped.error.to_string())
            })?;
            self.give_back(session);
            found.remove(&id).transpose()
        };
        timeout(READ_MAX, getting).await.map_err(|_| self.late())?
    }

    pub(crate) async fn due(&self, due: Due, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        let of_state = |state: StateKind| {
            let until = row::millis(due.until(state)?);
            let state = state as i16;
            Some(format!(
                "(SELECT id FROM onlyonce_records WHERE state = {state} AND due_at <= {until} \
                 LIMIT {limit})"
            ))
        };
        let parts: Vec<String> = StateKind::ALL.into_iter().filter_map(of_state).collect();
        let rows = self.ask(&format!("{} LIMIT {limit}", parts.join(" UNION ALL "))).await?;
        Ok(rows.iter().filter_map(key).collect())
    }

    pub(crate) async fn page(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        let after = after.unwrap_or(Cursor(Vec::new())).0;
        let (from, order) = match filter.state {
            None => (format!("{} < id", hex(&after)), "id"),
            Some(state) => (after_in_state(state, &after), "due_at, id"),
        };
        // One more tells whether there is a next page.
        let ask = limit.saturating_add(1);
        let keys = self
            .ask(&format!(
                "SELECT id, due_at, OCTET_LENGTH(record) FROM onlyonce_records WHERE {from} \
                 ORDER BY {order} LIMIT {ask}"
            ))
            .await?;
        let fit = fitting(&keys, limit);
        let (chosen, rest) = keys.split_at(fit);
        let Some(last) = chosen.last() else { return Ok(Page::default()) };
        let ids: Vec<KeyId> = chosen.iter().filter_map(key).collect();
        let mut rows = Vec::with_capacity(ids.len());
        for some in ids.chunks(schema::IDS) {
            rows.extend(self.ask(&schema::records(some)).await?);
        }
        let mut page = self.read(&ids, &rows);
        if !rest.is_empty() {
            let id = value::<Vec<u8>>(last, 0).unwrap_or_default();
            let due_at = value::<i64>(last, 1).unwrap_or_default().to_be_bytes();
            page.next = Some(match filter.state {
                None => Cursor(id),
                Some(_) => Cursor([&due_at[..], &id].concat()),
            });
        }
        Ok(page)
    }

    /// The records of these keys, in this order. One that was deleted meanwhile is missing.
    fn read(&self, ids: &[KeyId], rows: &[Columns]) -> Page {
        let mut found: std::collections::HashMap<KeyId, &Columns> =
            rows.iter().filter_map(|row| Some((key(row)?, row))).collect();
        let mut page = Page::default();
        for id in ids {
            let Some(row) = found.remove(id) else { continue };
            let revision = value(row, 1).unwrap_or_default();
            let bytes = Bytes::from(value::<Vec<u8>>(row, 2).unwrap_or_default());
            match Row::read(&self.way.place, *id, revision, bytes) {
                Ok(record) => page.records.push((*id, record)),
                Err(error) => page.damaged.push((*id, error)),
            }
        }
        page
    }

    fn late(&self) -> StoreError {
        not_applied(&self.way.place, "it does not answer")
    }
}

/// What comes after a cursor among the records of a state.
fn after_in_state(state: StateKind, after: &[u8]) -> String {
    let state = state as i16;
    match after.split_first_chunk::<8>() {
        None => format!("state = {state}"),
        Some((due_at, id)) => {
            let (due_at, id) = (i64::from_be_bytes(*due_at), hex(id));
            format!("state = {state} AND {due_at} <= due_at AND ({due_at} < due_at OR {id} < id)")
        }
    }
}

/// How many of these records fit one page, the last column being their lengths: one at least.
fn fitting(keys: &[Columns], limit: usize) -> usize {
    let mut bytes = 0;
    let fits = |row: &&Columns| {
        let before = bytes;
        bytes += value::<u64>(row, 2).unwrap_or_default();
        before == 0 || bytes <= PAGE_BYTES
    };
    keys.iter().take(limit).take_while(fits).count()
}
