//! Sending an answer on while it is collected, with its last frame held back until the record
//! is durable.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts as Head;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use onlyonce::core::{Cause, Outcome};
use onlyonce::{Acted, Ticket};
use onlyonce_failpoint::failpoint;
use onlyonce_http::{Capture, IdempotencyStatus};
use tokio::sync::mpsc;

use crate::BoxError;
use crate::body::{Piece, ResponseBody};
use crate::exchange::Exchange;
use crate::gather::{add_trailers, frame};
use crate::run::{Tell, cut};

/// A client that takes nothing for this long is left behind: the operation must be recorded
/// before its holder is given up on.
const CLIENT_WAIT: Duration = Duration::from_secs(30);
/// How many frames may be on their way to the client. The upstream waits for the slower side.
const FRAMES: usize = 2;

/// Streams a definite answer and records it.
///
/// A client that goes away or stalls is left behind; the answer is read to its end all the same.
pub(crate) async fn relay<R>(
    mut ticket: Ticket,
    exchange: Exchange,
    mut head: Head,
    body: R,
    tell: Tell<R>,
) where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let policy = &exchange.shared().policy;
    let mut capture = Capture::on(policy, &head, exchange.reply_max());
    let mut body = pin!(body);
    let run = (ticket.attempt(), ticket.fence());
    exchange.mark(&mut head, IdempotencyStatus::Executed, Some(run));
    let (client, pieces) = mpsc::channel(FRAMES);
    let mut client = Client(Some(client));
    // The head waits for the first frame, so that an answer cut before it says so in its status.
    let first = ticket.listen(next(&mut body)).await;
    let answer = Response::from_parts(head, ResponseBody::relayed(pieces));
    if let Next::Cut = first {
        let _ = tell.send(cut(ticket, &exchange).await);
        return;
    }
    let _ = tell.send(answer);
    let streamed = stream(first, &mut body, &mut capture, &mut client);
    let Some((held, trailers)) = ticket.listen(streamed).await else {
        // Without its end the client sees the answer break off, as it did.
        let _ = ticket.abandon(Cause::AnswerCut, None).await;
        return;
    };
    match ticket.complete(capture.finish(trailers.as_ref())).await {
        // Another answer stands under this key: this one must not become a second truth.
        Ok(Acted { outcome, .. }) if outcome != Outcome::Done => return,
        // If it could not be recorded, it is still what happened.
        Ok(_) | Err(_) => {}
    }
    if let Some(data) = held {
        client.send(Frame::data(data)).await;
    }
    if let Some(trailers) = trailers {
        client.send(Frame::trailers(trailers)).await;
    }
    client.end().await;
}

/// Sends on all data but the last, and returns that and the trailers; `None` if it was cut.
async fn stream<R>(
    first: Next,
    body: &mut Pin<&mut R>,
    capture: &mut Capture,
    client: &mut Client,
) -> Option<(Option<Bytes>, Option<HeaderMap>)>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let mut held = None;
    let mut next_one = first;
    loop {
        let data = match next_one {
            Next::Data(data) => data,
            Next::End(trailers) => return Some((held, trailers)),
            Next::Cut => return None,
        };
        capture.push(&data);
        failpoint!("relay.hold.before", data);
        let earlier = held.replace(data);
        failpoint!("relay.hold.after", held);
        if let Some(earlier) = earlier {
            client.send(Frame::data(earlier)).await;
        }
        next_one = next(body).await;
    }
}

/// What comes next of a body.
enum Next {
    /// Bytes, never none: an empty last frame would give the answer away before it is recorded.
    Data(Bytes),
    /// Nothing any more.
    End(Option<HeaderMap>),
    /// An error.
    Cut,
}

async fn next<R>(body: &mut Pin<&mut R>) -> Next
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let mut trailers = None;
    loop {
        match frame(body).await {
            None => return Next::End(trailers),
            Some(Err(_)) => return Next::Cut,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Next::Data(data),
                Err(frame) => add_trailers(&mut trailers, frame),
            },
        }
    }
}

/// The client's end, until it is left behind.
struct Client(Option<mpsc::Sender<Piece>>);

impl Client {
    async fn send(&mut self, frame: Frame<Bytes>) {
        self.piece(Piece::Frame(frame)).await;
    }

    async fn end(&mut self) {
        self.piece(Piece::End).await;
    }

    async fn piece(&mut self, piece: Piece) {
        let Some(client) = &self.0 else { return };
        let sent = tokio::time::timeout(CLIENT_WAIT, client.send(piece)).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.0 = None;
        }
    }
}
