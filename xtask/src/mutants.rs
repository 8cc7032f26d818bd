//! Planted faults: each guard is believed because the tests fail without it.
//!
//! A crate lists its faults in `mutants.toml`. They are put into a copy of the crates, one at a
//! time, and the crate's tests must then fail, by a failed test and not by a failed build.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::{Failure, Outcome, repo};

#[derive(Deserialize)]
struct List {
    mutant: Vec<Mutant>,
}

#[derive(Deserialize)]
struct Mutant {
    /// What is no longer kept.
    rule: String,
    /// Where, from the crate's folder.
    file: String,
    find: String,
    replace: String,
}

/// The crates that have lists.
const CRATES: [(&str, &str); 2] = [("core", "onlyonce-core"), ("tower", "onlyonce-tower")];

/// How long one build may take; the first one builds all that the crate's tests stand on.
const BUILD: &str = "900s";

/// How long the tests of one crate may take. A fault may make a test wait for ever, which is as
/// good as failing.
const TESTS: &str = "90s";

/// Tries every planted fault.
pub(crate) fn run() -> Outcome {
    let copy = repo::root().join("target/mutants");
    let mut alive = Vec::new();
    for (folder, package) in CRATES {
        let list =
            fs::read_to_string(repo::root().join("crates").join(folder).join("mutants.toml"))?;
        let list: List = toml::from_str(&list)?;
        for mutant in &list.mutant {
            fresh(&copy)?;
            if let Some(why) = survives(&copy, folder, package, mutant)? {
                alive.push(format!("{package}, {}: {why}", mutant.rule));
            } else {
                println!("    caught: {package}, {}", mutant.rule);
            }
        }
    }
    if alive.is_empty() { Ok(()) } else { Err(alive.join("\n").into()) }
}

/// A copy of what the tests need, as it stands now.
fn fresh(copy: &Path) -> Outcome {
    for folder in ["crates", "docs"] {
        let to = copy.join(folder);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        copy_all(&repo::root().join(folder), &to)?;
    }
    let manifest = fs::read_to_string(repo::root().join("Cargo.toml"))?;
    fs::write(copy.join("Cargo.toml"), manifest.replace(", \"xtask\"]", "]"))?;
    fs::copy(repo::root().join("Cargo.lock"), copy.join("Cargo.lock"))?;
    Ok(())
}

/// Keeps the times of files, so that only what a fault changes is built again.
fn copy_all(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let modified = entry.metadata()?.modified()?;
            fs::File::options().write(true).open(&target)?.set_modified(modified)?;
        }
    }
    Ok(())
}

/// `Some` says why the fault counts as not caught.
fn survives(
    copy: &Path,
    folder: &str,
    package: &str,
    mutant: &Mutant,
) -> Result<Option<String>, Failure> {
    let path = copy.join("crates").join(folder).join(&mutant.file);
    let text = fs::read_to_string(&path)?;
    let places = text.matches(&mutant.find).count();
    if places != 1 {
        return Ok(Some(format!("its text stands {places} times in {}", mutant.file)));
    }
    fs::write(&path, text.replace(&mutant.find, &mutant.replace))?;
    let cargo = |wait: &str, arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg(wait).arg(repo::cargo());
        command.args(arguments).args(["-q", "-p", package]).current_dir(copy);
        command.env("CARGO_TARGET_DIR", copy.join("target")).env("CARGO_NET_OFFLINE", "true");
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command.env_remove("RUSTFLAGS").status()
    };
    let built = cargo(BUILD, &["test", "--no-run"])?;
    if !built.success() {
        let why = if built.code() == Some(124) { "its build takes too long" } else { "no build" };
        return Ok(Some(format!("{why}, so nothing is proved")));
    }
    let passed = cargo(TESTS, &["test", "--no-fail-fast"])?.success();
    Ok(passed.then(|| "the tests pass all the same".to_owned()))
}
