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
