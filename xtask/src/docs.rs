//! Writes the generated pages again: the tests that compare them write them when blessed.

use std::process::Command;

use crate::{Outcome, arrows, cases, killed, repo, steps};

/// Set for tests that compare a page: write it instead of comparing.
const BLESS: &str = "ONLYONCE_BLESS";

/// Packages whose tests own a generated page.
const OWNERS: [&str; 6] = [
    "onlyonce-core",
    "onlyonce-http",
    "onlyonce-journal",
    "onlyonce-listen",
    "onlyonce-service",
    "onlyonce-cli",
];

/// Writes all of them.
pub(crate) fn run() -> Outcome {
    arrows::write_table()?;
    cases::write()?;
    for package in OWNERS {
        let name = format!("docs of {package}");
        println!("==> {name}");
        let arguments = ["test", "-q", "-p", package];
        steps::quiet(&name, Command::new(repo::cargo()).args(arguments).env(BLESS, "1"))?;
    }
    println!("==> docs of what is killed");
    killed::run(Some(BLESS))
}
