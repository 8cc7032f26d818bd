//! A booking API in axum whose POSTs run once per `Idempotency-Key`.
//!
//! `cargo run -p onlyonce-tower --example axum`, then twice:
//! `curl -i http://127.0.0.1:3000/bookings -H 'Idempotency-Key: "tap-1"' -d seat=12A`
//!
//! The second answer is the first one again, marked `Idempotent-Replayed: true`, also after a
//! restart: records are in a journal, in the folder for temporary files. docs/tower.md says more.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::StatusCode;
use onlyonce::{Engine, Settings, Sweeper};
use onlyonce_http::{Keys, RoutePolicy};
use onlyonce_journal::{Journal, Start};
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
    // In earnest: made once by `onlyonce store init`, and opened with `Journal::open`, so that a
    // folder that is lost is noticed.
    let dir = std::env::temp_dir().join("onlyonce-bookings");
    let (journal, _) = Journal::open_or_create(&dir, Default::default(), Start::First)?;
    // With another secret no old record is found.
    let keys = Arc::new(Keys::new(journal.secret().clone()));
    let (store, runtime) = (Arc::new(journal), Arc::new(TokioRuntime::new()));
    let engine = Engine::start(store, runtime, Settings::default(), None).await?;
    let policy = RoutePolicy::default().check()?;
    // Ends what lapsed and forgets what is old; the longest `remember` of all policies counts.
    let sweeping = tokio::spawn(Sweeper::new(engine.clone(), policy.record).run());
    let once = OnceLayer::new(engine, keys, Arc::new(policy));

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
    sweeping.abort();
    Ok(())
}

async fn stopped() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
