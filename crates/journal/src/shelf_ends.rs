//! What stands at the two ends of a shelf: its header, and where what is in it begins.

use std::path::{Path, PathBuf};

use bytes::Buf;

use crate::disk::Medium;
use crate::error::{JournalError, JournalErrorKind};
use crate::shelf::{END_MAGIC, FENCE, FOOTER, FORMAT, HEADER, MAGIC};

/// Both ends as they are read.
pub(crate) struct Ends {
    pub(crate) entries: u32,
    pub(crate) fences: u64,
    pub(crate) filter: u64,
    pub(crate) revision_min: u64,
    pub(crate) revision_max: u64,
    pub(crate) fences_check: u32,
    pub(crate) filter_check: u32,
}

impl Ends {
    pub(crate) fn read(
        medium: &dyn Medium,
        place: &PathBuf,
        number: u64,
        length: u64,
    ) -> Result<Self, JournalError> {
        let io = |error: std::io::Error| JournalError::io(place, &error);
        let wrong = |at: u64, text: &str| Err(JournalError::damaged(place, at, text));
        if length < (HEADER + FOOTER) as u64 {
            return wrong(length, "the file is shorter than its header and its end");
        }
        let (mut head, mut end) = ([0; HEADER], [0; FOOTER]);
        medium.read_at(&mut head, 0).map_err(io)?;
        let end_at = length - FOOTER as u64;
        medium.read_at(&mut end, end_at).map_err(io)?;
        if !is_checked(&head) || &head[..8] != MAGIC {
            return wrong(0, "the header is not as it was written");
        }
        let (mut head, mut rest) = (&head[8..], &end[8..]);
        let format = head.get_u32_le();
        if format != FORMAT {
            return Err(newer(place, "shelf", format));
        }
        if !is_checked(&end) || &end[..8] != END_MAGIC {
            return wrong(end_at, "the end is not as it was written");
        }
        head.advance(4);
        if head.get_u64_le() != number || rest.get_u64_le() != number {
            return wrong(16, "the file has another shelf's number");
        }
        let (entries, blocks) = (rest.get_u32_le(), rest.get_u32_le());
        let (fences, filter) = (rest.get_u64_le(), rest.get_u64_le());
        let (revision_min, revision_max) = (rest.get_u64_le(), rest.get_u64_le());
        let (fences_check, filter_check) = (rest.get_u32_le(), rest.get_u32_le());
        let fenced = fences.checked_add(u64::from(blocks) * FENCE as u64);
        if fences < HEADER as u64 || fenced != Some(filter) || end_at <= filter {
            return wrong(end_at, "the end does not fit the file");
        }
        Ok(Self { entries, fences, filter, revision_min, revision_max, fences_check, filter_check })
    }
}

/// A file is of a format that is not known here, though it is as it was written.
pub(crate) fn newer(place: &Path, what: &str, format: u32) -> JournalError {
    let text = format!("{what} format {format} is not known here: use a newer onlyonce");
    JournalError::new(JournalErrorKind::Format, place, text).at(8)
}

/// Whether the last four bytes are the checksum of those before.
fn is_checked(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<4>()
        .is_some_and(|(rest, check)| crc32c::crc32c(rest) == u32::from_le_bytes(*check))
}
