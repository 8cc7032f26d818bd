//! Planted faults: each guard is believed because the tests fail without it.
//!
//! A crate lists its faults in `mutants.toml`. They are put into a copy of the crates, one at a
//! time, and the crate's tests must then fail, by a failed test and not by a failed build.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::clock::Stopwatch;
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
const CRATES: [(&str, &str); 24] = [
    ("proxy", "onlyonce-proxy"),
    ("mail", "onlyonce-mail"),
    ("smtp", "onlyonce-smtp"),
    ("provision", "onlyonce-provision"),
    ("provider", "onlyonce-provider"),
    ("nats", "onlyonce-nats"),
    ("consume", "onlyonce-consume"),
    ("etcd", "onlyonce-etcd"),
    ("redis", "onlyonce-redis"),
    ("sqlx", "onlyonce-sqlx"),
    ("postgres", "onlyonce-postgres"),
    ("mysql", "onlyonce-mysql"),
    ("sqlite", "onlyonce-sqlite"),
    ("spread", "onlyonce-spread"),
    ("vault", "onlyonce-vault"),
    ("run", "onlyonce-run"),
    ("service", "onlyonce-service"),
    ("client", "onlyonce-client"),
    ("tower", "onlyonce-tower"),
    ("http", "onlyonce-http"),
    ("tokio", "onlyonce-tokio"),
    ("engine", "onlyonce"),
    ("journal", "onlyonce-journal"),
    ("core", "onlyonce-core"),
];

/// Those on which every promise stands: tried in each run of all tests, with one of the others.
const ALWAYS: [&str; 6] = ["tower", "http", "tokio", "engine", "journal", "core"];

/// Minutes that a run of all tests gives to planted faults, builds without a fault not counted.
const SHARE: u64 = 4;

/// How long one build may take; the first one builds all that the crate's tests stand on.
const BUILD: &str = "900s";

/// How long the tests of one crate may take. A fault may make a test wait for ever, which is as
/// good as failing.
const TESTS: &str = "240s";

/// Which faults to try.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only those of these crates, by the names of their folders.
    #[arg(long = "crate", value_delimiter = ',')]
    only: Vec<String>,
    /// Stop after so many minutes of trying; by default all are tried.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=6000))]
    minutes: Option<u64>,
    /// Where to begin in each list if not all are tried.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The faults of one crate.
struct Crate {
    folder: &'static str,
    package: &'static str,
    mutants: Vec<Mutant>,
}

/// As many as fit into [`SHARE`]; with each commit they are others.
pub(crate) fn some() -> Outcome {
    let head =
        Command::new("git").args(["rev-parse", "HEAD"]).current_dir(repo::root()).output()?;
    let seed = head.stdout.iter().fold(0, |sum: u64, byte| sum.rotate_left(5) ^ u64::from(*byte));
    let others = CRATES.iter().map(|(folder, _)| *folder).filter(|it| !ALWAYS.contains(it));
    let turn = usize::try_from(seed).unwrap_or(0) % (CRATES.len() - ALWAYS.len());
    let only = ALWAYS.into_iter().chain(others.skip(turn).take(1)).map(str::to_owned).collect();
    run(&Arguments { only, minutes: Some(SHARE), seed })
}

/// Tries planted faults, and says which are not caught.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let crates = lists(&arguments.only)?;
    let copy = repo::root().join("target/mutants");
    fresh(&copy)?;
    let (mut alive, mut tried) = (Vec::new(), 0);
    let mut left = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    for (done, it) in crates.iter().enumerate() {
        // What one crate leaves of its share is for those that follow.
        let share = left.map(|left| left / u32::try_from(crates.len() - done).unwrap_or(1));
        // Else a test that fails anyway, or what an earlier fault has left, would catch them all.
        if let Some(why) = fails(&copy, it.package)? {
            // Once may be a server that was slow to start: then no fault would be judged by it.
            println!("    {} without a fault: {why}; it is tried once more", it.package);
            if let Some(why) = fails(&copy, it.package)? {
                return Err(format!("{} without a fault, twice: {why}", it.package).into());
            }
        }
        let begun = Stopwatch::start();
        let first = usize::try_from(arguments.seed).unwrap_or(0) % it.mutants.len().max(1);
        let (before, after) = it.mutants.split_at(first);
        for mutant in after.iter().chain(before) {
            if share.is_some_and(|share| begun.elapsed() >= share) {
                break;
            }
            tried += 1;
            if let Some(why) = survives(&copy, it.folder, it.package, mutant)? {
                println!("    NOT CAUGHT: {}, {}: {why}", it.package, mutant.rule);
                alive.push(format!("{}, {}: {why}", it.package, mutant.rule));
            } else {
                println!("    caught: {}, {}", it.package, mutant.rule);
            }
        }
        left = left.map(|left| left.saturating_sub(begun.elapsed()));
    }
    let all: usize = crates.iter().map(|it| it.mutants.len()).sum();
    println!("    {tried} of the {all} of these crates tried; `cargo xtask mutants` tries all");
    if alive.is_empty() { Ok(()) } else { Err(alive.join("\n").into()) }
}

/// The lists, each with its text where it says: this is asked of all, also of those not tried.
fn lists(only: &[String]) -> Result<Vec<Crate>, Failure> {
    let mut lists = Vec::new();
    let mut wrong = Vec::new();
    for (folder, package) in CRATES {
        let root = repo::root().join("crates").join(folder);
        let list: List = toml::from_str(&fs::read_to_string(root.join("mutants.toml"))?)?;
        for mutant in &list.mutant {
            let text = fs::read_to_string(root.join(&mutant.file))?;
            let places = text.matches(&mutant.find).count();
            if places != 1 {
                wrong.push(format!(
                    "{package}, {}: its text stands {places} times in {}",
                    mutant.rule, mutant.file
                ));
            }
        }
        if only.is_empty() || only.iter().any(|name| name == folder) {
            lists.push(Crate { folder, package, mutants: list.mutant });
        }
    }
    if wrong.is_empty() { Ok(lists) } else { Err(wrong.join("\n").into()) }
}

/// A copy of what the tests need, as it stands now: somebody may go on writing meanwhile.
fn fresh(copy: &Path) -> Outcome {
    for folder in ["crates", "docs", "examples", "clients"] {
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
