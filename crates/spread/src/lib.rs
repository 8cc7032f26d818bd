//! Several stores of one kind as one: each key lives in one of them, its home.
//!
//! Which one that is a [`Map`] says, by rendezvous hashing. The map has a version, and stands in
//! every member of the set, in its [`Seat`]. A member is never opened alone: what it knows is not
//! all that is known.
//!
//! When members join or leave, keys move to new homes while processes go on. For each key one swap
//! at its old home decides that it has moved: from then on there is a *forward* in its place, and
//! whoever comes by with an older map is refused. docs/spread.md has the argument, and
//! `tests/spread/orders.rs` tries every order of the calls that it is about.
//!
//! This crate decides nothing about keys, and knows no runtime, no database and no HTTP.

mod door;
mod forward;
mod home;
mod map;
mod moving;
mod seat;
mod spread;

pub use door::Given;
pub use map::{MEMBERS_MAX, Map, Number};
pub use moving::{Cleaned, MOVED_AT_ONCE, Pass};
pub use seat::Seat;
pub use spread::{MAP_AGE_MAX, MAP_AGE_READ, SETTLE_WAIT, Spread, Steady};
