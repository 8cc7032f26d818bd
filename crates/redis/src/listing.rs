//! What operators and the sweeper ask for: walks over the indexes, bucket by bucket.

use std::sync::atomic::Ordering;

use onlyonce_core::{KeyId, Record, StateKind};
use onlyonce_store::{Cursor, Due, Filter, Page, StoreError};
use redis::Value;

use crate::error::{Fault, nonsense};
use crate::inner::Inner;
use crate::layout::{self, BUCKETS};
use crate::script::{self, Script};

/// Records of a page if nothing is said, and that are fetched at once.
const PAGE: usize = 1_000;
const FETCH: usize = 64;

impl Inner {
    pub(crate) async fn due(&self, due: Due, limit: usize) -> Result<Vec<KeyId>, StoreError> {
        let mut found = Vec::new();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for bucket in (0..BUCKETS).map(|step| first.wrapping_add(step) % BUCKETS) {
            let left = limit - found.len();
            if left == 0 {
                break;
            }
            let mut commands = redis::pipe();
            for state in StateKind::ALL {
                let Some(until) = due.until(state) else { continue };
                let command = commands.cmd("ZRANGEBYSCORE").arg(self.layout.index(bucket, state));
                command.arg("-inf").arg(layout::score(until)).arg("LIMIT").arg(0).arg(left);
            }
            let link = self.link(bucket).await.map_err(Fault::of_read)?;
            for answer in link.ask_all(&commands).await.map_err(Fault::of_read)? {
                let Value::Array(ids) = answer else {
                    return Err(nonsense(link.place()).of_read());
                };
                found.extend(ids.into_iter().filter_map(key_id));
            }
            found.truncate(limit);
        }
        Ok(found)
    }

    pub(crate) async fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let limit = if filter.limit == 0 { PAGE } else { filter.limit };
        let mut page = Page::default();
        let mut last = after.as_ref().and_then(Place::read);
        let first = last.as_ref().map_or(0, |place| place.bucket);
        for bucket in first..BUCKETS {
            for state in StateKind::ALL {
                if filter.state.is_some_and(|wanted| wanted != state) {
                    continue;
                }
                let here = last.filter(|it| it.bucket == bucket);
                if here.is_some_and(|it| (state as u8) < it.state as u8) {
                    continue;
                }
                let mut from = here.filter(|it| it.state == state);
                loop {
                    let entries = self.entries(bucket, state, from).await?;
                    let count = entries.len();
                    for (place, record) in entries {
                        from = Some(place);
                        if record == Ok(None) {
                            continue;
                        }
                        if page.records.len() + page.damaged.len() == limit {
                            page.next = last.map(Place::cursor);
                            return Ok(page);
                        }
                        match record {
                            Ok(Some(record)) => page.records.push((place.id, record)),
                            Ok(None) => {}
                            Err(error) => page.damaged.push((place.id, error)),
                        }
                        last = Some(place);
                    }
                    if count < FETCH {
                        break;
                    }
                }
            }
        }
        Ok(page)
    }

    /// The next entries of an index with their records; `None` for those that have changed since.
    #[allow(clippy::type_complexity, reason = "an entry and what became of it")]
    async fn entries(
        &self,
        bucket: u8,
        state: StateKind,
        after: Option<Place>,
    ) -> Result<Vec<(Place, Result<Option<Record>, StoreError>)>, StoreError> {
        let link = self.link(bucket).await.map_err(Fault::of_read)?;
        let (score, id) = match &after {
            Some(place) => (place.score.to_string(), &place.id.as_bytes()[..]),
            None => (String::new(), &[][..]),
        };
        let fetch = FETCH.to_string();
        let keys = [self.layout.index(bucket, state)];
        let arguments = [score.as_bytes(), id, fetch.as_bytes()];
        let answer = link.run(Script::Page, &keys, &arguments).await.map_err(Fault::of_read)?;
        let Value::Array(parts) = answer else { return Err(nonsense(link.place()).of_read()) };
        let mut parts = parts.into_iter();
        let mut places = Vec::new();
        while let (Some(id), Some(score)) = (parts.next(), parts.next()) {
            let score = script::text(score).and_then(|score| score.parse().ok());
            let (Some(id), Some(score)) = (key_id(id), score) else { continue };
            places.push(Place { bucket, state, score, id });
        }
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for place in &places {
            command.arg(self.layout.record(place.id));
        }
        let answer = link.ask(&command).await.map_err(Fault::of_read)?;
        let Value::Array(values) = answer else { return Err(nonsense(link.place()).of_read()) };
        let read = |(place, value): (Place, Value)| {
            let record = self.record(place.id, value);
            // One that has another state by now stands elsewhere in the listing.
            (place, record.map(|it| it.filter(|record| record.state.kind() == state)))
        };
        Ok(places.into_iter().zip(values).map(read).collect())
    }
}

/// Where an entry of an index is.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: u8,
    state: StateKind,
    score: u64,
    id: KeyId,
}

impl Place {
    fn cursor(self) -> Cursor {
        let mut bytes = vec![self.bucket, self.state as u8];
        bytes.extend_from_slice(&self.score.to_be_bytes());
        bytes.extend_from_slice(self.id.as_bytes());
        Cursor(bytes)
    }

    fn read(cursor: &Cursor) -> Option<Self> {
        let (head, rest) = cursor.0.split_first_chunk::<2>()?;
        let (score, id) = rest.split_first_chunk::<8>()?;
        Some(Self {
            bucket: head[0],
            state: StateKind::from_number(head[1])?,
            score: u64::from_be_bytes(*score),
            id: KeyId::from_bytes(id.try_into().ok()?),
        })
    }
}

fn key_id(value: Value) -> Option<KeyId> {
    script::bytes(value)??.try_into().ok().map(KeyId::from_bytes)
}
