//! Reading a body into memory, up to a bound.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::BoxError;
use crate::body::Whole;

/// What came of reading a body.
pub(crate) enum Gathered {
    /// All of it.
    Whole(Whole),
    /// This much, and there is more.
    Over(Whole),
    /// This much, and then it broke off.
    Cut(Whole, BoxError),
}

/// The next frame of a body.
pub(crate) async fn frame<B>(body: &mut Pin<&mut B>) -> Option<Result<Frame<Bytes>, BoxError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let next = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
    next.map(|frame| frame.map_err(Into::into))
}

/// Reads until the end, an error, or more than `max` bytes. What was read is never lost.
pub(crate) async fn gather<B>(body: Pin<&mut B>, max: usize) -> Gathered
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    gather_while(body, max, |_| true).await
}

/// The same, also until `may_grow` says no to so many more bytes.
pub(crate) async fn gather_while<B>(
    mut body: Pin<&mut B>,
    max: usize,
    mut may_grow: impl FnMut(usize) -> bool,
) -> Gathered
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut whole = Whole::default();
    let mut length = 0;
    loop {
        match frame(&mut body).await {
            None => return Gathered::Whole(whole),
            Some(Err(error)) => return Gathered::Cut(whole, error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    length += data.len();
                    let has_room = may_grow(data.len());
                    whole.data.push_back(data);
                    if max < length || !has_room {
                        return Gathered::Over(whole);
                    }
                }
                Err(frame) => add_trailers(&mut whole.trailers, frame),
            },
        }
    }
}

/// Keeps a trailers frame, beside those that came before.
pub(crate) fn add_trailers(trailers: &mut Option<HeaderMap>, frame: Frame<Bytes>) {
    if let Ok(more) = frame.into_trailers() {
        match trailers {
            Some(trailers) => trailers.extend(more),
            None => *trailers = Some(more),
        }
    }
}

impl Whole {
    /// The data in one piece; copied only if it came in several.
    pub(crate) fn joined(&self) -> Bytes {
        match (self.data.len(), self.data.front()) {
            (1, Some(only)) => only.clone(),
            _ => {
                let mut all = BytesMut::with_capacity(self.data.iter().map(Bytes::len).sum());
                self.data.iter().for_each(|it| all.extend_from_slice(it));
                all.freeze()
            }
        }
    }
}
