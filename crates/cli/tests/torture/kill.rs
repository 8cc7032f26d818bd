//! Kills the real proxy under load, again and again, and checks the history against what the
//! upstream counted.
//!
//! Used by the test of this crate (a few rounds) and by `cargo xtask torture kill` (many).

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::{Report, check};
use crate::load::{Load, Weight};
use crate::proxy::{Proxy, init};
use crate::random::Random;

const WEIGHT: Weight = Weight { answer_max: 3_000, patience_max: 40 };
const ANSWERS: u64 = 40;
/// Longer than so many take anywhere.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let journal = folder.path().join("journal");
    init(&options.binary, &journal)?;
    let mut load = Load::start(options.seed, WEIGHT).await;
    let mut random = Random::new(options.seed);
    let (begun, mut rounds) = (Instant::now(), 0);
    while rounds < options.rounds && options.limit.is_none_or(|limit| begun.elapsed() < limit) {
        let mut proxy = Proxy::start(&options.binary, &journal, load.upstream)?;
        load.at(proxy.address);
        sleep(Duration::from_millis(20 + random.below(300))).await;
        // Every other one lives until it has answered some, be the machine as slow as it may.
        if rounds % 2 == 1 {
            let (answered, until) = (load.ran() + ANSWERS, Instant::now() + PATIENCE);
            while load.ran() < answered && Instant::now() < until {
                sleep(Duration::from_millis(5)).await;
            }
        }
        // Without a word to it.
        proxy.kill();
        rounds += 1;
    }
    let proxy = Proxy::start(&options.binary, &journal, load.upstream)?;
    load.at(proxy.address);
    let history = load.end().await?;
    let report = check(proxy.address, &history, &load.world).await?;
    if 0 < report.not_kept + report.unrecorded {
        return Err(format!("the disk had room, and yet an answer was not recorded: {report:#?}"));
    }
    Ok(Report { rounds, ..report })
}
