//! What callers of the engine are promised, by effects counted in the outside world. All time is
//! virtual: nothing here waits for a real clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod death;
mod floor;
mod holding;
mod loss;
mod parts;
mod probing;
mod receivers;
mod restored;
mod retention;
mod room;
mod sharing;
mod start;
