//! Takes the disk from under the real proxy, and checks the history against what the upstream
//! counted: a disk that is full, and a disk that does not write. Takes it from under `onlyonce
//! apply` ([`resources`]) and `onlyonce mail run` ([`letters`]) too.
//!
//! Used by `cargo xtask torture disk`. It mounts a small file system of its own and has `strace`
//! let system calls fail, so it needs the rights to do both, and fails without them.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Report, check};
use crate::load::{Load, Weight};
use crate::proxy::{Proxy, init};
use crate::random::Random;
use crate::{letters, resources};

/// Longer than the proxy waits for its store.
const PATIENCE_MAX: u64 = 3_000;
/// Answers that fill segments soon.
const HEAVY: Weight = Weight { answer_max: 256 << 10, patience_max: PATIENCE_MAX };
const LIGHT: Weight = Weight { answer_max: 3_000, patience_max: PATIENCE_MAX };

/// The small disk: a few segments of 64 MiB. In the end it is given as much again.
const DISK_MIB: u64 = 330;
/// How long something that must happen may take.
const SOON: Duration = Duration::from_secs(120);
/// Disks that fail, for each that is full.
const FAILING: u32 = 4;
/// `onlyonce` ends with it when its store has stopped.
const POISONED: i32 = 4;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    pub(crate) seed: u64,
    pub(crate) rounds: u32,
    /// Ends earlier after this long.
    pub(crate) limit: Option<Duration>,
}

/// Runs it all. `Err` says which promise was broken.
pub(crate) async fn run(options: &Options) -> Result<Report, String> {
    let (begun, mut report) = (Instant::now(), Report::default());
    for round in 0..options.rounds {
        if options.limit.is_some_and(|limit| limit <= begun.elapsed()) {
            break;
        }
        let seed = options.seed.wrapping_add(u64::from(round) << 32);
        let sent = letters::run(&options.binary, seed).await;
        sent.map_err(|it| format!("letters: {it}"))?;
        report += full(&options.binary, seed).await.map_err(|it| format!("full disk: {it}"))?;
        report += failing(&options.binary, seed).await.map_err(|it| format!("failing: {it}"))?;
        resources::run(&options.binary, seed).map_err(|it| format!("resources: {it}"))?;
        report.rounds += 1;
    }
    Ok(report)
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !is_so() {
        if SOON < begun.elapsed() {
            return Err(format!("it did not happen: {what}"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A disk that is filled and freed by others, then full for good, then larger.
async fn full(binary: &Path, seed: u64) -> Result<Report, String> {
    let disk = Disk::mount(DISK_MIB)?;
    let journal = disk.path().join("journal");
    init(binary, &journal)?;
    let mut random = Random::new(seed);
    let mut load = Load::start(seed, HEAVY).await;
    let mut proxy = Proxy::start(binary, &journal, load.upstream)?;
    load.at(proxy.address);
    // Others take what is left, and give it back, until that was felt often enough.
    let begun = Instant::now();
    while load.refused() < 100 {
        if SOON < begun.elapsed() {
            return Err("the disk was never full".into());
        }
        disk.fill();
        sleep(Duration::from_millis(random.below(400))).await;
        disk.free()?;
        sleep(Duration::from_millis(random.below(100))).await;
    }
    disk.fill();
    let refused = load.refused();
    until("a claim that is refused", || refused < load.refused()).await?;
    if let Some(status) = proxy.ended() {
        return Err(format!("a full disk ended the proxy: {status}"));
    }
    if random.below(2) == 0 {
        proxy.kill();
        proxy = Proxy::start(binary, &journal, load.upstream)?;
        load.at(proxy.address);
        let refused = load.refused();
        until("a claim that is refused after a start", || refused < load.refused()).await?;
    }
    disk.free()?;
    disk.resize(2 * DISK_MIB)?;
    let ran = load.ran();
    until("an operation that runs once there is room", || ran + 100 < load.ran()).await?;
    let history = load.end().await?;
    check(proxy.address, &history, &load.world).await
}

/// Disks that fail at a random write or sync, one process after the other on the same journal.
async fn failing(binary: &Path, seed: u64) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let journal = folder.path().join("journal");
    init(binary, &journal)?;
    let mut random = Random::new(seed);
    let mut load = Load::start(seed, LIGHT).await;
    let mut poisoned = 0;
    for number in 0..FAILING {
        let trace = folder.path().join(format!("trace-{number}"));
        let call = ["fdatasync", "pwrite64"][random.below(2) as usize];
        let error = ["EIO", "ENOSPC"][random.below(2) as usize];
        let fault = format!("inject={call}:error={error}:when={}", 2 + random.below(200));
        let strace = strace(&trace, &fault);
        let ended = match Proxy::start_under(&strace, binary, &journal, load.upstream)? {
            Ok(mut proxy) => {
                load.at(proxy.address);
                until(&format!("{fault}: an end"), || proxy.ended().is_some()).await?;
                proxy.ended()
            }
            // The sweep began to write before it listened.
            Err(ended) => Some(ended),
        };
        let code = ended.and_then(|status| status.code());
        if code != Some(POISONED) {
            return Err(format!("{fault}: it ended with {code:?}"));
        }
        poisoned += 1;
        never_again(&trace).map_err(|it| format!("{fault}: {it}"))?;
    }
    let proxy = Proxy::start(binary, &journal, load.upstream)?;
    load.at(proxy.address);
    let ran = load.ran();
    until("an operation that runs on a good disk", || ran + 10 < load.ran()).await?;
    let history = load.end().await?;
    Ok(Report { poisoned, ..check(proxy.address, &history, &load.world).await? })
}

/// The tracer is the grandchild, so that the child is the proxy itself.
fn strace(trace: &Path, fault: &str) -> Vec<String> {
    let trace = trace.display().to_string();
    let calls = "trace=fdatasync,fsync,pwrite64";
    ["strace", "-D", "-f", "-qq", "--decode-pids=comm", "-o", &trace, "-e", calls, "-e", fault]
        .map(str::to_owned)
        .to_vec()
}

/// That the journal's writer has done nothing more after the call that failed. A sync that failed
/// and is tried again may say that all is well when it is not.
fn never_again(trace: &Path) -> Result<(), String> {
    let trace = std::fs::read_to_string(trace).map_err(|error| error.to_string())?;
    let mut writers = trace.lines().filter(|line| line.contains("<journal writer>"));
    let failed = writers.find(|line| line.contains("(INJECTED)"));
    let failed = failed.ok_or("the journal's writer never failed")?;
    match writers.next() {
        None => Ok(()),
        Some(next) => Err(format!("after {failed:?} it went on: {next:?}")),
    }
}

/// A small file system, gone when it is dropped.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Of so many MiB.
    pub(crate) fn mount(mib: u64) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let place = folder.path().display().to_string();
        let size = format!("size={mib}m,mode=1777");
        as_root(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", &place])?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn resize(&self, mib: u64) -> Result<(), String> {
        let (place, size) = (self.path().display().to_string(), format!("remount,size={mib}m"));
        as_root(&["mount", "-o", &size, &place])
    }

    /// Takes all that is left.
    pub(crate) fn fill(&self) {
        let piece = vec![0; 1 << 20];
        let file = OpenOptions::new().append(true).create(true).open(self.path().join("others"));
        // Until there is no room for more.
        if let Ok(mut file) = file {
            while file.write_all(&piece).is_ok() {}
        }
    }

    pub(crate) fn free(&self) -> Result<(), String> {
        File::create(self.path().join("others")).map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let place = self.path().display().to_string();
        let _ = as_root(&["umount", "--lazy", &place]);
    }
}

fn as_root(words: &[&str]) -> Result<(), String> {
    let is_root = rustix::process::geteuid().is_root();
    let words = if is_root { words.to_vec() } else { [&["sudo", "-n"], words].concat() };
    let ran = Command::new(words[0]).args(&words[1..]).output();
    match ran {
        Ok(ran) if ran.status.success() => Ok(()),
        Ok(ran) => Err(format!("{words:?}: {}", String::from_utf8_lossy(&ran.stderr))),
        Err(error) => Err(format!("{words:?}: {error}")),
    }
}
