//! What HTTP means for an idempotency key.
//!
//! This crate does no I/O, waits for nothing, reads no clock and knows no runtime and no store.
//! A front door (the middleware, the proxy) asks it in this order and has no rules of its own:
//!
//! 1. [`intake::read`]: pass the request on, refuse it, or protect it;
//! 2. [`fingerprint::Likeness`]: what the request must look like, once its body is read;
//! 3. [`answer::answer`]: what the outcome of the claim means for the one who asked;
//! 4. [`classify::classify`]: what the upstream's answer says about the operation;
//! 5. [`capture::Capture`]: what is kept of that answer, and [`render::mark`]: what it says.
//!
//! All choices of a route are one value, [`route::RoutePolicy`]. `docs/http.md` tells what callers
//! see, `docs/problems.md` every answer that is made here.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use onlyonce_core::{Outcome, Secret, Timestamp};
//! use onlyonce_http::{Answer, Intake, Keys, Likeness, RoutePolicy, answer, capture, intake};
//!
//! let keys = Keys::new(Secret::from_bytes([7; 32])); // From the store's secret in earnest.
//! let policy = RoutePolicy::default().check()?;
//! let now = Timestamp::from_millis(1_764_000_000_000);
//!
//! let request = Request::post("/orders").header("idempotency-key", "order-7829").body(())?;
//! let (head, ()) = request.into_parts();
//! let Intake::Protect(request) = intake::read(&head, None, &policy, &keys, now) else { panic!() };
//! let body = Bytes::from_static(b"{}");
//! let likeness = Likeness::new(&head, body, &policy.fingerprint, request.first_sent);
//! let _fingerprint = likeness.fingerprint(&keys); // The claim is made with it and with key_id.
//!
//! // The first caller's answer is kept ...
//! let (head, body) = Response::builder().status(201).body("order confirmed")?.into_parts();
//! let reply = capture::whole(&head, body.as_bytes(), policy.set_cookie, policy.reply_max);
//!
//! // ... and the next one gets it again.
//! let outcome = Outcome::Replay { reply, answered_at: now, sealed: false };
//! let told = answer::answer(&outcome, None, &request, &policy, now);
//! let Answer::Replay(again) = told else { panic!() };
//! assert_eq!(again.head.status, 201);
//! assert_eq!(again.head.headers["idempotent-replayed"], "true");
//! assert_eq!(again.body, "order confirmed");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod answer;
pub mod capture;
pub mod classify;
pub mod content;
pub mod cors;
pub mod date;
mod digest;
pub mod fingerprint;
pub mod headers;
pub mod intake;
pub mod key;
pub mod probe;
pub mod problem;
pub mod redact;
pub mod render;
pub mod route;
pub mod scope;
pub mod status;
pub mod well_known;

pub use answer::Answer;
pub use capture::Capture;
pub use classify::{ClassifyRules, Ending, FailureKind, UpstreamFailure, classify};
pub use digest::Keys;
pub use fingerprint::{BodyRule, FingerprintRule, Likeness};
pub use intake::{Bypass, Intake, Protected};
pub use probe::{Absent, Found, Probe};
pub use problem::{Happened, Problem, ProblemKind};
pub use redact::Redact;
pub use render::Rendered;
pub use route::{OnStoreError, RoutePolicy};
pub use scope::ScopeRule;
pub use status::IdempotencyStatus;
