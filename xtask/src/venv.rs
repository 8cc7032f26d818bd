//! Tools in Python, each in an environment of its own below `target`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::{Failure, Outcome, repo, steps};

/// The server that speaks the APIs of AWS in tests.
const MOTO: &str = "moto[server,ec2,elbv2]==5.2.5";

/// Installs the servers in Python that tests use: `crates/testbed` looks for them there.
pub(crate) fn servers() -> Outcome {
    tool("moto", MOTO).map(drop)
}

/// The environment of a tool, installed as `needed` says. Not looked up again once it is there.
pub(crate) fn tool(name: &str, needed: &str) -> Result<PathBuf, Failure> {
    let folder = repo::root().join("target").join(name);
    let mark = folder.join("version");
    if fs::read_to_string(&mark).is_ok_and(|version| version == needed) {
        return Ok(folder);
    }
    println!("    installing {needed}");
    let environment = ["-m", "venv", "--clear"];
    steps::quiet("venv", Command::new("python3").args(environment).arg(&folder))?;
    let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", needed];
    steps::quiet("pip", Command::new(folder.join("bin/python")).args(install))?;
    fs::write(mark, needed)?;
    Ok(folder)
}
