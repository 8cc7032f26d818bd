//! The binary `onlyonce`.

mod demo;
mod exit;
mod failure;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;

/// An operation that was asked for once happens once.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
}

#[allow(clippy::print_stderr, reason = "this is where failures are told")]
fn main() -> ExitCode {
    let Command::Demo(args) = Cli::parse().command;
    match demo::run(&args) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}
