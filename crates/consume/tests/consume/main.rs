//! Messages that are delivered again and again: what they do is counted in a file, a line a run.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod broker;
mod desk;
mod doubt;
mod inbox;
mod rabbit;
mod tls;
