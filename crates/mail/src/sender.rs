//! Takes what waits in the spool and sends it, several at once.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::store::StoreErrorKind;
use onlyonce::{Answer, Engine, EngineError, Request};
use onlyonce_core::{KeyId, Outcome, Reply, Scope, ScopeError, Secret, Timestamp};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::kinds::{Class, Destination, Kinds, flows};
use crate::lanes::{Flow, Lane, Lanes, Limits};
use crate::letter::{Bounds, Letter, Route};
use crate::message::Message;
use crate::rules::Rules;
use crate::spool::{Shelf, Spool, SpoolError};

/// Whom the keys of messages belong to.
const SCOPE: &str = "mail";
/// How often the queue is looked at for new messages.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How fast messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many are on their way at once. Default 4.
    pub workers: usize,
    /// How many of these go to recipients of one domain at most. Default all of them.
    pub per_domain: usize,
    /// The time from one message to the next, in whole milliseconds. Default none.
    pub apart: Duration,
    /// The same, of messages to recipients of one domain. Default none.
    pub apart_there: Duration,
    /// The pause after the first attempt that did not happen; twice as long after each further
    /// one. Default 30 s.
    pub first: Duration,
    /// The longest pause. Default 1 h.
    pub most: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let (first, most) = (Duration::from_secs(30), Duration::from_secs(60 * 60));
        let (apart, apart_there) = (Duration::ZERO, Duration::ZERO);
        Self { workers: 4, per_domain: usize::MAX, apart, apart_there, first, most }
    }
}

impl Pace {
    /// The pause after so many attempts, from 1. It is shortened by up to a half, by a number that
    /// differs from message to message, so that they do not all come back at once.
    fn pause(&self, attempts: u32, name: &str) -> Duration {
        let doubled = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.first.saturating_mul(doubled).min(self.most);
        let spread =
            name.bytes().fold(attempts, |sum, it| sum.wrapping_mul(31).wrapping_add(u32::from(it)));
        pause.mul_f64(1.0 - f64::from(spread % 1_000) / 2_000.0)
    }
}

/// What became of a message at one attempt. The text is for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// The server has it.
    Sent(String),
    /// It was refused for good.
    Refused(String),
    /// Nobody knows whether the server has it. It is not sent again by itself.
    Unknown(String),
    /// It was certainly not taken, and is tried again later.
    Waiting(String),
}

/// Nothing more can be sent.
#[derive(Debug)]
pub enum SenderError {
    /// The spool cannot be read or written.
    Spool(SpoolError),
    /// The store writes nothing any more.
    Store(EngineError),
}

/// How often a message was tried, and when it may be tried again.
type Later = (u32, Timestamp);

/// Sends what waits. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Sender {
    engine: Engine,
    secret: Secret,
    scope: Scope,
    spool: Spool,
    route: Arc<Route>,
    pace: Pace,
    kinds: Arc<Kinds>,
    destinations: Arc<[Destination]>,
}

impl Sender {
    /// A sender for this spool, with the usual [`Rules`]. The secret is that of the engine's store.
    ///
    /// # Errors
    /// The scope's name is none. It is a constant, and the tests have seen that it is one.
    pub fn new(
        engine: Engine,
        secret: Secret,
        spool: Spool,
        route: Arc<Route>,
        pace: Pace,
    ) -> Result<Self, ScopeError> {
        let scope = Scope::new(SCOPE)?;
        let (kinds, destinations) = (Kinds::new(Rules::default(), Vec::new(), &[]), Vec::new());
        let (kinds, destinations) = (Arc::new(kinds), destinations.into());
        Ok(Self { engine, secret, scope, spool, route, pace, kinds, destinations })
    }

    /// The same by other rules.
    pub fn by(self, rules: Rules) -> Self {
        self.by_kind(rules, Vec::new(), Vec::new())
    }

    /// The same by the rules of each class, and by these for messages of no class. The domains of
    /// a destination have its limits in place of those of [`Pace`].
    pub fn by_kind(self, usual: Rules, classes: Vec<Class>, to: Vec<Destination>) -> Self {
        let kinds = Arc::new(Kinds::new(usual, classes, &to));
        Self { kinds, destinations: to.into(), ..self }
    }

    /// The id under which a message is recorded in the store with this secret.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn id(secret: &Secret, message: &Message) -> Result<KeyId, ScopeError> {
        Ok(secret.key_id(&Scope::new(SCOPE)?, message.key()))
    }

    /// Sends what waits until `stop`, or, with `once`, until each message that waits now was tried
    /// once. What is on its way when it stops is waited for; drop this to give that up. `tell` is
    /// told the name of each message and what became of it.
    ///
    /// # Errors
    /// The spool cannot be read or written, or the store not written. What was sent until then is
    /// recorded.
    pub async fn run(
        &self,
        once: bool,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(&str, &Became),
    ) -> Result<(), SenderError> {
        let mut stop = pin!(stop);
        let mut lanes = Lanes::new(self.limits());
        let mut later: HashMap<String, Later> = HashMap::new();
        let mut running: JoinSet<(String, Lane, Result<Became, SenderError>)> = JoinSet::new();
        lanes.put(self.spool.names(Shelf::Queue)?);
        let mut failed = None;
        loop {
            while running.len() < self.pace.workers.max(1)
                && let Some((name, lane)) =
                    lanes.take(self.engine.now(), |name| self.lane(name, later.get(name)))
            {
                let sender = self.clone();
                running.spawn(async move {
                    let became = sender.send(&name).await;
                    (name, lane, became)
                });
            }
            if once && running.is_empty() && lanes.is_empty() {
                break;
            }
            let pause = lanes.pause(self.engine.now());
            // Whoever has a free hand and something to send waits for its time alone.
            let is_early = running.len() < self.pace.workers.max(1) && pause.is_some();
            tokio::select! {
                () = &mut stop => break,
                joined = running.join_next(), if !running.is_empty() => {
                    if let Some(Ok((name, lane, became))) = joined {
                        lanes.ended(&name, &lane);
                        failed = self.ended(&mut later, &name, became, &mut tell).err();
                    }
                    if failed.is_some() {
                        break;
                    }
                }
                () = sleep(pause.unwrap_or_default()), if is_early => {}
                () = sleep(LOOK_EVERY), if !once => {
                    if lanes.wants_more() {
                        lanes.put(self.spool.names(Shelf::Queue)?);
                    }
                }
            }
        }
        while let Some(joined) = running.join_next().await {
            if let Ok((name, _, became)) = joined {
                failed = self.ended(&mut later, &name, became, &mut tell).err().or(failed);
            }
        }
        self.route.close().await;
        failed.map_or(Ok(()), Err)
    }

    fn limits(&self) -> Limits {
        let Pace { apart, per_domain, apart_there, .. } = self.pace;
        let usual = Flow { at_once: per_domain, apart: apart_there };
        Limits { apart, usual, named: flows(&self.destinations), classes: self.kinds.apart() }
    }

    /// Where a message goes, if it is due.
    fn lane(&self, name: &str, later: Option<&Later>) -> Option<Lane> {
        let is_due = later.is_none_or(|(_, from)| *from <= self.engine.now());
        // One that cannot be read is told when it is tried.
        let read = is_due.then(|| self.spool.read(Shelf::Queue, name))?;
        Some(read.map(|it| self.kinds.lane(&it)).unwrap_or_default())
    }

    fn ended(
        &self,
        later: &mut HashMap<String, Later>,
        name: &str,
        became: Result<Became, SenderError>,
        tell: &mut impl FnMut(&str, &Became),
    ) -> Result<(), SenderError> {
        let became = became?;
        self.route.meter().ended(&became);
        tell(name, &became);
        match became {
            Became::Sent(_) | Became::Refused(_) => {
                later.remove(name);
            }
            // Somebody may settle an unknown one, so it is looked at again too.
            Became::Unknown(_) | Became::Waiting(_) => {
                let tries = later.get(name).map_or(1, |(tries, _)| tries.saturating_add(1));
                let from = self.engine.now().plus(self.pace.pause(tries, name));
                later.insert(name.to_owned(), (tries, from));
            }
        }
        Ok(())
    }

    /// Tries one message of the queue. Nothing is sent that was answered, or may have been taken.
    async fn send(&self, name: &str) -> Result<Became, SenderError> {
        let message = match self.spool.read(Shelf::Queue, name) {
            Ok(message) => Arc::new(message),
            // One file that cannot be read holds up no other.
            Err(error) => return Ok(Became::Waiting(error.to_string())),
        };
        let id = self.secret.key_id(&self.scope, message.key());
        let mut request = Request::new(id, message.fingerprint());
        // A store that was lost and made anew refuses what is older than itself.
        request.key_time = Some(message.taken());
        let (route, now) = (Arc::clone(&self.route), self.engine.now());
        let kind = self.kinds.of(&message);
        let until = kind.try_for.map(|it| message.posted().plus(it));
        let letter = Letter::new(Arc::clone(&message), route, now);
        let letter = letter.asking(kind.asking.clone()).within(Bounds { tries: kind.tries, until });
        let answer = self.engine.once(&request, &kind.policy, Duration::ZERO, letter).await;
        let became = match answer {
            Ok(answer) => became(answer),
            Err(EngineError::Store(error)) if error.kind() == StoreErrorKind::Poisoned => {
                return Err(EngineError::Store(error).into());
            }
            Err(error) => Became::Waiting(format!("not sent: {error}")),
        };
        match became {
            Became::Sent(_) => self.spool.end(name, Shelf::Sent)?,
            Became::Refused(_) => self.spool.end(name, Shelf::Refused)?,
            Became::Unknown(_) | Became::Waiting(_) => {}
        }
        Ok(became)
    }
}

impl From<SpoolError> for SenderError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl From<EngineError> for SenderError {
    fn from(error: EngineError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for SenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spool(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SenderError {}

fn became(answer: Answer) -> Became {
    match answer {
        Answer::Reply(reply) | Answer::Replayed(reply) => answered(reply.status(), text(&reply)),
        Answer::NotExecuted(reply) => Became::Waiting(text(&reply)),
        Answer::Unrecorded(reply) => {
            Became::Unknown(format!("answered, but not recorded: {}", text(&reply)))
        }
        Answer::Refused(outcome) => refused(&outcome),
        // Whatever a newer engine says: it is told, and not sent again unless that is granted.
        other => Became::Unknown(format!("not understood: {other:?}")),
    }
}

/// By the number that the server, or whoever settled it, has answered with.
pub(crate) fn answered(status: u16, text: String) -> Became {
    if status < 400 { Became::Sent(text) } else { Became::Refused(text) }
}

pub(crate) fn text(reply: &Reply) -> String {
    let content = reply.content().map(|it| String::from_utf8_lossy(it).into_owned());
    content.unwrap_or_else(|| format!("answered with {}", reply.status()))
}

fn refused(outcome: &Outcome) -> Became {
    match outcome {
        Outcome::OutcomeUnknown { cause, .. } => {
            Became::Unknown(format!("nobody knows whether the server has it: {}", cause.name()))
        }
        Outcome::Gone { status, .. } => answered(*status, format!("answered with {status}")),
        Outcome::Expired => Became::Unknown(
            "the store was made anew after this message was taken in: it may have been sent".into(),
        ),
        Outcome::Mismatch => {
            Became::Refused("its key was used for another message; nothing was sent".into())
        }
        // A person had it run again in doubt.
        Outcome::Done => Became::Waiting(
            "not taken this time; nobody knows whether the server has it from an earlier one"
                .into(),
        ),
        Outcome::InFlight { .. } => Became::Waiting("it is on its way already".into()),
        Outcome::Granted(_)
        | Outcome::Replay { .. }
        | Outcome::CredentialChanged
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => Became::Waiting("not sent: another attempt was in the way".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let pace = Pace::default();
        for (attempts, most) in [(1, 30), (2, 60), (5, 480), (8, 3_600), (4_000_000_000, 3_600)] {
            let most = Duration::from_secs(most);
            let pause = pace.pause(attempts, "00ff");
            assert!(most / 2 <= pause && pause <= most, "{attempts}: {pause:?}");
        }
        assert_ne!(pace.pause(3, "00ff"), pace.pause(3, "00fe"));
    }
}
