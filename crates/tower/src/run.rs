//! Running an operation under its ticket, on a task that outlives the client.

use bytes::Bytes;
use http::response::Parts as Head;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use onlyonce::core::{Cause, Command, Fence, Next, Outcome, Record, Reply, decide};
use onlyonce::{Acted, EngineError, Ticket};
use onlyonce_failpoint::failpoint;
use onlyonce_http::headers::announce;
use onlyonce_http::{
    Capture, Ending, FailureKind, IdempotencyStatus, UpstreamFailure, answer, capture,
};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::BoxError;
use crate::body::{ResponseBody, Whole};
use crate::exchange::Exchange;
use crate::gather::{Gathered, gather};
use crate::relay;

/// An answer that fits is read whole before its head is sent, in bytes: then its head tells the
/// truth about whether it could be recorded.
const WHOLE_MAX: usize = 64 << 10;
/// An answer that is not recorded is read up to here to be shared with those who wait.
const SHARED_MAX: usize = 1 << 20;

/// To the one who asked, if they are still there.
pub(crate) type Tell<R> = oneshot::Sender<Response<ResponseBody<R>>>;

/// Runs the operation, records how it ended and tells the answer.
pub(crate) async fn run<S, Q, R>(
    mut inner: S,
    mut request: Request<Q>,
    mut ticket: Ticket,
    exchange: Exchange,
    tell: Tell<R>,
) where
    S: Service<Request<Q>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let policy = &exchange.shared().policy;
    // Nothing may be sent under a lease that is nearly over: another could already be claiming.
    if ticket.check_lease(policy.record.lease / 3).is_err() {
        let _ = ticket.release(false, None).await;
        let _ = tell.send(exchange.problem(&answer::store_unavailable(policy)));
        return;
    }
    announce(request.headers_mut(), ticket.attempt(), ticket.fence());
    request.extensions_mut().insert(ticket.lease());
    failpoint!("run.call.before", ticket);
    let calling = inner.call(request);
    let called = if exchange.shared().keeps_lease {
        Some(ticket.listen(calling).await)
    } else {
        ticket.hold(calling).await
    };
    failpoint!("run.call.after", ticket);
    // The connection to the service inside is not ours any more while its answer is read.
    drop(inner);
    let failure = match called {
        Some(Ok(answer)) => {
            let (head, body) = answer.into_parts();
            return ended(ticket, exchange, head, body, tell).await;
        }
        Some(Err(error)) => kind_of(&exchange, &error.into()),
        // What it would have begun later could have met a second run.
        None => {
            tracing::warn!(key = %exchange.asked.id, "cut off: its lease is over");
            FailureKind::TimedOut
        }
    };
    let _ = tell.send(failed(ticket, &exchange, failure).await);
}

/// The service inside has begun to answer.
async fn ended<R>(ticket: Ticket, exchange: Exchange, head: Head, body: R, tell: Tell<R>)
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let policy = &exchange.shared().policy;
    match policy.ending(head.status, &head.headers) {
        Ending::Complete => complete(ticket, exchange, head, body, tell).await,
        ending @ (Ending::Release { .. } | Ending::Abandon(_)) => {
            let _ = tell.send(refused(ticket, &exchange, head, body, ending).await);
        }
    }
}

/// How far the request got.
fn kind_of(exchange: &Exchange, error: &BoxError) -> FailureKind {
    // What we know nothing of may have happened.
    let kind = upstream_failure(&**error).map_or(FailureKind::SentAndLost, UpstreamFailure::kind);
    tracing::warn!(key = %exchange.asked.id, ?kind, error = %error, "no answer from the upstream");
    kind
}

/// The service inside gave no answer.
async fn failed<R>(
    ticket: Ticket,
    exchange: &Exchange,
    kind: FailureKind,
) -> Response<ResponseBody<R>> {
    let acted = match kind.ending() {
        Ending::Release { stranger } => {
            // Those who wait are told the same, so it must be said before it is recorded.
            let problem = exchange.failed(kind, released(&ticket, exchange).as_ref());
            let rendered = problem.render(&exchange.shared().policy.problem_base, None);
            let reply = capture::whole(&rendered.head, &rendered.body, false, SHARED_MAX);
            ticket.release(stranger, Some(reply)).await
        }
        Ending::Abandon(cause) => ticket.abandon(cause, None).await,
        // No failure to answer is an answer.
        Ending::Complete => ticket.abandon(Cause::ConnectionLost, None).await,
    };
    match acted {
        Ok(acted) if is_answered(&acted) => exchange.look().await,
        acted => exchange.problem(&exchange.failed(kind, record(&acted))),
    }
}

/// What a release will leave behind, if nobody else changes the record meanwhile.
fn released(ticket: &Ticket, exchange: &Exchange) -> Option<Record> {
    let shared = exchange.shared();
    let command = Command::Release { fence: ticket.fence(), stranger: false };
    let (now, policy) = (shared.engine.now(), &shared.policy.record);
    let floor = onlyonce::core::Floor::NONE;
    match decide(now, floor, policy, Some(ticket.record()), &command).next {
        Next::Write(record) => Some(record),
        Next::Keep | Next::Delete => None,
    }
}

/// The failure that the service inside has described, behind whatever wraps it.
fn upstream_failure<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a UpstreamFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = error.downcast_ref() {
            return Some(failure);
        }
        // An `io::Error` names as its source the source of what it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The answer says that nothing happened, or that nobody can tell: it is passed on, not kept.
async fn refused<R>(
    mut ticket: Ticket,
    exchange: &Exchange,
    mut head: Head,
    body: R,
    ending: Ending,
) -> Response<ResponseBody<R>>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let run = (ticket.attempt(), ticket.fence());
    let mut body = Box::pin(body);
    let gathered = ticket.listen(gather(body.as_mut(), SHARED_MAX)).await;
    let acted = match ending {
        Ending::Release { stranger } => {
            let reply = match &gathered {
                Gathered::Whole(whole) => {
                    Some(reply_of(Capture::new(&head, false, SHARED_MAX), whole))
                }
                Gathered::Over(_) | Gathered::Cut(..) => None,
            };
            ticket.release(stranger, reply).await
        }
        Ending::Abandon(cause) => ticket.abandon(cause, None).await,
        Ending::Complete => ticket.abandon(Cause::Abandoned, None).await,
    };
    if let Ok(acted) = &acted
        && is_answered(acted)
    {
        return exchange.look().await;
    }
    let says = match ending {
        Ending::Release { .. } => IdempotencyStatus::after_nothing_happened(record(&acted)),
        Ending::Abandon(_) | Ending::Complete => IdempotencyStatus::Unknown,
    };
    exchange.mark(&mut head, says, Some(run));
    let body = match gathered {
        Gathered::Whole(whole) => ResponseBody::resumed(whole, None, None),
        Gathered::Over(read) => ResponseBody::resumed(read, None, Some(body)),
        Gathered::Cut(read, error) => ResponseBody::resumed(read, Some(error), None),
    };
    Response::from_parts(head, body)
}

/// The answer is definite: it is recorded, and nobody sees all of it before that.
async fn complete<R>(mut ticket: Ticket, exchange: Exchange, head: Head, body: R, tell: Tell<R>)
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let run = (ticket.attempt(), ticket.fence());
    if is_event_stream(&head) {
        // Its head is all there is to answer: the stream may go on for ever.
        let reply = Reply::not_kept(head.status.as_u16());
        let acted = ticket.complete(reply).await;
        let first = First { exchange: &exchange, run };
        let _ = tell.send(first.answer(acted, head, ResponseBody::passed(body)).await);
        return;
    }
    if !is_small(&head, &body) {
        return relay::relay(ticket, exchange, head, body, tell).await;
    }
    let mut body = Box::pin(body);
    let answer = match ticket.listen(gather(body.as_mut(), WHOLE_MAX)).await {
        Gathered::Whole(whole) => {
            let capture = Capture::on(&exchange.shared().policy, &head, exchange.reply_max());
            let reply = reply_of(capture, &whole);
            let acted = ticket.complete(reply).await;
            let first = First { exchange: &exchange, run };
            first.answer(acted, head, ResponseBody::whole(whole)).await
        }
        // It broke its own promise about its length, and nobody knows what it would have said.
        Gathered::Over(_) | Gathered::Cut(..) => cut(ticket, &exchange).await,
    };
    let _ = tell.send(answer);
}

/// The answer broke off.
pub(crate) async fn cut<R>(ticket: Ticket, exchange: &Exchange) -> Response<ResponseBody<R>> {
    match ticket.abandon(Cause::AnswerCut, None).await {
        Ok(acted) if is_answered(&acted) => exchange.look().await,
        acted => exchange.problem(&exchange.failed(FailureKind::AnswerCut, record(&acted))),
    }
}

/// The first answer, once its recording has succeeded or failed.
struct First<'a> {
    exchange: &'a Exchange,
    run: (u32, Fence),
}

impl First<'_> {
    async fn answer<R>(
        &self,
        acted: Result<Acted, EngineError>,
        mut head: Head,
        body: ResponseBody<R>,
    ) -> Response<ResponseBody<R>> {
        let says = match acted {
            Ok(Acted { outcome: Outcome::Done, .. }) => IdempotencyStatus::Executed,
            // Somebody else's answer stands under this key, and it must stay the only one.
            Ok(_) => return self.exchange.look().await,
            Err(_) => IdempotencyStatus::Unrecorded,
        };
        self.exchange.mark(&mut head, says, Some(self.run));
        Response::from_parts(head, body)
    }
}

/// Whether somebody else has recorded an answer meanwhile.
fn is_answered(acted: &Acted) -> bool {
    use onlyonce::core::State;
    match acted.record.as_ref().map(|record| &record.state) {
        Some(State::Completed { .. } | State::Tombstone { .. }) => true,
        Some(State::InFlight(_) | State::Released { .. } | State::Unknown(_)) | None => false,
    }
}

fn record(acted: &Result<Acted, EngineError>) -> Option<&Record> {
    acted.as_ref().ok().and_then(|acted| acted.record.as_ref())
}

fn reply_of(mut capture: Capture, whole: &Whole) -> Reply {
    whole.data.iter().for_each(|it| capture.push(it));
    capture.finish(whole.trailers.as_ref())
}

fn is_event_stream(head: &Head) -> bool {
    let media_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether all of an answer is sure to come at once and to fit.
fn is_small<R: Body>(head: &Head, body: &R) -> bool {
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
    let length = body.size_hint().exact();
    bodiless || body.is_end_stream() || length.is_some_and(|it| it <= WHOLE_MAX as u64)
}
