//! Everything that must hold before a change is merged, cheapest first. `.ci/run` calls this.

use std::process::Command;

use crate::steps::{self, Steps};
use crate::{Outcome, arrows, cases, deny, repo, test, tidy};

/// Runs all of it; the first failure ends it.
pub(crate) fn run() -> Outcome {
    let mut steps = Steps::new();
    let before = changed_files()?;
    steps.cargo("format", &["fmt", "--all", "--check"])?;
    steps.step("tidy", tidy::run)?;
    steps.step("arrows", arrows::run)?;
    steps.step("cases", cases::check)?;
    steps.step("deny", deny::run)?;
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    steps.cargo("clippy", &lints)?;
    let lints = ["clippy", "-p", "onlyonce-cli", "-p", "onlyonce-failpoint", "--all-targets"];
    let with = ["--features", "failpoints,armed", "--", "-D", "warnings"];
    steps.cargo("clippy of failpoints", &[&lints[..], &with].concat())?;
    steps.step("docs", || {
        let arguments = ["doc", "--no-deps", "--workspace", "-q"];
        let mut command = Command::new(repo::cargo());
        steps::quiet("docs", command.args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    test::all(&mut steps, false)?;
    steps.step("nothing written", || {
        let after = changed_files()?;
        if before == after { Ok(()) } else { Err(format!("the run changed:\n{after}").into()) }
    })?;
    steps.table();
    Ok(())
}

/// Files that differ from the last commit, with their differences.
fn changed_files() -> Result<String, crate::Failure> {
    let said =
        Command::new("git").args(["diff", "HEAD", "--stat"]).current_dir(repo::root()).output()?;
    let new = Command::new("git")
        .args(["ls-files", "--others", "--exclude-standard"])
        .current_dir(repo::root())
        .output()?;
    Ok(String::from_utf8(said.stdout)? + &String::from_utf8(new.stdout)?)
}
