//! Asking the service inside about an outcome that nobody knows, when a retry meets one.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts as Head;
use http::{Request, Response};
use http_body::Body;
use onlyonce::core::{Key, KeyId, Outcome, Record, Remedy, Reply, Timestamp, Verdict};
use onlyonce::{Acted, EngineError};
use onlyonce_http::{Capture, Found, Probe};
use tower_service::Service;

use crate::BoxError;
use crate::body::RequestBody;
use crate::exchange::Exchange;
use crate::gather::{Gathered, gather};
use crate::layer::Shared;

/// How long the service may take to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What the service has said, and the reply if it happened.
struct Said {
    found: Found,
    status: u16,
    reply: Reply,
}

/// Whether this answer is one that the service is to be asked about now.
pub(crate) fn is_wanted(exchange: &Exchange, acted: &Acted) -> bool {
    let Shared { policy, engine, .. } = exchange.shared();
    let Some(record) = &acted.record else { return false };
    let remedy = policy.record.remedy_at(record.first_commit_at, engine.now());
    matches!(acted.outcome, Outcome::OutcomeUnknown { .. }) && remedy == Remedy::Probe
}

/// Asks about an unknown outcome, if the route says how, and settles it if the answer is certain.
/// `true` if the key is worth asking the store about again.
pub(crate) async fn settled<S, B, R>(
    inner: S,
    head: &Head,
    exchange: &Exchange,
    acted: &Acted,
) -> bool
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let Shared { policy, engine, .. } = exchange.shared();
    let (Some(record), Some(probe)) = (&acted.record, &policy.probe) else { return false };
    let id = exchange.asked.id;
    // One question a key at a time: others are told what is known until then.
    let Some(_asking) = Asking::begin(exchange.shared(), id) else { return false };
    if !is_to_be_believed(inner.clone(), head, exchange, probe).await {
        return false;
    }
    // The answer speaks of the moment of the question, however long it takes to come.
    let asked_at = engine.now();
    let Some(said) = ask(inner, head, exchange, probe, &exchange.request.key).await else {
        return false;
    };
    let written = Timestamp::from_millis(record.revision.get());
    let verdict = match said.found {
        Found::Happened => Verdict::Happened(said.reply),
        Found::Absent if policy.record.is_final(written, asked_at) => Verdict::NotExecuted,
        Found::Absent | Found::StillRunning | Found::CannotTell => return false,
    };
    match resolve(exchange, record, probe, verdict, said.status).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(key = %id, %error, "what the service said could not be recorded");
            false
        }
    }
}

async fn resolve(
    exchange: &Exchange,
    record: &Record,
    probe: &Probe,
    verdict: Verdict,
    status: u16,
) -> Result<Acted, EngineError> {
    let Shared { engine, policy, .. } = exchange.shared();
    let why = format!("GET {} answered {status}", probe.path);
    engine.resolve(exchange.asked.id, &policy.record, record.fence, verdict, "probe", &why).await
}

/// Whether the service says of a key that nobody has used that it did not happen. One that does
/// not would say anything of any key, such as a page for all that it does not know. Tried each
/// time: outcomes in doubt are rare, and services change.
async fn is_to_be_believed<S, B, R>(
    inner: S,
    head: &Head,
    exchange: &Exchange,
    probe: &Probe,
) -> bool
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let unused = Probe::unused_key(exchange.asked.id);
    let said = ask(inner, head, exchange, probe, &unused).await;
    let is_absent = said.as_ref().is_some_and(|said| said.found == Found::Absent);
    if !is_absent {
        let (path, status) = (&probe.path, said.map(|said| said.status));
        tracing::error!(path, status, "the probe does not say `absent` of a key never used");
    }
    is_absent
}

/// One question. `None` if there is no whole answer.
async fn ask<S, B, R>(
    mut inner: S,
    head: &Head,
    exchange: &Exchange,
    probe: &Probe,
    key: &Key,
) -> Option<Said>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    let policy = &exchange.shared().policy;
    let question = probe.question(head, key, &policy.key_names).ok()?;
    let question = question.map(|()| RequestBody::whole(Bytes::new(), None));
    let asked = async {
        poll_fn(|context| inner.poll_ready(context)).await.map_err(Into::into)?;
        let (head, body) = inner.call(question).await.map_err(Into::into)?.into_parts();
        let gathered = gather(pin!(body), exchange.reply_max()).await;
        Ok::<_, BoxError>((head, gathered))
    };
    let (head, gathered) = match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::warn!(key = %exchange.asked.id, %error, "the service could not be asked");
            return None;
        }
        Err(_) => return None,
    };
    let Gathered::Whole(whole) = gathered else { return None };
    let body = whole.joined();
    let found = probe.read(head.status, &head.headers, &body);
    let mut capture = Capture::on(policy, &head, exchange.reply_max());
    capture.push(&body);
    let reply = capture.finish(None);
    Some(Said { found, status: head.status.as_u16(), reply })
}

/// That a key is being asked about.
struct Asking<'a> {
    shared: &'a Shared,
    id: KeyId,
}

impl<'a> Asking<'a> {
    fn begin(shared: &'a Shared, id: KeyId) -> Option<Self> {
        let is_first = shared.asking.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_first.then_some(Self { shared, id })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.shared.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
