//! Puts load on a server with wrk and reads what it says.

use std::process::Command;

use serde::Deserialize;

use super::server::Server;
use crate::{Failure, process, repo};

/// What the clients ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Every request has a key never sent before.
    First,
    /// Keys of a fixed set that have all been answered.
    Replay,
    /// No key at all.
    Keyless,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Replay => "replay",
            Self::Keyless => "keyless",
        }
    }
}

/// The line `RESULT {...}` of `xtask/bench/load.lua`.
#[derive(Deserialize)]
struct Said {
    requests: u64,
    duration_us: u64,
    p50_us: u64,
    p99_us: u64,
    refused: u64,
    broken: u64,
}

/// One cell in one round.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) requests_per_s: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// CPU time of the target's processes per request, in microseconds.
    pub(super) cpu_us: f64,
    /// How often the upstream ran per request: 1 for first requests, 0 for replays. The last
    /// requests of a cell may run without being counted as answered.
    pub(super) runs: f64,
    /// Answers other than 2xx and 3xx.
    pub(super) refused: u64,
    /// Connections that broke or timed out.
    pub(super) broken: u64,
}

/// One cell: who is asked, for what, and how hard.
pub(super) struct Cell<'a> {
    pub(super) server: &'a Server,
    /// What the server needs beside itself and whose CPU time counts as its own.
    pub(super) helpers: &'a [Server],
    /// The server behind it that counts what runs.
    pub(super) upstream: &'a Server,
    pub(super) path: &'a str,
    pub(super) mode: Mode,
    /// Makes the keys of this cell its own; replays share theirs.
    pub(super) run: u32,
    pub(super) connections: u32,
    pub(super) seconds: u64,
}

/// Puts the load of one cell.
pub(super) fn put(cell: &Cell<'_>) -> Result<Sample, Failure> {
    let Cell { server, helpers, upstream, path, mode, run, connections, seconds } = *cell;
    let used = || server.cpu_us() + helpers.iter().map(Server::cpu_us).sum::<u64>();
    let threads = if connections == 1 { "1" } else { "2" };
    let mut command = Command::new("wrk");
    command
        .args(["-t", threads, "-c", &connections.to_string(), "-d", &format!("{seconds}s")])
        .args(["--timeout", "10s", "--script"])
        .arg(repo::root().join("xtask/bench/load.lua"))
        .args([&server.url(path), "--", mode.word(), &run.to_string()]);
    let (cpu_before, runs_before) = (used(), upstream.runs()?);
    let (text, _) = process::output(&mut command)?;
    let cpu = used().saturating_sub(cpu_before);
    let runs = upstream.runs()?.saturating_sub(runs_before);
    let said: Said = text
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| format!("wrk said no result: {text}"))?;
    if said.requests == 0 {
        return Err("not one request was answered".into());
    }
    Ok(sample(&said, cpu, runs))
}

fn sample(said: &Said, cpu_us: u64, runs: u64) -> Sample {
    let real = |count: u64| count as f64;
    Sample {
        requests_per_s: real(said.requests) * 1e6 / real(said.duration_us.max(1)),
        p50_ms: real(said.p50_us) / 1e3,
        p99_ms: real(said.p99_us) / 1e3,
        cpu_us: real(cpu_us) / real(said.requests),
        runs: real(runs) / real(said.requests),
        refused: said.refused,
        broken: said.broken,
    }
}
