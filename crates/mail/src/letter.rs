//! The effect: one message handed to the server, in two halves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onlyonce::{Attempt, Effect, InDoubt, Probed, Ran};
use onlyonce_core::{Cause, Reply, Timestamp};
use onlyonce_provider::{Provider, Ready as Request, Refused, Sent};
use onlyonce_smtp::{Answer, Committed, Failed, Relay, Session, Staged};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::message::Message;
use crate::meter::Meter;
use crate::probe::imap::MARKER;
use crate::probe::{self, Asking, Whom};

/// Connections kept for the next message; more are closed.
const IDLE_MAX: usize = 16;
/// What stands for "try later" where no server has said a number (RFC 5321, section 4.2.3).
const LATER: u16 = 451;
/// What stands for "never" where no server has said a number.
const NEVER: u16 = 554;
/// The server is about to close the connection (RFC 5321, section 3.8).
const CLOSING: u16 = 421;

/// The way that messages go: to a mail server, with the connections that wait for the next message,
/// or to a provider.
pub struct Route {
    way: Way,
    idle: Mutex<Vec<Session>>,
    meter: Meter,
}

enum Way {
    Relay(Relay),
    Provider(Arc<Provider>),
}

/// One message and the way it goes.
pub struct Letter {
    message: Arc<Message>,
    route: Arc<Route>,
    asking: Option<Arc<Asking>>,
    bounds: Bounds,
    now: Timestamp,
    begun: Option<Instant>,
}

/// When a message that is refused for now is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// After so many attempts.
    pub tries: Option<u32>,
    /// From this moment on nothing is begun.
    pub until: Option<Timestamp>,
}

/// What is left to do.
pub enum Ready {
    /// The server has all but the end.
    Staged(Staged),
    /// The request to the provider is made, and a connection to it.
    Request(Request),
    /// It was refused for good, and nothing is left but to write that down.
    Refused(Reply),
}

/// It was certainly not taken. The reply says why.
enum Not {
    Now(Reply),
    Ever(Reply),
}

impl Route {
    /// A way to this server, with no connection yet.
    pub fn new(relay: Relay) -> Self {
        Self::by(Way::Relay(relay))
    }

    /// A way to this provider.
    pub fn to_provider(provider: Arc<Provider>) -> Self {
        Self::by(Way::Provider(provider))
    }

    fn by(way: Way) -> Self {
        Self { way, idle: Mutex::new(Vec::new()), meter: Meter::default() }
    }

    /// What is counted on it.
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Ends the connections that wait, in good order.
    pub async fn close(&self) {
        while let Some(session) = self.take() {
            session.quit().await;
        }
    }

    fn take(&self) -> Option<Session> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Only a session whose last answer was read is kept. If the server has said more than that, it
    /// is given up when it is to be used: so no answer is taken for another's.
    fn keep(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(session);
        }
    }

    /// `with_marker`: whether a mailbox that gets copies is asked about doubts.
    async fn prepared(
        &self,
        message: &Message,
        with_marker: bool,
        now: Timestamp,
    ) -> Result<Ready, Not> {
        match &self.way {
            Way::Relay(relay) => match self.stage(relay, message, with_marker).await {
                Ok(staged) => Ok(Ready::Staged(staged)),
                Err(failed) if failed.retryable => Err(Not::Now(refusal(&failed, LATER))),
                Err(failed) => Err(Not::Ever(refusal(&failed, NEVER))),
            },
            Way::Provider(provider) => {
                let letter = probe::letter(message);
                let letter = letter.map_err(|text| Not::Ever(said(NEVER, &text)))?;
                let request = provider.prepare(&letter, now).await;
                request.map(Ready::Request).map_err(|refused| {
                    if refused.retryable {
                        Not::Now(declined(&refused, LATER))
                    } else {
                        Not::Ever(declined(&refused, NEVER))
                    }
                })
            }
        }
    }

    async fn stage(
        &self,
        relay: &Relay,
        message: &Message,
        with_marker: bool,
    ) -> Result<Staged, Failed> {
        let envelope = message.envelope();
        let longer = with_marker.then(|| message.with_name_in(MARKER)).flatten();
        let content = longer.as_ref().unwrap_or(message.content());
        while let Some(session) = self.take() {
            match session.stage(&envelope, content).await {
                Err(failed) if is_about_the_connection(&failed) => {}
                staged => return staged,
            }
        }
        Session::connect(relay).await?.stage(&envelope, content).await
    }

    /// The message was taken.
    fn took(&self, begun: Option<Instant>, marked: Instant) {
        self.meter.doubt.note(marked.elapsed());
        self.meter.session.note(begun.unwrap_or(marked).elapsed());
    }
}

/// Servers close connections that wait: that says nothing about the message.
fn is_about_the_connection(failed: &Failed) -> bool {
    failed.retryable && failed.answer.as_ref().is_none_or(|answer| answer.code == CLOSING)
}

impl Letter {
    /// This message, this way, to be handed over now.
    pub const fn new(message: Arc<Message>, route: Arc<Route>, now: Timestamp) -> Self {
        let bounds = Bounds { tries: None, until: None };
        Self { message, route, asking: None, bounds, now, begun: None }
    }

    /// The same; this is asked if nobody knows what became of an earlier attempt.
    pub fn asking(self, asking: Option<Arc<Asking>>) -> Self {
        Self { asking, ..self }
    }

    /// The same; it is given up at these bounds.
    pub fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Whether a refusal of this attempt is final, whatever was said. It never is while an earlier
    /// one may have been taken: that this one was not says nothing of that.
    fn is_last(&self, attempt: Attempt) -> bool {
        let is_spent = self.bounds.tries.is_some_and(|tries| tries <= attempt.number);
        (is_spent || self.is_late()) && !attempt.may_have_happened
    }

    /// Whether the time for which it is tried is over.
    fn is_late(&self) -> bool {
        self.bounds.until.is_some_and(|until| until <= self.now)
    }

    /// All before the end; nothing is begun once the time for it is over, unless a person who has
    /// looked says that it may go.
    async fn ready(&self, attempt: Attempt) -> Result<Ready, Not> {
        if self.is_late() && !attempt.allowed_by_person {
            return Err(Not::Ever(said(NEVER, "given up: the time for which it is tried is over")));
        }
        let whom = self.asking.as_ref().map(|it| &it.whom);
        let with_marker = matches!(whom, Some(Whom::Archive(_)));
        self.route.prepared(&self.message, with_marker, self.now).await
    }

    async fn end(&self, staged: Staged, attempt: Attempt, marked: Instant) -> Ran {
        let server = staged.server().to_owned();
        match staged.commit().await {
            Committed::Accepted { answer, session, window } => {
                self.route.took(self.begun, marked);
                self.route.keep(*session);
                Ran::Happened(receipt(&server, &answer, window))
            }
            Committed::Refused(failed) if failed.retryable || attempt.may_have_happened => {
                Ran::NotExecuted(refusal(&failed, LATER))
            }
            Committed::Refused(failed) => Ran::Happened(refusal(&failed, NEVER)),
            Committed::Unknown { text: _ } => Ran::CannotTell(Cause::ConnectionLost),
        }
    }

    async fn send(&self, request: Request, attempt: Attempt, marked: Instant) -> Ran {
        let server = request.server();
        match request.send().await {
            Sent::Accepted { status, id, window } => {
                self.route.took(self.begun, marked);
                Ran::Happened(taken(&server, status, id.as_deref(), window))
            }
            Sent::Refused(refused) if refused.retryable || attempt.may_have_happened => {
                Ran::NotExecuted(declined(&refused, LATER))
            }
            Sent::Refused(refused) => Ran::Happened(declined(&refused, NEVER)),
            Sent::Unknown(cause, _) => Ran::CannotTell(cause),
        }
    }
}

impl Effect for Letter {
    type Prepared = Ready;

    async fn prepare(&mut self, attempt: Attempt) -> Result<Ready, Reply> {
        self.begun = Some(Instant::now());
        match self.ready(attempt).await {
            Ok(ready) => Ok(ready),
            // An answer for good is an answer: it is recorded, and the message not sent again.
            Err(Not::Ever(reply)) if !attempt.may_have_happened => Ok(Ready::Refused(reply)),
            Err(Not::Now(reply)) if self.is_last(attempt) => {
                Ok(Ready::Refused(given_up(&reply, attempt)))
            }
            Err(Not::Ever(reply) | Not::Now(reply)) => Err(reply),
        }
    }

    async fn commit(&mut self, ready: Ready, attempt: Attempt) -> Ran {
        // The mark is durable by now.
        let marked = Instant::now();
        let ran = match ready {
            Ready::Staged(staged) => self.end(staged, attempt, marked).await,
            Ready::Request(request) => self.send(request, attempt, marked).await,
            Ready::Refused(reply) => Ran::Happened(reply),
        };
        match ran {
            Ran::NotExecuted(reply) if self.is_last(attempt) => {
                Ran::Happened(given_up(&reply, attempt))
            }
            ran @ (Ran::NotExecuted(_) | Ran::Happened(_) | Ran::CannotTell(_)) => ran,
        }
    }

    async fn probe(&mut self, doubt: &InDoubt) -> Probed {
        let Some(asking) = &self.asking else { return Probed::CannotTell };
        probe::ask(asking, &self.message, doubt).await
    }
}

/// What the server has taken it under, to find it there.
fn receipt(server: &str, answer: &Answer, window: Duration) -> Reply {
    let (id, text) = (answer.queue_id(), answer.to_string());
    let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    let receipt =
        json!({ "server": server, "queue_id": id, "answer": text, "in_doubt_us": window });
    Reply::kept(answer.code, receipt.to_string())
}

/// What the provider has taken it under.
fn taken(server: &str, status: u16, id: Option<&str>, window: Duration) -> Reply {
    let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
    let receipt = json!({ "server": server, "id": id, "in_doubt_us": window });
    Reply::kept(status, receipt.to_string())
}

fn refusal(failed: &Failed, otherwise: u16) -> Reply {
    let status = failed.answer.as_ref().map(|it| it.code).filter(|it| 400 <= *it);
    said(status.unwrap_or(otherwise), &failed.to_string())
}

fn declined(refused: &Refused, otherwise: u16) -> Reply {
    said(refused.status.unwrap_or(otherwise), &refused.text)
}

/// A refusal for now that is made the last word.
fn given_up(reply: &Reply, attempt: Attempt) -> Reply {
    let said_last = reply.content().and_then(|it| serde_json::from_slice::<Value>(it).ok());
    let why = said_last.as_ref().and_then(|it| it.get("refused")?.as_str()).unwrap_or_default();
    said(reply.status(), &format!("given up after attempt {}: {why}", attempt.number))
}

fn said(status: u16, text: &str) -> Reply {
    Reply::kept(status, json!({ "refused": text }).to_string())
}
