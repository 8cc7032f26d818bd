//! The bodies that the middleware hands on: to the service inside, and back to the client.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::mpsc;

use crate::BoxError;

/// A body that is whole in memory: what there is of it, and what follows it.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) data: VecDeque<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole {
    pub(crate) fn new(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { data: Some(data).filter(|it| !it.is_empty()).into_iter().collect(), trailers }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.data.pop_front().map(Frame::data);
        data.or_else(|| self.trailers.take().map(Frame::trailers))
    }

    fn is_end(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    /// The length is not named before trailers: in HTTP/1.1 a body with a length has none.
    fn size_hint(&self) -> SizeHint {
        let length = self.data.iter().map(|it| it.len() as u64).sum();
        if self.trailers.is_none() {
            return SizeHint::with_exact(length);
        }
        let mut hint = SizeHint::default();
        hint.set_lower(length);
        hint
    }
}

pin_project! {
    /// What the service inside gets: the body of a keyed request, whole in memory, or any other
    /// request's body as it came.
    #[derive(Debug)]
    pub struct RequestBody<B> {
        #[pin]
        kind: RequestKind<B>,
    }
}

pin_project! {
    #[project = RequestKindProjection]
    #[derive(Debug)]
    enum RequestKind<B> {
        Whole { whole: Whole },
        Passed { #[pin] body: B },
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn whole(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { kind: RequestKind::Whole { whole: Whole::new(data, trailers) } }
    }

    pub(crate) fn passed(body: B) -> Self {
        Self { kind: RequestKind::Passed { body } }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            RequestKindProjection::Whole { whole } => Poll::Ready(whole.next().map(Ok)),
            RequestKindProjection::Passed { body } => body.poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            RequestKind::Whole { whole } => whole.is_end(),
            RequestKind::Passed { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            RequestKind::Whole { whole } => whole.size_hint(),
            RequestKind::Passed { body } => body.size_hint(),
        }
    }
}

/// What the relay sends to the client's side.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next frame.
    Frame(Frame<Bytes>),
    /// The body is whole. Without it the end of the channel is a break.
    End,
}

pin_project! {
    /// What the client gets: an answer of ours, a replay, or the service's own answer.
    #[derive(Debug)]
    pub struct ResponseBody<R> {
        #[pin]
        kind: ResponseKind<R>,
    }
}

pin_project! {
    #[project = ResponseKindProjection]
    #[derive(Debug)]
    enum ResponseKind<R> {
        Whole { whole: Whole },
        Passed { #[pin] body: R },
        // What was read already, and then the rest or the error that reading it met.
        Resumed { read: Whole, error: Option<BoxError>, rest: Option<Pin<Box<R>>> },
        Relayed { pieces: mpsc::Receiver<Piece>, ended: bool },
    }
}

impl<R> ResponseBody<R> {
    pub(crate) fn whole(whole: Whole) -> Self {
        Self { kind: ResponseKind::Whole { whole } }
    }

    pub(crate) fn passed(body: R) -> Self {
        Self { kind: ResponseKind::Passed { body } }
    }

    pub(crate) fn resumed(read: Whole, error: Option<BoxError>, rest: Option<Pin<Box<R>>>) -> Self {
        Self { kind: ResponseKind::Resumed { read, error, rest } }
    }

    pub(crate) fn relayed(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { kind: ResponseKind::Relayed { pieces, ended: false } }
    }
}

impl<R> Default for ResponseBody<R> {
    fn default() -> Self {
        Self::whole(Whole::default())
    }
}

impl<R> Body for ResponseBody<R>
where
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            ResponseKindProjection::Whole { whole } => Poll::Ready(whole.next().map(Ok)),
            ResponseKindProjection::Passed { body } => body.poll_frame(context).map_err(Into::into),
            ResponseKindProjection::Resumed { read, error, rest } => {
                if let Some(frame) = read.next() {
                    return Poll::Ready(Some(Ok(frame)));
                }
                match (error.take(), rest.as_mut()) {
                    (Some(error), _) => Poll::Ready(Some(Err(error))),
                    (None, Some(rest)) => rest.as_mut().poll_frame(context).map_err(Into::into),
                    (None, None) => Poll::Ready(None),
                }
            }
            ResponseKindProjection::Relayed { pieces, ended } => {
                if *ended {
                    return Poll::Ready(None);
                }
                match ready!(pieces.poll_recv(context)) {
                    Some(Piece::Frame(frame)) => Poll::Ready(Some(Ok(frame))),
                    Some(Piece::End) => {
                        *ended = true;
                        Poll::Ready(None)
                    }
                    None => Poll::Ready(Some(Err("the answer broke off".into()))),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseKind::Whole { whole } => whole.is_end(),
            ResponseKind::Passed { body } => body.is_end_stream(),
            ResponseKind::Resumed { read, error, rest } => {
                read.is_end() && error.is_none() && rest.as_ref().is_none_or(Body::is_end_stream)
            }
            ResponseKind::Relayed { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseKind::Whole { whole } => whole.size_hint(),
            ResponseKind::Passed { body } => body.size_hint(),
            // The head's Content-Length, if there is one, speaks for these.
            ResponseKind::Resumed { .. } | ResponseKind::Relayed { .. } => SizeHint::default(),
        }
    }
}
