//! Several stores as one: what every store promises, who is let in, and every order in which keys
//! may move.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod bench;
mod conformance;
mod cut;
mod door;
mod orders;
mod parts;
mod rivals;
mod sqlite;
mod twice;
mod unnamed;
