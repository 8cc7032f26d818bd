//! Commands and answers on a connection.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use onlyonce_failpoint::failpoint;
use smtp_proto::response::parser::ResponseReceiver;
use smtp_proto::{EhloResponse, Error};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use crate::answer::Answer;

/// What a session reads from and writes to.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Longest answer in bytes: more is no answer.
const ANSWER_MAX: usize = 64 << 10;

/// A connection, with what was read of it and not yet looked at.
pub(crate) struct Wire<S> {
    stream: S,
    read: Vec<u8>,
}

/// The connection can no longer be used: nobody knows what comes next on it.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Reading or writing failed.
    Io(io::Error),
    /// The other side has closed it.
    Closed,
    /// Nothing came in time.
    Late(Duration),
    /// What came is no answer.
    Garbled(String),
    /// It was not asked for.
    Unasked(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Late(limit) => write!(f, "the server did not answer within {limit:?}"),
            Self::Unasked(text) => write!(f, "the server says what it was not asked: {text}"),
            Self::Garbled(text) => write!(f, "the server's answer cannot be read: {text}"),
        }
    }
}

impl<S: Io> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// The stream, to begin TLS on it; `None` if bytes stand in the way that came too early, which
    /// somebody on the way may have put there (RFC 3207, section 5).
    pub(crate) fn into_stream(self) -> Option<S> {
        self.read.is_empty().then_some(self.stream)
    }

    /// The same connection for any stream.
    pub(crate) fn boxed(self) -> Wire<Box<dyn Io>>
    where
        S: 'static,
    {
        Wire { stream: Box::new(self.stream), read: self.read }
    }

    /// Writes all of `bytes`, each piece within `limit`.
    pub(crate) async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), Broken> {
        failpoint!("smtp.write.before", String::from_utf8_lossy(bytes));
        for piece in bytes.chunks(64 << 10) {
            let written = timeout(limit, async {
                self.stream.write_all(piece).await?;
                self.stream.flush().await
            });
            written.await.map_err(|_| Broken::Late(limit))?.map_err(Broken::Io)?;
        }
        failpoint!("smtp.write.after", String::from_utf8_lossy(bytes));
        Ok(())
    }

    /// That nothing has come that was not asked for. An answer too many would be taken for the one
    /// to the next command, and each later one for that of the command after it.
    pub(crate) async fn quiet(&mut self) -> Result<(), Broken> {
        if self.read.is_empty() {
            let mut room = [0; 512];
            let mut come = ReadBuf::new(&mut room);
            let stream = &mut self.stream;
            // What is there by now; nothing is waited for.
            let polled = poll_fn(|context| {
                Poll::Ready(Pin::new(&mut *stream).poll_read(context, &mut come))
            });
            match polled.await {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(Broken::Io(error)),
                Poll::Ready(Ok(())) if come.filled().is_empty() => return Err(Broken::Closed),
                Poll::Ready(Ok(())) => self.read.extend_from_slice(come.filled()),
            }
        }
        Err(Broken::Unasked(String::from_utf8_lossy(&self.read).trim_end().to_owned()))
    }

    /// What was read with the last answer and stands behind it.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.read
    }

    /// Reads an answer within `limit`.
    pub(crate) async fn answer(&mut self, limit: Duration) -> Result<Answer, Broken> {
        let mut receiver = ResponseReceiver::default();
        let reading = async {
            loop {
                let mut left = self.read.iter();
                let parsed = receiver.parse(&mut left);
                let rest = left.len();
                self.read.drain(..self.read.len() - rest);
                match parsed {
                    Ok(response) => {
                        failpoint!("smtp.answer.after", response);
                        return Answer::read(&response)
                            .ok_or_else(|| Broken::Garbled(format!("code {}", response.code)));
                    }
                    Err(Error::NeedsMoreData { .. }) => self.more().await?,
                    Err(error) => return Err(Broken::Garbled(format!("{error:?}"))),
                }
            }
        };
        timeout(limit, reading).await.map_err(|_| Broken::Late(limit))?
    }

    /// Reads the answer to EHLO within `limit`: `Err` of an answer if the server refuses.
    pub(crate) async fn offers(
        &mut self,
        limit: Duration,
    ) -> Result<Result<EhloResponse<String>, u16>, Broken> {
        let reading = async {
            loop {
                let mut left = self.read.iter();
                match EhloResponse::parse(&mut left) {
                    Ok(offers) => {
                        let rest = left.len();
                        self.read.drain(..self.read.len() - rest);
                        return Ok(Ok(offers));
                    }
                    Err(Error::NeedsMoreData { .. }) if self.read.len() < ANSWER_MAX => {
                        self.more().await?;
                    }
                    Err(Error::InvalidResponse { code }) => return Ok(Err(code)),
                    Err(error) => return Err(Broken::Garbled(format!("{error:?}"))),
                }
            }
        };
        timeout(limit, reading).await.map_err(|_| Broken::Late(limit))?
    }

    async fn more(&mut self) -> Result<(), Broken> {
        match self.stream.read_buf(&mut self.read).await {
            Ok(0) => Err(Broken::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(Broken::Io(error)),
        }
    }
}
