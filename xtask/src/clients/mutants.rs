//! Planted faults of the clients: each guard is believed because its test fails without it.
//!
//! clients/mutants.toml lists them, each with the test that must notice. They are put into copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::process::Guarded;
use crate::{Failure, Outcome, repo};

#[derive(Deserialize)]
struct List {
    mutant: Vec<Mutant>,
}

#[derive(Deserialize)]
struct Mutant {
    /// What is no longer kept.
    rule: String,
    /// Where, from the folder of the clients.
    file: String,
    find: String,
    replace: String,
    /// A part of the name of the test that notices, in words.
    test: String,
}

/// Tries every planted fault.
pub(super) fn run() -> Outcome {
    let list = fs::read_to_string(repo::root().join("clients/mutants.toml"))?;
    let List { mutant: mutants } = toml::from_str(&list)?;
    let copy = super::target("mutants")?;
    fs::remove_dir_all(&copy)?;
    super::copy(&repo::root().join("clients"), &copy)?;
    let faults: Vec<_> =
        mutants.iter().map(|it| Fault::new(it, &copy)).collect::<Result<_, _>>()?;
    // Else a test that fails anyway would catch them all.
    for suite in [Suite::Python, Suite::TypeScript, Suite::Consumer] {
        let of_suite: Vec<_> = faults.iter().filter(|it| it.suite == suite).collect();
        if !passes(&of_suite)? {
            return Err("a test fails without a fault: see `cargo xtask clients`".into());
        }
    }
    let mut alive = Vec::new();
    for fault in &faults {
        let Mutant { rule, file, .. } = fault.mutant;
        match fault.survives()? {
            None => println!("    caught: {file}, {rule}"),
            Some(why) => {
                println!("    NOT CAUGHT: {file}, {rule}: {why}");
                alive.push(format!("{file}, {rule}: {why}"));
            }
        }
    }
    if alive.is_empty() { Ok(()) } else { Err(alive.join("\n").into()) }
}

/// The tests that try a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suite {
    /// Those in Python, of the client in Python.
    Python,
    /// Those in TypeScript.
    TypeScript,
    /// Those in Python, of the consumer in TypeScript.
    Consumer,
}

/// A mutant, and where it is put in.
struct Fault<'a> {
    mutant: &'a Mutant,
    suite: Suite,
    /// The folder of its client in a copy.
    folder: PathBuf,
    path: PathBuf,
}

impl<'a> Fault<'a> {
    fn new(mutant: &'a Mutant, copy: &Path) -> Result<Self, Failure> {
        let Some((client, file)) = mutant.file.split_once('/') else {
            return Err(format!("{} is of no client", mutant.file).into());
        };
        // TypeScript is tried where its tools are installed, which is a copy too.
        let copied = copy.join(client);
        let (folder, suite) = match (client, file) {
            ("python", _) => (copied, Suite::Python),
            (_, "src/inbox.ts" | "src/rabbitmq.ts") => (super::target(client)?, Suite::Consumer),
            _ => (super::target(client)?, Suite::TypeScript),
        };
        Ok(Self { mutant, suite, path: folder.join(file), folder })
    }

    /// `Some` says why it counts as not caught.
    fn survives(&self) -> Result<Option<&'static str>, Failure> {
        let Mutant { find, replace, .. } = self.mutant;
        let text = fs::read_to_string(&self.path)?;
        if text.matches(find).count() != 1 {
            return Ok(Some("its text does not stand there once"));
        }
        fs::write(&self.path, text.replace(find, replace))?;
        let ended = self.builds().and_then(|builds| match builds {
            false => Ok(Some("it does not build, so nothing is proved")),
            true if passes(&[self])? => Ok(Some("the test passes all the same")),
            true => Ok(None),
        });
        fs::write(&self.path, text)?;
        ended
    }

    fn builds(&self) -> Result<bool, Failure> {
        if self.suite == Suite::Python {
            let mut command = super::asked(super::target("python")?.join("bin/python"));
            command.args(["-c", "import onlyonce"]);
            return succeeds(command.env("PYTHONPATH", self.folder.join("src")));
        }
        let compiler = self.folder.join("node_modules/typescript/bin/tsc");
        succeeds(super::asked("node").arg(compiler).arg("-p").arg(&self.folder))
    }

    /// The name of its test, as Python spells it. What both kinds of clients do is tried with the
    /// one that the file is of.
    fn pattern(&self) -> String {
        let Mutant { test, file, .. } = self.mutant;
        let letters = |it: char| if it.is_ascii_alphanumeric() { it } else { '_' };
        let name: String = test.chars().map(letters).collect();
        let of_vectors = name.starts_with("once_") || name.starts_with("send_");
        match (of_vectors, file.ends_with("_async.py")) {
            (true, true) => format!("*.AsyncVectors.test_{name}*"),
            (true, false) => format!("*.SyncVectors.test_{name}*"),
            (false, _) => format!("*{name}*"),
        }
    }
}

/// Whether the tests of these faults, all of one client, pass.
fn passes(faults: &[&Fault<'_>]) -> Result<bool, Failure> {
    let Some(first) = faults.first() else { return Ok(true) };
    let mut command = match first.suite {
        Suite::Python => {
            let mut command = super::asked(super::target("python")?.join("bin/python"));
            command.args(["-m", "unittest", "discover", "-s"]).arg(first.folder.join("tests"));
            command.env("PYTHONPATH", first.folder.join("src"));
            command
        }
        Suite::Consumer => super::consumer(&first.folder)?,
        Suite::TypeScript => {
            let mut command = super::asked("node");
            let suites = ["unit.test.js", "vectors.test.js"];
            let suites = suites.map(|suite| first.folder.join("dist-test").join(suite));
            let named = |it: &&Fault<'_>| format!("--test-name-pattern={}", it.mutant.test);
            command.arg("--test").args(faults.iter().map(named)).args(suites);
            return succeeds(&mut command);
        }
    };
    for fault in faults {
        command.args(["-k", &fault.pattern()]);
    }
    succeeds(&mut command)
}

fn succeeds(command: &mut Command) -> Result<bool, Failure> {
    command.current_dir(repo::root()).env("ONLYONCE_LIMIT", "20");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Guarded::spawn(command)?.wait()?.success())
}
