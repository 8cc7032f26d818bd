//! Reads, on the caller's thread: a few connections that take turns.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use onlyonce_core::{KeyId, StateKind};
use onlyonce_store::{Cursor, Due, Filter, OpenError, Page, Row, StoreError, row};
use rusqlite::{Connection, Statement};

use crate::door;
use crate::error::of_read;
use crate::schema;
use crate::writer;

/// How many can read at once; more wait for each other, for some microseconds.
const READERS: usize = 4;
const PAGE: usize = 1_000;
/// Bytes of records in one page of a listing, about.
const PAGE_BYTES: usize = 64 << 20;

pub(crate) struct Readers {
    place: String,
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let open = |_| door::open_for_reads(path).map(Mutex::new);
        let connections = (0..READERS).map(open).collect::<Result<_, _>>()?;
        let place = path.display().to_string();
        Ok(Self { place, connections, next: AtomicUsize::new(0) })
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % READERS;
        let connection = self.connections[turn].lock().unwrap_or_else(PoisonError::into_inner);
        work(&connection).map_err(|error| of_read(Path::new(&self.place), &error))
    }

    /// Revision and bytes of a key's row.
    pub(crate) fn get(&self, id: KeyId) -> Result<Option<(i64, Bytes)>, StoreError> {
        self.read(|connection| writer::get(connection, id))
    }

    /// The one number that a statement asks for.
    pub(crate) fn number(&self, sql: &str, state: Option<StateKind>) -> Result<i64, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            match state {
                None => statement.query_row((), |row| row.get(0)),
                Some(state) => statement.query_row([state as u8], |row| row.get(0)),
            }
        })
    }

    pub(crate) fn due(&self, due: Due, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        let asked = StateKind::ALL
            .into_iter()
            .filter_map(|state| due.until(state).map(|until| (state, until)));
        self.read(|connection| {
            let mut found = Vec::new();
            for (state, until) in asked {
                let left = count(limit - found.len());
                let mut statement = connection.prepare_cached(schema::DUE)?;
                let mut rows = statement.query((state as u8, row::millis(until), left))?;
                while let Some(row) = rows.next()? {
                    found.extend(key(&row.get::<_, Vec<u8>>(0)?));
                }
            }
            Ok(found)
        })
    }

    pub(crate) fn page(&self, filter: &Filter, after: Option<&Cursor>) -> Result<Page, StoreError> {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        // One more tells whether there is a next page.
        let ask = count(limit.saturating_add(1));
        let cursor = after.map(|cursor| cursor.0.as_slice()).unwrap_or_default();
        self.read(|connection| match filter.state {
            None => {
                let mut statement = connection.prepare_cached(schema::LIST)?;
                self.collect(&mut statement, (cursor, ask), limit, |_, id| {
                    Cursor(id.as_bytes().to_vec())
                })
            }
            Some(state) => {
                let (due_at, id) = match cursor.split_first_chunk::<8>() {
                    Some((due_at, id)) => (i64::from_be_bytes(*due_at), id),
                    None => (i64::MIN, &[][..]),
                };
                let mut statement = connection.prepare_cached(schema::LIST_STATE)?;
                let values = (state as u8, due_at, id, ask);
                self.collect(&mut statement, values, limit, |due_at, id| {
                    Cursor([&due_at.to_be_bytes()[..], id.as_bytes()].concat())
                })
            }
        })
    }

    fn collect(
        &self,
        statement: &mut Statement<'_>,
        values: impl rusqlite::Params,
        limit: usize,
        cursor: impl Fn(i64, KeyId) -> Cursor,
    ) -> rusqlite::Result<Page> {
        let (mut page, mut bytes, mut last) = (Page::default(), 0, None);
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            if page.records.len() + page.damaged.len() == limit || PAGE_BYTES < bytes {
                page.next = last;
                break;
            }
            let stored: Vec<u8> = row.get(0)?;
            let Some(id) = key(&stored) else { continue };
            let record = Bytes::from(row.get::<_, Vec<u8>>(3)?);
            bytes += record.len();
            match Row::read(&self.place, id, row.get(2)?, record) {
                Ok(record) => page.records.push((id, record)),
                Err(error) => page.damaged.push((id, error)),
            }
            last = Some(cursor(row.get(1)?, id));
        }
        Ok(page)
    }
}

fn key(bytes: &[u8]) -> Option<KeyId> {
    bytes.try_into().ok().map(KeyId::from_bytes)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
