//! A move, step by step: a new map, a pass over what has to move, the map without the move, and
//! what is left of it taken away. Each step may be repeated by whoever goes on with the move.

use futures_util::stream::{self, StreamExt as _};
use onlyonce_core::{Fence, Floor, KeyId, Record, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_store::transaction::MARK;
use onlyonce_store::{Cursor, Filter, Page, StoreError};

use crate::forward::version_of;
use crate::home::{Carried, Turn, View, refused, two_records};
use crate::map::{Map, Number};
use crate::seat::Seat;
use crate::spread::Spread;

/// Keys that are moved at once, so that they share syncs and round trips.
pub const MOVED_AT_ONCE: usize = 64;

/// What a pass over the members has come by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// The version of the map whose move it was for: no other one is ended by it.
    pub version: u64,
    /// Keys that were carried to their new homes.
    pub moved: u64,
    /// Keys whose bytes cannot be read. They cannot be moved either.
    pub damaged: Vec<(KeyId, StoreError)>,
    /// Keys with a record at each of their homes, which is no copy on its way: a member may have
    /// been put back from before they had moved, or one of the two is what a process wrote that was
    /// stopped in the middle of a claim, and was not granted it. They cannot be moved until
    /// somebody chooses.
    pub twice: Vec<KeyId>,
}

/// What was taken away after a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Forwards.
    pub forwards: u64,
    /// Records that lie where no key is looked for, and that were left: what a process wrote that
    /// was stopped in the middle of a claim, and was not granted it, or, where a member was put
    /// back, old copies. Which of the two one is, nobody can know.
    pub strays: u64,
}

impl Spread {
    /// Lets keys move to these members, all of which must be named here. From then on a node that
    /// does not name them grants none of the keys that go there. A move that goes on already, to
    /// the same members, does.
    ///
    /// No node may have the map of an earlier move: it would take a key that was copied back to
    /// where it came from for one that never left, and put its forward over the only record there
    /// is. So, unless nobody uses the set, [`SETTLE_WAIT`](crate::SETTLE_WAIT) must have passed
    /// since that one ended and [`Self::republish`] told it, if [`Map::has_moved`]. `after` is the
    /// version of the map that was waited for: a move follows no other one.
    ///
    /// # Errors
    /// Keys move to other members, they live there already, or the map is not the one that was
    /// waited for: nothing has changed. Or a member cannot be reached: then the same call goes on.
    pub async fn begin(
        &self,
        after: u64,
        members: &[Number],
        now: Timestamp,
    ) -> Result<Map, StoreError> {
        let map = self.inner.read_whole().await?;
        let mut wanted = members.to_vec();
        wanted.sort_unstable();
        if map.is_moving() && map.members() == wanted {
            return self.publish(map, now).await;
        }
        if map.is_moving() {
            return Err(refused("keys move to other members: go on with that move first"));
        }
        if map.version() != after {
            return Err(changed());
        }
        let next = map.moving_to(&wanted).ok_or_else(|| refused("these are its members"))?;
        if let Some(number) = next.all().iter().find(|it| !self.inner.members.contains_key(it)) {
            return Err(refused(format!("member {number} is not named here")));
        }
        for number in next.members().iter().filter(|it| !next.from().contains(it)) {
            self.refuse_full(&next, *number).await?;
        }
        // What keeps the keys whose records are gone is there before the first of them is asked.
        self.inherit(&next).await?;
        self.publish(next, now).await
    }

    /// Carries every key that has to move, and tells how many so far. A pass that moves nothing,
    /// [`SETTLE_WAIT`](crate::SETTLE_WAIT) after the move was begun, has seen that none is left.
    /// `version` is that of the map that was begun; if somebody else has ended its move, there is
    /// nothing to carry.
    ///
    /// # Errors
    /// The map is another one by now; or a member's. What was moved is moved.
    pub async fn pass(
        &self,
        version: u64,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<Pass, StoreError> {
        let map = self.inner.read_whole().await?;
        if map.version() != version && !map.is_end_of(version) {
            return Err(changed());
        }
        let mut pass = Pass { version, ..Pass::default() };
        for number in map.from() {
            let mut after = None;
            loop {
                let page = self.page(&map, *number, &mut after).await?;
                let here = |id: KeyId| id != MARK && map.old_home(id) == Some(*number);
                pass.damaged.extend(page.damaged.into_iter().filter(|(id, _)| here(*id)));
                let ids = page.records.into_iter().filter(|(_, it)| version_of(it).is_none());
                let ids: Vec<KeyId> = ids.map(|(id, _)| id).filter(|id| here(*id)).collect();
                let view = self.inner.view(&map);
                let carried = stream::iter(ids).map(|id| {
                    let carrying = self.carry(&view, id);
                    async move { (id, carrying.await) }
                });
                let mut carried = carried.buffer_unordered(MOVED_AT_ONCE);
                while let Some((id, carried)) = carried.next().await {
                    match carried? {
                        Carried::Moved => pass.moved += 1,
                        Carried::Not => {}
                        Carried::Twice => pass.twice.push(id),
                    }
                }
                told(pass.moved);
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(pass)
    }

    /// Carries a key while the move goes on. A pass may take longer than it does: later this would
    /// put a forward over the only record there is.
    async fn carry(&self, view: &View<'_>, id: KeyId) -> Result<Carried, StoreError> {
        if self.inner.current().await?.0 != *view.map {
            return Err(changed());
        }
        match view.carry(id).await? {
            Turn::Done(carried) => Ok(carried),
            Turn::Old(_) => Err(changed()),
        }
    }

    /// The records of a key that has one at its old home, which is the first, and another one at
    /// its new home, see [`Pass::twice`]. `None` if it has no two, or no keys move. Each with the
    /// number of its member.
    ///
    /// # Errors
    /// A member's.
    pub async fn both(&self, id: KeyId) -> Result<Option<[(Number, Record); 2]>, StoreError> {
        let map = self.inner.read_whole().await?;
        let Some(old) = map.old_home(id) else { return Ok(None) };
        let both = self.inner.view(&map).both(id).await?;
        Ok(both.map(|[there, here]| [(old, there), (map.home(id), here)]))
    }

    /// Puts `kept` in the place of both, as the record of a key that has moved. Its revision must
    /// be above those of both, and its fence none that was granted in either.
    ///
    /// # Errors
    /// They are not these any more: nothing was done. Of kind `Unknown`, the record at the new home
    /// may have been replaced, or is said to be, and the key has two still unless the answer of the
    /// old one was lost: ask for both again. Or another one of a member's: nothing was done.
    pub async fn choose(
        &self,
        id: KeyId,
        both: &[(Number, Record); 2],
        kept: Record,
    ) -> Result<(), StoreError> {
        let map = self.inner.read_whole().await?;
        let [(there, before), (here, after)] = both;
        if map.old_home(id) != Some(*there) || map.home(id) != *here {
            return Err(changed());
        }
        let records = [before.clone(), after.clone()];
        self.inner.view(&map).choose(id, &records, kept).await
    }

    /// Ends the move: from then on keys are looked for at their new homes alone. `last` must have
    /// moved nothing, and must have begun when no node could have the map from before the move. If
    /// somebody else has ended that move, its end is told to all members.
    ///
    /// # Errors
    /// Something was left in the last pass, a key has two records, or the map is not the one it was
    /// for: nothing has changed. Or a member's, and then the same call goes on.
    pub async fn settle(&self, last: &Pass, now: Timestamp) -> Result<Map, StoreError> {
        if let Some((id, error)) = last.damaged.first() {
            return Err(refused(format!("key {id} cannot be moved: {error}")));
        }
        if let Some(id) = last.twice.first() {
            return Err(two_records(*id));
        }
        if 0 < last.moved {
            return Err(refused("keys were still to be moved: another pass must find none"));
        }
        let map = self.inner.read_whole().await?;
        if map.version() != last.version && !map.is_end_of(last.version) {
            return Err(changed());
        }
        if !map.is_moving() {
            return self.publish(map, now).await;
        }
        self.inherit(&map).await?;
        self.publish(map.settled(), now).await
    }

    /// Writes the map into all members, as it is, while nothing moves: whoever ended the last move
    /// may have been cut off, and a member that was put back may know an older one.
    ///
    /// # Errors
    /// Keys move: nothing has changed. Or a member's, and then the same call goes on.
    pub async fn republish(&self, now: Timestamp) -> Result<Map, StoreError> {
        let map = self.inner.read_whole().await?;
        if map.is_moving() {
            return Err(refused("somebody else has begun to move keys: go on with that move"));
        }
        self.publish(map, now).await
    }

    /// Takes away the forwards of a move that has ended. A node that has not heard of the end finds
    /// nothing where one was, and goes to the same place; it may leave another one, for the next
    /// time.
    ///
    /// # Errors
    /// A member's, or keys move: what that move leaves behind is not touched.
    pub async fn clean(&self, told: &(dyn Fn(u64) + Sync)) -> Result<Cleaned, StoreError> {
        let map = self.inner.read_whole().await?;
        if map.is_moving() {
            return Err(refused("keys move: what they leave behind is needed"));
        }
        let mut cleaned = Cleaned::default();
        for (number, store) in &self.inner.members {
            let mut after = None;
            loop {
                let page = self.page(&map, *number, &mut after).await?;
                for (id, record) in page.records.into_iter().filter(|(id, _)| *id != MARK) {
                    let version = version_of(&record);
                    if version.is_some_and(|version| map.version() < version) {
                        return Err(changed());
                    }
                    if version.is_some() {
                        failpoint!("spread.clean.before", id);
                        store.swap(id, Some(record.revision), None).await?;
                        failpoint!("spread.clean.after", id);
                        cleaned.forwards += 1;
                    } else if map.home(id) != *number {
                        cleaned.strays += 1;
                    }
                }
                told(cleaned.forwards);
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(cleaned)
    }

    /// The next page of a member, and where the one after it begins.
    async fn page(
        &self,
        map: &Map,
        number: Number,
        after: &mut Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let view = self.inner.view(map);
        let store = view.member(number)?;
        let mut page = store.list(Filter::default(), after.take()).await?;
        *after = page.next.take();
        Ok(page)
    }

    /// Gives all members of a map the highest floor of any.
    async fn inherit(&self, map: &Map) -> Result<(), StoreError> {
        let view = self.inner.view(map);
        let mut floor = Floor::NONE;
        for number in map.all() {
            floor = view.member(number)?.floor().await?.max(floor);
        }
        for number in map.all() {
            view.member(number)?.raise_floor(floor).await?;
        }
        Ok(())
    }

    /// Refuses one that is to join and has records: they would be taken for those of the set.
    async fn refuse_full(&self, map: &Map, number: Number) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.page(map, number, &mut after).await?;
            let is_own = |it: &(KeyId, Record)| it.0 != MARK && version_of(&it.1).is_none();
            if page.records.iter().any(is_own) || !page.damaged.is_empty() {
                return Err(refused(format!("member {number} has records and cannot join")));
            }
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Writes a map into all members. The first is one that everybody who changes the same map
    /// begins with: of two changes one fails there, and has changed nothing.
    async fn publish(&self, map: Map, now: Timestamp) -> Result<Map, StoreError> {
        let view = self.inner.view(&map);
        let mut largest = 0;
        for store in self.inner.members.values() {
            largest = store.revision_max().await?.max(largest);
        }
        let mut set: Option<Fence> = None;
        let first = if map.is_moving() { map.from() } else { map.members() }.first().copied();
        let others = self.inner.members.keys().copied().filter(|number| Some(*number) != first);
        for number in first.into_iter().chain(others) {
            let store = view.member(number)?;
            let gone = || refused(format!("member {number} of the set was emptied"));
            let seat = Seat::read(store).await?.ok_or_else(gone)?;
            if set.is_some_and(|set| set != seat.set) {
                return Err(refused(format!("member {number} is of another set by now")));
            }
            set = Some(seat.set);
            if seat.map == map {
                continue;
            }
            let is_next = seat.map.version() < map.version();
            failpoint!("spread.publish.before", (number, &map));
            let turned = if is_next { seat.turn(store, &map, largest, now).await? } else { None };
            turned.ok_or_else(|| refused("somebody else has changed the map meanwhile"))?;
            failpoint!("spread.publish.after", (number, &map));
        }
        self.inner.adopt(map.clone());
        Ok(map)
    }
}

fn changed() -> StoreError {
    refused("somebody else has changed the map meanwhile: begin again")
}
