//! Where the shop calls an order off, whether or not the order has come by then.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use onlyonce_consume::Inbox;
use onlyonce_core::{Key, Outcome, Reply};
use tokio::net::TcpListener;

/// The answer to an order that was called off.
const CANCELLED: u16 = 410;

pub(crate) async fn serve(listener: TcpListener, inbox: Inbox) {
    let router = Router::new().route("/orders/{number}/cancel", post(cancel)).with_state(inbox);
    let _ = axum::serve(listener, router).await;
}

/// 200: it never ships. 409: it was answered before. 503: ask again.
async fn cancel(State(inbox): State<Inbox>, Path(number): Path<String>) -> (StatusCode, String) {
    let key = match Key::new(number) {
        Ok(key) => key,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let refusal = Reply::kept(CANCELLED, "cancelled");
    let cancelled = (StatusCode::OK, "it never ships".to_owned());
    match inbox.seal(&key, refusal, "shop", "the customer has called it off").await {
        Ok(
            Outcome::Done
            | Outcome::Replay { sealed: true, .. }
            | Outcome::Gone { sealed: true, .. },
        ) => cancelled,
        Ok(Outcome::Replay { .. } | Outcome::Gone { .. }) => {
            (StatusCode::CONFLICT, "it was answered before".to_owned())
        }
        // It is being carried out, or nobody knows yet: that will be known.
        Ok(
            Outcome::Granted(_)
            | Outcome::InFlight { .. }
            | Outcome::Mismatch
            | Outcome::CredentialChanged
            | Outcome::OutcomeUnknown { .. }
            | Outcome::Expired
            | Outcome::Fenced
            | Outcome::InvalidFence
            | Outcome::SecondReply
            | Outcome::Absent,
        ) => (StatusCode::SERVICE_UNAVAILABLE, "ask again".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}
