//! Measures journal and proxy against their baselines on this machine, in one run.
//!
//! Absolute rates belong to the machine; the goals are ratios between targets that are measured
//! in turns (A B C A B C), so that a noisy neighbour disturbs all of them. Nothing is asserted:
//! the report says what was met and what was missed.

mod goals;
mod http;
mod journal;
mod load;
mod machine;
mod peers;
mod report;
mod server;
mod stores;

use std::process::Command;

use crate::{Failure, Outcome, install, repo, steps};

/// What the benchmarks use beside the toolchain.
const PACKAGES: [install::Package; 2] = [("nginx", "nginx"), ("wrk", "wrk")];

/// What to measure and for how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `all` is journal, stores and HTTP; `peers` are other idempotency layers from package
    /// registries.
    #[arg(value_enum, default_value_t = Subject::All)]
    subject: Subject,
    /// Seconds per cell and round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds over all cells; medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Numbers of HTTP connections, and of callers of stores.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    connections: Vec<u32>,
    /// Only the HTTP targets and the stores whose name contains one of these words; writes no
    /// report.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    All,
    Journal,
    /// What callers notice while a million records expire.
    Expiry,
    /// Stores that processes share, beside bare clients of their servers.
    Stores,
    Http,
    Peers,
}

/// Measures, prints and, for `all` and `peers`, writes the report.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    install::run(&PACKAGES)?;
    let machine = machine::Machine::look();
    println!("{}", machine.line());
    let mut report = report::Report::new(machine);
    if matches!(arguments.subject, Subject::All | Subject::Journal) {
        report.journal = unless_missing("journal", journal::measure(journal::PAIRS, &[]))?;
    }
    if matches!(arguments.subject, Subject::All | Subject::Expiry) {
        let expiry = unless_missing("expiry", journal::measure(journal::EXPIRY, &[]))?;
        report.journal.get_or_insert_default().extend(expiry.unwrap_or_default());
    }
    if matches!(arguments.subject, Subject::All | Subject::Stores) {
        report.stores = unless_missing("stores", stores::measure(arguments))?;
    }
    if matches!(arguments.subject, Subject::All | Subject::Http) {
        build("-p xtask --example baseline")?;
        report.http = unless_missing("http", http::measure(arguments))?;
    }
    if arguments.subject == Subject::Peers {
        build("-p xtask --example baseline")?;
        report.peers = unless_missing("peers", peers::measure(arguments))?;
    }
    println!("{}", report.text(arguments));
    match arguments.subject {
        Subject::All if arguments.only.is_empty() => report.write(arguments, "docs/benchmarks.md"),
        Subject::Peers if arguments.only.is_empty() => report.write(arguments, "docs/peers.md"),
        Subject::All
        | Subject::Journal
        | Subject::Expiry
        | Subject::Stores
        | Subject::Http
        | Subject::Peers => Ok(()),
    }
}

/// A part that cannot be measured is said and left out, and the other parts go on.
fn unless_missing<T>(part: &str, measured: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match measured {
        Ok(found) => Ok(Some(found)),
        Err(failure) => {
            println!("{part} not measured: {failure}");
            Ok(None)
        }
    }
}

/// A folder under `target/`, on the disk that is measured; thrown away when dropped.
fn scratch() -> Result<tempfile::TempDir, Failure> {
    let all = repo::root().join("target/bench-scratch");
    // What an interrupted run left behind.
    let _ = std::fs::remove_dir_all(&all);
    std::fs::create_dir_all(&all)?;
    Ok(tempfile::tempdir_in(all)?)
}

/// Builds something in release mode.
fn build(what: &str) -> Outcome {
    println!("building {what}");
    let mut command = Command::new(repo::cargo());
    command.args(["build", "--release"]).args(what.split(' '));
    steps::quiet(&format!("build {what}"), &mut command)
}

/// The middle value; of two middle ones the lower. `None` if there is none.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    values.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_value() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(1.0));
    }
}
