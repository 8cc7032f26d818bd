//! Connections that wait for the next request, and sending on them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use onlyonce::Lease;
use onlyonce_http::FailureKind;
use onlyonce_listen::{Pace, Paced, Turn};
use tokio::time::{Instant, timeout};

use super::connect::{Connection, Connector, Shared};
use super::{Failed, Leaving, Limits, Outgoing};
use crate::body::{AnswerBody, LEASE_OVER, Leased};

/// Idle connections that are kept at most.
const IDLE_MAX: usize = 1_024;

/// A connection on loan.
#[derive(Debug)]
pub(crate) struct Lent {
    connection: Connection,
    reused: bool,
}

/// Connections to one upstream.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Connector,
    limits: Limits,
    idle: Mutex<VecDeque<(Instant, Connection)>>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, limits: Limits) -> Self {
        Self { connector, limits, idle: Mutex::default() }
    }

    pub(crate) const fn connector(&self) -> &Connector {
        &self.connector
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<(Instant, Connection)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request, once.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<Outgoing>,
    ) -> Result<Response<AnswerBody>, Failed> {
        let pace = Pace::new();
        let lease = request.extensions().get::<Lease>().cloned();
        let mut request =
            request.map(|body| Paced::new(Leased::new(body, lease.clone()), pace.busy()));
        loop {
            let mut lent = self.take().await?;
            let reused = lent.reused;
            if lease.as_ref().is_some_and(Lease::is_over) {
                return Err(Failed::never("sending", LEASE_OVER));
            }
            // The time for connecting is another one.
            pace.touch();
            let sent = tokio::select! {
                // An answer that is there counts, however late.
                biased;
                sent = lent.send(request) => Ok(sent),
                () = pace.silence(self.limits.answer) => {
                    Err(format!("no answer within {:?}", self.limits.answer))
                }
                () = unsent(lease.as_ref(), &pace) => Err(LEASE_OVER.to_owned()),
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(text) => {
                    lent.spoil();
                    let failed = Failed::new(FailureKind::TimedOut, "waiting", text);
                    return Err(Failed { reused, ..failed });
                }
            };
            match sent {
                Ok(answer) => return Ok(self.answer(answer, lent)),
                Err(mut error) => match error.take_message() {
                    // The connection was gone before anything was written: take another.
                    Some(unsent) if reused => request = unsent,
                    Some(_) => return Err(Failed::never("sending", error.into_error())),
                    None => return Err(Failed { reused, ..sorted(error.into_error()) }),
                },
            }
        }
    }

    fn answer(self: &Arc<Self>, answer: Response<Incoming>, lent: Lent) -> Response<AnswerBody> {
        lent.lives();
        let (limit, home) = (self.limits.answer, (Arc::clone(self), lent));
        answer.map(|body| AnswerBody::new(body, limit, Some(home)))
    }

    /// An idle connection that is still open, the youngest first, or else a new one.
    async fn take(&self) -> Result<Lent, Failed> {
        while let Some(connection) = self.take_idle() {
            if connection.is_open() {
                return Ok(Lent { connection, reused: true });
            }
        }
        let connecting = timeout(self.limits.connect, self.connector.connect());
        let connection = connecting.await.unwrap_or_else(|_| {
            let text = format!("no connection within {:?}", self.limits.connect);
            Err(Failed::never("connecting", text))
        })?;
        if let Connection::Http2(shared) = &connection {
            let mut idle = self.idle();
            idle.retain(|(_, other)| match other {
                Connection::Http2(other) => other.is_fresh(self.limits.idle),
                Connection::Http1 { .. } => true,
            });
            idle.push_back((Instant::now(), Connection::Http2(shared.clone())));
        }
        Ok(Lent { connection, reused: false })
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle();
        loop {
            let (since, connection) = idle.pop_back()?;
            match connection {
                Connection::Http2(shared) if shared.is_fresh(self.limits.idle) => {
                    idle.push_back((since, Connection::Http2(shared.clone())));
                    return Some(Connection::Http2(shared));
                }
                // The requests on it keep it until they are over.
                Connection::Http2(_) => {}
                connection @ Connection::Http1 { .. } => {
                    if since.elapsed() < self.limits.idle {
                        return Some(connection);
                    }
                    // All below are older.
                    idle.clear();
                    return None;
                }
            }
        }
    }

    /// Takes a connection back when its answer has been read.
    pub(crate) fn give_back(&self, lent: Lent) {
        match &lent.connection {
            Connection::Http1 { .. } => {}
            // It was shared all the time.
            Connection::Http2(_) => return,
        }
        let mut idle = self.idle();
        let now = Instant::now();
        while idle.front().is_some_and(|(since, _)| self.limits.idle <= now - *since) {
            idle.pop_front();
        }
        if idle.len() < IDLE_MAX {
            idle.push_back((now, lent.connection));
        }
    }
}

impl Lent {
    /// Something came on it.
    pub(crate) fn lives(&self) {
        match &self.connection {
            Connection::Http1 { .. } => {}
            Connection::Http2(shared) => shared.life.touch(),
        }
    }

    /// Nothing more is to be expected of it, nor is to be sent on it.
    pub(crate) fn spoil(&self) {
        match &self.connection {
            // Else its task would go on sending what it has taken over.
            Connection::Http1 { task, .. } => task.abort(),
            Connection::Http2(shared) => shared.spoil(),
        }
    }

    async fn send(
        &mut self,
        request: Request<Leaving>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Leaving>>> {
        match &mut self.connection {
            Connection::Http1 { sender, .. } => {
                // Its task may still be putting the last answer away. If it fails, so does the
                // sending, and gives the request back.
                let _ = sender.ready().await;
                sender.try_send_request(request).await
            }
            Connection::Http2(Shared { sender, .. }) => {
                let _ = sender.ready().await;
                sender.try_send_request(request).await
            }
        }
    }
}

/// Completes when the lease is over and a part of the request is not sent yet: the rest must not
/// follow. Never, if all is sent: then only the answer is waited for, which is true however late.
async fn unsent(lease: Option<&Lease>, pace: &Pace) {
    let Some(lease) = lease else { return std::future::pending().await };
    lease.over().await;
    match pace.turn() {
        Turn::Taking => {}
        Turn::Speaking | Turn::Ours => std::future::pending().await,
    }
}

/// What an error after the request was handed over says about it.
fn sorted(error: hyper::Error) -> Failed {
    // RFC 9113 section 8.7: a stream that its receiver refused was not processed. Neither was one
    // above the last one of GOAWAY, but the same error also comes of a stream below it whose
    // sending was just beginning when GOAWAY arrived, and that one may have been sent.
    let source = std::error::Error::source(&error).and_then(|it| it.downcast_ref::<h2::Error>());
    let refused = source.is_some_and(|error| {
        error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    });
    let kind = if refused { FailureKind::NeverSent } else { FailureKind::SentAndLost };
    Failed::new(kind, "waiting for the answer", error)
}
