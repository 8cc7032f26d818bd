//! Checks, tests and benchmarks of this repository: `cargo xtask help` lists them.
//!
//! It depends on none of our crates, so that it still builds when they do not. Everything that
//! `.ci/run` does is here; `ARCHITECTURE.md` says when to use which command.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool of the terminal")]

mod arrows;
mod bench;
mod cases;
mod ci;
mod clients;
mod clock;
mod deny;
mod docs;
mod forward;
mod fuzz;
mod install;
mod killed;
mod mutants;
mod process;
mod repo;
mod steps;
mod test;
mod tidy;
mod unpack;
mod venv;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a command failed, in words for the person at the terminal.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What every command ends with.
type Outcome = Result<(), Failure>;

/// Checks, tests and benchmarks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change is merged, cheapest first.
    Ci,
    /// The whole test ladder, with a table of steps at the end.
    Test {
        /// Leave out planted mutants, simulation and torture.
        #[arg(long)]
        fast: bool,
        /// Begin with this step of the table, after one that failed was mended.
        #[arg(long, value_name = "STEP")]
        from: Option<String>,
    },
    /// Style that a compiler does not check: ceilings, file docs, marks, links, dead files.
    Tidy,
    /// The imports between crates against `xtask/arrows.toml`.
    Arrows,
    /// Licences, sources and advisories of dependencies against `deny.toml`.
    Deny,
    /// Writes the generated pages again.
    Docs,
    /// Installs the Debian packages that tests and benchmarks use, servers in Python, and mail
    /// servers below `target`.
    Install,
    /// Kills the real binary under load, or takes its disk, and checks the history: `torture kill
    /// --seed 1`, `torture disk --seed 1`. `torture orders --seed 1 --minutes 10` does it to a shop
    /// and its warehouse, `torture mail --seed 1 --messages 10000` to the sender of mail, `torture
    /// stores --seed 1 --minutes 10` to servers of stores that four proxies share. `torture
    /// duplicates --keys 1000` asks fifty times at once for each key, on each such store.
    Torture {
        /// Handed to the torture program as they stand.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Asks the record service what its description allows and forbids: schemathesis, a minute.
    Fuzz,
    /// Tests the clients for Rust, Python and TypeScript against the real programs, and in a
    /// browser.
    Clients {
        /// Then put planted faults into them, one at a time: the tests must fail.
        #[arg(long)]
        mutants: bool,
    },
    /// Puts planted faults in, one at a time: the tests must fail.
    Mutants(mutants::Arguments),
    /// Runs the seeded simulation: `sim --seed 1`.
    Sim {
        /// Handed to `onlyonce-sim` as they stand.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures journal and proxy against their baselines and writes `docs/benchmarks.md`.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = process::kill_children_on_signal().and_then(|()| match arguments.command {
        Command::Ci => ci::run(),
        Command::Test { fast, from } => test::run(fast, from),
        Command::Tidy => tidy::run(),
        Command::Arrows => arrows::run(),
        Command::Deny => deny::run(),
        Command::Docs => docs::run(),
        Command::Install => install::run(&install::TEST_PACKAGES)
            .and_then(|()| venv::servers())
            .and_then(|()| unpack::mail_servers()),
        Command::Torture { arguments } => forward::torture(&arguments),
        Command::Fuzz => fuzz::run(),
        Command::Clients { mutants: false } => clients::run(),
        Command::Clients { mutants: true } => clients::run().and_then(|()| clients::try_mutants()),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Sim { arguments } => forward::sim(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
