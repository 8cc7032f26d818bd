//! What operators and the sweeper ask for: walks over the index of each state.

use onlyonce_core::{KeyId, Record, StateKind};
use onlyonce_store::{Cursor, Due, Filter, Page, StoreError};

use crate::client::Client;
use crate::error::Fault;
use crate::inner::Inner;
use crate::layout::{self, Entry};
use crate::wire::{Answer, Op, Range, Txn};

/// Records of a page if nothing is said.
const PAGE: usize = 1_000;
/// Records that are fetched at once: below the operations that a transaction may have (128), and
/// below what an answer may be if all are of the largest size.
const FETCH: usize = 32;

impl Inner {
    pub(crate) async fn due(&self, due: Due, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        let mut found = Vec::new();
        for state in StateKind::ALL {
            let Some(until) = due.until(state) else { continue };
            let left = limit - found.len();
            if left == 0 {
                break;
            }
            let (from, end) = self.layout.entries(state, layout::due_at(until));
            let entries = self.entries(from, end, left).await?;
            found.extend(entries.into_iter().map(|entry| entry.id));
        }
        Ok(found)
    }

    /// Entries between two keys, at most so many.
    async fn entries(
        &self,
        key: Vec<u8>,
        range_end: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let range = Range { key, range_end, limit, keys_only: true, ..Range::default() };
        let get = |client: Client| {
            let range = range.clone();
            async move { client.range(range).await }
        };
        let answer = self.members.call(get, true).await.map_err(Fault::of_read)?;
        Ok(answer.kvs.iter().filter_map(|found| self.layout.read_entry(&found.key)).collect())
    }

    pub(crate) async fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        let mut page = Page::default();
        let mut last = after.and_then(|cursor| self.layout.read_entry(&cursor.0));
        for state in StateKind::ALL {
            let is_past = last.is_some_and(|entry| (state as u8) < entry.state as u8);
            if is_past || filter.state.is_some_and(|wanted| wanted != state) {
                continue;
            }
            let (begin, end) = self.layout.entries(state, u64::MAX);
            let mut from = match last.filter(|entry| entry.state == state) {
                Some(entry) => after_key(self.layout.entry(entry)),
                None => begin,
            };
            loop {
                let entries = self.entries(from, end.clone(), FETCH).await?;
                let count = entries.len();
                let Some(furthest) = entries.last().copied() else { break };
                for (entry, record) in self.records(entries).await? {
                    if record == Ok(None) {
                        continue;
                    }
                    if page.records.len() + page.damaged.len() == limit {
                        page.next = last.map(|entry| Cursor(self.layout.entry(entry)));
                        return Ok(page);
                    }
                    match record {
                        Ok(Some(record)) => page.records.push((entry.id, record)),
                        Ok(None) => {}
                        Err(error) => page.damaged.push((entry.id, error)),
                    }
                    last = Some(entry);
                }
                if count < FETCH {
                    break;
                }
                from = after_key(self.layout.entry(furthest));
            }
        }
        Ok(page)
    }

    /// The records of entries; `None` for those that have changed since.
    async fn records(
        &self,
        entries: Vec<Entry>,
    ) -> Result<Vec<(Entry, Result<Option<Record>, StoreError>)>, StoreError> {
        let gets = entries.iter().map(|entry| Op::get(self.layout.record(entry.id)));
        let txn = Txn { then: gets.collect(), ..Txn::default() };
        let answer = self.members.read(txn).await.map_err(Fault::of_read)?;
        let place = self.target.to_string();
        let read = |(entry, answer): (Entry, Answer)| {
            let Some(found) = answer.first() else { return (entry, Ok(None)) };
            let record = layout::record(&place, entry.id, found.value);
            // One that has another entry by now stands elsewhere in the listing.
            (entry, record.map(|(record, now)| Some(record).filter(|_| now == entry)))
        };
        Ok(entries.into_iter().zip(answer.answers).map(read).collect())
    }
}

/// The first key behind this one.
fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
