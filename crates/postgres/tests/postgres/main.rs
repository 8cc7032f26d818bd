//! The store on real servers: what every store promises, what is refused at the door, and servers
//! that are killed under load.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod cells;
mod common;
mod conformance;
mod door;
mod failover;
mod functions;
mod held;
mod kill;
mod pooled;
mod shop;
mod tls;
mod transaction;
