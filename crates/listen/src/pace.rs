//! Whose turn it is on a connection, and since when: what all limits on silence are measured by.
//!
//! The one that is waited for is the other end: a caller that is to send its next request or to
//! take an answer, an upstream that is to take a request or to answer it. While it is our own
//! turn nothing is held against it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

/// For what the other end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is to take what we have for it.
    Taking,
    /// It is to say the next thing: nothing is being sent.
    Speaking,
    /// For nothing: it is our turn.
    Ours,
}

/// What is going on with one other end.
#[derive(Debug)]
pub struct Pace {
    born: Instant,
    /// When something last moved, in microseconds since `born`.
    moved: AtomicU64,
    /// Things that are there to be taken.
    owed: AtomicUsize,
    /// Messages that are not over.
    busy: AtomicUsize,
}

impl Pace {
    /// A connection that begins now.
    pub fn new() -> Arc<Self> {
        let born = Instant::now();
        Arc::new(Self { born, moved: 0.into(), owed: 0.into(), busy: 0.into() })
    }

    /// Something moved.
    pub fn touch(&self) {
        let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Release);
    }

    /// How long nothing has moved.
    pub fn still(&self) -> Duration {
        let moved = Duration::from_micros(self.moved.load(Ordering::Acquire));
        self.born.elapsed().saturating_sub(moved)
    }

    /// Whose turn it is.
    pub fn turn(&self) -> Turn {
        if 0 < self.owed.load(Ordering::Acquire) {
            Turn::Taking
        } else if 0 < self.busy.load(Ordering::Acquire) {
            Turn::Ours
        } else {
            Turn::Speaking
        }
    }

    /// A message begins; it is over when what is returned is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.touch();
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    fn owe(self: &Arc<Self>) -> Owed {
        self.touch();
        self.owed.fetch_add(1, Ordering::AcqRel);
        Owed(Arc::clone(self))
    }

    /// Ends when the other end has been silent for `limit` in its turn, whatever it should do.
    pub async fn silence(&self, limit: Duration) {
        loop {
            let left = match self.turn() {
                // Should it end now, as much is left of the other's turn at least.
                Turn::Ours => limit,
                Turn::Taking | Turn::Speaking => limit.saturating_sub(self.still()),
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }
}

/// A message that is not over.
#[derive(Debug)]
pub struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        // Before the count, so that whoever sees the count sees the time.
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Something that is there for the other end to take.
#[derive(Debug)]
struct Owed(Arc<Pace>);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.touch();
        self.0.owed.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A piece of a body that notes when it is taken. Whoever writes it out keeps it until then: in
/// HTTP/2 also while the other end gives no room for more.
#[derive(Debug)]
pub struct Parcel {
    bytes: Bytes,
    owed: Owed,
}

impl Buf for Parcel {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.owed.0.touch();
        self.bytes.advance(count);
    }
}

/// A body on its way to the other end.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    pace: Arc<Pace>,
    /// Unless the body itself is waited for.
    owed: Option<Owed>,
    _busy: Busy,
}

impl<B> Paced<B> {
    /// The message is over when the body is dropped.
    pub fn new(body: B, busy: Busy) -> Self {
        let pace = Arc::clone(&busy.0);
        Self { body, owed: Some(pace.owe()), pace, _busy: busy }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Parcel;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parcel>, B::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            self.owed = None;
            return Poll::Pending;
        };
        self.owed = Some(self.pace.owe());
        let parcel = |bytes| Parcel { bytes, owed: self.pace.owe() };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(parcel))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that notes while the other end takes nothing.
#[derive(Debug)]
pub struct Watched<T> {
    stream: T,
    pace: Arc<Pace>,
    stuck: Option<Owed>,
}

impl<T> Watched<T> {
    /// Watches this stream.
    pub const fn new(stream: T, pace: Arc<Pace>) -> Self {
        Self { stream, pace, stuck: None }
    }

    fn note<R>(&mut self, polled: Poll<R>) -> Poll<R> {
        match &polled {
            Poll::Ready(_) => self.stuck = None,
            Poll::Pending if self.stuck.is_some() => {}
            Poll::Pending => self.stuck = Some(self.pace.owe()),
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
