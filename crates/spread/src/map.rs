//! The map: which member of a set a key lives in.

use core::fmt;

use onlyonce_core::KeyId;

/// Most members of a set. The map, with those of a move twice, must fit a record's evidence.
pub const MEMBERS_MAX: usize = 16;
/// The largest number of a member.
pub(crate) const NUMBER_MAX: u32 = 99_999;

/// The number of a member in its set: given when it joins, never to another one. Keys are spread
/// by it, so that a member may change its address and its line in a file.
pub type Number = u32;

/// The members of a set, and, while keys move, the members that they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    version: u64,
    members: Vec<Number>,
    /// Empty if nothing moves.
    from: Vec<Number>,
}

impl Map {
    /// The map of a new set with so many members; `None` for none or more than [`MEMBERS_MAX`].
    pub fn first(count: usize) -> Option<Self> {
        let numbers = (1..=NUMBER_MAX).take(count).collect();
        Self::new(1, numbers, Vec::new())
    }

    fn new(version: u64, mut members: Vec<Number>, mut from: Vec<Number>) -> Option<Self> {
        members.sort_unstable();
        from.sort_unstable();
        let is_set = |list: &[Number]| {
            list.len() <= MEMBERS_MAX
                && list.windows(2).all(|pair| pair[0] < pair[1])
                && list.iter().all(|number| (1..=NUMBER_MAX).contains(number))
        };
        let is_good = 0 < version && !members.is_empty() && members != from;
        (is_good && is_set(&members) && is_set(&from)).then_some(Self { version, members, from })
    }

    /// The map under which keys move to these members. `None` if keys move already, or if they are
    /// the members that there are.
    pub fn moving_to(&self, members: &[Number]) -> Option<Self> {
        let next = || Self::new(self.version + 1, members.to_vec(), self.members.clone());
        if self.is_moving() { None } else { next() }
    }

    /// The map once all keys have moved.
    pub fn settled(&self) -> Self {
        Self { version: self.version + 1, members: self.members.clone(), from: Vec::new() }
    }

    /// The number of a member that joins beside those that have one; `None` if this set was changed
    /// too often to give one. No member that was in a map and has left had it: each version has
    /// [`MEMBERS_MAX`] numbers of its own, and who leaves raises it. Else whoever has the line of
    /// that one would take it for the new one.
    pub fn number_after(&self, known: impl Iterator<Item = Number>) -> Option<Number> {
        let before = self.version.checked_sub(1)?.checked_mul(MEMBERS_MAX as u64)?;
        let last = known.max().unwrap_or_default().max(Number::try_from(before).ok()?);
        let next = last.checked_add(1)?;
        (next <= NUMBER_MAX).then_some(next)
    }

    /// Raised by each change.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The members that keys live in, or move to.
    pub fn members(&self) -> &[Number] {
        &self.members
    }

    /// The members that keys come from while they move; else none.
    pub fn from(&self) -> &[Number] {
        &self.from
    }

    /// Whether keys move.
    pub fn is_moving(&self) -> bool {
        !self.from.is_empty()
    }

    /// Whether there was a move before: some node may have its map for a while.
    pub fn has_moved(&self) -> bool {
        !self.is_moving() && 1 < self.version
    }

    /// Whether this is the map once the move of the map of that version has ended.
    pub fn is_end_of(&self, version: u64) -> bool {
        !self.is_moving() && self.version.checked_sub(1) == Some(version)
    }

    /// All members, also those that keys come from.
    pub fn all(&self) -> Vec<Number> {
        let mut all: Vec<Number> = self.members.iter().chain(&self.from).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Where a key lives, or will.
    pub fn home(&self, id: KeyId) -> Number {
        highest(&self.members, id)
    }

    /// Where a key lived before, if it is one that moves.
    pub fn old_home(&self, id: KeyId) -> Option<Number> {
        let old = self.is_moving().then(|| highest(&self.from, id))?;
        (old != self.home(id)).then_some(old)
    }

    /// The map in this text, as [`fmt::Display`] writes it; `None` for any other.
    pub fn parse(text: &str) -> Option<Self> {
        let list = |text: &str| match text {
            "-" => Some(Vec::new()),
            text => text.split(',').map(|number| number.parse().ok()).collect(),
        };
        let (version, lists) = text.split_once(' ')?;
        let (members, from) = lists.split_once(' ')?;
        Self::new(version.parse().ok()?, list(members)?, list(from)?)
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &[Number]| match list {
            [] => "-".to_owned(),
            list => list.iter().map(Number::to_string).collect::<Vec<_>>().join(","),
        };
        write!(f, "{} {} {}", self.version, list(&self.members), list(&self.from))
    }
}

/// Highest random weight (Thaler and Ravishankar, "Using name-based mappings to increase hit
/// rates", 1998): each member has a weight of its own for each key, and the heaviest is the key's
/// home. So a member that joins takes its share and no other key moves, and one that leaves gives
/// away its own alone.
fn highest(members: &[Number], id: KeyId) -> Number {
    let heaviest = members.iter().copied().max_by_key(|number| (weight(*number, id), *number));
    heaviest.unwrap_or_default()
}

/// The first eight bytes of BLAKE3 over the member's number, as four bytes, and the key id; both
/// big-endian.
fn weight(number: Number, id: KeyId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_be_bytes()).update(id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onlyonce_conformance::id;

    const KEYS: u64 = 10_000;

    #[test]
    fn the_number_of_a_member_that_has_left_is_not_given_again() {
        let first = Map::first(2).unwrap();
        let joined = first.number_after([1, 2].into_iter()).unwrap();
        assert_eq!(joined, 3);
        let with_it = first.moving_to(&[1, 2, joined]).unwrap().settled();
        let without = with_it.moving_to(&[1, 2]).unwrap().settled();
        let next = without.number_after([1, 2].into_iter()).unwrap();
        assert!(joined < next, "{next}");
        // All that can join at once come no further than the next version's.
        let next = |last, _| first.number_after([2, last].into_iter()).unwrap();
        let full = (2..MEMBERS_MAX).fold(0, next);
        assert!(full <= 16 && full < with_it.number_after([1].into_iter()).unwrap());
        let often = Map::new(1 << 40, vec![1], Vec::new()).unwrap();
        assert_eq!(often.number_after([1].into_iter()), None);
        assert_eq!(first.number_after([NUMBER_MAX].into_iter()), None);
    }

    #[test]
    fn a_member_that_joins_takes_its_share_and_no_other_key_moves() {
        let old = Map::first(3).unwrap();
        let map = old.moving_to(&[1, 2, 3, 4]).unwrap();
        let moved: Vec<u64> = (0..KEYS).filter(|key| map.old_home(id(*key)).is_some()).collect();
        assert!(moved.iter().all(|key| map.home(id(*key)) == 4));
        assert!((KEYS / 5..KEYS / 3).contains(&(moved.len() as u64)), "{}", moved.len());
        for key in (0..KEYS).filter(|key| !moved.contains(key)) {
            assert_eq!(map.home(id(key)), old.home(id(key)));
        }
    }

    #[test]
    fn a_member_that_leaves_gives_away_its_keys_alone() {
        let map = Map::first(3).unwrap().moving_to(&[3, 1]).unwrap();
        for key in 0..KEYS {
            assert_ne!(map.home(id(key)), 2);
            assert!(map.old_home(id(key)).is_none_or(|old| old == 2));
        }
    }

    #[test]
    fn keys_are_spread_evenly_and_as_they_always_were() {
        let map = Map::first(4).unwrap();
        for member in 1..=4 {
            let count = (0..KEYS).filter(|key| map.home(id(*key)) == member).count() as u64;
            assert!((KEYS / 5..KEYS * 3 / 10).contains(&count), "{member}: {count}");
        }
        // Another hash would lose every key.
        let homes: Vec<Number> = (0..16).map(|key| map.home(id(key))).collect();
        assert_eq!(homes, [1, 1, 3, 2, 4, 1, 3, 4, 4, 2, 1, 1, 1, 1, 4, 1]);
    }

    #[test]
    fn a_map_reads_back_and_nothing_else_is_one() {
        let full: Vec<Number> = (NUMBER_MAX - 15..=NUMBER_MAX).collect();
        let first = Map::first(MEMBERS_MAX).unwrap();
        let moving = first.moving_to(&full).unwrap();
        for map in [&first, &moving, &moving.settled()] {
            assert_eq!(Map::parse(&map.to_string()).as_ref(), Some(map));
        }
        assert!(moving.to_string().len() + 30 < onlyonce_core::limits::EVIDENCE_BYTES_MAX);
        assert_eq!(moving.moving_to(&[1]), None, "one move at a time");
        let has_moved = [&first, &moving, &moving.settled()].map(Map::has_moved);
        assert_eq!(has_moved, [false, false, true]);
        for wrong in
            ["", "1", "1 1", "0 1 -", "1 - -", "1 1,1 -", "1 0 -", "1 1 1", "1 1 - ", "x 1 -"]
        {
            assert_eq!(Map::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Map::first(0), None);
        assert_eq!(Map::first(MEMBERS_MAX + 1), None);
    }
}
