//! `cargo xtask torture kill --seed 1 --rounds 200 --minutes 10`: kills the real proxy under load
//! and checks the history. It takes the binary that was built beside it.

#![allow(clippy::unwrap_used, reason = "a program of the terminal")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of the terminal")]

#[path = "../tests/torture/kill.rs"]
mod kill;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Kill the proxy at random moments and restart it on its journal
    Kill {
        /// Where the random numbers begin
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How often it is killed
        #[arg(long, default_value_t = 200)]
        rounds: u32,
        /// End earlier after so many minutes
        #[arg(long)]
        minutes: Option<u64>,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let What::Kill { seed, rounds, minutes } = Arguments::parse().what;
    let here = std::env::current_exe().unwrap();
    let binary = here.parent().unwrap().parent().unwrap().join("onlyonce");
    let limit = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let options = kill::Options { binary, seed, rounds, limit };
    match kill::run(&options).await {
        Ok(report) => {
            println!("{report:#?}");
            println!("nothing ran twice, every answer stayed the same");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            eprintln!("again: cargo xtask torture kill --seed {seed} --rounds {rounds}");
            ExitCode::FAILURE
        }
    }
}
