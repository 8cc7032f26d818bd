//! The thread that writes: all that has been asked for meanwhile in one transaction, one sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use bytes::Bytes;
use onlyonce_core::KeyId;
use onlyonce_store::{Row, StoreError, StoreErrorKind, Swap};
use rusqlite::{Connection, OptionalExtension as _};

use crate::door::Inode;
use crate::error::{At, is_busy, kind};
use crate::queue::{Change, Op, Told};
use crate::schema;
use crate::shared::Shared;

/// Ops of one transaction, at most.
const BATCH_OPS: usize = 1_024;
/// Bytes of one transaction, about.
const BATCH_BYTES: u64 = 16 << 20;
/// The keeper is woken after so many bytes.
const KEEPER_BYTES: u64 = 4 << 20;

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connection: Connection,
    pub(crate) inode: Inode,
    pub(crate) ops: Receiver<Op>,
    pub(crate) waiting: Arc<AtomicU64>,
    pub(crate) keeper: SyncSender<()>,
    pub(crate) unkept: u64,
}

impl Writer {
    /// Until nothing more can be asked for.
    pub(crate) fn run(mut self) {
        while let Ok(first) = self.ops.recv() {
            let mut bytes = first.size;
            let mut batch = vec![first];
            while batch.len() < BATCH_OPS
                && bytes < BATCH_BYTES
                && let Ok(op) = self.ops.try_recv()
            {
                bytes += op.size;
                batch.push(op);
            }
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.write(batch);
            self.unkept += bytes;
            if KEEPER_BYTES < self.unkept {
                self.unkept = 0;
                // It is at work already if there is no room.
                let _ = self.keeper.try_send(());
            }
        }
    }

    fn write(&self, batch: Vec<Op>) {
        let Some(batch) = self.begin(batch) else { return };
        match self.work(&batch) {
            Ok(told) => batch.into_iter().zip(told).for_each(|(op, told)| op.tell(told)),
            Err((error, at)) => {
                // After some errors SQLite has rolled back already.
                let _ = self.connection.execute_batch("ROLLBACK");
                let kind = kind(&error, at);
                // One that does not fit must not take the others with it.
                if kind == StoreErrorKind::Full && 1 < batch.len() {
                    return batch.into_iter().for_each(|op| self.write(vec![op]));
                }
                self.refuse(batch, kind, &error.to_string());
            }
        }
    }

    /// Takes the write lock of the file; `None` if nothing is left to be done.
    fn begin(&self, mut batch: Vec<Op>) -> Option<Vec<Op>> {
        loop {
            if let Some(error) = self.shared.poisoned() {
                batch.into_iter().for_each(|op| op.tell(Err(error.clone())));
                return None;
            }
            let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
            let late = "it has waited too long for others that write to the file";
            let (over, rest): (Vec<Op>, Vec<Op>) = batch.into_iter().partition(Op::is_late);
            self.refuse(over, StoreErrorKind::NotApplied, late);
            batch = rest;
            match begun {
                Ok(()) => break,
                Err(error) if is_busy(&error) && !batch.is_empty() => {}
                Err(error) => {
                    self.refuse(batch, kind(&error, At::Work), &error.to_string());
                    return None;
                }
            }
        }
        // What is written to a file that nobody finds any more is lost.
        if Inode::at(self.shared.path()).ok() != Some(self.inode) {
            let _ = self.connection.execute_batch("ROLLBACK");
            let text = "the file was moved, removed or replaced while it was open";
            self.refuse(batch, StoreErrorKind::Poisoned, text);
            return None;
        }
        Some(batch)
    }

    /// Does them all and commits.
    fn work(&self, batch: &[Op]) -> Result<Vec<Told>, (rusqlite::Error, At)> {
        let at = |at| move |error| (error, at);
        let (mut told, mut revision_max) = (Vec::with_capacity(batch.len()), 0);
        for op in batch {
            let swap = match &op.change {
                Change::Swap { id, expected, next } => {
                    let swap = self.swap(*id, *expected, next.as_ref()).map_err(at(At::Work))?;
                    if let (Ok(Swap::Done), Some(next)) = (&swap, next) {
                        revision_max = revision_max.max(next.revision);
                    }
                    swap
                }
                Change::Floor(to) => {
                    self.execute(schema::RAISE_FLOOR, [to]).map_err(at(At::Work))?;
                    Ok(Swap::Done)
                }
            };
            told.push(swap);
        }
        if 0 < revision_max {
            self.execute(schema::RAISE_REVISION, [revision_max]).map_err(at(At::Work))?;
        }
        self.connection.execute_batch("COMMIT").map_err(at(At::Commit))?;
        Ok(told)
    }

    fn swap(&self, id: KeyId, expected: Option<i64>, next: Option<&Row>) -> rusqlite::Result<Told> {
        let key = &id.as_bytes()[..];
        let changed = match (expected, next) {
            (None, Some(Row { revision, state, due_at, bytes, .. })) => {
                self.execute(schema::INSERT, (key, revision, state, due_at, bytes))?
            }
            (Some(expected), Some(Row { revision, state, due_at, bytes, .. })) => {
                let row = (key, revision, state, due_at, bytes, expected);
                self.execute(schema::UPDATE, row)?
            }
            (Some(expected), None) => self.execute(schema::DELETE, (key, expected))?,
            (None, None) => 0,
        };
        if 0 < changed {
            return Ok(Ok(Swap::Done));
        }
        let found = get(&self.connection, id)?;
        if expected.is_none() && next.is_none() && found.is_none() {
            return Ok(Ok(Swap::Done));
        }
        let place = self.shared.path().display().to_string();
        let found = found.map(|(revision, bytes)| Row::read(&place, id, revision, bytes));
        Ok(found.transpose().map(Swap::Conflict))
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(values)
    }

    fn refuse(&self, batch: Vec<Op>, kind: StoreErrorKind, text: &str) {
        if kind == StoreErrorKind::Poisoned {
            self.shared.poison(text);
        }
        let error = StoreError::new(kind, format!("{}: {text}", self.shared.path().display()));
        batch.into_iter().for_each(|op| op.tell(Err(error.clone())));
    }
}

/// Revision and bytes of a key's row.
pub(crate) fn get(connection: &Connection, id: KeyId) -> rusqlite::Result<Option<(i64, Bytes)>> {
    let mut statement = connection.prepare_cached(schema::GET)?;
    let key = &id.as_bytes()[..];
    statement
        .query_row([key], |row| Ok((row.get(0)?, Bytes::from(row.get::<_, Vec<u8>>(1)?))))
        .optional()
}
