//! How often something may be asked in a scope.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A bucket that fills with so many permits a second, up to a burst.
#[derive(Debug)]
pub(crate) struct Quota {
    per_second: f64,
    burst: f64,
    state: Mutex<(f64, Instant)>,
}

impl Quota {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst);
        let state = Mutex::new((burst, Instant::now()));
        Self { per_second: f64::from(per_second), burst, state }
    }

    /// Takes a permit, or says how long it is until there is one.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (held, at) = *state;
        let now = Instant::now();
        let gained = now.saturating_duration_since(at).as_secs_f64() * self.per_second;
        let held = (held + gained).min(self.burst);
        if held < 1.0 {
            *state = (held, now);
            return Err(Duration::from_secs_f64((1.0 - held) / self.per_second));
        }
        *state = (held - 1.0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_allowed_and_then_so_many_a_second() {
        let quota = Quota::new(2, 3);
        for _ in 0..3 {
            assert_eq!(quota.take(), Ok(()));
        }
        let wait = quota.take().unwrap_err();
        assert!(wait <= Duration::from_millis(500), "{wait:?}");
        tokio::time::advance(wait).await;
        assert_eq!(quota.take(), Ok(()));
        assert!(quota.take().is_err());
        // It does not fill above the burst.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..9).filter(|_| quota.take().is_ok()).count(), 3);
    }
}
