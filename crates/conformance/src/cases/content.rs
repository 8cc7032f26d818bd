//! What is written comes back as it was.

use super::{get, put};
use crate::{StoreBuilder, answered, claimed, in_doubt, released, tombstone};
use onlyonce_store::Store as _;

/// Every part of a record comes back.
pub fn every_part_of_a_record_comes_back<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let one = claimed(1);
    let nexts = [
        answered(&one, 2, "order 1"),
        answered(&one, 2, ""),
        released(&one, 2),
        in_doubt(&one, 2),
        tombstone(&one),
    ];
    for (number, next) in (0..).zip(&nexts) {
        put(&store, number, None, Some(&one));
        put(&store, number, Some(&one), Some(next));
        assert_eq!(get(&store, number).as_ref(), Some(next));
    }
}

/// A reply of the largest size comes back.
pub fn a_reply_of_the_largest_size_comes_back<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let one = claimed(1);
    let content: Vec<u8> = (0..store.reply_max()).map(|at| (at % 251) as u8).collect();
    let two = answered(&one, 2, content);
    put(&store, 1, None, Some(&one));
    put(&store, 1, Some(&one), Some(&two));
    assert_eq!(get(&store, 1), Some(two));
}

/// Every byte value comes back.
pub fn every_byte_value_comes_back<B: StoreBuilder>(builder: &B) {
    let store = builder.fresh();
    let one = claimed(1);
    let content: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
    let two = answered(&one, 2, content);
    put(&store, 1, None, Some(&one));
    put(&store, 1, Some(&one), Some(&two));
    assert_eq!(get(&store, 1), Some(two));
}
