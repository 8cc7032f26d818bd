//! A minute of chaos for a shop and its warehouse; `cargo xtask torture orders` has more of it.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod check;
mod customers;
mod faults;
mod http;
mod printer;
mod random;
mod run;
mod world;

use std::path::PathBuf;
use std::time::Duration;

/// Cases B110 and B114. Either process killed, or stopped for longer than its lease; broker and
/// database killed; the network cut; every message sent twice. Each order has one reservation and
/// one confirmation, always with the same bytes; what was called off before it came never ships.
#[test]
fn a_minute_of_chaos_ships_each_order_once_and_none_that_was_called_off_first() {
    let warehouse = PathBuf::from(env!("CARGO_BIN_EXE_warehouse"));
    let ended = run::run(&run::Options { warehouse, seed: 1, limit: Duration::from_secs(60) });
    let run::Report { tally, faults } = ended.unwrap_or_else(|why| panic!("{why}"));
    println!("{} faults; {tally:?}", faults.len());
    // There was something of everything, and duplicates were heard of.
    assert!(0 < tally.confirmed && 0 < tally.cancelled && 0 < tally.sold_out, "{tally:?}");
    let answered = tally.confirmed + tally.cancelled + tally.sold_out;
    assert!(answered < tally.heard as usize, "{tally:?}");
}
