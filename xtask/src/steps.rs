//! Runs the steps of a longer command: one line each, full output on failure, a table at the end.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::process::Guarded;
use crate::{Failure, Outcome, repo};

/// The steps run so far.
pub(crate) struct Steps {
    done: Vec<(String, Duration, &'static str)>,
    /// The step to begin with; those before are left out.
    from: Option<String>,
}

impl Steps {
    /// None so far.
    pub(crate) fn new() -> Self {
        Self { done: Vec::new(), from: None }
    }

    /// Begins with this step, where an earlier run has failed.
    pub(crate) fn from(name: Option<String>) -> Self {
        Self { from: name, ..Self::new() }
    }

    /// That the step to begin with has come.
    pub(crate) fn has_begun(&self) -> Outcome {
        let Some(name) = &self.from else { return Ok(()) };
        Err(format!("there is no step {name:?}").into())
    }

    /// Runs one step; its failure is the failure of the whole command.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Outcome) -> Outcome {
        if self.from.as_ref().is_some_and(|from| from != name) {
            self.left_out(name, "it comes before the step to begin with");
            return Ok(());
        }
        self.from = None;
        println!("==> {name}");
        let watch = Stopwatch::start();
        let ended = work();
        let took = watch.elapsed();
        let mark = if ended.is_ok() { "ok" } else { "FAILED" };
        self.done.push((name.to_owned(), took, mark));
        println!("    {mark} in {}", seconds(took));
        if ended.is_err() {
            self.table();
        }
        ended.map_err(|failure| format!("step `{name}`: {failure}").into())
    }

    /// Runs a cargo command as one step.
    pub(crate) fn cargo(&mut self, name: &str, arguments: &[&str]) -> Outcome {
        self.step(name, || quiet(name, Command::new(repo::cargo()).args(arguments)))
    }

    /// Says that a step was left out and why; never silent.
    pub(crate) fn left_out(&mut self, name: &str, why: &str) {
        println!("==> {name}: left out, {why}");
        self.done.push((name.to_owned(), Duration::ZERO, "left out"));
    }

    /// Prints how long each step took.
    pub(crate) fn table(&self) {
        let width = self.done.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        println!();
        for (name, took, mark) in &self.done {
            println!("{name:width$}  {:>9}  {mark}", seconds(*took));
        }
        let total = self.done.iter().map(|(_, took, _)| *took).sum();
        println!("{:width$}  {:>9}", "total", seconds(total));
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// Runs `command` from the root with its output in a file, which is printed only on failure.
pub(crate) fn quiet(name: &str, command: &mut Command) -> Outcome {
    let log = log_path(name)?;
    let output = File::create(&log)?;
    command.current_dir(repo::root()).stdout(output.try_clone()?).stderr(output);
    command.stdin(std::process::Stdio::null());
    let status = Guarded::spawn(command)?.wait()?;
    if status.success() {
        return Ok(());
    }
    println!("{}", String::from_utf8_lossy(&std::fs::read(&log)?));
    Err(format!("{command:?} ended with {status}").into())
}

/// Runs `command` from the root with its output on the terminal.
pub(crate) fn loud(command: &mut Command) -> Outcome {
    let status = Guarded::spawn(command.current_dir(repo::root()))?.wait()?;
    if status.success() { Ok(()) } else { Err(format!("ended with {status}").into()) }
}

fn log_path(name: &str) -> Result<PathBuf, Failure> {
    let folder = repo::root().join("target/xtask");
    std::fs::create_dir_all(&folder)?;
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    Ok(folder.join(format!("{}.log", name.chars().map(plain).collect::<String>())))
}
