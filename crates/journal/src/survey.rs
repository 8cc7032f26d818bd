//! Reading a segment for everything that can still be read, past what is broken.

use bytes::Bytes;

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
            Err(why) => why,
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

/// The entry at a place, or what stands there instead; `Err(None)` for nothing.
fn whole(all: &Bytes, number: u64, at: usize) -> Result<(Entry, usize), Option<&'static str>> {
    match entry::framed(&all.slice(at..), number, at as u64) {
        Framed::Whole(payload) => {
            let length = FRAME + payload.len();
            let parsed = entry::parse(payload).map_err(|_| Some("an entry is not understood"))?;
            Ok((parsed, length))
        }
        Framed::Empty => Err(None),
        Framed::Broken(why) => Err(Some(why)),
    }
}

/// The next place from `from` on where an entry stands.
fn resume(all: &Bytes, number: u64, from: usize) -> Option<usize> {
    let is_entry = |at: usize| whole(all, number, at).is_ok();
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
