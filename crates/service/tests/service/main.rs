//! The service on a real port or socket, and clients that lose answers, sleep, race and lie. Every
//! test counts what happened in the world outside.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something fails")]

mod access;
mod bounds;
mod claims;
mod client;
mod nonsense;
mod operators;
mod repeats;
mod vectors;
mod world;
