//! What is kept of a run: the bytes it wrote, to which stream and in which order, and how it ended.
//!
//! The content of the reply, version 1: the four bytes `cmd` and 1; the number of the signal that
//! ended the command, or 0; how many bytes it wrote in all, 8 bytes; then pieces, each with 1 for
//! standard output or 2 for standard error, its length in 4 bytes, and its bytes. Numbers are
//! big-endian. The reply's status is the exit code.

use bytes::{BufMut as _, Bytes, BytesMut};
use onlyonce_core::Reply;

use crate::output::Stream;

const MAGIC: &[u8; 4] = b"cmd\x01";
/// What stands before the pieces, in bytes.
const HEAD: usize = 13;
/// What stands before the bytes of a piece, in bytes. It counts as output.
const PIECE: usize = 5;
/// What a shell adds to the number of the signal that ended a command (POSIX, Shell Command
/// Language, section 2.8.2, asks for more than 128).
const BY_SIGNAL: u8 = 128;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub code: u8,
    /// The signal that ended it.
    pub signal: Option<u8>,
}

impl Ended {
    /// It exited with this code.
    pub const fn exited(code: u8) -> Self {
        Self { code, signal: None }
    }

    /// This signal ended it.
    pub const fn killed(signal: u8) -> Self {
        Self { code: BY_SIGNAL.wrapping_add(signal), signal: Some(signal) }
    }
}

/// What a command wrote, up to a bound, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote in all, in bytes.
    pub written: u64,
    /// What is kept of that: its beginning, in the order in which it came.
    pub pieces: Vec<(Stream, Bytes)>,
}

impl Transcript {
    /// How many of the bytes that it wrote are kept.
    pub fn kept(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Whether more was written than is kept.
    pub fn is_cut(&self) -> bool {
        self.kept() < self.written
    }

    /// Reads it from a reply; `None` if that is none of a command.
    pub fn read(reply: &Reply) -> Option<Self> {
        let mut rest = reply.content()?.clone();
        if rest.len() < HEAD || rest.split_to(MAGIC.len()) != MAGIC[..] {
            return None;
        }
        let signal = rest.split_to(1)[0];
        let written = u64::from_be_bytes(rest.split_to(8)[..].try_into().ok()?);
        let ended = Ended {
            code: u8::try_from(reply.status()).ok()?,
            signal: (signal != 0).then_some(signal),
        };
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            if rest.len() < PIECE {
                return None;
            }
            let stream = Stream::from_number(rest.split_to(1)[0])?;
            let length = u32::from_be_bytes(rest.split_to(4)[..].try_into().ok()?) as usize;
            if rest.len() < length {
                return None;
            }
            pieces.push((stream, rest.split_to(length)));
        }
        Some(Self { ended, written, pieces })
    }

    /// The reply that is kept.
    pub fn reply(&self) -> Reply {
        let mut kept = Keeping::new(usize::MAX);
        for (stream, bytes) in &self.pieces {
            kept.add(*stream, bytes);
        }
        kept.written = self.written;
        kept.reply(self.ended)
    }
}

/// A transcript while it is written.
pub(crate) struct Keeping {
    content: BytesMut,
    /// How many more bytes may be kept, what stands before pieces included.
    room: usize,
    written: u64,
    /// The stream of the last piece, and where its length stands.
    last: Option<(Stream, usize)>,
}

impl Keeping {
    /// One that keeps at most `room` bytes.
    pub(crate) fn new(room: usize) -> Self {
        let mut content = BytesMut::from(&MAGIC[..]);
        content.put_bytes(0, HEAD - MAGIC.len());
        Self { content, room, written: 0, last: None }
    }

    /// So much stands before what is kept, in bytes.
    pub(crate) const fn overhead() -> usize {
        HEAD
    }

    /// Takes what was written. Once something did not fit, nothing that follows is kept: a
    /// beginning is easier to understand than a text with holes.
    pub(crate) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        if bytes.is_empty() || self.room == 0 {
            return;
        }
        let at = match self.last.filter(|(last, _)| *last == stream) {
            Some((_, at)) => at,
            None if self.room <= PIECE => {
                self.room = 0;
                return;
            }
            None => {
                self.content.put_u8(stream.number());
                let at = self.content.len();
                self.content.put_u32(0);
                self.room -= PIECE;
                at
            }
        };
        self.last = Some((stream, at));
        let fits = bytes.len().min(self.room);
        self.content.put_slice(&bytes[..fits]);
        self.room = if fits < bytes.len() { 0 } else { self.room - fits };
        let length = u32::try_from(self.content.len() - at - 4).unwrap_or(u32::MAX);
        self.content[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The reply, once it has ended.
    pub(crate) fn reply(mut self, ended: Ended) -> Reply {
        let at = MAGIC.len();
        self.content[at] = ended.signal.unwrap_or_default();
        self.content[at + 1..HEAD].copy_from_slice(&self.written.to_be_bytes());
        Reply::kept(u16::from(ended.code), self.content.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Ended = Ended::exited(3);

    fn kept(room: usize, pieces: &[(Stream, &[u8])]) -> Transcript {
        let mut keeping = Keeping::new(room);
        pieces.iter().for_each(|(stream, bytes)| keeping.add(*stream, bytes));
        let reply = keeping.reply(FAILED);
        let content = reply.content().unwrap().len();
        assert!(content <= room.saturating_add(HEAD), "{content} bytes for {room}");
        Transcript::read(&reply).unwrap()
    }

    #[test]
    fn bytes_come_back_on_their_streams_and_in_their_order() {
        let (out, err) = (Stream::Out, Stream::Err);
        let written: [(_, &[u8]); 5] =
            [(out, b"a\n"), (out, b"\0\xff"), (err, b"b"), (err, b""), (out, b"c")];
        let read = kept(100, &written);
        let texts: Vec<_> = read.pieces.iter().map(|(stream, it)| (*stream, &it[..])).collect();
        assert_eq!(texts, [(out, &b"a\n\0\xff"[..]), (err, &b"b"[..]), (out, &b"c"[..])]);
        assert_eq!((read.ended, read.written, read.is_cut()), (FAILED, 6, false));
        assert_eq!(Transcript::read(&read.reply()), Some(read));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nothing_after_it_is_kept() {
        let (out, err) = (Stream::Out, Stream::Err);
        let text: &[u8] = b"0123456789";
        for room in 0..40 {
            let read = kept(room, &[(out, text), (err, text), (out, b"x")]);
            assert_eq!(read.written, 21);
            let all: Vec<u8> = read.pieces.iter().flat_map(|(_, it)| it.to_vec()).collect();
            assert!(b"01234567890123456789x".starts_with(&all), "{room}: {all:?}");
            assert_eq!(read.is_cut(), room < 36, "{room}");
        }
    }

    #[test]
    fn how_a_command_ended_comes_back() {
        for ended in [Ended::exited(0), Ended::exited(255), Ended::killed(9), Ended::killed(64)] {
            let read = Transcript::read(&Keeping::new(0).reply(ended)).unwrap();
            assert_eq!((read.ended, read.written), (ended, 0));
        }
        assert_eq!(Ended::killed(15).code, 143);
    }

    #[test]
    fn what_is_no_transcript_is_none() {
        let whole = Keeping::new(9).reply(FAILED).content().unwrap().clone();
        let piece = [&whole[..], &[1, 0, 0, 0, 1, b'x']].concat();
        assert!(Transcript::read(&Reply::kept(0, piece.clone())).is_some());
        for end in 0..piece.len() {
            let cut = Reply::kept(0, piece[..end].to_vec());
            assert_eq!(Transcript::read(&cut).is_some(), end == whole.len(), "{end}");
        }
        assert_eq!(Transcript::read(&Reply::kept(256, whole)), None);
        assert_eq!(Transcript::read(&Reply::not_kept(0)), None);
    }
}
