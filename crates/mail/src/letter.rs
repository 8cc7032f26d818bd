//! The effect: one message handed to the server, in two halves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onlyonce::{Attempt, Effect, InDoubt, Probed, Ran};
use onlyonce_core::{Cause, Reply};
use onlyonce_smtp::{Answer, Committed, Failed, Relay, Session, Staged};
use serde_json::json;

use crate::message::Message;
use crate::probe::{self, Asking};

/// Connections kept for the next message; more are closed.
const IDLE_MAX: usize = 16;
/// What stands for "try later" where no server has said a number (RFC 5321, section 4.2.3).
const LATER: u16 = 451;
/// What stands for "never" where no server has said a number.
const NEVER: u16 = 554;
/// The server is about to close the connection (RFC 5321, section 3.8).
const CLOSING: u16 = 421;

/// The way to the server, with the connections that wait for the next message.
pub struct Route {
    relay: Relay,
    idle: Mutex<Vec<Session>>,
}

/// One message and the way it goes.
pub struct Letter {
    message: Arc<Message>,
    route: Arc<Route>,
    asking: Option<Arc<Asking>>,
}

/// What is left to do.
pub enum Ready {
    /// The server has all but the end.
    Staged(Staged),
    /// It was refused for good, and nothing is left but to write that down.
    Refused(Failed),
}

impl Route {
    /// A way to this server, with no connection yet.
    pub const fn new(relay: Relay) -> Self {
        Self { relay, idle: Mutex::new(Vec::new()) }
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

    /// Only a session whose last answer was read is kept, so that no answer is taken for another's.
    fn keep(&self, session: Session) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(session);
        }
    }

    async fn stage(&self, message: &Message) -> Result<Staged, Failed> {
        let envelope = message.envelope();
        while let Some(session) = self.take() {
            match session.stage(&envelope, message.content()).await {
                Err(failed) if is_about_the_connection(&failed) => {}
                staged => return staged,
            }
        }
        Session::connect(&self.relay).await?.stage(&envelope, message.content()).await
    }
}

/// Servers close connections that wait: that says nothing about the message.
fn is_about_the_connection(failed: &Failed) -> bool {
    failed.retryable && failed.answer.as_ref().is_none_or(|answer| answer.code == CLOSING)
}

impl Letter {
    /// This message, this way.
    pub const fn new(message: Arc<Message>, route: Arc<Route>) -> Self {
        Self { message, route, asking: None }
    }

    /// The same; this is asked if nobody knows what became of an earlier attempt.
    pub fn asking(self, asking: Option<Arc<Asking>>) -> Self {
        Self { asking, ..self }
    }
}

impl Effect for Letter {
    type Prepared = Ready;

    async fn prepare(&mut self, _attempt: Attempt) -> Result<Ready, Reply> {
        match self.route.stage(&self.message).await {
            Ok(staged) => Ok(Ready::Staged(staged)),
            // An answer for good is an answer: it is recorded, and the message not sent again.
            Err(failed) if !failed.retryable => Ok(Ready::Refused(failed)),
            Err(failed) => Err(refusal(&failed, LATER)),
        }
    }

    async fn commit(&mut self, ready: Ready, _attempt: Attempt) -> Ran {
        let staged = match ready {
            Ready::Staged(staged) => staged,
            Ready::Refused(failed) => return Ran::Happened(refusal(&failed, NEVER)),
        };
        let server = staged.server().to_owned();
        match staged.commit().await {
            Committed::Accepted { answer, session, window } => {
                self.route.keep(*session);
                Ran::Happened(receipt(&server, &answer, window))
            }
            Committed::Refused(failed) if failed.retryable => {
                Ran::NotExecuted(refusal(&failed, LATER))
            }
            Committed::Refused(failed) => Ran::Happened(refusal(&failed, NEVER)),
            Committed::Unknown { text: _ } => Ran::CannotTell(Cause::ConnectionLost),
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

fn refusal(failed: &Failed, otherwise: u16) -> Reply {
    let said = failed.answer.as_ref().map(|it| it.code).filter(|it| 400 <= *it);
    Reply::kept(said.unwrap_or(otherwise), json!({ "refused": failed.to_string() }).to_string())
}
