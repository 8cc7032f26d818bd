//! What the engine tells to logs and metrics: a closed list of what happened.

use std::time::Duration;

use onlyonce_core::{Cause, Fence, KeyId};

use crate::error::EngineError;
use crate::sweep::Swept;

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A claim was granted.
    Granted {
        /// The key.
        id: KeyId,
        /// The new claim.
        fence: Fence,
        /// Which attempt it is, from 1.
        attempt: u32,
    },
    /// The operation's reply is recorded.
    Completed {
        /// The key.
        id: KeyId,
        /// The claim.
        fence: Fence,
    },
    /// The operation did not happen and the key is free again.
    Released {
        /// The key.
        id: KeyId,
        /// The claim.
        fence: Fence,
    },
    /// Nobody knows whether the operation happened.
    OutcomeUnknown {
        /// The key.
        id: KeyId,
        /// The claim.
        fence: Fence,
        /// How knowledge was lost.
        cause: Cause,
    },
    /// An alarm: the operation was answered a second time, differently.
    SecondReply {
        /// The key.
        id: KeyId,
        /// The claim that answered second.
        fence: Fence,
    },
    /// An outcome could not be recorded; the record will lapse to unknown.
    Unrecorded {
        /// The key.
        id: KeyId,
        /// The claim.
        fence: Fence,
        /// Why not.
        error: EngineError,
    },
    /// A reply did not fit; it is recorded that it was answered, without the reply.
    ReplyNotKept {
        /// The key.
        id: KeyId,
        /// The claim.
        fence: Fence,
    },
    /// The claim of a process that is gone was ended: at the start of the only process on a store,
    /// or when somebody met it.
    HolderBuried {
        /// The key.
        id: KeyId,
    },
    /// The sweeper has made a pass.
    Swept {
        /// What it has done.
        swept: Swept,
    },
    /// An alarm: the system's clock was put forward and is not followed. Told at every pass of the
    /// sweeper until it is set right or the process begins anew.
    ClockStepped {
        /// By how much.
        by: Duration,
    },
    /// The clock of a store that others use too was read; the engine goes by it.
    ClockMeasured {
        /// By how much it is ahead of this machine's, in milliseconds.
        offset: i64,
        /// How wrong that may be.
        uncertainty: Duration,
    },
    /// The store tells when other processes end what is waited for here, from now on.
    NoticesFlow,
    /// It does not, for now; so those who wait look more often.
    NoticesLost {
        /// Why not.
        why: String,
    },
    /// The store told that another process has ended an attempt that was waited for here.
    Noticed {
        /// The key.
        id: KeyId,
    },
    /// A call of the store failed; it may be repeated.
    StoreFailed {
        /// Why.
        error: EngineError,
    },
}

/// Is told of every [`EngineEvent`], on the task where it happened. Must return quickly.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on(&self, event: &EngineEvent);
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn on(&self, _event: &EngineEvent) {}
}
