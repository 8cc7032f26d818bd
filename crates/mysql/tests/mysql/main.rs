//! The store on real servers: what every store promises, what is refused at the door, and servers
//! that are killed, cut off or stand still.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod cells;
mod common;
mod conformance;
mod cut;
mod door;
mod kill;
mod many;
mod outbox;
mod procedures;
mod shop;
mod synced;
mod tls;
mod transaction;
