//! The tests that kill the real binary at named places of its code, in a build that has them.

use std::process::Command;

use crate::{Outcome, repo, steps};

/// Each place is a start of the binary, which reads whole segments of the journal.
const FAST_JOURNAL: &str = "profile.dev.package.onlyonce-journal.opt-level=2";

/// Runs them; with `bless` they write `docs/killed-at.md`.
pub(crate) fn run(bless: Option<&str>) -> Outcome {
    let mut tests = Command::new(repo::cargo());
    tests.args(["test", "--config", FAST_JOURNAL, "-p", "onlyonce-cli"]);
    tests.args(["--features", "failpoints", "--test", "killed"]);
    if let Some(bless) = bless {
        tests.env(bless, "1");
    }
    let ended = steps::quiet("killed", &mut tests);
    // The binary without the places is the one that people find in the folder of builds.
    let ordinary = ["build", "-p", "onlyonce-cli", "--bin", "onlyonce"];
    ended.and(steps::quiet("killed-build", Command::new(repo::cargo()).args(ordinary)))
}
