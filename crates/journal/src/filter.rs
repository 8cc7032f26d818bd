//! A filter of keys: "no" is certain, "perhaps" costs one read.
//!
//! A Bloom filter whose bits for one key lie in one cache line (Putze, Sanders and Singler, 2007).
//! At ten bits a key about one key in seventy that is not there looks as if it were.

use onlyonce_core::KeyId;

/// Bits for each key.
const BITS: u64 = 10;
/// Bits that are set for each key.
const PROBES: u32 = 6;
/// Bytes of a line.
pub(crate) const LINE: usize = 64;

#[derive(Debug)]
pub(crate) struct Filter(Vec<u8>);

impl Filter {
    /// An empty one with room for this many keys.
    pub(crate) fn with_room(keys: u64) -> Self {
        let lines = (keys * BITS).div_ceil(LINE as u64 * 8).max(1);
        Self(vec![0; lines as usize * LINE])
    }

    /// As it was written; `None` if there is no such filter.
    pub(crate) fn read(bytes: Vec<u8>) -> Option<Self> {
        (!bytes.is_empty() && bytes.len().is_multiple_of(LINE)).then_some(Self(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn add(&mut self, id: KeyId) {
        let (line, mut bits) = self.line(id);
        let line = &mut self.0[line..line + LINE];
        for _ in 0..PROBES {
            line[(bits >> 3 & 63) as usize] |= 1 << (bits & 7);
            bits >>= 9;
        }
    }

    /// Whether the key may be there.
    pub(crate) fn may_have(&self, id: KeyId) -> bool {
        let (line, mut bits) = self.line(id);
        let line = &self.0[line..line + LINE];
        (0..PROBES).all(|_| {
            let is_set = line[(bits >> 3 & 63) as usize] & 1 << (bits & 7) != 0;
            bits >>= 9;
            is_set
        })
    }

    /// Where the key's line begins, and nine bits for each probe in it.
    fn line(&self, id: KeyId) -> (usize, u64) {
        let half = |from: usize| {
            let mut half = [0; 8];
            half.copy_from_slice(&id.as_bytes()[from..from + 8]);
            u64::from_le_bytes(half)
        };
        // Key ids are digests; the mixing is for those of tests.
        let (a, b) = (half(0), half(8));
        let mixed = (a ^ b.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bits = (b ^ mixed >> 32).wrapping_mul(0xD134_2543_DE82_EF95);
        let lines = (self.0.len() / LINE) as u128;
        let line = ((u128::from(mixed) * lines) >> 64) as usize;
        (line * LINE, bits ^ bits >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> KeyId {
        let mut bytes = [0; 16];
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bytes[..8].copy_from_slice(&mixed.to_be_bytes());
        bytes[8..].copy_from_slice(&mixed.wrapping_mul(0xD134_2543_DE82_EF95).to_be_bytes());
        KeyId::from_bytes(bytes)
    }

    #[test]
    fn what_was_added_is_never_denied_and_little_else_is_not() {
        for keys in [0, 1, 50, 51, 100_000] {
            let mut filter = Filter::with_room(keys);
            (0..keys).for_each(|number| filter.add(id(number)));
            assert!((0..keys).all(|number| filter.may_have(id(number))));
            let read = Filter::read(filter.bytes().to_vec()).unwrap();
            let wrong = (keys..keys + 100_000).filter(|number| read.may_have(id(*number))).count();
            assert!(wrong < 3_000, "{wrong} of 100,000 at {keys}");
            assert!(filter.bytes().len() as u64 * 8 <= keys * BITS + 512);
        }
    }
}
