//! What callers notice while a journal forgets a million records, what it gives back, and what a
//! tombstone costs once it is old.
//!
//! `cargo run --release -p onlyonce-cli --example expiry` prints what it does; `--json` prints
//! three objects for `cargo xtask bench`. `--keys` says how many records expire, and how many
//! tombstones grow old; `--only` takes one of `tombstones`, `expiry` and `expiry_timed`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of the terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use onlyonce::{Claimed, Engine, Request, Settings, Sweeper};
use onlyonce_core::{Fingerprint, KeyId, Phase, Policy, Reply};
use onlyonce_journal::{Journal, Start};
use onlyonce_store::Store as _;
use onlyonce_tokio::TokioRuntime;
use serde_json::{Value, json};

/// Callers that fill the journal.
const FILLERS: u64 = 256;
/// Callers that are measured, each with a pause after each operation.
const CALLERS: u64 = 16;
const THINK: Duration = Duration::from_millis(5);
const REPLY: usize = 1 << 10;
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(60);
/// Operations that fill more than a segment.
const LATER: u64 = 120_000;
/// A journal in which a tombstone is old after a minute and not after a day.
const AGED: onlyonce_journal::Settings = onlyonce_journal::Settings {
    shelve_after: Duration::from_secs(60),
    ..onlyonce_journal::Settings::DEFAULT
};

struct World {
    engine: Engine,
    policy: Policy,
    next: AtomicU64,
    /// Whether keys carry their time.
    timed: bool,
}

impl World {
    fn new(engine: Engine, policy: Policy, timed: bool) -> Arc<Self> {
        Arc::new(Self { engine, policy, next: AtomicU64::new(0), timed })
    }

    /// One operation: claimed and answered. How long the claim took.
    async fn operate(&self) -> Duration {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        id[..8].copy_from_slice(&mixed.to_be_bytes());
        id[8..].copy_from_slice(&mixed.rotate_left(29).to_be_bytes());
        let mut request = Request::new(KeyId::from_bytes(id), Fingerprint::new(1, [7; 32]));
        request.key_time = self.timed.then(|| self.engine.now());
        let begun = Instant::now();
        let claimed = self.engine.claim(&request, &self.policy, Phase::Committing).await.unwrap();
        let took = begun.elapsed();
        let Claimed::Granted(ticket) = claimed else { panic!("{claimed:?}") };
        ticket.complete(Reply::kept(201, Bytes::from(vec![7; REPLY]))).await.unwrap();
        took
    }
}

/// The 99th percentile of claims while `until` is not yet so, in milliseconds.
async fn p99(world: &Arc<World>, until: Arc<AtomicBool>) -> f64 {
    let callers = (0..CALLERS).map(|_| {
        let (world, until) = (Arc::clone(world), Arc::clone(&until));
        tokio::spawn(async move {
            let mut took = Vec::new();
            while !until.load(Ordering::Relaxed) {
                took.push(world.operate().await);
                tokio::time::sleep(THINK).await;
            }
            took
        })
    });
    let mut all = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        all.extend(caller.await.unwrap());
    }
    all.sort_unstable();
    all.get(all.len() * 99 / 100).map_or(0.0, |it| it.as_secs_f64() * 1e3)
}

async fn p99_for(world: &Arc<World>, time: Duration) -> f64 {
    let over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&over);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        end.store(true, Ordering::Relaxed);
    });
    p99(world, over).await
}

async fn fill(world: &Arc<World>, keys: u64) {
    let fillers = (0..FILLERS).map(|_| {
        let world = Arc::clone(world);
        tokio::spawn(async move {
            for _ in 0..keys / FILLERS {
                world.operate().await;
            }
        })
    });
    for filler in fillers.collect::<Vec<_>>() {
        filler.await.unwrap();
    }
}

/// A new journal, and an engine on it.
async fn new(dir: &Path, settings: onlyonce_journal::Settings) -> (Journal, Engine) {
    let (journal, _) = Journal::open_or_create(dir, settings, Start::First).unwrap();
    let runtime = Arc::new(TokioRuntime::new());
    let store = Arc::new(journal.clone());
    let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
    (journal, engine)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut keys, mut json, mut only) = (1_000_000, false, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = true,
            "--only" => only = arguments.next(),
            "--keys" => keys = arguments.next().unwrap().parse().unwrap(),
            // How `tombstones` asks what a process takes that has only opened a journal.
            "--opened" => return opened(arguments.next().unwrap().as_ref()),
            other => panic!("{other:?} is not known: --json, --keys N, --only NAME"),
        }
    }
    for name in ["tombstones", "expiry", "expiry_timed"] {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let line = match name {
            "tombstones" => tombstones(keys).await,
            _ => expiry(keys, name == "expiry_timed").await,
        };
        if json {
            println!("{line}");
        } else {
            println!("{line:#}");
        }
    }
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

fn opened(dir: &Path) {
    let journal = Journal::open(dir, AGED).unwrap();
    println!("{} {}", resident(), journal.stats().keys);
}

/// Memory of a process that has opened the journal in `dir`, and its keys.
fn when_opened(dir: &Path) -> (f64, f64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.arg("--opened").arg(dir).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (bytes, keys) = text.trim().split_once(' ').unwrap();
    (bytes.parse().unwrap(), keys.parse().unwrap())
}

/// What tombstones take in memory and on disk once they are old.
async fn tombstones(keys: u64) -> Value {
    let folder = tempfile::tempdir_in("target").unwrap();
    let (dir, empty) = (folder.path().join("journal"), folder.path().join("empty"));
    let (journal, engine) = new(&dir, AGED).await;
    let policy = Policy { retention: Duration::from_secs(1), ..Policy::default() };
    let world = World::new(engine.clone(), policy, false);
    fill(&world, keys).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Every answer becomes a tombstone, and a pass later each is old.
    let mut sweeper = Sweeper::new(engine, policy);
    let ended = sweeper.pass().await.unwrap().ended;
    tokio::time::sleep(AGED.shelve_after + Duration::from_secs(5)).await;
    let begun = Instant::now();
    sweeper.pass().await.unwrap();
    let took = begun.elapsed();
    let old = journal.stats();
    drop(sweeper);
    // Until the log has moved on, and as much in the journal that it is compared with.
    fill(&world, LATER).await;
    journal.reclaim().await.unwrap();
    drop(world);
    journal.close();
    let (other, engine) = new(&empty, AGED).await;
    fill(&World::new(engine, policy, false), LATER).await;
    other.close();
    let shelves: u64 = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "old"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    let (with, found) = when_opened(&dir);
    let (without, _) = when_opened(&empty);
    let each = |bytes: f64| bytes / old.shelved as f64;
    json!({
        "name": "tombstones", "tombstones": ended, "old": old.shelved, "keys_at_last": found,
        "old_bytes_each": each((old.index_bytes + old.shelved_bytes) as f64),
        "old_resident_bytes_each": each(with - without),
        "old_disk_bytes_each": each(shelves as f64),
        "move_s": took.as_secs_f64(),
    })
}

/// What callers notice while records expire, beside half as many that stay. Keys that carry their
/// time are deleted a pass later: first the floor is raised, and everyone is given the time to read
/// it.
async fn expiry(keys: u64, timed: bool) -> Value {
    let folder = tempfile::tempdir_in("target").unwrap();
    let dir = folder.path().join("journal");
    let (journal, engine) = new(&dir, Default::default()).await;
    // All that is written while it fills is due when it is swept, and nothing before.
    let kept = Duration::from_secs(if timed { 240 } else { 120 } + keys / 20_000);
    let policy = Policy { retention: kept, remember: kept, ..Policy::default() };
    let world = World::new(engine.clone(), policy, timed);
    let begun = Instant::now();
    fill(&world, keys).await;
    let filled = begun.elapsed();
    let before = p99_for(&world, BEFORE).await;
    let due = filled + kept + Duration::from_secs(1);
    tokio::time::sleep(due.saturating_sub(begun.elapsed() + BEFORE * 3)).await;
    fill(&world, keys / 2).await;
    tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    let full = journal.stats();
    let mut sweeper = Sweeper::new(engine, policy);
    let (mut during, mut sweep_s, mut deleted) = (0.0_f64, 0.0, 0);
    for pass in 0..1 + u32::from(timed) {
        if 0 < pass {
            tokio::time::sleep(sweeper.pause()).await;
        }
        let over = Arc::new(AtomicBool::new(false));
        let sweeping = tokio::spawn({
            let over = Arc::clone(&over);
            async move {
                let begun = Instant::now();
                let swept = sweeper.pass().await.unwrap();
                over.store(true, Ordering::Relaxed);
                (sweeper, swept.deleted, begun.elapsed())
            }
        });
        during = during.max(p99(&world, over).await);
        let took;
        (sweeper, deleted, took) = sweeping.await.unwrap();
        sweep_s += took.as_secs_f64();
    }
    let empty = journal.stats();
    let after = p99_for(&world, AFTER).await;
    json!({
        "name": if timed { "expiry_timed" } else { "expiry" }, "deleted": deleted,
        "sweep_s": sweep_s,
        "p99_before_ms": before, "p99_during_ms": during, "p99_after_ms": after,
        "disk_before": full.disk_bytes, "disk_after": empty.disk_bytes,
        "disk_needed": needed(empty.keys as u64).await,
        "index_before": full.index_bytes, "index_after": empty.index_bytes,
        "keys_before": full.keys, "keys_after": empty.keys,
    })
}

/// What so many living records take in a journal in which there never was anything else.
async fn needed(keys: u64) -> u64 {
    let folder = tempfile::tempdir_in("target").unwrap();
    let (journal, engine) = new(&folder.path().join("journal"), Default::default()).await;
    fill(&World::new(engine, Policy::default(), false), keys).await;
    journal.stats().disk_bytes
}
