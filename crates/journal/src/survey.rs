//! Reading a segment for everything that can still be read, past what is broken.

use bytes::Bytes;
use onlyonce_store::CodecError;

use crate::entry::{self, Entry, FRAME, Framed};
use crate::segment::{HEADER, STEP, is_zeros, mark_from};

/// Past a broken place, entries up to this length are looked for at every byte; longer ones are
/// found again where the next batch begins.
const SHORT: usize = 64 << 10;

/// A stretch that holds no entry, and more entries follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) why: &'static str,
}

/// All that can be read of a segment.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) entries: Vec<(u64, Entry)>,
    pub(crate) gaps: Vec<Gap>,
    /// Where the last entry ends.
    pub(crate) end: u64,
    /// What stands there, if anything does.
    pub(crate) broken: Option<&'static str>,
    /// Where the first whole entry stands that a newer program has written, and what it is.
    pub(crate) newer: Option<(u64, CodecError)>,
}

/// Why no entry can be read at a place.
enum Unread {
    /// Nothing stands here.
    Empty,
    /// Something that is no whole entry.
    Broken(&'static str),
    /// A whole entry of this length in a format that is not known here.
    Newer(usize, CodecError),
}

/// Reads all of it. Never fails: what cannot be read is in the gaps.
pub(crate) fn survey(all: &Bytes, number: u64) -> Survey {
    let mut survey = Survey { end: HEADER as u64, ..Survey::default() };
    let mut at = HEADER.min(all.len());
    loop {
        let why = match whole(all, number, at) {
            Ok((entry, length)) => {
                survey.entries.push((at as u64, entry));
                at += length;
                survey.end = at as u64;
                continue;
            }
            Err(Unread::Newer(length, error)) => {
                survey.newer.get_or_insert((at as u64, error));
                at += length;
                survey.end = at as u64;
                continue;
            }
            Err(Unread::Empty) => None,
            Err(Unread::Broken(why)) => Some(why),
        };
        let Some(next) = resume(all, number, at + 1) else {
            survey.broken = why;
            return survey;
        };
        let why = why.unwrap_or("nothing stands here");
        survey.gaps.push(Gap { from: at as u64, until: next as u64, why });
        at = next;
    }
}

/// The entry at a place and its length.
fn whole(all: &Bytes, number: u64, at: usize) -> Result<(Entry, usize), Unread> {
    match entry::framed(&all.slice(at..), number, at as u64) {
        Framed::Whole(payload) => {
            let length = FRAME + payload.len();
            match entry::parse(payload) {
                Ok(entry) => Ok((entry, length)),
                Err(error @ CodecError::Version(_)) => Err(Unread::Newer(length, error)),
                Err(_) => Err(Unread::Broken("an entry is not understood")),
            }
        }
        Framed::Empty => Err(Unread::Empty),
        Framed::Broken(why) => Err(Unread::Broken(why)),
    }
}

/// The next place from `from` on where an entry stands.
fn resume(all: &Bytes, number: u64, from: usize) -> Option<usize> {
    let is_entry = |at| matches!(whole(all, number, at), Ok(_) | Err(Unread::Newer(..)));
    let mark = {
        let mut from = from;
        loop {
            match mark_from(all, from) {
                Some(at) if is_entry(at) => break Some(at),
                Some(at) => from = at + 1,
                None => break None,
            }
        }
    };
    let short = |at: &usize| {
        let frame = all.get(*at..*at + FRAME).and_then(|it| it.first_chunk::<FRAME>());
        let length = frame.map_or(0, |frame| entry::length(*frame));
        FRAME < length && length <= SHORT && is_entry(*at)
    };
    let (mut at, until) = (from, mark.unwrap_or(all.len()));
    while at < until {
        let step = until.min(at + STEP);
        if is_zeros(&all[at..step]) {
            // A frame may begin with zeros, but not with four: they would be its length.
            at = if step == until { until } else { step - 3 };
        } else if let Some(found) = (at..step).find(short) {
            return Some(found);
        } else {
            at = step;
        }
    }
    mark
}
