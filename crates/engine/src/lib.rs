//! **onlyonce** makes sure that an operation that was asked for once happens once, however often
//! the request arrives.
//!
//! The one promise: *an operation whose key is held by onlyonce is started at most once at a
//! time, an answered operation is never started again, and when nobody can know whether it
//! happened, onlyonce says so instead of guessing.*
//!
//! [`Engine::once`] runs an effect once per key. [`Engine::claim`] gives a [`Ticket`] to those who
//! need more control. This crate spawns nothing and reads no clock by itself: it is given a
//! [`Runtime`] and a [`Store`].
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//!
//! use onlyonce::core::{Fingerprint, Key, Policy, Reply, Scope, Secret};
//! use onlyonce::{Answer, Engine, Ran, Request, Settings, direct};
//! use onlyonce::store::MemoryStore;
//! use onlyonce_tokio::TokioRuntime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Arc::new(MemoryStore::new());
//! let runtime = Arc::new(TokioRuntime::new());
//! let engine = Engine::start(store, runtime, Settings::default(), None).await?;
//!
//! let secret = Secret::from_bytes([7; 32]); // From the store's secret file in earnest.
//! let id = secret.key_id(&Scope::new("shop-1")?, &Key::new("order-7829")?);
//! let request = Request::new(id, Fingerprint::new(1, [0; 32]));
//!
//! let charges = Arc::new(AtomicU32::new(0));
//! for _tap in 0..3 {
//!     let charges = Arc::clone(&charges);
//!     let charge = direct(move |_attempt| async move {
//!         charges.fetch_add(1, Ordering::SeqCst);
//!         Ran::Happened(Reply::kept(201, "order confirmed, 7829"))
//!     });
//!     let wait = Duration::from_secs(5);
//!     let answer = engine.once(&request, &Policy::default(), wait, charge).await?;
//!     let (Answer::Reply(reply) | Answer::Replayed(reply)) = answer else { panic!() };
//!     assert_eq!(reply, Reply::kept(201, "order confirmed, 7829"));
//! }
//! assert_eq!(charges.load(Ordering::SeqCst), 1);
//! # Ok(())
//! # }
//! ```
//!
//! [`Store`]: onlyonce_store::Store

pub mod act;
mod clock;
mod death;
mod effect;
mod engine;
mod error;
mod inner;
mod lease;
mod notice;
mod observe;
mod operator;
mod probe;
mod remote;
mod restored;
mod runtime;
mod sweep;
mod ticket;
mod wait;
mod word;

/// The decisions: records, commands, outcomes.
pub use onlyonce_core as core;
/// The port to stores, and the store in memory.
pub use onlyonce_store as store;

pub use act::{Acted, Refingerprint};
pub use effect::{Answer, AtLeaseEnd, Attempt, Direct, Effect, Ran, Run, direct};
pub use engine::{Claimed, Engine, FLOOR_AGE_MAX, Request, Settings, Waited};
pub use error::{CLOCK_GAP_MAX, EngineError};
pub use lease::Lease;
pub use observe::{EngineEvent, NoObserver, Observer};
pub use probe::{InDoubt, Probed, Sealing};
pub use remote::Held;
pub use restored::Restored;
pub use runtime::{Runtime, Uptime};
pub use sweep::{Sweeper, Swept};
pub use ticket::Ticket;
