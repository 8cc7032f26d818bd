//! Bodies with a limit on how long they may be silent, and connections that go back to their pool
//! when an answer has been read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use onlyonce::Lease;
use onlyonce_listen::Busy;
use tokio::time::Sleep;

use crate::BoxError;
use crate::upstream::Pool;

/// A body that fails if nothing of it comes for some time.
#[derive(Debug)]
pub(crate) struct Patient {
    body: Incoming,
    /// Made when the body first has to be waited for: most never are.
    silence: Option<Pin<Box<Sleep>>>,
    limit: Duration,
    /// On a caller's connection: its request is not over.
    _busy: Option<Busy>,
}

/// The body of a request as a caller sends it.
pub(crate) type CallerBody = Patient;

impl Patient {
    pub(crate) const fn new(body: Incoming, limit: Duration, busy: Option<Busy>) -> Self {
        Self { body, silence: None, limit, _busy: busy }
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Some(Err(format!("nothing of the body came for {limit:?}").into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body that fails once its lease is over: what is not on its way by then never is.
#[derive(Debug)]
pub(crate) struct Leased<B> {
    body: B,
    /// Only what runs under a claim has one.
    lease: Option<Lease>,
    /// The rest of a frame.
    rest: Bytes,
}

/// So much is handed over at once, in bytes, since nobody can take it back.
const PIECE: usize = 64 << 10;

impl<B> Leased<B> {
    pub(crate) const fn new(body: B, lease: Option<Lease>) -> Self {
        Self { body, lease, rest: Bytes::new() }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        Frame::data(self.rest.split_to(self.rest.len().min(PIECE)))
    }
}

impl<B: Body<Data = Bytes, Error = BoxError> + Unpin> Body for Leased<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(lease) = &self.lease else {
            return Pin::new(&mut self.body).poll_frame(context);
        };
        if lease.is_over() {
            return Poll::Ready(Some(Err(LEASE_OVER.into())));
        }
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            Ok(match frame?.into_data() {
                Ok(data) => {
                    self.rest = data;
                    self.piece()
                }
                Err(trailers) => trailers,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let upper = hint.upper();
        hint.set_lower(hint.lower() + rest);
        if let Some(upper) = upper {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Why nothing more is sent.
pub(crate) const LEASE_OVER: &str = "its lease is over: the store could not be reached to renew it";

/// The body of the upstream's answer. Read to its end, its connection serves the next request.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    body: Patient,
    home: Option<Home>,
}

/// A connection and where it goes.
type Home = (std::sync::Arc<Pool>, crate::upstream::Lent);

impl AnswerBody {
    pub(crate) fn new(body: Incoming, limit: Duration, home: Option<Home>) -> Self {
        let mut answer = Self { body: Patient::new(body, limit, None), home };
        if answer.body.is_end_stream() {
            answer.go_home();
        }
        answer
    }

    fn go_home(&mut self) {
        if let Some((pool, lent)) = self.home.take() {
            pool.give_back(lent);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some((_, lent)), Some(Ok(_))) = (&self.home, &frame) {
            lent.lives();
        }
        match &frame {
            None => self.go_home(),
            Some(Ok(_)) if self.body.is_end_stream() => self.go_home(),
            Some(Ok(_)) => {}
            // Whatever else comes on this connection belongs to nobody.
            Some(Err(_)) => {
                if let Some((_, lent)) = self.home.take() {
                    lent.spoil();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
