//! Notices of the store: that a key for which somebody waits here has been ended elsewhere. They
//! say when to look, and nothing else: whoever waits also looks from time to time.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::unfold;
use onlyonce_core::{KeyId, StateKind};
use onlyonce_store::Notice;

use crate::inner::Inner;
use crate::observe::EngineEvent;

/// How long a waiter leaves a key alone while notices come. Without them it looks every
/// [`Settings::poll_every`](crate::Settings::poll_every).
const QUIET_MAX: Duration = Duration::from_secs(5);
/// How many keys are looked at together after notices.
const LOOKS: usize = 64;

impl Inner {
    /// How long a waiter that has looked so often by itself leaves the key alone. While notices
    /// come it is longer each time: one that was lost at most doubles the wait.
    pub(crate) fn quiet(&self, looks: u32) -> Duration {
        let poll_every = self.settings.poll_every;
        if self.store.is_exclusive() {
            // Whoever ends the attempt wakes us.
            Duration::MAX
        } else if self.waiters.notices.flow() {
            let longer = poll_every.saturating_mul(2_u32.saturating_pow(looks));
            longer.min(QUIET_MAX.max(poll_every))
        } else {
            poll_every
        }
    }

    /// Hears the store's notices for as long as there is an engine.
    pub(crate) async fn listen(inner: Weak<Self>) {
        let next = |inner: Weak<Self>| async move {
            // The engine may end meanwhile, and is not kept by this.
            let next = inner.upgrade()?.waiters.notices.next();
            Some((next.await?, inner))
        };
        let notices = unfold(inner.clone(), next);
        notices.for_each_concurrent(LOOKS, |notice| heed(inner.clone(), notice)).await;
    }

    /// Looks at a key once for all who wait for it here.
    async fn noticed(self: Arc<Self>, id: KeyId) {
        let get = pin!(self.store.get(id));
        let looked = select(get, self.runtime.sleep(self.settings.store_wait)).await;
        // What cannot be read is looked at by those who wait, who know what that means to them.
        let Either::Left((Ok(Some(record)), _)) = looked else { return };
        // Two notices of one end are counted as one.
        if record.state.kind() != StateKind::InFlight && self.waiters.wait_for(id) {
            self.observer.on(&EngineEvent::Noticed { id });
            self.wake(id, &record, None);
        }
    }
}

async fn heed(inner: Weak<Inner>, notice: Notice) {
    let Some(inner) = inner.upgrade() else { return };
    match notice {
        Notice::Changed(id) => inner.noticed(id).await,
        Notice::Flow => inner.observer.on(&EngineEvent::NoticesFlow),
        Notice::Lost(why) => inner.observer.on(&EngineEvent::NoticesLost { why }),
    }
}
