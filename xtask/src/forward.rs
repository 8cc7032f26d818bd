//! Commands that only build and start another program of the workspace.

use std::process::Command;

use crate::{Outcome, install, repo, steps, unpack};

/// Tortures the real binary under load: the program is an example of the binary's own crate.
pub(crate) fn torture(arguments: &[String]) -> Outcome {
    let built = ["build", "--release", "-q", "-p", "onlyonce-cli", "--bin", "onlyonce"];
    steps::loud(Command::new(repo::cargo()).args(built))?;
    if let Some((what, rest)) = arguments.split_first()
        && what == "orders"
    {
        return orders(rest);
    }
    if let Some((what, rest)) = arguments.split_first()
        && what == "duplicates"
    {
        return duplicates(rest);
    }
    match arguments.first().map(String::as_str) {
        Some("mail") => unpack::mail_servers()?,
        Some("stores") => install::run(&install::TEST_PACKAGES)?,
        Some(_) | None => {}
    }
    let run = ["run", "--release", "-q", "-p", "onlyonce-cli", "--example", "torture", "--"];
    steps::loud(Command::new(repo::cargo()).args(run).args(arguments))
}

/// Tortures the example of a shop and its warehouse.
fn orders(arguments: &[String]) -> Outcome {
    install::run(&install::TEST_PACKAGES)?;
    let built = ["build", "--release", "-q", "-p", "onlyonce-orders", "--bin", "warehouse"];
    steps::loud(Command::new(repo::cargo()).args(built))?;
    let run = ["run", "--release", "-q", "-p", "onlyonce-orders", "--example", "chaos", "--"];
    steps::loud(Command::new(repo::cargo()).args(run).args(arguments))
}

/// Fifty callers at once for each key, before four proxies on each store that processes share: the
/// tests that try a few keys, with as many as were asked for.
fn duplicates(arguments: &[String]) -> Outcome {
    let keys = match arguments {
        [] => "1000",
        [flag, keys] if flag == "--keys" && keys.parse::<u32>().is_ok() => keys,
        _ => return Err("torture duplicates takes `--keys NUMBER`".into()),
    };
    install::run(&install::TEST_PACKAGES)?;
    let tests =
        ["test", "--release", "-p", "onlyonce-cli", "--test", "cli", "duplicates_spread_over"];
    let alone = ["--", "--test-threads", "1"];
    let mut command = Command::new(repo::cargo());
    command.args(tests).args(alone).env("ONLYONCE_DUPLICATES", keys);
    steps::loud(&mut command)
}

/// The seeded simulation.
pub(crate) fn sim(arguments: &[String]) -> Outcome {
    let run = ["run", "--release", "-q", "-p", "onlyonce-sim", "--"];
    steps::loud(Command::new(repo::cargo()).args(run).args(arguments))
}
