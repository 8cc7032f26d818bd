//! Messages of a real JetStream: what they do is counted in a file, a line a run.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

#[allow(dead_code, reason = "the inbox of other brokers' tests, of which not all is used")]
#[path = "../../../consume/tests/consume/desk.rs"]
mod desk;
mod jet;
mod server;
mod tls;
