//! The endpoints: from a document and its caller to a command of the engine, and back.

use std::time::Duration;

use bytes::Bytes;
use onlyonce::store::Filter;
use onlyonce::{Engine, Held, Request, Waited};
use onlyonce_core::{
    Evidence, Fence, Fingerprint, Key, KeyId, OnUnknown, Policy, Reply, Scope, Secret, Timestamp,
    Verdict,
};
use onlyonce_http::{Problem, ProblemKind};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::answers;
use crate::callers::Caller;
use crate::config::{Limits, ScopeRule};
use crate::endpoint::Endpoint;
use crate::quota::Quota;
use crate::reply;
use crate::wire::{self, Invalid, Number, ReplyGiven, ScopeName, Text, read};

/// The rule that fingerprints of the service are made by; those of HTTP requests have lower ones.
const FINGERPRINT: u8 = 16;
/// Records in a page unless it is said.
const PAGE: usize = 100;
/// How much later than its claim a holder may still name what it learnt, in bytes.
const KEY_MS: &str = "first_sent_ms";

/// A scope with what it has used up.
pub(crate) struct ScopeState {
    pub(crate) rule: ScopeRule,
    scope: Scope,
    claims: Option<Quota>,
    waits: Semaphore,
}

impl ScopeState {
    pub(crate) fn new(rule: ScopeRule) -> Self {
        let scope = Scope::new(rule.name.clone().into_bytes());
        let scope = scope.unwrap_or_else(|_| unreachable!("names are shorter than scopes"));
        let claims = rule.claims.map(|(rate, burst)| Quota::new(rate, burst));
        let waits = Semaphore::new(rule.waits.min(Semaphore::MAX_PERMITS));
        Self { rule, scope, claims, waits }
    }
}

/// What all endpoints work with.
pub(crate) struct Desk {
    pub(crate) engine: Engine,
    pub(crate) secret: Secret,
    /// Keys the fingerprints, so that a stolen store does not tell what was asked.
    pub(crate) fingerprints: [u8; 32],
    pub(crate) scopes: Vec<ScopeState>,
    pub(crate) limits: Limits,
    /// For records whose scope is not known.
    pub(crate) sweeping: Policy,
    /// Ends all waiting.
    pub(crate) stopping: CancellationToken,
}

/// An answer's document.
type Answered = Result<Bytes, Problem>;

impl Desk {
    /// Answers one request.
    pub(crate) async fn answer(
        &self,
        endpoint: Endpoint,
        caller: &Caller,
        body: &[u8],
    ) -> Answered {
        match endpoint {
            Endpoint::Claim => self.claim(caller, understood(body)?).await,
            Endpoint::Commit => {
                let wire::Commit { scope, key, fence, lease_ms } = understood(body)?;
                let scope = self.scope(caller, scope.as_ref(), false)?;
                let policy = leased(scope, lease_ms)?;
                let acted = self.held(scope, &key.0, policy, fence.fence()).commit().await;
                self.said(acted)
            }
            Endpoint::Renew => {
                let wire::Renew { scope, key, fence, lease_ms } = understood(body)?;
                let scope = self.scope(caller, scope.as_ref(), false)?;
                let policy = leased(scope, lease_ms)?;
                let acted = self.held(scope, &key.0, policy, fence.fence()).renew().await;
                self.said(acted)
            }
            Endpoint::Note => {
                let wire::Note { scope, key, fence, evidence } = understood(body)?;
                let scope = self.scope(caller, scope.as_ref(), false)?;
                let evidence = Evidence::new(evidence.0.into_bytes());
                let evidence = evidence
                    .ok_or_else(|| answers::invalid(Invalid::new("evidence", "it is too long")))?;
                let held = self.held(scope, &key.0, scope.rule.policy, fence.fence());
                let acted = held.note(evidence).await;
                self.said(acted)
            }
            Endpoint::Complete => self.complete(caller, understood(body)?).await,
            Endpoint::Release => {
                let wire::Release { scope, key, fence } = understood(body)?;
                let scope = self.scope(caller, scope.as_ref(), false)?;
                let held = self.held(scope, &key.0, scope.rule.policy, fence.fence());
                let acted = held.release().await;
                self.said(acted)
            }
            Endpoint::Abandon => {
                let wire::Abandon { scope, key, fence, cause } = understood(body)?;
                let scope = self.scope(caller, scope.as_ref(), false)?;
                let held = self.held(scope, &key.0, scope.rule.policy, fence.fence());
                let acted = held.abandon(cause.into()).await;
                self.said(acted)
            }
            Endpoint::Wait => self.wait(caller, understood(body)?).await,
            Endpoint::Get => self.get(caller, understood(body)?).await,
            Endpoint::List => self.list(understood(body)?).await,
            Endpoint::Resolve => self.resolve(caller, understood(body)?).await,
            Endpoint::Seal => self.seal(caller, understood(body)?).await,
            Endpoint::Erase => {
                let wire::Erase { scope, key, id, by, why } = understood(body)?;
                let (id, policy) = self.key_or_id(caller, scope.as_ref(), key.as_ref(), id)?;
                let by = signed(caller, by);
                self.said(self.engine.erase(id, &policy, &by, &why.0).await)
            }
        }
    }

    async fn claim(&self, caller: &Caller, asked: wire::Claim) -> Answered {
        let wire::Claim { scope, key, claim_id, fingerprint, phase, holder, .. } = asked;
        let scope = self.scope(caller, scope.as_ref(), false)?;
        let mut policy = leased(scope, asked.lease_ms)?;
        match asked.on_unknown.map(OnUnknown::from) {
            None => {}
            Some(OnUnknown::Retry) if !scope.rule.may_retry() => {
                let text = "this scope has on_unknown = \"hold\"";
                return Err(answers::invalid(Invalid::new("on_unknown", text)));
            }
            Some(choice) => policy.on_unknown = choice,
        }
        let request = self.request(scope, &key.0, &fingerprint.0, asked.first_sent_ms)?;
        let id = request.id;
        if scope.rule.timed && request.key_time.is_none() {
            let text = "The key carries no time: use a UUIDv7, or send first_sent_ms with it.";
            return Err(Problem::new(ProblemKind::KeyTimeInvalid).with_detail(text));
        }
        if let Some(Err(wait)) = scope.claims.as_ref().map(Quota::take) {
            let text = format!("Scope {:?} has no more claims at present.", scope.rule.name);
            let problem = Problem::new(ProblemKind::QuotaExceeded).with_detail(text);
            return Err(problem.with_retry_after(wait));
        }
        let acted = self.engine.claim_for(&request, &policy, phase.into(), claim_id.0).await;
        let acted = acted.map_err(|error| answers::failed(&error))?;
        let answer = answers::claim(&acted, self.engine.now())?;
        if let wire::ClaimAnswer::Granted { fence, attempt, .. } = &answer {
            let holder = holder.map(|it| it.0).unwrap_or_default();
            tracing::info!(key = %id, fence, attempt, holder, "claimed");
        }
        document(&answer)
    }

    async fn complete(&self, caller: &Caller, asked: wire::Complete) -> Answered {
        let wire::Complete { scope, key, fence, reply, retention_ms } = asked;
        let scope = self.scope(caller, scope.as_ref(), false)?;
        let reply = reply::kept(reply, scope.rule.reply_max).map_err(answers::invalid)?;
        let policy = retained(scope, retention_ms)?;
        let acted = self.held(scope, &key.0, policy, fence.fence()).complete(reply).await;
        self.said(acted)
    }

    async fn wait(&self, caller: &Caller, asked: wire::Wait) -> Answered {
        let wire::Wait { scope, key, fingerprint, first_sent_ms, wait_ms } = asked;
        let scope = self.scope(caller, scope.as_ref(), false)?;
        let request = self.request(scope, &key.0, &fingerprint.0, first_sent_ms)?;
        let Ok(_place) = scope.waits.try_acquire() else {
            let text = format!("Too many wait in scope {:?} at present.", scope.rule.name);
            let problem = Problem::new(ProblemKind::QuotaExceeded).with_detail(text);
            return Err(problem.with_retry_after(Duration::from_secs(1)));
        };
        let most = self.limits.wait_time;
        let limit = wait_ms.map_or(most, |it| it.duration().min(most));
        let waited = tokio::select! {
            waited = self.engine.wait(&request, &scope.rule.policy, limit) => waited,
            () = self.stopping.cancelled() => {
                let problem = Problem::new(ProblemKind::RequestInProgress);
                return Err(problem.with_retry_after(Duration::from_secs(1)));
            }
        };
        let acted = match waited.map_err(|error| answers::failed(&error))? {
            Waited::Ended { acted, .. } | Waited::StillRunning(acted) => acted,
        };
        document(&answers::wait(&acted, self.engine.now(), request.key_time)?)
    }

    async fn get(&self, caller: &Caller, asked: wire::Get) -> Answered {
        let wire::Get { scope, key, id } = asked;
        let (id, policy) = self.key_or_id(caller, scope.as_ref(), key.as_ref(), id)?;
        let found = self.engine.get(id).await.map_err(|error| answers::failed(&error.into()))?;
        let (named, now) = (key.is_some(), self.engine.now());
        let key_time = key.and_then(|key| key.0.uuid7_time());
        let record = found.ok_or_else(|| answers::absent(None, key_time))?;
        let mut view = answers::record(id, &record, &policy, now, true);
        // An id says nothing of its scope, whose policy it is.
        view.runs_again = answers::runs_again(&record, &policy, now).filter(|_| named);
        document(&view)
    }

    async fn list(&self, asked: wire::List) -> Answered {
        let wire::List { state, alarm, after, limit } = asked;
        let limit = limit.map_or(PAGE, |it| usize::try_from(it.0).unwrap_or(PAGE));
        let filter = Filter { state: state.map(Into::into), limit };
        let page = self.engine.list(filter, after.map(|it| it.0)).await;
        let page = page.map_err(|error| answers::failed(&error.into()))?;
        let now = self.engine.now();
        let records = page.records.iter().filter(|(_, record)| !alarm || record.has_alarm());
        let damaged = page.damaged.iter();
        document(&wire::ListAnswer {
            records: records
                .map(|(id, record)| answers::record(*id, record, &self.sweeping, now, false))
                .collect(),
            damaged: damaged
                .map(|(id, error)| wire::DamagedView { id: id.to_string(), why: error.to_string() })
                .collect(),
            next: page.next.as_ref().map(wire::PageMark::text),
        })
    }

    async fn resolve(&self, caller: &Caller, asked: wire::Resolve) -> Answered {
        let wire::Resolve { scope, key, id, fence, verdict, reply, retention_ms, by, why } = asked;
        let (id, mut policy) = self.key_or_id(caller, scope.as_ref(), key.as_ref(), id)?;
        if let Some(retention) = retention_ms {
            policy.retention = retention.duration();
            policy.remember = policy.remember.max(policy.retention);
        }
        let verdict = match (verdict, reply) {
            (wire::VerdictWord::Happened, reply) => {
                let most = self.engine.reply_max();
                let reply = reply.unwrap_or_else(ReplyGiven::default);
                Verdict::Happened(reply::kept(reply, most).map_err(answers::invalid)?)
            }
            (wire::VerdictWord::NotExecuted, None) => Verdict::NotExecuted,
            (wire::VerdictWord::RunAgain, None) => Verdict::RunAgain,
            (wire::VerdictWord::NotExecuted | wire::VerdictWord::RunAgain, Some(_)) => {
                let text = "only what happened has a reply";
                return Err(answers::invalid(Invalid::new("reply", text)));
            }
        };
        let by = signed(caller, by);
        let acted = self.engine.resolve(id, &policy, fence.fence(), verdict, &by, &why.0).await;
        self.said(acted)
    }

    async fn seal(&self, caller: &Caller, asked: wire::Seal) -> Answered {
        let wire::Seal { scope, key, first_sent_ms, by, why } = asked;
        let scope = self.scope(caller, scope.as_ref(), true)?;
        let (id, policy) = (self.secret.key_id(&scope.scope, &key.0), scope.rule.policy);
        let (key_time, _) = self.key_time(scope, &key.0, first_sent_ms)?;
        // Whoever comes later is told by a problem, which is made when it is told.
        let refusal = Reply::kept(410, Bytes::new());
        let by = signed(caller, by);
        let acted = self.engine.seal(id, &policy, refusal, key_time, &by, &why.0).await;
        let acted = acted.map_err(|error| answers::failed(&error))?;
        document(&answers::sealed(&acted, self.engine.now())?)
    }

    fn said(&self, acted: Result<onlyonce::Acted, onlyonce::EngineError>) -> Answered {
        let acted = acted.map_err(|error| answers::failed(&error))?;
        document(&answers::said(&acted, self.engine.now())?)
    }

    fn held(&self, scope: &ScopeState, key: &Key, policy: Policy, fence: Fence) -> Held<'_> {
        self.engine.held(self.secret.key_id(&scope.scope, key), policy, fence)
    }

    /// The scope that a request names, or the only one there is. Who may not use it is not told
    /// whether there is such a scope.
    fn scope(
        &self,
        caller: &Caller,
        named: Option<&ScopeName>,
        for_operators: bool,
    ) -> Result<&ScopeState, Problem> {
        let all = for_operators && caller.operator;
        let mut usable =
            self.scopes.iter().enumerate().filter(|(at, _)| all || caller.scopes.contains(at));
        let not_allowed = |text: String| Problem::new(ProblemKind::NotAllowed).with_detail(text);
        if let Some(ScopeName(name)) = named {
            let found = usable.find(|(_, scope)| scope.rule.name == *name);
            return found
                .map(|(_, scope)| scope)
                .ok_or_else(|| not_allowed(format!("The caller may not use a scope {name:?}.")));
        }
        match (usable.next(), usable.next()) {
            (Some((_, scope)), None) => Ok(scope),
            (Some(_), Some(_)) => {
                let text = "the caller has several scopes: name one";
                Err(answers::invalid(Invalid::new("scope", text)))
            }
            (None, _) => Err(not_allowed("The caller may use no scope.".to_owned())),
        }
    }

    /// The key that a request is about, by its name or by its id.
    fn key_or_id(
        &self,
        caller: &Caller,
        scope: Option<&ScopeName>,
        key: Option<&wire::KeyText>,
        id: Option<wire::Id>,
    ) -> Result<(KeyId, Policy), Problem> {
        match (key, id) {
            (Some(key), None) => {
                let scope = self.scope(caller, scope, true)?;
                Ok((self.secret.key_id(&scope.scope, &key.0), scope.rule.policy))
            }
            // An id says nothing of its scope.
            (None, Some(id)) if caller.operator => Ok((id.0, self.sweeping)),
            (None, Some(_)) => {
                let text = "Only operators ask by id.";
                Err(Problem::new(ProblemKind::NotAllowed).with_detail(text))
            }
            (None, None) | (Some(_), Some(_)) => {
                Err(answers::invalid(Invalid::new("key", "give key or id, one of them")))
            }
        }
    }

    fn request(
        &self,
        scope: &ScopeState,
        key: &Key,
        fingerprint: &str,
        first_sent: Option<Number<0, { wire::EXACT_MAX }>>,
    ) -> Result<Request, Problem> {
        let (key_time, beside) = self.key_time(scope, key, first_sent)?;
        let mut digest = blake3::Hasher::new_keyed(&self.fingerprints);
        digest.update(fingerprint.as_bytes());
        // What gives a key its time is part of the request: with another it is another one. No
        // text of a fingerprint ends like this, since it is no UTF-8.
        if let Some(at) = beside {
            digest.update(&[0xFF]).update(&at.as_millis().to_be_bytes());
        }
        let fingerprint = Fingerprint::new(FINGERPRINT, digest.finalize().into());
        let id = self.secret.key_id(&scope.scope, key);
        Ok(Request { key_time, ..Request::new(id, fingerprint) })
    }

    /// The time of a key: its own, else the one that was sent beside it; and the latter if it
    /// counts.
    fn key_time(
        &self,
        scope: &ScopeState,
        key: &Key,
        first_sent: Option<Number<0, { wire::EXACT_MAX }>>,
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
        let (own, sent) = (key.uuid7_time(), first_sent.map(Number::time));
        let beside = if own.is_none() { sent } else { None };
        let at = own.or(beside);
        let now = self.engine.now();
        match at {
            Some(at) if now.plus(scope.rule.key_ahead_max) < at => {
                let ahead = at.since(now).as_secs();
                let text = format!("The key's time is {ahead} s ahead of the service's clock.");
                let problem = Problem::new(ProblemKind::KeyTimeInvalid).with_detail(text);
                let field = if own.is_some() { "key" } else { KEY_MS };
                Err(problem.with_member("field", field))
            }
            Some(_) | None => Ok((at, beside)),
        }
    }
}

fn understood<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    read(body).map_err(answers::invalid)
}

fn document(answer: &impl Serialize) -> Answered {
    let text = serde_json::to_vec(answer);
    text.map(Bytes::from).map_err(|_| Problem::new(ProblemKind::RecordDamaged))
}

/// Who says it, for the history of a key: the caller, and the person that it names.
fn signed(caller: &Caller, by: Option<Text<0, 128>>) -> String {
    match by {
        Some(Text(by)) if !by.is_empty() => format!("{}: {by}", caller.name),
        Some(_) | None => caller.name.clone(),
    }
}

/// The scope's policy with the lease that was asked for.
fn leased<const MIN: u64, const MAX: u64>(
    scope: &ScopeState,
    lease: Option<Number<MIN, MAX>>,
) -> Result<Policy, Problem> {
    let ScopeRule { policy, lease_max, .. } = scope.rule;
    let Some(lease) = lease.map(Number::duration) else { return Ok(policy) };
    let wrong = |text: String| answers::invalid(Invalid::new("lease_ms", text));
    if lease_max < lease {
        return Err(wrong(format!("the scope's longest lease is {} ms", lease_max.as_millis())));
    }
    Policy { lease, ..policy }.check().map_err(|error| wrong(error.to_string()))
}

/// The scope's policy with the retention that was asked for.
fn retained<const MIN: u64, const MAX: u64>(
    scope: &ScopeState,
    retention: Option<Number<MIN, MAX>>,
) -> Result<Policy, Problem> {
    let ScopeRule { policy, retention_max, .. } = scope.rule;
    let Some(retention) = retention.map(Number::duration) else { return Ok(policy) };
    if retention_max < retention {
        let most = retention_max.as_millis();
        let text = format!("the scope's longest retention is {most} ms");
        return Err(answers::invalid(Invalid::new("retention_ms", text)));
    }
    Ok(Policy { retention, ..policy })
}
