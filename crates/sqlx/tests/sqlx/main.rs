//! Claims in a transaction of sqlx on real databases: what happens, happens with its record.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod line;
mod mysql;
mod page;
mod postgres;
mod shop;
