//! The decisions of onlyonce: what an idempotency key's record becomes when something is asked.
//!
//! This crate has no I/O, no clock, no randomness and no async: time, floor and policy are
//! arguments, and every other crate calls [`decide()`] to learn what a record turns into.
//!
//! Read the modules in this order: [`time`], [`revision`], [`key`], [`fingerprint`], [`reply`],
//! [`record`], [`receiver`], [`policy`], [`command`], [`mod@decide`], [`secret`], [`limits`].
//!
//! ```
//! use onlyonce_core::*;
//!
//! let policy = Policy::default();
//! let now = Timestamp::from_millis(1_764_000_000_000);
//! let fingerprint = Fingerprint::new(1, [7; 32]);
//! let claim = Command::Claim(Claim {
//!     fingerprint,
//!     claim_id: ClaimId::from_bytes([1; 16]),
//!     holder: Holder::default(),
//!     key_time: None,
//!     credential: None,
//!     phase: Phase::Committing,
//! });
//!
//! // The first request is granted the key ...
//! let first = decide(now, Floor::NONE, &policy, None, &claim);
//! let Outcome::Granted(fence) = first.outcome else { panic!("{:?}", first.outcome) };
//! let Next::Write(record) = first.next else { panic!("a grant is written") };
//!
//! // ... it is answered ...
//! let reply = Reply::kept(201, "order confirmed, 7829");
//! let done = decide(
//!     now.plus_millis(40),
//!     Floor::NONE,
//!     &policy,
//!     Some(&record),
//!     &Command::Complete { fence, reply: reply.clone() },
//! );
//! let Next::Write(record) = done.next else { panic!("a completion is written") };
//!
//! // ... and the retry gets that answer, not a second run.
//! let retry = decide(now.plus_millis(900), Floor::NONE, &policy, Some(&record), &claim);
//! assert!(matches!(retry.outcome, Outcome::Replay { reply: replayed, .. } if replayed == reply));
//! ```

pub mod command;
pub mod decide;
pub mod fingerprint;
pub mod key;
pub mod limits;
pub mod policy;
pub mod receiver;
pub mod record;
pub mod reply;
pub mod revision;
pub mod secret;
pub mod time;

pub use command::{Claim, Command, Decision, Look, Next, Outcome, Verdict};
pub use decide::{decide, restored, settle};
pub use fingerprint::{Credential, Fingerprint};
pub use key::{Key, KeyError, KeyId, Scope, ScopeError};
pub use policy::{OnUnknown, Policy, PolicyError, PolicyWarning, Remedy};
pub use receiver::{Always, Class, Receiver};
pub use record::{
    Cause, ClaimId, Doubt, Entry, Event, Evidence, Flight, History, Holder, Phase, Record, State,
    StateKind,
};
pub use reply::{Reply, ReplyDigest};
pub use revision::{Fence, Revision};
pub use secret::Secret;
pub use time::{Floor, Timestamp};
