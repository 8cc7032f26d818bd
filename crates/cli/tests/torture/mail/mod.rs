//! Kills the real sender of mail, cuts its connections at every word, and counts at the mail server
//! and behind it what has arrived.
//!
//! Used by the test of this crate (few messages) and by `cargo xtask torture mail` (many).

mod check;
mod faults;
mod server;
mod shop;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onlyonce_testbed::MailRelay;

use crate::random::Random;
use check::Counts;
use server::Mx;
use shop::Shop;

pub(crate) use check::Report;
pub(crate) use server::Kind;

/// How long a sender lives at most once it has said a word, in milliseconds.
const LIVES: u64 = 400;
/// One in so many is killed before it may have said anything.
const EARLY_IN: u64 = 8;
/// How often is looked what the sender has said.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The folder is looked at once in so many of them.
const LOOKS: u32 = 20;
/// A sender that says no word for ten minutes says none at all. One of thousands of messages looks
/// through all that it has first.
const LOOKS_MAX: u32 = 120_000;
/// How long what the server has taken may need to be seen, and what was sent to arrive, once
/// nothing goes wrong any more: all connections are closed by then.
const BOUNDS: &str = "2s";
/// How often a sender may be asked to try all that waits, once nothing goes wrong any more.
const TRIES_MAX: usize = 200;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) binary: PathBuf,
    pub(crate) seed: u64,
    pub(crate) messages: usize,
    pub(crate) kind: Kind,
    pub(crate) stop: Stop,
}

/// Whether it is to end early, in good order: processes of real mail servers outlive whoever has
/// started them, unless they are ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on.
    #[allow(dead_code, reason = "the short torture of the tests is not stopped")]
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), String> {
        if self.is_asked() {
            Err("it was asked to end before it was done".to_owned())
        } else {
            Ok(())
        }
    }
}

/// Runs it all. `Err` says which promise was broken.
pub(crate) fn run(options: &Options) -> Result<Report, String> {
    let Options { kind, seed, messages, ref stop, .. } = *options;
    let mx = Mx::start(kind, seed);
    let relay = MailRelay::to(mx.address());
    let shop = Shop::open(&options.binary, relay.address(), mx.environment(), stop)?;
    shop.add(messages)?;
    let mut random = Random::new(seed);
    let faults = faults::strike(&relay, seed);
    let mut report = Report { kind, messages, ..Report::default() };
    while !shop.said_only_doubts() {
        stop.check()?;
        let (said, waiting) = (faults.words(), shop.waiting());
        let sender = shop.start()?;
        if random.below(EARLY_IN) != 0 {
            // How long it takes until then depends on what else the machine has to do. What was
            // answered and not moved, it moves without a word.
            // A folder of thousands is looked at seldom, or the sender would wait for that.
            let is_over = || shop.waiting() < waiting || shop.said_only_doubts();
            let mut looks = 1..=LOOKS_MAX;
            let is_heard = looks.any(|look| {
                std::thread::sleep(LOOK_EVERY);
                stop.is_asked() || said < faults.words() || look % LOOKS == 0 && is_over()
            });
            assert!(is_heard, "the sender says no word");
        }
        std::thread::sleep(Duration::from_millis(random.below(LIVES)));
        sender.kill();
        report.kills += 1;
    }
    report.cuts = faults.struck();
    // From now on nothing goes wrong, and all that was on its way ends.
    relay.decide(|_, _| onlyonce_testbed::Fate::Passes);
    relay.cut();
    mx.behaves();
    shop.until_only_doubts()?;
    let before = Counts::taken(&shop, &mx, &relay)?;
    report.unknown = before.unknown();
    check::before(&before, messages)?;
    if let Some(probe) = mx.probe() {
        let bounds = ["--settle", BOUNDS, "--late", BOUNDS];
        let flags = [&["--once", "--on-unknown", "probe", "--probe", &probe][..], &bounds].concat();
        shop.until_settled(&flags)?;
    }
    let after = Counts::taken(&shop, &mx, &relay)?;
    report.unknown_in_the_end = after.unknown();
    report.sent = after.sent();
    report.refused = after.refused();
    check::after(&before, &after, messages)?;
    Ok(report)
}
