//! What callers of the engine are promised, on a store with faults and a clock that is paused:
//! every test counts what happened in the world outside.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something fails")]

mod clocks;
mod failures;
mod leases;
mod notices;
mod operators;
mod remote;
mod starting;
mod support;
mod sweeping;
mod tickets;
mod waiting;
