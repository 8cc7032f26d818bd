//! How many claims and completions a second the journal makes durable, beside the same callers,
//! queue and bytes with nothing of a journal about them (no index, no checksum, no decision); how
//! long it takes to open after a kill; and how much memory a key takes.
//!
//! `cargo run --release -p onlyonce-journal --example pairs` prints a table; `--json` prints one
//! object per line for `cargo xtask bench`. `--dir` names the folder to measure in (default: a
//! temporary one), `--callers`, `--seconds` and `--keys` shorten or lengthen it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of the terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use onlyonce_core::{
    Claim, ClaimId, Command, Fingerprint, Floor, Holder, KeyId, Next, Phase, Policy, Record, Reply,
    Timestamp, decide,
};
use onlyonce_journal::{Journal, Settings, Start};
use onlyonce_store::{Store as _, Swap};
use serde_json::json;

/// The reply of a pair that is measured, in bytes.
const REPLY: usize = 1 << 10;
/// The reply of keys that only fill a journal.
const SMALL_REPLY: usize = 128;
/// Where memory per key is looked at, as shares of what is filled: an average over sizes, since
/// tables double.
const LOOK_AT: [u64; 4] = [2, 4, 6, 10];
const ROUNDS: usize = 3;

struct Options {
    json: bool,
    dir: Option<PathBuf>,
    callers: Vec<usize>,
    seconds: f64,
    keys: u64,
    fill: bool,
}

fn options() -> Options {
    let (dir, callers) = (None, vec![1, 16, 64, 256, 1024]);
    let mut options =
        Options { json: false, dir, callers, seconds: 2.0, keys: 2_000_000, fill: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => options.json = true,
            "--dir" => options.dir = Some(value().into()),
            "--callers" => {
                options.callers = value().split(',').map(|it| it.parse().unwrap()).collect()
            }
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--keys" => options.keys = value().parse().unwrap(),
            "--fill" => options.fill = true,
            other => panic!("unknown argument {other}"),
        }
    }
    options
}

fn main() {
    let options = options();
    if options.fill {
        fill(options.dir.as_deref().unwrap(), options.keys);
    }
    let temporary = tempfile::tempdir().unwrap();
    let root = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    for callers in &options.callers {
        pairs(&root, *callers, &options);
    }
    if 0 < options.keys {
        open(&root, &options);
    }
}

fn written(record: Option<&Record>, command: &Command) -> Record {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = Timestamp::default().plus(since);
    match decide(now, Floor::NONE, &Policy::default(), record, command).next {
        Next::Write(record) => record,
        Next::Keep | Next::Delete => unreachable!(),
    }
}

fn claim() -> Record {
    written(
        None,
        &Command::Claim(Claim {
            fingerprint: Fingerprint::new(1, [7; 32]),
            claim_id: ClaimId::from_bytes([1; 16]),
            holder: Holder::default(),
            key_time: None,
            credential: None,
            phase: Phase::Committing,
        }),
    )
}

fn id(number: u64) -> KeyId {
    let mut bytes = [0; 16];
    let mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bytes[..8].copy_from_slice(&mixed.to_be_bytes());
    bytes[8..]
        .copy_from_slice(&mixed.rotate_left(29).wrapping_mul(0xD134_2543_DE82_EF95).to_be_bytes());
    KeyId::from_bytes(bytes)
}

async fn swap(journal: &Journal, id: KeyId, before: Option<&Record>, next: Record) {
    let expected = before.map(|record| record.revision);
    assert_eq!(journal.swap(id, expected, Some(next)).await.unwrap(), Swap::Done);
}

struct Figures {
    pairs_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    batch_entries: f64,
}

/// One claim and its completion after the other, by each of `callers` at once.
fn measure(dir: &Path, callers: usize, seconds: f64) -> Figures {
    let (journal, _) = Journal::open_or_create(dir, Settings::default(), Start::First).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (number, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reply = Reply::kept(201, Bytes::from(vec![b'x'; REPLY]));
    let before = journal.stats();
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (journal, number) = (journal.clone(), Arc::clone(&number));
            let (stop, reply) = (Arc::clone(&stop), reply.clone());
            runtime.spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let id = id(number.fetch_add(1, Ordering::Relaxed));
                    let started = Instant::now();
                    let claimed = claim();
                    swap(&journal, id, None, claimed.clone()).await;
                    let complete = Command::Complete { fence: claimed.fence, reply: reply.clone() };
                    let completed = written(Some(&claimed), &complete);
                    swap(&journal, id, Some(&claimed), completed).await;
                    times.push(started.elapsed());
                }
                times
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    stop.store(true, Ordering::Relaxed);
    let mut times: Vec<Duration> =
        tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
    let took = started.elapsed().as_secs_f64();
    let after = journal.stats();
    journal.close();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let batch_entries =
        (after.entries - before.entries) as f64 / (after.syncs - before.syncs) as f64;
    Figures {
        pairs_per_s: times.len() as f64 / took,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        batch_entries,
    }
}

/// What a caller of the raw log waits for.
type Told = (Vec<u8>, futures_channel::oneshot::Sender<()>);

/// The same callers and bytes through a queue to one thread that writes and syncs.
fn raw(path: &Path, callers: usize, seconds: f64) -> f64 {
    let length: u64 = 64 << 20;
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path).unwrap();
    (0..64).for_each(|at| file.write_all_at(&vec![0; 1 << 20], at << 20).unwrap());
    file.sync_data().unwrap();
    let (queue, asked) = std::sync::mpsc::channel::<Told>();
    let writer = std::thread::spawn(move || {
        let (mut offset, mut batch, mut waiting) = (0, Vec::new(), Vec::new());
        while let Ok(first) = asked.recv() {
            for (bytes, tell) in std::iter::once(first).chain(asked.try_iter()) {
                batch.extend_from_slice(&bytes);
                waiting.push(tell);
            }
            if length < offset + batch.len() as u64 {
                offset = 0;
            }
            file.write_all_at(&batch, offset).unwrap();
            file.sync_data().unwrap();
            offset += batch.len() as u64;
            batch.clear();
            waiting.drain(..).for_each(|tell| tell.send(()).unwrap());
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (claim_bytes, complete_bytes) = entry_bytes();
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (queue, stop) = (queue.clone(), Arc::clone(&stop));
            runtime.spawn(async move {
                let mut pairs = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    for bytes in [claim_bytes, complete_bytes] {
                        let (tell, told) = futures_channel::oneshot::channel();
                        queue.send((vec![7; bytes], tell)).unwrap();
                        told.await.unwrap();
                    }
                    pairs += 1;
                }
                pairs
            })
        })
        .collect();
    drop(queue);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    stop.store(true, Ordering::Relaxed);
    let pairs: u64 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    let took = started.elapsed().as_secs_f64();
    writer.join().unwrap();
    pairs as f64 / took
}

/// Bytes of the entries of a claim and of its completion, with their frames.
fn entry_bytes() -> (usize, usize) {
    let claimed = claim();
    let reply = Reply::kept(201, Bytes::from(vec![b'x'; REPLY]));
    let completed = written(Some(&claimed), &Command::Complete { fence: claimed.fence, reply });
    let (mut one, mut two) = (Vec::new(), Vec::new());
    onlyonce_store::encode(id(1), &claimed, &mut one);
    onlyonce_store::encode(id(1), &completed, &mut two);
    (one.len() + 8, two.len() + 8)
}

fn pairs(root: &Path, callers: usize, options: &Options) {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let dir = root.join(format!("journal-{callers}-{round}"));
        let ours = measure(&dir, callers, options.seconds);
        std::fs::remove_dir_all(&dir).unwrap();
        let file = root.join("raw");
        let raw = raw(&file, callers, options.seconds);
        std::fs::remove_file(&file).unwrap();
        rounds.push((ours, raw));
    }
    // The round in the middle of the ratios, whole, so that its figures belong together.
    rounds.sort_by(|(one, raw), (other, other_raw)| {
        (one.pairs_per_s / raw).total_cmp(&(other.pairs_per_s / other_raw))
    });
    let (ours, raw) = &rounds[ROUNDS / 2];
    if options.json {
        println!(
            "{}",
            json!({
                "name": "pairs", "callers": callers,
                "pairs_per_s": ours.pairs_per_s, "raw_pairs_per_s": raw,
                "p50_ms": ours.p50_ms, "p99_ms": ours.p99_ms,
                "entries_per_sync": ours.batch_entries,
            })
        );
    } else {
        println!(
            "{callers:5} callers: {:8.0} pairs/s, raw {raw:8.0} ({:.2}); p50 {:.2} ms, p99 {:.2} \
             ms, {:.0} entries a sync",
            ours.pairs_per_s,
            ours.pairs_per_s / raw,
            ours.p50_ms,
            ours.p99_ms,
            ours.batch_entries,
        );
    }
}

/// Fills a journal and waits to be killed.
fn fill(dir: &Path, keys: u64) {
    let (journal, _) = Journal::open_or_create(dir, Settings::default(), Start::First).unwrap();
    fill_range(&journal, 0, keys);
    println!("filled");
    loop {
        std::thread::park();
    }
}

fn fill_range(journal: &Journal, from: u64, until: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let reply = Reply::kept(201, Bytes::from(vec![b'x'; SMALL_REPLY]));
    let number = Arc::new(AtomicU64::new(from));
    let tasks: Vec<_> = (0..1024)
        .map(|_| {
            let (journal, reply, number) = (journal.clone(), reply.clone(), Arc::clone(&number));
            runtime.spawn(async move {
                loop {
                    let next = number.fetch_add(1, Ordering::Relaxed);
                    if until <= next {
                        return;
                    }
                    let claimed = claim();
                    let complete = Command::Complete { fence: claimed.fence, reply: reply.clone() };
                    let completed = written(Some(&claimed), &complete);
                    swap(&journal, id(next), None, claimed.clone()).await;
                    swap(&journal, id(next), Some(&claimed), completed).await;
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}

fn open(root: &Path, options: &Options) {
    let (dir, keys) = (root.join("journal-open"), options.keys.to_string());
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--fill", "--keys", &keys, "--dir"])
        .arg(&dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // Without a word to it, as in a crash.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line, "filled\n");
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            let journal = Journal::open(&dir, Settings::default()).unwrap();
            let took = started.elapsed().as_secs_f64() * 1e3;
            let stats = journal.stats();
            assert_eq!(stats.keys as u64, options.keys);
            journal.close();
            took
        })
        .collect();
    let first = times[0];
    times.sort_by(f64::total_cmp);
    let again = times[ROUNDS / 2];
    if options.json {
        let keys = options.keys;
        let line =
            json!({ "name": "open", "keys": keys, "open_ms": first, "open_again_ms": again });
        println!("{line}");
    } else {
        println!(
            "{} keys: opened in {first:.0} ms after the kill, then {again:.0} ms",
            options.keys
        );
    }
    std::fs::remove_dir_all(&dir).unwrap();
    memory(root, options);
}

/// What a key takes in memory, at several sizes.
fn memory(root: &Path, options: &Options) {
    let dir = root.join("journal-memory");
    let (journal, _) = Journal::open_or_create(&dir, Settings::default(), Start::First).unwrap();
    let mut from = 0;
    for share in LOOK_AT {
        let until = options.keys * share / 4;
        fill_range(&journal, from, until);
        from = until;
        let stats = journal.stats();
        let per_key = stats.index_bytes as f64 / stats.keys as f64;
        if options.json {
            let keys = stats.keys;
            println!("{}", json!({ "name": "memory", "keys": keys, "bytes_per_key": per_key }));
        } else {
            println!("{} keys: {per_key:.1} bytes of index a key", stats.keys);
        }
    }
    journal.close();
    std::fs::remove_dir_all(&dir).unwrap();
}
