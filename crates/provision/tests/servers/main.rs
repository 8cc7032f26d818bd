//! Plans on real servers. A binary of its own, since it takes longer than the others.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod postgres;
#[allow(dead_code, reason = "the other tests of this crate use all of it")]
#[path = "../provision/site.rs"]
mod site;
