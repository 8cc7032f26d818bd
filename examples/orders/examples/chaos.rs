//! `cargo xtask torture orders --seed 1 --minutes 10`: chaos for a shop and its warehouse. It takes
//! the programs that were built beside it.

#![allow(clippy::unwrap_used, reason = "a program of the terminal")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of the terminal")]

#[path = "../tests/chaos/check.rs"]
mod check;
#[path = "../tests/chaos/customers.rs"]
mod customers;
#[path = "../tests/chaos/faults.rs"]
mod faults;
#[path = "../tests/chaos/http.rs"]
mod http;
#[path = "../tests/chaos/printer.rs"]
mod printer;
#[path = "../tests/chaos/random.rs"]
mod random;
#[path = "../tests/chaos/run.rs"]
mod run;
#[path = "../tests/chaos/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long things go wrong
    #[arg(long, default_value_t = 10)]
    minutes: u64,
}

fn main() -> ExitCode {
    let Arguments { seed, minutes } = Arguments::parse();
    let here = std::env::current_exe().unwrap();
    let warehouse = here.parent().unwrap().parent().unwrap().join("warehouse");
    let limit = Duration::from_secs(60 * minutes);
    match run::run(&run::Options { warehouse, seed, limit }) {
        Ok(run::Report { tally, faults }) => {
            println!("{} faults; {tally:?}", faults.len());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}\nagain: cargo xtask torture orders --seed {seed} --minutes {minutes}");
            ExitCode::FAILURE
        }
    }
}
