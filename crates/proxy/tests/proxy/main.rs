//! The proxy on loopback before a real upstream that counts what it does.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod cases;
mod common;
mod duplicates;
mod failures;
mod forwarding;
mod leases;
mod operating;
mod redaction;
mod silence;
mod stores;
