//! What the engine needs from the outside: time, tasks, randomness and a name for this process.

use std::time::Duration;

use onlyonce_core::{ClaimId, Holder, Timestamp};
use onlyonce_store::BoxFuture;

/// The engine's clock, spawner and source of randomness. `onlyonce-tokio` has the usual one; the
/// simulator and tests bring their own, which is why nothing here reads a clock by itself.
pub trait Runtime: Send + Sync + 'static {
    /// The present time. Must not run backwards within a process.
    fn now(&self) -> Timestamp;

    /// How long ago some moment was that never changes, by a clock that nobody sets: it goes on
    /// while the machine sleeps, and neither jumps nor runs backwards.
    fn steady(&self) -> Duration;

    /// The present moment as other processes of the same boot count it too; `None` if that is not
    /// known. It goes on while the machine sleeps, and nobody sets it.
    fn uptime(&self) -> Option<Uptime> {
        None
    }

    /// By how much the system's clock was put forward without the runtime following it, because
    /// that is more than a mended clock explains. Zero if it was not.
    fn step_refused(&self) -> Duration {
        Duration::ZERO
    }

    /// Completes after `duration` on this runtime's clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs `task` to its end, whatever becomes of the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// 128 bits from a cryptographic random source, new at every call.
    fn claim_id(&self) -> ClaimId;

    /// This process.
    fn holder(&self) -> Holder;

    /// Whether that process is provably gone, so that nothing it began can go on: it ran on this
    /// host since its boot and in this pid namespace, and is no longer there. `false` if nothing
    /// proves it.
    fn is_gone(&self, _holder: &Holder) -> bool {
        false
    }
}

/// A moment of one boot of a host, which its processes can compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uptime {
    /// The host's boot id.
    pub boot: [u8; 16],
    /// The inode of the time namespace that counts it; zero if that is not known.
    pub time_namespace: u32,
    /// How long after the boot it is, for that namespace; the time of sleep is in it.
    pub since_boot: Duration,
}

impl Uptime {
    /// How long ago `earlier` was, zero if it is yet to come; `None` if it is of another boot or
    /// namespace, so that nobody can tell.
    pub fn since(&self, earlier: &Self) -> Option<Duration> {
        let is_same = self.boot == earlier.boot && self.time_namespace == earlier.time_namespace;
        is_same.then(|| self.since_boot.saturating_sub(earlier.since_boot))
    }
}
