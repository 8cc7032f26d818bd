//! The cases, each named after a sentence of `docs/store-contract.md`.

pub mod content;
pub mod damage;
pub mod durable;
pub mod facts;
pub mod listing;
pub mod notices;
pub mod swap;

use futures_executor::block_on;
use onlyonce_core::{Record, Revision};
use onlyonce_store::{Store, Swap};

use crate::id;

/// Swaps and waits; an error of the store fails the case.
fn put(store: &impl Store, number: u64, expected: Option<&Record>, next: Option<&Record>) -> Swap {
    let expected: Option<Revision> = expected.map(|record| record.revision);
    block_on(store.swap(id(number), expected, next.cloned())).unwrap()
}

fn get(store: &impl Store, number: u64) -> Option<Record> {
    block_on(store.get(id(number))).unwrap()
}
