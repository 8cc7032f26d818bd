//! Runs the onlyonce engine on tokio and the system clock. The only place that reads a clock for
//! the engine.

mod process;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use onlyonce::core::{ClaimId, Holder, Timestamp};
use onlyonce::{Runtime, Uptime};

pub use process::this_process;

/// How far the clock follows when the system's is put forward. A clock that was wrong by years for
/// a minute would end every reply and raise the store's floor, and neither can be taken back.
const STEP_MAX: Duration = Duration::from_secs(3600);

/// A [`Runtime`] on tokio. Its clock is the system's, but for that it never runs backwards: it
/// follows when the system's is put forward by up to an hour in all, and waits when that is put
/// back. The time for which the machine slept is no step.
///
/// Its tasks run on the tokio runtime it was made on.
#[derive(Debug)]
pub struct TokioRuntime {
    handle: tokio::runtime::Handle,
    started_at: Timestamp,
    // Tokio's instant, so that tests can pause and advance it.
    started: tokio::time::Instant,
    steps: Steps,
    holder: Holder,
}

impl TokioRuntime {
    /// A runtime on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn new() -> Self {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            handle: tokio::runtime::Handle::current(),
            started_at: Timestamp::default().plus(since_epoch),
            started: tokio::time::Instant::now(),
            steps: Steps::new(),
            holder: this_process(),
        }
    }
}

/// By how much the system's clock went further since the process began than the monotonic clock
/// did: the machine slept, or somebody has put it forward.
#[derive(Debug)]
struct Steps {
    system: SystemTime,
    /// Goes on while the machine sleeps.
    boot: Duration,
    monotonic: std::time::Instant,
    /// The largest lead so far, in milliseconds: time does not run backwards here.
    largest: AtomicU64,
    /// For how long the machine has slept, in milliseconds, as far as is known.
    slept: AtomicU64,
    /// The step that is not followed, in milliseconds.
    refused: AtomicU64,
}

/// How far each clock has gone on.
#[derive(Clone, Copy)]
struct Elapsed {
    system: Duration,
    boot: Duration,
    monotonic: Duration,
}

impl Steps {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn new() -> Self {
        // In this order, and in the other below: a pause between the two makes no step.
        let monotonic = std::time::Instant::now();
        let (boot, system) = (since_boot(), SystemTime::now());
        let [largest, slept, refused] = [const { AtomicU64::new(0) }; 3];
        Self { system, boot, monotonic, largest, slept, refused }
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn ahead(&self) -> Duration {
        let system = self.system.elapsed().unwrap_or_default();
        let boot = since_boot().saturating_sub(self.boot);
        self.of(Elapsed { system, boot, monotonic: self.monotonic.elapsed() })
    }

    /// For how long the machine has slept.
    fn slept(&self) -> Duration {
        // In this order: a pause between the two makes no sleep.
        let boot = since_boot().saturating_sub(self.boot);
        let slept = millis(boot.saturating_sub(self.monotonic.elapsed()));
        Duration::from_millis(self.slept.fetch_max(slept, Ordering::Relaxed).max(slept))
    }

    fn of(&self, Elapsed { system, boot, monotonic }: Elapsed) -> Duration {
        let slept = boot.saturating_sub(monotonic);
        let step = system.saturating_sub(boot);
        let follow = if step <= STEP_MAX { step } else { Duration::ZERO };
        self.refused.store(millis(step - follow), Ordering::Relaxed);
        let lead = millis(slept.saturating_add(follow));
        Duration::from_millis(self.largest.fetch_max(lead, Ordering::Relaxed).max(lead))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time since boot, that for which the machine slept included (`CLOCK_BOOTTIME`,
/// clock_gettime(2)).
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

impl Default for TokioRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for TokioRuntime {
    fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed()).plus(self.steps.ahead())
    }

    fn steady(&self) -> Duration {
        self.started.elapsed().saturating_add(self.steps.slept())
    }

    fn uptime(&self) -> Option<Uptime> {
        let Holder { boot, time_namespace, .. } = self.holder;
        let since_boot = self.steps.boot.saturating_add(self.steady());
        (boot != [0; 16]).then_some(Uptime { boot, time_namespace, since_boot })
    }

    fn step_refused(&self) -> Duration {
        Duration::from_millis(self.steps.refused.load(Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let _guard = self.handle.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(self.handle.spawn(task));
    }

    fn claim_id(&self) -> ClaimId {
        let mut bytes = [0; 16];
        match getrandom::fill(&mut bytes) {
            Ok(()) => ClaimId::from_bytes(bytes),
            // Two equal claim ids would let two callers share one claim: better to stop.
            Err(error) => panic!("the system has no random numbers to give: {error}"),
        }
    }

    fn holder(&self) -> Holder {
        self.holder
    }

    fn is_gone(&self, holder: &Holder) -> bool {
        process::is_gone(&self.holder, holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_names_this_process_and_makes_new_claim_ids() {
        let runtime = TokioRuntime::new();
        assert_eq!(runtime.holder().pid, std::process::id());
        assert_ne!(runtime.holder().started, 0);
        assert_ne!(runtime.holder().boot, [0; 16]);
        assert_ne!(runtime.claim_id(), runtime.claim_id());
    }

    fn elapsed(system: u64, boot: u64, monotonic: u64) -> Elapsed {
        let [system, boot, monotonic] = [system, boot, monotonic].map(Duration::from_secs);
        Elapsed { system, boot, monotonic }
    }

    fn refused(steps: &Steps) -> u64 {
        steps.refused.load(Ordering::Relaxed) / 1_000
    }

    /// Case B58.
    #[test]
    fn the_clock_follows_a_small_step_forward_and_never_goes_back() {
        let (steps, second) = (Steps::new(), Duration::from_secs(1));
        assert_eq!(steps.of(elapsed(10, 10, 10)), Duration::ZERO);
        assert_eq!(steps.of(elapsed(320, 20, 20)), 300 * second);
        assert_eq!(steps.of(elapsed(30, 30, 30)), 300 * second);
        assert_eq!(steps.of(elapsed(400, 90, 90)), 310 * second);
        assert_eq!(refused(&steps), 0);
    }

    #[test]
    fn the_clock_knows_how_long_the_machine_slept() {
        let (steps, day) = (Steps::new(), 24 * 3_600);
        let slept = steps.of(elapsed(3 * day + 10, 3 * day + 10, 10));
        assert_eq!(slept, Duration::from_secs(3 * day));
        assert_eq!(refused(&steps), 0);
    }

    #[test]
    fn a_clock_that_is_put_forward_by_years_is_not_followed_and_that_is_told() {
        let (steps, year) = (Steps::new(), 365 * 24 * 3_600);
        assert_eq!(steps.of(elapsed(60, 10, 10)), Duration::from_secs(50));
        assert_eq!(steps.of(elapsed(5 * year, 20, 20)), Duration::from_secs(50));
        assert_eq!(refused(&steps), 5 * year - 20);
        // Set right again.
        assert_eq!(steps.of(elapsed(30, 30, 30)), Duration::from_secs(50));
        assert_eq!(refused(&steps), 0);
    }
}
