//! Four real proxies on one shared store, under load with duplicates at all of them: its server is
//! killed and cut off, a proxy is killed, and the history is checked against what the upstream
//! counted.
//!
//! Used by the test of this crate (a few faults) and by `cargo xtask torture stores` (many).

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use crate::backend::{Backend, Kind};
use crate::check::{Report, check};
use crate::load::{Load, Weight};
use crate::proxy::Proxy;
use crate::random::Random;

/// Longer than a proxy waits for a store that is away for a moment.
const WEIGHT: Weight = Weight { answer_max: 3_000, patience_max: 1_500 };
const PROXIES: u64 = 4;
/// Leases that end now and then while their holder cannot reach the store.
const CONFIG: &str = "[policy]\nlease = \"2s\"\nwait = \"500ms\"\n";
/// How long it goes well between two faults at most, in milliseconds.
const WELL_MAX: u64 = 300;
/// How long callers may need to go on after a fault: longer than two leases of a dead holder.
const SOON: Duration = Duration::from_secs(90);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    pub(crate) seed: u64,
    /// Kinds of stores, each with a server of its own in every round.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) rounds: u32,
    /// Faults in a round of a kind.
    pub(crate) faults: u32,
    /// Ends earlier after this long.
    pub(crate) limit: Option<Duration>,
}

/// Runs it all. `Err` says which promise was broken.
pub(crate) async fn run(options: &Options) -> Result<Report, String> {
    let (begun, mut report) = (Instant::now(), Report::default());
    let is_over = || options.limit.is_some_and(|limit| limit <= begun.elapsed());
    for round in 0..options.rounds {
        for kind in &options.kinds {
            if is_over() {
                return Ok(report);
            }
            let seed = options.seed.wrapping_add(u64::from(round) << 32);
            let came_to = torture(options, *kind, seed).await;
            report += came_to.map_err(|wrong| format!("{}: {wrong}", kind.name()))?;
        }
        report.rounds += 1;
    }
    Ok(report)
}

/// One store, from its making to its last check.
async fn torture(options: &Options, kind: Kind, seed: u64) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut backend = block_in_place(|| Backend::start(kind, &options.binary, folder.path()))?;
    let mut random = Random::new(seed);
    let config = folder.path().join("onlyonce.toml");
    std::fs::write(&config, CONFIG).map_err(|error| error.to_string())?;
    let mut load = Load::start(seed, WEIGHT).await;
    let upstream = load.upstream;
    let start = |store: &str| Proxy::start_on(&options.binary, &config, store, upstream);
    let mut proxies = Vec::new();
    for _ in 0..PROXIES {
        proxies.push(start(&backend.url)?);
    }
    load.at_any(&proxies);
    await_more(&load, "the beginning").await?;
    for _ in 0..options.faults {
        sleep(Duration::from_millis(random.below(WELL_MAX))).await;
        // A quarter of the faults, or all, are those of a proxy.
        let fault = backend.any_fault(&mut random).filter(|_| 0 < random.below(4));
        let what = match fault {
            Some(fault) => {
                block_in_place(|| backend.suffer(fault, &mut random));
                format!("{fault:?}")
            }
            None => {
                let proxy = &mut proxies[random.below(PROXIES) as usize];
                proxy.kill();
                *proxy = start(&backend.url)?;
                load.at_any(&proxies);
                "a killed proxy".to_owned()
            }
        };
        await_more(&load, &what).await?;
    }
    let history = load.end().await?;
    let report = check(proxies[0].address, &history, &load.world).await?;
    Ok(Report { faults: options.faults, ..report })
}

/// Waits until callers have got on.
async fn await_more(load: &Load, after: &str) -> Result<(), String> {
    let (begun, ran) = (Instant::now(), load.ran());
    while load.ran() < ran + PROXIES {
        if SOON < begun.elapsed() {
            return Err(format!("nothing runs any more after {after}"));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
