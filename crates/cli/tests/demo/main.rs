//! What `onlyonce demo` promises: its page in a real browser, its curl lines in a real shell, and
//! a clean end.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod browser;
mod curl;
mod end;
mod page;
mod plain;
mod process;
