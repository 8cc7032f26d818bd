//! The binary `onlyonce`: parse, run, exit code.

mod alarms;
mod args;
mod commands;
mod demo;
mod exit;
mod failure;
mod moved;
mod open;
mod operate;
mod output;
#[cfg(test)]
mod page;
mod place;
mod progress;
mod risk;
mod set;
mod vault;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use exit::Exit;
use failure::Failure;

#[allow(clippy::print_stderr, reason = "this is where failures are told")]
fn main() -> ExitCode {
    let Cli { command, accept_risk } = Cli::parse();
    risk::take(accept_risk);
    let ended = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Proxy(args) => on_runtime(commands::proxy::run(args)),
        Command::Serve(args) => on_runtime(commands::serve::run(args)),
        Command::Store(command) => on_runtime(commands::store::run(command)),
        Command::Doctor(args) => on_runtime(commands::doctor::run(args)),
        Command::Keys(command) => on_runtime(commands::keys::run(command)),
        Command::Run(args) => match on_runtime(async { Ok(commands::run::run(args).await) }) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        Command::Mail(command) => on_runtime(commands::mail::run(command)),
        Command::Plan(args) => on_runtime(commands::provision::plan(args)),
        Command::Apply(args) => on_runtime(commands::provision::apply(args)),
        Command::Resources(command) => on_runtime(commands::provision::resources(command)),
        Command::Journal(command) => on_runtime(commands::journal::run(command)),
        Command::Config(command) => commands::config::run(&command),
        Command::Size(args) => commands::size::run(&args),
        Command::Generate(command) => commands::generate::run(&command),
    };
    match ended {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // What still runs has been given its time.
    runtime.shutdown_background();
    ended
}
