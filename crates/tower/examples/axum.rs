//! A booking API in axum whose POSTs run once per `Idempotency-Key`.
//!
//! `cargo run -p onlyonce-tower --example axum`, then twice:
//! `curl -i http://127.0.0.1:3000/bookings -H 'Idempotency-Key: "tap-1"' -d seat=12A`
//!
//! The second answer is the first one again, marked `Idempotent-Replayed: true`. The store here is
//! in memory: a service that must remember across restarts gives the engine a journal.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::StatusCode;
use onlyonce::core::Secret;
use onlyonce::store::MemoryStore;
use onlyonce::{Engine, Settings};
use onlyonce_http::{Keys, RoutePolicy};
use onlyonce_tokio::TokioRuntime;
use onlyonce_tower::OnceLayer;

type Bookings = Arc<AtomicU32>;

async fn book(State(bookings): State<Bookings>, seat: String) -> (StatusCode, String) {
    let number = bookings.fetch_add(1, Ordering::SeqCst) + 1;
    (StatusCode::CREATED, format!("booking {number}: {seat}\n"))
}

async fn count(State(bookings): State<Bookings>) -> String {
    format!("{}\n", bookings.load(Ordering::SeqCst))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, runtime) = (Arc::new(MemoryStore::new()), Arc::new(TokioRuntime::new()));
    let engine = Engine::start(store, runtime, Settings::default(), None).await?;
    // In earnest the secret is the store's own: with a new one no old record is found.
    let keys = Arc::new(Keys::new(Secret::from_bytes([7; 32])));
    let once = OnceLayer::new(engine, keys, Arc::new(RoutePolicy::default().check()?));

    let app = Router::new()
        .route("/bookings", post(book))
        .route("/bookings/count", get(count))
        .layer(once.clone())
        .with_state(Bookings::default());

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, app).with_graceful_shutdown(stopped()).await?;

    // Operations whose clients are gone still run: let them finish and be recorded.
    once.tasks().close();
    once.tasks().wait().await;
    Ok(())
}

async fn stopped() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
