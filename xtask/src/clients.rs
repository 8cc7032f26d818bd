//! Tests of the clients against the real programs: that for Rust, Python in an environment of its
//! own, TypeScript in a copy. All are below `target`: nothing is written beside the sources.

mod mutants;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, Outcome, repo, steps};

/// The tests of the client for TypeScript, as they are called once they are JavaScript.
const SUITES: [&str; 3] = ["unit.test.js", "vectors.test.js", "browser.test.js"];

/// A program of a user. The consumer needs amqplib, which is there for who wants it.
const USES: &str = "import { Client, FileIntents, RetryingClient, keyFrom } from 'onlyonce';
new Client('http://localhost');
[FileIntents.name, RetryingClient.name, keyFrom('order', 7)];
import.meta.resolve('onlyonce/rabbitmq');
";

/// Runs them all.
pub(crate) fn run() -> Outcome {
    let build = ["build", "-p", "onlyonce-cli", "--bin", "onlyonce"];
    steps::quiet("build of the programs", Command::new(repo::cargo()).args(build))?;
    let broker = ["build", "-p", "onlyonce-testbed", "--example", "rabbitmq"];
    steps::quiet("build of the broker", Command::new(repo::cargo()).args(broker))?;
    // That for Rust waits most of the time.
    std::thread::scope(|scope| {
        let of_rust = scope.spawn(|| rust().map_err(|failure| failure.to_string()));
        let others = python().and_then(|()| typescript());
        let of_rust = of_rust.join().unwrap_or_else(|_| Err("the tests for Rust panicked".into()));
        others.and(of_rust.map_err(Failure::from))
    })
}

fn rust() -> Outcome {
    let tests = ["test", "-p", "onlyonce-client", "--test", "vectors"];
    steps::quiet("rust tests", asked(repo::cargo()).args(tests))
}

/// Puts planted faults in, one at a time: the test of each must fail. After [`run`], which installs
/// what is needed.
pub(crate) fn try_mutants() -> Outcome {
    mutants::run()
}

/// As a user has it: built into a package and installed.
fn python() -> Outcome {
    let sources = repo::root().join("clients/python");
    let needed = fs::read_to_string(sources.join("requirements-test.txt"))?;
    let folder = target("python")?;
    let (program, mark) = (folder.join("bin/python"), folder.join("needed"));
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == needed) {
        // Not looked up again: the tools are there.
    } else {
        println!("    installing the tools of the Python client");
        let environment = ["-m", "venv", "--clear"];
        steps::quiet("venv", Command::new("python3").args(environment).arg(&folder))?;
        steps::quiet("pip", pip(&program).arg("-r").arg(sources.join("requirements-test.txt")))?;
        fs::write(mark, needed)?;
    }
    let install = ["--no-deps", "--force-reinstall"];
    steps::quiet("python package", pip(&program).args(install).arg(&sources))?;
    let (code, tests) = (sources.join("src"), sources.join("tests"));
    let mut types = asked(&program);
    types.args(["-m", "mypy", "--config-file"]).arg(sources.join("pyproject.toml"));
    types.arg("--cache-dir").arg(target("mypy")?).args([&code, &tests]);
    steps::quiet("python types", &mut types)?;
    // The oldest Python that understands it, whatever runs here.
    let oldest = ["-q", "-t=3.9-", "--no-tips", "--violations"];
    let vermin = folder.join("bin/vermin");
    steps::quiet("python versions", asked(vermin).args(oldest).arg(&code))?;
    let tests_of = ["-m", "unittest", "discover", "-s"];
    steps::quiet("python tests", asked(&program).args(tests_of).arg(&tests))
}

fn pip(program: &Path) -> Command {
    let mut command = asked(program);
    command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]);
    command
}

/// In a copy, because packages are installed beside the sources that use them.
fn typescript() -> Outcome {
    let sources = repo::root().join("clients/typescript");
    let folder = target("typescript")?;
    for made in ["src", "test", "dist", "dist-test"] {
        let made = folder.join(made);
        if made.exists() {
            fs::remove_dir_all(made)?;
        }
    }
    copy(&sources, &folder)?;
    let lock = fs::read_to_string(sources.join("package-lock.json"))?;
    let mark = folder.join("node_modules/.needed");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == lock) {
        // Not looked up again: the tools are there.
    } else {
        println!("    installing the tools of the TypeScript client");
        let install = ["ci", "--no-audit", "--no-fund", "--ignore-scripts"];
        steps::quiet("npm", asked("npm").arg("--prefix").arg(&folder).args(install))?;
        fs::write(mark, lock)?;
    }
    let compiler = folder.join("node_modules/typescript/bin/tsc");
    for project in [folder.clone(), folder.join("test")] {
        let mut types = asked("node");
        types.arg(&compiler).arg("-p").arg(project);
        steps::quiet("typescript types", &mut types)?;
    }
    packed(&folder)?;
    let suites = SUITES.map(|suite| folder.join("dist-test").join(suite));
    steps::quiet("typescript tests", asked("node").arg("--test").args(suites))?;
    steps::quiet("typescript consumer", &mut consumer(&folder)?)
}

/// As a user has it: packed, and installed where nothing else is.
fn packed(folder: &Path) -> Outcome {
    let user = target("installed")?;
    fs::remove_dir_all(&user)?;
    fs::create_dir_all(&user)?;
    let mut pack = asked("npm");
    pack.args(["pack", "--silent", "--pack-destination"]).arg(&user).arg(folder);
    steps::quiet("npm pack", &mut pack)?;
    let packed = fs::read_dir(&user)?.next().ok_or("npm has packed nothing")??.path();
    let install = ["install", "--offline", "--no-audit", "--no-fund"];
    let mut npm = asked("npm");
    npm.arg("--prefix").arg(&user).args(install).arg(packed);
    steps::quiet("npm install", &mut npm)?;
    let program = user.join("uses.mjs");
    fs::write(&program, USES)?;
    let mut node = asked("node");
    node.arg(program);
    steps::quiet("typescript package", &mut node)
}

/// The tests of consumers, which are the same in both languages, of that in TypeScript.
fn consumer(folder: &Path) -> Result<Command, Failure> {
    let consumer = folder.join("dist-test/consumer.js");
    let consumer = format!("[\"node\", \"{}\"]", consumer.display());
    let mut tests = asked(target("python")?.join("bin/python"));
    tests.env("ONLYONCE_CONSUMER", consumer).args(["-m", "unittest", "discover"]);
    tests.args(["-p", "test_consume.py", "-s"]).arg(repo::root().join("clients/python/tests"));
    Ok(tests)
}

/// A folder of ours that outlives a run.
fn target(name: &str) -> Result<PathBuf, Failure> {
    let folder = repo::root().join("target/clients").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A command that knows where everything is, and leaves nothing beside what it reads.
fn asked(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env("ONLYONCE_CLIENTS", repo::root().join("clients"))
        .env("ONLYONCE_BINARY", repo::root().join("target/debug/onlyonce"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Copies files, and folders with what is in them.
fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_name() == "node_modules" || entry.file_name() == "__pycache__" {
            // Of somebody who has tried the package out where it lies.
        } else if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
