//! What callers of a service behind the middleware are promised, by effects counted in it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod common;
mod concurrency;
mod crash;
mod failures;
mod keys;
mod leases;
mod probing;
mod servers;
mod several;
mod sharing;
mod streaming;
mod time;
mod webhooks;
