//! Plans that are applied, cut off and applied again: what was made is counted where it was made.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod api;
mod changes;
mod codes;
mod destroy;
mod doubt;
mod files;
mod gone;
mod http;
mod narrow;
mod rivals;
mod site;
mod together;
