//! The store: every call goes to the member that the map names, and the map is never an old one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join_all, select_ok};
use onlyonce_core::{Fence, Floor, KeyId, Record, Revision, Timestamp};
use onlyonce_store::transaction::MARK;
use onlyonce_store::{
    BoxFuture, Cursor, Due, Filter, Page, Router, Store, StoreError, StoreErrorKind, Swap, Teller,
};

use crate::forward::version_of;
use crate::home::{Members, Turn, View, member, refused, unnamed};
use crate::map::{Map, NUMBER_MAX, Number};
use crate::seat::Seat;

/// How old the map may be by which a node does anything.
pub const MAP_AGE_MAX: Duration = Duration::from_secs(10);
/// How old it is when it is read again.
pub const MAP_AGE_READ: Duration = Duration::from_secs(3);
/// How long after a new map stands in all members nobody does anything by the one before: the age
/// of a map, 25 s in which a call may take place whose answer was lost, and as much again as
/// clocks that count differently may need.
pub const SETTLE_WAIT: Duration = Duration::from_secs(45);

const _: () = assert!(MAP_AGE_READ.as_secs() < MAP_AGE_MAX.as_secs());
const _: () = assert!(MAP_AGE_MAX.as_secs() + 25 < SETTLE_WAIT.as_secs());

/// Where a set has its own mark, such as of a copy: as if it were a key of it. A member has its
/// seat where a store has its mark.
const OWN_MARK: KeyId = KeyId::from_bytes(*b"onlyonce's set's");

/// Bytes of a member's number before the cursor of its own listing.
const CURSOR: usize = 4;

/// The bits of a part that are a member's number; the others are of the map's version.
const NUMBER_BITS: u32 = (1 << 17) - 1;

const _: () = assert!(NUMBER_MAX <= NUMBER_BITS);

/// A clock that nobody sets, from any beginning.
pub type Steady = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Several stores as one. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Spread {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) members: Members,
    /// What all its members have in common.
    set: Fence,
    /// The map, and when somebody began to read it last.
    known: Mutex<(Map, Duration)>,
    /// Who waits for keys here, and listens to their homes.
    heard: Mutex<Vec<Router>>,
    steady: Steady,
}

impl Spread {
    /// `newest` has the map, which somebody began to read at `read_at`.
    pub(crate) fn new(members: Members, newest: Seat, read_at: Duration, steady: Steady) -> Self {
        let (known, heard) = (Mutex::new((newest.map, read_at)), Mutex::default());
        Self { inner: Arc::new(Inner { members, set: newest.set, known, heard, steady }) }
    }

    /// The map as it was last read.
    pub fn map(&self) -> Map {
        self.inner.known().0
    }
}

impl Inner {
    fn known(&self) -> (Map, Duration) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago the map was read that is used.
    fn age(&self, read_at: Duration) -> Duration {
        (self.steady)().saturating_sub(read_at)
    }

    /// The map, read again if that was not done lately.
    pub(crate) async fn current(&self) -> Result<(Map, Duration), StoreError> {
        let (map, read_at) = self.known();
        let age = self.age(read_at);
        if age <= MAP_AGE_READ {
            return Ok((map, read_at));
        }
        match self.read_again().await {
            // The reading that is there is good for a while.
            Err(_) if age <= MAP_AGE_MAX && self.known().0 == map => Ok((map, read_at)),
            read => read,
        }
    }

    /// Reads the map from whichever of its members answers first: a newer one is in force only once
    /// it stands in all of them. One that hangs holds up nobody.
    ///
    /// One that knows a newer map may have left the set since, and has heard of nothing after it.
    /// So a newer map is asked for again in its own members, and those that keys only come from are
    /// not asked. Each round ends with a later map.
    pub(crate) async fn read_again(&self) -> Result<(Map, Duration), StoreError> {
        loop {
            let (begun, asked) = ((self.steady)(), self.known().0);
            let reads = asked.members().iter().map(|number| Box::pin(self.seat(*number)));
            let unread = |error| refused(format!("the map of the set cannot be read: {error}"));
            let (seat, _) = select_ok(reads).await.map_err(unread)?;
            if seat.map.version() <= asked.version() {
                return Ok(self.confirmed(begun));
            }
            self.adopt(seat.map);
        }
    }

    /// That no later map was in force when the reading was begun.
    fn confirmed(&self, begun: Duration) -> (Map, Duration) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.1 = known.1.max(begun);
        known.clone()
    }

    /// The map, read again, by whoever needs every member of it.
    pub(crate) async fn read_whole(&self) -> Result<Map, StoreError> {
        let (map, _) = self.read_again().await?;
        self.whole(&map).map(|()| map)
    }

    /// That every member of the map is named here.
    fn whole(&self, map: &Map) -> Result<(), StoreError> {
        let is_unnamed = |number: &Number| !self.members.contains_key(number);
        map.all().into_iter().find(is_unnamed).map_or(Ok(()), |number| Err(unnamed(number)))
    }

    async fn seat(&self, number: Number) -> Result<Seat, StoreError> {
        let seat = Seat::read(self.member(number)?).await?;
        // One that has left may be used anew, also by another set.
        let is_it = |seat: &Seat| seat.own == number && seat.set == self.set;
        let gone = || refused(format!("member {number} of the set was emptied"));
        seat.filter(is_it).ok_or_else(gone)
    }

    fn member(&self, number: Number) -> Result<&dyn Store, StoreError> {
        member(&self.members, number)
    }

    /// Goes by this map from now on, unless a newer one is known, also if a member of it is not
    /// named here: then the keys of the others go on. Whether it is the latest is known from no
    /// later time than before.
    pub(crate) fn adopt(&self, map: Map) -> Map {
        let (adopted, is_new) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = known.0.version() < map.version();
            if is_new {
                known.0 = map;
            }
            (known.0.clone(), is_new)
        };
        if is_new {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            // The newest, also if two were adopted at once.
            let map = self.known().0;
            heard.retain(|router| router.route(self.route(&map)));
        }
        adopted
    }

    /// Which members hear of a key for which somebody waits here: where it lives, and where it
    /// lived before it moved.
    fn route(&self, map: &Map) -> impl Fn(KeyId) -> Vec<usize> + Send + use<> {
        let (map, numbers) = (map.clone(), self.members.keys().copied().collect::<Vec<Number>>());
        move |id| {
            let homes = [Some(map.home(id)), map.old_home(id)].into_iter().flatten();
            homes.filter_map(|home| numbers.binary_search(&home).ok()).collect()
        }
    }

    fn notices(&self, teller: Teller) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (tellers, router) = teller.split(self.members.len(), self.route(&self.known().0));
        heard.push(router);
        for (store, teller) in self.members.values().zip(tellers) {
            store.notices(teller);
        }
    }

    pub(crate) fn view<'a>(&'a self, map: &'a Map) -> View<'a> {
        View { map, members: &self.members }
    }

    /// After a forward has shown that there is a newer map.
    pub(crate) async fn renewed(&self, version: u64) -> Result<(), StoreError> {
        let (mut map, _) = self.read_again().await?;
        if map.version() < version {
            // Whoever changes it may have been cut off before it stood in all of them.
            let seats = join_all(map.all().into_iter().map(|number| self.seat(number))).await;
            for seat in seats.into_iter().flatten() {
                map = self.adopt(seat.map);
            }
        }
        if map.version() < version {
            return Err(refused("the map of the set is being changed: ask again"));
        }
        Ok(())
    }

    /// That a call was made under a map which was still in force when it ended: this process may
    /// have been stopped on the way.
    async fn still(&self, map: &Map, read_at: Duration) -> Result<(), StoreError> {
        if self.age(read_at) <= MAP_AGE_MAX || self.read_again().await?.0 == *map {
            return Ok(());
        }
        Err(refused("the map of the set has changed meanwhile"))
    }

    async fn get(&self, id: KeyId) -> Result<Option<Record>, StoreError> {
        loop {
            let (map, read_at) = self.current().await?;
            match self.view(&map).get(id).await? {
                Turn::Old(version) => self.renewed(version).await?,
                Turn::Done(found) => return self.still(&map, read_at).await.map(|()| found),
            }
        }
    }

    async fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> Result<Swap, StoreError> {
        loop {
            let (map, read_at) = self.current().await?;
            match self.view(&map).swap(id, expected, next.clone()).await? {
                Turn::Old(version) => self.renewed(version).await?,
                Turn::Done(swap) => {
                    // It may have taken place where nobody looks any more: then nobody was let in.
                    let unknown = |error: StoreError| {
                        StoreError::new(StoreErrorKind::Unknown, error.to_string())
                    };
                    return self.still(&map, read_at).await.map(|()| swap).map_err(unknown);
                }
            }
        }
    }

    /// Asks all members of the map, also those that keys come from: all must be named here.
    pub(crate) async fn each<'a, T>(
        &'a self,
        ask: impl Fn(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>>,
    ) -> Result<Vec<T>, StoreError> {
        let (map, _) = self.current().await?;
        self.whole(&map)?;
        let numbers = map.all();
        let asked = numbers.iter().filter_map(|number| self.members.get(number));
        join_all(asked.map(|store| ask(&**store))).await.into_iter().collect()
    }

    /// The next page that is not empty.
    async fn list(&self, filter: Filter, after: Option<Cursor>) -> Result<Page, StoreError> {
        let mut after = after;
        loop {
            let page = self.part(&filter, after).await?;
            if page.next.is_none() || !page.records.is_empty() || !page.damaged.is_empty() {
                return Ok(page);
            }
            after = page.next;
        }
    }

    async fn part(&self, filter: &Filter, after: Option<Cursor>) -> Result<Page, StoreError> {
        let (map, _) = self.current().await?;
        self.whole(&map)?;
        let all = map.all();
        let (number, inner) = match after {
            None => (all.first().copied().unwrap_or_default(), None),
            Some(cursor) => opened(&cursor)?,
        };
        let view = self.view(&map);
        let store = self.members.get(&number).ok_or_else(no_place)?;
        let mut page = store.list(filter.clone(), inner).await?;
        let mut records = Vec::with_capacity(page.records.len());
        for (id, record) in page.records {
            let is_own = id == MARK || id == OWN_MARK;
            if !is_own && version_of(&record).is_none() && counts(&view, number, id).await? {
                records.push((id, record));
            }
        }
        page.damaged.retain(|(id, _)| *id != MARK);
        let next = match page.next {
            Some(cursor) => Some(closed(number, Some(cursor))),
            None => all.iter().find(|it| number < **it).map(|it| closed(*it, None)),
        };
        Ok(Page { records, damaged: page.damaged, next })
    }
}

/// Whether the record of a key at this member is the one that counts.
async fn counts(view: &View<'_>, at: Number, id: KeyId) -> Result<bool, StoreError> {
    match view.map.old_home(id) {
        Some(old) if old == at => Ok(true),
        Some(old) if view.map.home(id) == at => {
            let found = view.member(old)?.get(id).await?;
            Ok(found.is_none_or(|record| version_of(&record).is_some()))
        }
        Some(_) => Ok(false),
        None => Ok(view.map.home(id) == at),
    }
}

/// A member under a map. The map is known by the last bits of its version: nobody is as many maps
/// behind as they tell apart.
fn part(map: &Map, number: Number) -> u32 {
    // What does not fit is cut off.
    (map.version() as u32) << NUMBER_BITS.count_ones() | number
}

fn closed(number: Number, inner: Option<Cursor>) -> Cursor {
    let mut bytes = number.to_be_bytes().to_vec();
    if let Some(Cursor(inner)) = inner {
        bytes.push(1);
        bytes.extend(inner);
    }
    Cursor(bytes)
}

fn opened(Cursor(bytes): &Cursor) -> Result<(Number, Option<Cursor>), StoreError> {
    let (number, rest) = bytes.split_first_chunk::<CURSOR>().ok_or_else(no_place)?;
    let inner = rest.split_first().map(|(_, inner)| Cursor(inner.to_vec()));
    Ok((Number::from_be_bytes(*number), inner))
}

fn no_place() -> StoreError {
    refused("this is no place in a listing")
}

/// Where a record of the set is in its members.
fn inside(id: KeyId) -> KeyId {
    if id == MARK { OWN_MARK } else { id }
}

impl Store for Spread {
    fn get(&self, id: KeyId) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(self.inner.get(inside(id)))
    }

    fn swap(
        &self,
        id: KeyId,
        expected: Option<Revision>,
        next: Option<Record>,
    ) -> BoxFuture<'_, Result<Swap, StoreError>> {
        Box::pin(self.inner.swap(inside(id), expected, next))
    }

    /// A key's home under this map, unless it is one that moves: what was forgotten there is below
    /// the floor there, which is raised in all members before it counts. What a member has raised
    /// by itself, as Redis does after a failover, is about keys that it may have lost: those that
    /// live there.
    fn part(&self, id: KeyId) -> Option<u32> {
        let map = self.map();
        map.old_home(id).is_none().then(|| part(&map, map.home(id)))
    }

    fn floor_in(&self, asked: u32) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async move {
            let (map, _) = self.inner.current().await?;
            let number = asked & NUMBER_BITS;
            if part(&map, number) == asked {
                self.inner.member(number)?.floor().await
            } else {
                // The home may be another by now, and what was forgotten is below the floor there.
                self.floor().await
            }
        })
    }

    /// The highest of all members: one may have raised its own, or a raise was cut off.
    fn floor(&self) -> BoxFuture<'_, Result<Floor, StoreError>> {
        Box::pin(async {
            let floors = self.inner.each(|store| store.floor()).await?;
            Ok(floors.into_iter().max().unwrap_or_default())
        })
    }

    fn raise_floor(&self, to: Floor) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.inner.each(|store| store.raise_floor(to)).await.map(drop) })
    }

    /// That of the member with the lowest number: one clock for all keys.
    fn clock(&self) -> BoxFuture<'_, Result<Option<Timestamp>, StoreError>> {
        Box::pin(async {
            let (map, _) = self.inner.current().await?;
            let named = if map.is_moving() { map.from() } else { map.members() };
            let first = named.first().copied().unwrap_or_default();
            self.inner.view(&map).member(first)?.clock().await
        })
    }

    fn revision_max(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async {
            let largest = self.inner.each(|store| store.revision_max()).await?;
            Ok(largest.into_iter().max().unwrap_or_default())
        })
    }

    fn due(&self, due: Due, limit: usize) -> BoxFuture<'_, Result<Vec<KeyId>, StoreError>> {
        Box::pin(async move {
            let found = self.inner.each(|store| store.due(due, limit)).await?;
            let mut found: Vec<KeyId> = found.into_iter().flatten().collect();
            found.sort_unstable();
            // One that is being moved may be in two members.
            found.dedup();
            found.truncate(limit);
            Ok(found)
        })
    }

    fn reclaim(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { self.inner.each(|store| store.reclaim()).await.map(drop) })
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Cursor>,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(self.inner.list(filter, after))
    }

    fn notices(&self, teller: Teller) {
        self.inner.notices(teller);
    }

    fn reply_max(&self) -> usize {
        self.inner.members.values().map(|store| store.reply_max()).min().unwrap_or_default()
    }

    fn is_exclusive(&self) -> bool {
        self.inner.members.values().all(|store| store.is_exclusive())
    }
}
