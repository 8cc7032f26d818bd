//! What the figures of a report belong to.

use std::process::Command;

/// The machine and the versions of what was measured with.
pub(super) struct Machine {
    cpu: String,
    cores: usize,
    disk: String,
    versions: Vec<String>,
}

impl Machine {
    /// Asks the system; what it does not say is `unknown`.
    pub(super) fn look() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let versions = [("rustc", "--version"), ("nginx", "-v"), ("wrk", "-v")];
        Self {
            cpu: cpu.map_or("unknown", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            disk: disk(),
            versions: versions.iter().map(|(program, flag)| version(program, flag)).collect(),
        }
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        let Self { cpu, cores, disk, versions } = self;
        let versions = versions.join(", ");
        format!("{cpu}, {cores} cores, target/ on {disk}; {versions}")
    }
}

/// The first line a program says about its version.
fn version(program: &str, flag: &str) -> String {
    let Ok(said) = Command::new(program).arg(flag).output() else {
        return format!("{program} unknown");
    };
    let text = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or("unknown").trim();
    // wrk adds its copyright.
    line.split(" [").next().unwrap_or(line).to_owned()
}

/// The kind of the file system under `target/`.
fn disk() -> String {
    let folder = crate::repo::root().join("target");
    let arguments = ["-n", "-o", "FSTYPE", "--target"];
    match Command::new("findmnt").args(arguments).arg(folder).output() {
        Ok(said) if said.status.success() => {
            String::from_utf8_lossy(&said.stdout).trim().to_owned()
        }
        Ok(_) | Err(_) => "an unknown file system".to_owned(),
    }
}
