//! The connection that reads, made anew when it is lost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use onlyonce_core::{KeyId, Secret, StateKind};
use onlyonce_store::{Cursor, Due, Filter, Page, Row, StoreError, row};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{not_applied, of_read};
use crate::schema;
use crate::session::{Session, Way};

const PAGE: usize = 1_000;
/// Bytes of records in one page of a listing, about.
const PAGE_BYTES: i64 = 64 << 20;
/// How long a read may take.
const READ_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Reader {
    pub(crate) way: Way,
    pub(crate) secret: Secret,
    pub(crate) session: Mutex<Option<Arc<Session>>>,
}

impl Reader {
    async fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut session = self.session.lock().await;
        if let Some(session) = session.as_ref().filter(|it| !it.client.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let new = Arc::new(self.way.reopen(&self.secret).await?);
        *session = Some(Arc::clone(&new));
        Ok(new)
    }

    pub(crate) async fn ask(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let place = &self.way.place;
        let asking = async {
            let session = self.session().await?;
            let asked = session.client.query_typed(sql, values).await;
            asked.map_err(|error| of_read(place, &error))
        };
        let late = |_| not_applied(place, "it does not answer");
        timeout(READ_MAX, asking).await.map_err(late)?
    }

    /// The one number that a statement asks for; zero if there is none.
    pub(crate) async fn number(
        &self,
        sql: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<i64, StoreError> {
        let rows = self.ask(sql, values).await?;
        Ok(rows.first().and_then(|row| row.get::<_, Option<i64>>(0)).unwrap_or_default())
    }

    pub(crate) async fn get(&self, id: KeyId) -> Result<Option<onlyonce_core::Record>, StoreError> {
        let ids = [&id.as_bytes()[..]];
        let rows = self.ask(schema::GET, &[(&&ids[..], Type::BYTEA_ARRAY)]).await?;
        let read = |row: &tokio_postgres::Row| {
            Row::read(&self.way.place, id, row.get(1), Bytes::copy_from_slice(row.get(2)))
        };
        rows.first().map(read).transpose()
    }

    pub(crate) async fn due(&self, due: Due, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        let (states, times): (Vec<i16>, Vec<i64>) = StateKind::ALL
            .into_iter()
            .filter_map(|state| due.until(state).map(|until| (state as i16, row::millis(until))))
            .unzip();
        let limit = count(limit);
        let asked: [(&(dyn ToSql + Sync), Type); 3] =
            [(&states, Type::INT2_ARRAY), (&times, Type::INT8_ARRAY), (&limit, Type::INT8)];
        let rows = self.ask(schema::DUE, &asked).await?;
        Ok(rows.iter().filter_map(key).collect())
    }

    pub(crate) async fn page(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        // One more tells whether there is a next page.
        let (ask, after) = (count(limit.saturating_add(1)), after.unwrap_or(Cursor(Vec::new())).0);
        let rows = match filter.state {
            None => {
                let after: &[u8] = &after;
                let values: [(&(dyn ToSql + Sync), Type); 3] =
                    [(&after, Type::BYTEA), (&ask, Type::INT8), (&PAGE_BYTES, Type::INT8)];
                self.ask(schema::LIST, &values).await?
            }
            Some(state) => {
                let (due_at, id) = match after.split_first_chunk::<8>() {
                    Some((due_at, id)) => (i64::from_be_bytes(*due_at), id),
                    None => (i64::MIN, &[][..]),
                };
                let state = state as i16;
                let values: [(&(dyn ToSql + Sync), Type); 5] = [
                    (&id, Type::BYTEA),
                    (&ask, Type::INT8),
                    (&PAGE_BYTES, Type::INT8),
                    (&state, Type::INT2),
                    (&due_at, Type::INT8),
                ];
                self.ask(schema::LIST_STATE, &values).await?
            }
        };
        Ok(self.read(&rows, limit, filter.state))
    }

    fn read(&self, rows: &[tokio_postgres::Row], limit: usize, state: Option<StateKind>) -> Page {
        let (mut page, mut last) = (Page::default(), None);
        for row in rows.iter().take(limit) {
            let Some(id) = key(row) else { continue };
            let bytes = Bytes::copy_from_slice(row.get(3));
            match Row::read(&self.way.place, id, row.get(2), bytes) {
                Ok(record) => page.records.push((id, record)),
                Err(error) => page.damaged.push((id, error)),
            }
            last = Some(match state {
                None => Cursor(id.as_bytes().to_vec()),
                Some(_) => {
                    let due_at: i64 = row.get(1);
                    Cursor([&due_at.to_be_bytes()[..], id.as_bytes()].concat())
                }
            });
        }
        let found: i64 = rows.first().map_or(0, |row| row.get(4));
        page.next = last.filter(|_| count(rows.len().min(limit)) < found);
        page
    }
}

fn key(row: &tokio_postgres::Row) -> Option<KeyId> {
    row.get::<_, &[u8]>(0).try_into().ok().map(KeyId::from_bytes)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
