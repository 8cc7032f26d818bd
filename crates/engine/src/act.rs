//! One command on its way to the store and back: read, decide, swap.
//!
//! This is the only loop that changes a record. It has no I/O and no clock of its own, so the
//! engine drives it with futures and the simulator drives the same code a store call at a time.

use std::fmt;
use std::sync::Arc;

use onlyonce_core::{
    Command, Fence, Fingerprint, Floor, Next, Outcome, Policy, Record, Revision, Timestamp, decide,
};
use onlyonce_store::Swap;

/// How often a swap may lose against another writer before the command gives up.
pub const CONFLICTS_MAX: u32 = 32;

/// Computes a request's fingerprint by an older rule, or `None` if that rule is not known.
pub type Refingerprint = Arc<dyn Fn(u8) -> Option<Fingerprint> + Send + Sync>;

/// A command being carried out on one key.
#[derive(Clone)]
pub struct Act {
    command: Command,
    policy: Policy,
    refingerprint: Option<Refingerprint>,
    current: Option<Record>,
    /// Whether `current` was read from the store after the command was given.
    fresh: bool,
    conflicts: u32,
    /// Whether the last decision was that it had been answered before, differently.
    is_second_reply: bool,
    pending: Option<Acted>,
}

/// What the driver has to do next.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "moved once, boxing would cost more")]
pub enum Step {
    /// Read the record and tell [`Act::read`].
    Get,
    /// Swap and tell [`Act::swapped`].
    Swap {
        /// The revision that must still stand.
        expected: Option<Revision>,
        /// What replaces it.
        next: Option<Record>,
    },
    /// It is done.
    Done(Acted),
    /// Other writers won [`CONFLICTS_MAX`] times in a row; nothing changed.
    Contended,
}

/// The answer to a command, and the record as it stands now.
#[derive(Clone, Debug)]
pub struct Acted {
    /// What the asker is told.
    pub outcome: Outcome,
    /// The record behind it; `None` if there is none.
    pub record: Option<Record>,
}

impl Acted {
    /// Whether a holder may be running the operation now.
    pub fn is_running(&self) -> bool {
        matches!(self.outcome, Outcome::InFlight { .. })
    }
}

impl Act {
    /// Starts by guessing that there is no record: right for every first request, and for every
    /// other the conflict brings the record along, so either costs one round trip.
    pub fn new(command: Command, policy: Policy) -> Self {
        Self {
            command,
            policy,
            refingerprint: None,
            current: None,
            fresh: false,
            conflicts: 0,
            is_second_reply: false,
            pending: None,
        }
    }

    /// Starts from a record that the caller believes to be current.
    pub fn from_record(command: Command, policy: Policy, record: Record) -> Self {
        Self { current: Some(record), ..Self::new(command, policy) }
    }

    /// Lets a claim be compared by the rule that the stored fingerprint was made with.
    pub fn with_refingerprint(mut self, refingerprint: Option<Refingerprint>) -> Self {
        self.refingerprint = refingerprint;
        self
    }

    /// Decides on what is known and says what to do. After a store error, call it again: every
    /// command may be repeated (rule 5).
    pub fn step(&mut self, now: Timestamp, floor: Floor) -> Step {
        self.match_fingerprint_version();
        let decision = decide(now, floor, &self.policy, self.current.as_ref(), &self.command);
        self.is_second_reply = decision.outcome == Outcome::SecondReply;
        let expected = self.current.as_ref().map(|record| record.revision);
        let (next, record) = match decision.next {
            // That nothing changes may be told only of a record read since the question.
            Next::Keep if !self.fresh => return Step::Get,
            Next::Keep => {
                let record = self.current.clone();
                return Step::Done(Acted { outcome: decision.outcome, record });
            }
            Next::Write(next) => (Some(next.clone()), Some(next)),
            Next::Delete => (None, None),
        };
        if self.conflicts == CONFLICTS_MAX {
            return Step::Contended;
        }
        self.pending = Some(Acted { outcome: decision.outcome, record });
        Step::Swap { expected, next }
    }

    /// That the operation was answered before, differently, if that was decided, and by which claim
    /// it was answered now. It is true of the record as it stands here, whether or not a note of it
    /// is written: the first reply stays the only one.
    pub fn second_reply(&self) -> Option<(Fence, Acted)> {
        let fence = match &self.command {
            Command::Complete { fence, .. } | Command::Resolve { fence, .. } => *fence,
            Command::Claim(_)
            | Command::Look(_)
            | Command::Commit { .. }
            | Command::Renew { .. }
            | Command::Note { .. }
            | Command::Release { .. }
            | Command::Abandon { .. }
            | Command::CertifyDeath { .. }
            | Command::Seal { .. }
            | Command::Erase { .. }
            | Command::Restore { .. }
            | Command::Sweep => return None,
        };
        let acted = || Acted { outcome: Outcome::SecondReply, record: self.current.clone() };
        self.is_second_reply.then(|| (fence, acted()))
    }

    /// The outcome of the command on what was read, with nothing written: for questions only.
    pub fn peek(&mut self, now: Timestamp, floor: Floor) -> Outcome {
        self.match_fingerprint_version();
        decide(now, floor, &self.policy, self.current.as_ref(), &self.command).outcome
    }

    /// The policy that it is carried out under.
    pub(crate) const fn policy(&self) -> Policy {
        self.policy
    }

    /// Takes what a read found.
    pub fn read(&mut self, found: Option<Record>) {
        self.current = found;
        self.fresh = true;
    }

    /// Takes what became of a swap. `Some` is the end; `None` means: step again.
    pub fn swapped(&mut self, swap: Swap) -> Option<Acted> {
        let pending = self.pending.take();
        match swap {
            Swap::Done => pending,
            Swap::Conflict(found) => {
                self.conflicts += 1;
                self.read(found);
                None
            }
        }
    }

    /// A record is compared by the rule it was made with, so that a new rule breaks no old key.
    fn match_fingerprint_version(&mut self) {
        let stored = self.current.as_ref().and_then(|record| record.fingerprint);
        let (Some(stored), Some(refingerprint)) = (stored, &self.refingerprint) else { return };
        let ours = match &mut self.command {
            Command::Claim(claim) => &mut claim.fingerprint,
            Command::Look(look) => &mut look.fingerprint,
            Command::Commit { .. }
            | Command::Renew { .. }
            | Command::Note { .. }
            | Command::Complete { .. }
            | Command::Release { .. }
            | Command::Abandon { .. }
            | Command::CertifyDeath { .. }
            | Command::Resolve { .. }
            | Command::Seal { .. }
            | Command::Erase { .. }
            | Command::Restore { .. }
            | Command::Sweep => return,
        };
        if ours.version() != stored.version() {
            // An unknown rule leaves a mismatch: that never replays and never runs.
            *ours = refingerprint(stored.version()).unwrap_or(*ours);
        }
    }
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Act").field("command", &self.command).finish_non_exhaustive()
    }
}
