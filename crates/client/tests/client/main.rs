//! What a client sends and keeps, counted by a server that answers as it is told.

#![allow(clippy::unwrap_used, reason = "a test fails so")]

mod operations;
mod sending;
mod server;
