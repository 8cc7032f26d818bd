//! Planted faults: each guard is believed because the tests fail without it.
//!
//! A crate lists its faults in `mutants.toml`. They are put into a copy of the crates, one at a
//! time, and the crate's tests must then fail, by a failed test and not by a failed build.

use std::fmt;
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

/// The crates that have lists. Those that others stand on come last: to take a fault out of one
/// then makes nothing build anew that is still to be tried.
const CRATES: [(&str, &str); 13] = [
    ("mail", "onlyonce-mail"),
    ("provision", "onlyonce-provision"),
    ("nats", "onlyonce-nats"),
    ("consume", "onlyonce-consume"),
    ("etcd", "onlyonce-etcd"),
    ("redis", "onlyonce-redis"),
    ("run", "onlyonce-run"),
    ("tower", "onlyonce-tower"),
    ("http", "onlyonce-http"),
    ("tokio", "onlyonce-tokio"),
    ("engine", "onlyonce"),
    ("journal", "onlyonce-journal"),
    ("core", "onlyonce-core"),
];

/// How long one build may take; the first one builds all that the crate's tests stand on.
const BUILD: &str = "900s";

/// How long the tests of one crate may take. A fault may make a test wait for ever, which is as
/// good as failing.
const TESTS: &str = "240s";

/// Tries every planted fault.
pub(crate) fn run() -> Outcome {
    let copy = repo::root().join("target/mutants");
    fresh(&copy)?;
    let mut alive = Vec::new();
    for (folder, package) in CRATES {
        let list =
            fs::read_to_string(repo::root().join("crates").join(folder).join("mutants.toml"))?;
        let list: List = toml::from_str(&list)?;
        // Else a test that fails anyway, or what an earlier fault has left, would catch them all.
        if let Some(why) = fails(&copy, package)? {
            return Err(format!("{package} without a fault: {why}").into());
        }
        for mutant in &list.mutant {
            if let Some(why) = survives(&copy, folder, package, mutant)? {
                println!("    NOT CAUGHT: {package}, {}: {why}", mutant.rule);
                alive.push(format!("{package}, {}: {why}", mutant.rule));
            } else {
                println!("    caught: {package}, {}", mutant.rule);
            }
        }
    }
    if alive.is_empty() { Ok(()) } else { Err(alive.join("\n").into()) }
}

/// A copy of what the tests need, as it stands now: somebody may go on writing meanwhile.
fn fresh(copy: &Path) -> Outcome {
    for folder in ["crates", "docs", "examples"] {
        mirror(&repo::root().join(folder), &copy.join(folder))?;
    }
    let manifest = fs::read_to_string(repo::root().join("Cargo.toml"))?;
    write(&copy.join("Cargo.toml"), manifest.replace(", \"xtask\"]", "]").as_bytes())?;
    write(&copy.join("Cargo.lock"), &fs::read(repo::root().join("Cargo.lock"))?)
}

fn mirror(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if from.join(entry.file_name()).exists() {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            mirror(&entry.path(), &target)?;
        } else {
            write(&target, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Writes only what differs. Cargo goes by the times of files: one that is not touched is not built
/// again, and one with a fault in it, left by a run that was stopped, looks new without it.
fn write(path: &Path, bytes: &[u8]) -> Outcome {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes)?;
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
    let failed = fails(copy, package);
    // Its time must be new, or the fault would stay in what is built for the crates that follow.
    fs::write(&path, text)?;
    Ok(match failed? {
        Some(Fails::Tests) => None,
        Some(why @ Fails::Build) => Some(format!("{why}, so nothing is proved")),
        None => Some("the tests pass all the same".to_owned()),
    })
}

/// What fails of a crate.
enum Fails {
    Build,
    Tests,
}

impl fmt::Display for Fails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "it does not build",
            Self::Tests => "a test fails",
        })
    }
}

/// Builds a crate's tests and runs them up to the first binary that fails. Examples are left out,
/// and so are those in comments: they are slow to build and no guard stands on them.
fn fails(copy: &Path, package: &str) -> Result<Option<Fails>, Failure> {
    let passes = |wait: &str, more: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg(wait).arg(repo::cargo()).args(["test", "-q", "--tests", "-p", package]);
        command.args(more).current_dir(copy).env_remove("RUSTFLAGS");
        command.env("CARGO_TARGET_DIR", copy.join("target")).env("CARGO_NET_OFFLINE", "true");
        // Nobody reads a backtrace of these, and they link faster without.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
        command.status().map(|status| status.success())
    };
    Ok(if !passes(BUILD, &["--no-run"])? {
        Some(Fails::Build)
    } else if !passes(TESTS, &[])? {
        Some(Fails::Tests)
    } else {
        None
    })
}
