//! What is to be done with a delivery, as the record of its key says. It knows no broker.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use onlyonce::store::StoreErrorKind;
use onlyonce::{Answer, Engine, EngineError, Ran, Request, Run};
use onlyonce_core::limits::FOREVER;
use onlyonce_core::{
    Key, KeyId, Outcome, Policy, Record, Remedy, Reply, Scope, ScopeError, Secret, State, Timestamp,
};

use crate::aside::{Aside, Why};
use crate::message::{KeyFrom, Message, MessageError, fingerprint, sent};

/// How far the time that a message carries may be ahead of ours.
pub const AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// The statuses of what did not happen: for now, and for good.
const LATER: u16 = 503;
const NEVER: u16 = 422;

/// It did not happen and no longer can; it is to be tried again later. `why` is for a person.
pub fn later(why: impl Into<String>) -> Ran {
    Ran::NotExecuted(Reply::kept(LATER, why.into()))
}

/// It did not happen and never will, such as a message that cannot be read: it is put aside at
/// once. `why` is for a person.
pub fn never(why: impl Into<String>) -> Ran {
    Ran::NotExecuted(Reply::kept(NEVER, why.into()))
}

/// Makes an effect of a message.
///
/// What it answers ([`Ran::Happened`]) is recorded, whatever it says, and the message is done with.
/// [`later`] and [`never()`] say that it did not happen. [`Ran::CannotTell`] says the rest.
pub trait Handler: Send + Sync + 'static {
    /// The effect.
    type Run: Run;

    /// The effect of this message. It is made for each delivery, and run once per key.
    fn effect(&self, message: &Arc<Message>) -> Self::Run;
}

impl<F, R> Handler for F
where
    F: Fn(&Arc<Message>) -> R + Send + Sync + 'static,
    R: Run,
{
    type Run = R;

    fn effect(&self, message: &Arc<Message>) -> R {
        self(message)
    }
}

/// How an inbox takes messages.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where keys stand. Default: the message id.
    pub key: KeyFrom,
    /// The header in which the sender says when it first sent the message, in milliseconds since
    /// 1970, the same in each copy. It counts for keys that carry no time themselves. Default none.
    pub sent: Option<String>,
    /// How long records live and what is done about unknown outcomes. Default: [`policy`].
    pub policy: Policy,
    /// How long a delivery waits for another one of the same message that is being carried out.
    /// Default 2 s.
    pub wait: Duration,
    /// After how many attempts that did not happen a message is put aside. Default 8.
    pub attempts_max: u32,
    /// How long the policy's remedy is tried on an unknown outcome before the message is put
    /// aside. Default 1 h.
    pub unknown_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            key: KeyFrom::Id,
            sent: None,
            policy: policy(),
            wait: Duration::from_secs(2),
            attempts_max: 8,
            unknown_max: Duration::from_secs(60 * 60),
        }
    }
}

/// The policy of messages: no key is ever forgotten, since somebody may hand in again what was put
/// aside long ago; an unknown outcome is held.
pub fn policy() -> Policy {
    Policy { remember: FOREVER, ..Policy::default() }
}

/// What is to be done with a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was answered, or sealed, and that is durable: acknowledge it.
    Done {
        /// What it was answered, now or earlier; without content where that is no longer kept.
        reply: Reply,
        /// Whether that was earlier.
        replayed: bool,
    },
    /// Not now: deliver it again after a pause.
    Later {
        /// How many pauses there were before; each is longer than the last.
        pauses: u32,
        /// The reason, for a person.
        why: String,
    },
    /// Nothing can be learnt from the store now. Whatever is delivered meanwhile meets the same.
    StoreAway {
        /// The reason, for a person.
        why: String,
    },
    /// It is not to be tried again by itself.
    Aside(Box<Aside>),
}

/// No message can be taken any more.
#[derive(Debug)]
pub enum InboxError {
    /// The store writes nothing any more.
    Store(EngineError),
}

impl fmt::Display for InboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "no message is taken any more: {error}"),
        }
    }
}

impl std::error::Error for InboxError {}

/// Takes the messages of one consumer. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Inbox {
    engine: Engine,
    secret: Secret,
    scope: Scope,
    settings: Arc<Settings>,
}

impl Inbox {
    /// An inbox of the consumer of this name: two consumers that are given the same message both
    /// run it. The secret is that of the engine's store.
    ///
    /// # Errors
    /// The name is longer than a scope may be.
    pub fn new(
        engine: Engine,
        secret: Secret,
        consumer: &str,
        settings: Settings,
    ) -> Result<Self, ScopeError> {
        let scope = Scope::new(format!("consumer/{consumer}"))?;
        Ok(Self { engine, secret, scope, settings: Arc::new(settings) })
    }

    /// What the record of a key is found by.
    pub fn id(&self, key: &Key) -> KeyId {
        self.secret.key_id(&self.scope, key)
    }

    /// The engine behind it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Says that the message with this key must never run, whether or not it has come: from then on
    /// it is answered with `reply`. [`Outcome::Done`] if it never will run; else what stands in the
    /// way, such as what it was answered.
    ///
    /// # Errors
    /// The store could not say; it may be repeated.
    pub async fn seal(
        &self,
        key: &Key,
        reply: Reply,
        by: &str,
        why: &str,
    ) -> Result<Outcome, EngineError> {
        let (id, time) = (self.id(key), key.uuid7_time());
        let policy = &self.settings.policy;
        Ok(self.engine.seal(id, policy, reply, time, by, why).await?.outcome)
    }

    /// Runs a message unless that was done before, and says what is to be done with the delivery.
    ///
    /// Dropping the future cancels nothing that runs.
    ///
    /// # Errors
    /// The store is gone for good. What was delivered must not be acknowledged.
    pub async fn take<H: Handler>(
        &self,
        message: Arc<Message>,
        handler: &H,
    ) -> Result<Settled, InboxError> {
        let request = match self.request(&message) {
            Ok(request) => request,
            Err(error) => return Ok(aside(Why::NoKey, error.to_string(), None, None)),
        };
        match self.run(&request, &message, handler).await {
            Ok(settled) => Ok(settled),
            Err(EngineError::Store(error)) if error.kind() == StoreErrorKind::Poisoned => {
                Err(InboxError::Store(EngineError::Store(error)))
            }
            Err(EngineError::Store(error)) if error.kind() == StoreErrorKind::Damaged => {
                Ok(aside(Why::Damaged, error.to_string(), Some(request.id), None))
            }
            Err(error) => Ok(Settled::StoreAway { why: error.to_string() }),
        }
    }

    fn request(&self, message: &Message) -> Result<Request, MessageError> {
        let key = self.settings.key.key(message)?;
        let own = key.uuid7_time();
        let header = self.settings.sent.as_deref().filter(|_| own.is_none());
        let sent = header.map(|header| sent(message, header)).transpose()?;
        let key_time = own.or(sent);
        if let Some(at) = key_time.filter(|at| self.engine.now().plus(AHEAD_MAX) < *at) {
            return Err(MessageError::Ahead { at });
        }
        let fingerprint = fingerprint(&self.secret, message, sent);
        Ok(Request { key_time, ..Request::new(self.id(&key), fingerprint) })
    }

    async fn run<H: Handler>(
        &self,
        request: &Request,
        message: &Arc<Message>,
        handler: &H,
    ) -> Result<Settled, EngineError> {
        let Settings { policy, wait, .. } = &*self.settings;
        // One that ends the process is never counted afterwards: it is looked at before.
        if message.redelivered
            && let Some(record) = self.engine.look(request, policy).await?.record
            && self.is_exhausted(&record)
        {
            return Ok(self.exhausted(request.id, record));
        }
        let Ok(effect) = catch_unwind(AssertUnwindSafe(|| handler.effect(message))) else {
            let text = "its handler panicked before anything was run";
            let record = self.engine.get(request.id).await?;
            return Ok(aside(Why::Never, text.into(), Some(request.id), record));
        };
        let answer = self.engine.once(request, policy, *wait, effect).await?;
        match answer {
            Answer::Reply(reply) => Ok(Settled::Done { reply, replayed: false }),
            Answer::Replayed(reply) => Ok(Settled::Done { reply, replayed: true }),
            Answer::NotExecuted(reply) => self.not_executed(request.id, &reply).await,
            // It is not durable, so it is not acknowledged. The record will say that nobody knows.
            Answer::Unrecorded(_) => Ok(not_now(0, "it happened, but that is not recorded")),
            Answer::Refused(outcome) => self.refused(request.id, outcome).await,
            other => Ok(not_now(0, &format!("not understood: {other:?}"))),
        }
    }

    async fn not_executed(&self, id: KeyId, reply: &Reply) -> Result<Settled, EngineError> {
        let record = self.engine.get(id).await?;
        let text = text(reply);
        if (400..500).contains(&reply.status()) {
            return Ok(aside(Why::Never, text, Some(id), record));
        }
        let attempts = record.as_ref().map_or(1, |record| record.attempt);
        match record {
            Some(record) if self.is_exhausted(&record) => Ok(self.exhausted(id, record)),
            Some(_) | None => Ok(not_now(attempts.saturating_sub(1), &text)),
        }
    }

    async fn refused(&self, id: KeyId, outcome: Outcome) -> Result<Settled, EngineError> {
        Ok(match outcome {
            Outcome::Gone { status, .. } => {
                Settled::Done { reply: Reply::not_kept(status), replayed: true }
            }
            Outcome::OutcomeUnknown { since, .. } => {
                self.unknown(id, since, self.engine.get(id).await?)
            }
            Outcome::Expired => {
                let text = "it is older than what the store remembers: it may have happened";
                aside(Why::Expired, text.into(), Some(id), self.engine.get(id).await?)
            }
            Outcome::Mismatch | Outcome::CredentialChanged => {
                let text = "its key was used for another message; this one was not run";
                aside(Why::Mismatch, text.into(), Some(id), self.engine.get(id).await?)
            }
            Outcome::InFlight { .. } => not_now(0, "it is being carried out"),
            Outcome::Granted(_)
            | Outcome::Replay { .. }
            | Outcome::Done
            | Outcome::Fenced
            | Outcome::InvalidFence
            | Outcome::SecondReply
            | Outcome::Absent => not_now(0, "another attempt was in the way"),
        })
    }

    fn unknown(&self, id: KeyId, since: Timestamp, record: Option<Record>) -> Settled {
        let now = self.engine.now();
        let Some(record) = record else { return not_now(0, "it was in doubt a moment ago") };
        let remedy = self.settings.policy.remedy_at(record.first_commit_at, now);
        let doubtful = now.since(since);
        match remedy {
            Remedy::RunAgain | Remedy::Seal | Remedy::Probe
                if doubtful < self.settings.unknown_max && !self.is_exhausted(&record) =>
            {
                // The longer the doubt, the longer the pause: 1 s, 4 s, 16 s, ...
                let pauses = doubtful.as_secs().max(1).ilog(4);
                not_now(pauses, "nobody knows whether it happened; the policy has a remedy")
            }
            Remedy::RunAgain | Remedy::Seal | Remedy::Probe | Remedy::Hold => {
                let text = "nobody knows whether it happened".into();
                aside(Why::Unknown, text, Some(id), Some(record))
            }
        }
    }

    fn is_exhausted(&self, record: &Record) -> bool {
        let may_run = match record.state {
            State::Released { .. } | State::Unknown(_) => true,
            State::InFlight(_) | State::Completed { .. } | State::Tombstone { .. } => false,
        };
        may_run && self.settings.attempts_max <= record.attempt
    }

    fn exhausted(&self, id: KeyId, record: Record) -> Settled {
        let text = format!("tried {} times", record.attempt);
        let why = match record.state {
            State::Unknown(_) => Why::Unknown,
            State::InFlight(_)
            | State::Released { .. }
            | State::Completed { .. }
            | State::Tombstone { .. } => Why::Exhausted,
        };
        aside(why, text, Some(id), Some(record))
    }
}

fn not_now(pauses: u32, why: &str) -> Settled {
    Settled::Later { pauses, why: why.to_owned() }
}

fn aside(why: Why, text: String, id: Option<KeyId>, record: Option<Record>) -> Settled {
    Settled::Aside(Box::new(Aside { why, text, id, record }))
}

fn text(reply: &Reply) -> String {
    let content = reply.content().map(|it| String::from_utf8_lossy(it).into_owned());
    content.unwrap_or_else(|| format!("answered with {}", reply.status()))
}
