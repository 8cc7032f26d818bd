//! `onlyonce-model`: tries more than the tests have time for, and prints how much it was.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of the terminal")]

use std::process::ExitCode;

use clap::Parser;
use onlyonce_model::class::Class;
use onlyonce_model::mutant::Mutant;
use onlyonce_model::{Setup, check};

#[derive(Parser)]
struct Arguments {
    /// How many claims are granted at most
    #[arg(long, default_value_t = 3)]
    claims: u8,
    /// How many answers of the store get lost at most
    #[arg(long, default_value_t = 0)]
    losses: u8,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let Arguments { claims, losses, threads } = Arguments::parse();
    for class in Class::ALL {
        for timed in [true, false] {
            let setup = Setup {
                class,
                timed,
                mutant: Mutant::None,
                claims_max: claims,
                losses_max: losses,
                watched: None,
            };
            let report = check(setup, threads);
            let key = if timed { "timed" } else { "untimed" };
            println!("{class:?}, {key}: {} states, {} steps deep", report.states, report.depth);
            if let Some(broken) = report.broken {
                eprintln!("{}\nbreaks `{}`", broken.trace.join("\n"), broken.invariant);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
