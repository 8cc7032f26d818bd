//! The onlyonce middleware: requests with an idempotency key run once, in axum, hyper or any
//! other service of tower.
//!
//! A keyed request is read whole, claimed and run on a task of its own: a client that goes away
//! cancels nothing. Its answer streams to the client while it is collected, but the last frame is
//! held back until the record is durable, so nobody sees a whole answer that could be forgotten.
//! A retry gets the kept answer; one that comes while the first still runs waits for it.
//!
//! All rules about keys are in `onlyonce-http`; this crate only carries them out. Requests
//! without a key pass through untouched. `docs/tower.md` says what a program needs beside this.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::{Router, routing::post};
//! use onlyonce::{Engine, Settings, core::Secret, store::MemoryStore};
//! use onlyonce_http::{Keys, RoutePolicy};
//! use onlyonce_tokio::TokioRuntime;
//! use onlyonce_tower::OnceLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A journal in earnest, its secret and a sweeper: see the example `axum`.
//! let (store, runtime) = (Arc::new(MemoryStore::new()), Arc::new(TokioRuntime::new()));
//! let engine = Engine::start(store, runtime, Settings::default(), None).await?;
//! let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32]))); // In earnest the store's.
//! let policy = Arc::new(RoutePolicy::default().check()?);
//!
//! let orders = post(|| async { (http::StatusCode::CREATED, "order confirmed, 7829") });
//! let app: Router =
//!     Router::new().route("/orders", orders).layer(OnceLayer::new(engine, keys, policy));
//! # drop(app);
//! # Ok(())
//! # }
//! ```

mod body;
mod exchange;
mod gather;
mod layer;
mod probe;
mod relay;
mod room;
mod run;

pub use body::{RequestBody, ResponseBody};
pub use exchange::Evaluated;
pub use layer::{ClientCertificate, Once, OnceLayer};
pub use room::Room;

/// An error of any kind.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
