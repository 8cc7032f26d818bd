//! The whole test ladder, cheapest rung first.

use std::process::Command;

use crate::install::{self, TEST_PACKAGES};
use crate::steps::{self, Steps};
use crate::{Outcome, arrows, cases, clients, fuzz, killed, mutants, repo, tidy, unpack, venv};

/// Runs it with a table of steps at the end.
pub(crate) fn run(fast: bool, from: Option<String>) -> Outcome {
    let mut steps = Steps::from(from);
    steps.step("tidy", tidy::run)?;
    steps.step("arrows", arrows::run)?;
    steps.step("cases", cases::check)?;
    all(&mut steps, fast)?;
    steps.table();
    steps.has_begun()
}

/// The rungs that run code; `ci` has tidied before.
pub(crate) fn all(steps: &mut Steps, fast: bool) -> Outcome {
    steps.step("packages", || install::run(&TEST_PACKAGES))?;
    steps.step("servers in Python", venv::servers)?;
    steps.step("mail servers", unpack::mail_servers)?;
    steps.cargo("build binaries", &["build", "--workspace", "--bins", "--examples"])?;
    if repo::on_path("cargo-nextest") {
        // Slow and failed tests are told as they come, so that a run that is cut off says where.
        let told = ["--cargo-quiet", "--status-level", "slow", "--final-status-level", "fail"];
        steps.step("tests", || {
            let run = ["nextest", "run", "--workspace", "--no-fail-fast"];
            steps::loud(Command::new(repo::cargo()).args(run).args(told))
        })?;
    } else {
        steps.cargo("tests", &["test", "--workspace", "--all-targets", "--no-fail-fast"])?;
    }
    steps.cargo("doc tests", &["test", "--doc", "--workspace"])?;
    if fast {
        for rung in
            ["clients", "killed", "schemathesis", "planted mutants", "simulation", "torture"]
        {
            steps.left_out(rung, "because of --fast");
        }
        return Ok(());
    }
    steps.step("clients", clients::run)?;
    steps.step("killed", || killed::run(None))?;
    steps.step("schemathesis", fuzz::run)?;
    steps.step("planted mutants", mutants::some)?;
    let simulate = ["run", "--release", "-p", "onlyonce-sim", "--", "--seconds", "30"];
    steps.cargo("simulation", &simulate)?;
    steps.step("torture", short_torture)
}

/// A few kills, a full disk and a few that fail, with a fixed seed and the programs that were built
/// for the tests; `cargo xtask torture` has the long ones, optimised.
fn short_torture() -> Outcome {
    let program = repo::root().join("target/debug/examples/torture");
    for (name, rounds) in [("kill", "5"), ("disk", "1")] {
        let short = [name, "--seed", "1", "--rounds", rounds];
        let name = format!("torture {name}");
        steps::quiet(&name, Command::new(&program).args(short))?;
    }
    Ok(())
}
