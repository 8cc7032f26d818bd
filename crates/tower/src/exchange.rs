//! One request's side of things: who asked, with what, and how they are answered.

use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;
use http::response::Parts as Head;
use http::{HeaderMap, Response};
use onlyonce::core::{Cause, Fence, Key, KeyId, Record, Reply, Timestamp};
use onlyonce::store::StoreErrorKind;
use onlyonce::{Acted, EngineError, Request};
use onlyonce_http::answer::{self, Answer};
use onlyonce_http::{
    FailureKind, IdempotencyStatus, Problem, ProblemKind, Protected, Rendered, cors, render,
};

use crate::body::{ResponseBody, Whole};
use crate::layer::Shared;
use crate::room::Held;

/// What was found out about a request with a key, in the extensions of its answer: for logs and
/// metrics of the server around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// How far it got.
    pub status: IdempotencyStatus,
    /// What its record is found by; safe to be logged, unlike the key.
    pub key_id: Option<KeyId>,
    /// Which attempt this is, from 1, if it ran.
    pub attempt: Option<u32>,
    /// The fence of its claim, if it ran.
    pub fence: Option<Fence>,
    /// What was wrong, if the answer is one of ours.
    pub problem: Option<ProblemKind>,
    /// How long before this request the first attempt with its key began, if there was one: tells
    /// by whose time-out it came again.
    pub age: Option<Duration>,
    /// The request came without any credential, so that its key is one with all such callers.
    pub anonymous: bool,
}

/// Whoever sent a request, as far as answers depend on it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) shared: Arc<Shared>,
    /// Nothing but `Origin`, if the request had it.
    origin: HeaderMap,
    key: Option<Key>,
    key_id: Option<KeyId>,
    age: Option<Duration>,
    anonymous: bool,
}

impl Caller {
    /// Whoever sent a request with these headers. `key` is echoed.
    pub(crate) fn new(shared: Arc<Shared>, headers: &HeaderMap, key: Option<Key>) -> Self {
        let origin = headers.get(ORIGIN).map(|it| (ORIGIN, it.clone())).into_iter().collect();
        Self { shared, origin, key, key_id: None, age: None, anonymous: false }
    }

    /// Whoever sent a request that is protected.
    pub(crate) fn of(shared: Arc<Shared>, headers: &HeaderMap, request: &Protected) -> Self {
        let (key_id, anonymous) = (Some(request.key_id), request.anonymous);
        Self { key_id, anonymous, ..Self::new(shared, headers, Some(request.key.clone())) }
    }

    /// The same, of whom is known when the first attempt began.
    fn after(&self, record: Option<&Record>, now: Timestamp) -> Self {
        let began = record.map(|record| Timestamp::from_millis(record.first_fence.get()));
        Self { age: began.map(|it| now.since(it)), ..self.clone() }
    }

    /// Answers with a problem.
    pub(crate) fn problem<R>(&self, problem: &Problem) -> Response<ResponseBody<R>> {
        let rendered = problem.render(&self.shared.policy.problem_base, self.key.as_ref());
        self.send(rendered, problem.says(), Some(problem.kind()))
    }

    /// Answers with something that is whole in memory and made here.
    fn send<R>(
        &self,
        Rendered { mut head, body, trailers }: Rendered,
        status: IdempotencyStatus,
        problem: Option<ProblemKind>,
    ) -> Response<ResponseBody<R>> {
        self.shared.policy.cors.apply(&self.origin, &mut head.headers);
        head.extensions.insert(Evaluated { problem, ..self.evaluated(status) });
        Response::from_parts(head, ResponseBody::whole(Whole::new(body, trailers)))
    }

    fn evaluated(&self, status: IdempotencyStatus) -> Evaluated {
        let Self { key_id, age, anonymous, .. } = *self;
        Evaluated { status, key_id, attempt: None, fence: None, problem: None, age, anonymous }
    }
}

/// Whether the store knows of the key and cannot read what: running it could be a second time.
pub(crate) fn is_damaged(error: &EngineError) -> bool {
    matches!(error, EngineError::Store(error) if error.kind() == StoreErrorKind::Damaged)
}

/// A request that is protected, and what is claimed for it.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) caller: Caller,
    pub(crate) request: Protected,
    pub(crate) asked: Request,
    /// The memory of the request's body.
    #[allow(dead_code, reason = "held, never read")]
    pub(crate) held: Held,
}

impl Exchange {
    pub(crate) fn shared(&self) -> &Shared {
        &self.caller.shared
    }

    fn now(&self) -> Timestamp {
        self.shared().engine.now()
    }

    pub(crate) fn problem<R>(&self, problem: &Problem) -> Response<ResponseBody<R>> {
        self.caller.problem(problem)
    }

    /// The largest reply that is kept, in bytes.
    pub(crate) fn reply_max(&self) -> usize {
        self.shared().policy.reply_max.min(self.shared().engine.reply_max())
    }

    /// Says what is recorded now, for a holder whose own answer is not what counts.
    pub(crate) async fn look<R>(&self) -> Response<ResponseBody<R>> {
        let Shared { engine, policy, .. } = self.shared();
        match engine.look(&self.asked, &policy.record).await {
            Ok(acted) => self.answer(&acted),
            Err(error) => self.refused(&error),
        }
    }

    /// The store could not say, so nothing is run.
    pub(crate) fn refused<R>(&self, error: &EngineError) -> Response<ResponseBody<R>> {
        tracing::warn!(key = %self.asked.id, %error, "refused: the store cannot say");
        if is_damaged(error) {
            return self.problem(&Problem::new(ProblemKind::RecordDamaged));
        }
        self.problem(&answer::store_unavailable(&self.shared().policy))
    }

    /// Says what the store has said.
    pub(crate) fn answer<R>(&self, acted: &Acted) -> Response<ResponseBody<R>> {
        let policy = &self.shared().policy;
        let (record, now) = (acted.record.as_ref(), self.now());
        match answer::answer(&acted.outcome, record, &self.request, policy, now) {
            Answer::Replay(rendered) => self.replay(rendered, record),
            Answer::Problem(problem) => self.caller.after(record, now).problem(&problem),
            Answer::Damaged(problem, error) => {
                tracing::error!(key = %self.asked.id, %error, "a kept answer cannot be read");
                self.problem(&problem)
            }
            // Only a ticket may run it, and whoever asks here has none.
            Answer::Run(_) => self.problem(&answer::store_unavailable(policy)),
        }
    }

    fn replay<R>(&self, rendered: Rendered, record: Option<&Record>) -> Response<ResponseBody<R>> {
        let sealed = !rendered.head.headers.contains_key(onlyonce_http::headers::REPLAYED);
        let status = if sealed { IdempotencyStatus::Sealed } else { IdempotencyStatus::Replayed };
        self.caller.after(record, self.now()).send(rendered, status, None)
    }

    /// What the caller that was waited for was answered, although nothing of it is recorded.
    pub(crate) fn share<R>(&self, reply: &Reply, acted: &Acted) -> Response<ResponseBody<R>> {
        let record = acted.record.as_ref();
        match answer::shared(reply, record, &self.request, self.now()) {
            Ok(Some(rendered)) => {
                let says = IdempotencyStatus::after_nothing_happened(record);
                self.caller.send(rendered, says, None)
            }
            Ok(None) | Err(_) => self.answer(acted),
        }
    }

    /// The upstream gave no answer.
    pub(crate) fn failed(&self, kind: FailureKind, record: Option<&Record>) -> Problem {
        answer::failed(kind, record, &self.shared().policy.record, self.now())
    }

    /// The task that ran the operation is gone, and nobody can tell how far it got.
    pub(crate) fn lost<R>(&self) -> Response<ResponseBody<R>> {
        self.problem(
            &self
                .failed(FailureKind::SentAndLost, None)
                .with_member("cause", Cause::Abandoned.name()),
        )
    }

    /// Marks an answer of the service inside as the first one.
    pub(crate) fn mark(
        &self,
        head: &mut Head,
        status: IdempotencyStatus,
        run: Option<(u32, Fence)>,
    ) {
        let expires = run
            .filter(|_| status == IdempotencyStatus::Executed)
            .map(|(_, fence)| render::expires(fence, &self.shared().policy.record, None));
        render::mark(&mut head.headers, status, Some(&self.request.key), expires);
        cors::expose(&mut head.headers);
        let (attempt, fence) = run.unzip();
        head.extensions.insert(Evaluated { attempt, fence, ..self.caller.evaluated(status) });
    }
}
