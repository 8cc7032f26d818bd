//! Commands that only build and start another program of the workspace.

use std::process::Command;

use crate::{Outcome, repo, steps};

/// Tortures the real binary under load: the program is an example of the binary's own crate.
pub(crate) fn torture(arguments: &[String]) -> Outcome {
    let built = ["build", "--release", "-q", "-p", "onlyonce-cli", "--bin", "onlyonce"];
    steps::loud(Command::new(repo::cargo()).args(built))?;
    let run = ["run", "--release", "-q", "-p", "onlyonce-cli", "--example", "torture", "--"];
    steps::loud(Command::new(repo::cargo()).args(run).args(arguments))
}

/// The seeded simulation.
pub(crate) fn sim(arguments: &[String]) -> Outcome {
    let run = ["run", "--release", "-q", "-p", "onlyonce-sim", "--"];
    steps::loud(Command::new(repo::cargo()).args(run).args(arguments))
}
