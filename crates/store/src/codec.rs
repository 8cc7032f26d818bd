//! The bytes of a record, versions 1 to 3. `docs/record-format.md` describes them byte by byte.
//!
//! A record is written in the oldest version that can say it: an older onlyonce then reads all
//! that it could have written itself, and refuses the rest by its version.
//!
//! The checksum is the container's business (a journal entry, a database's page): this codec
//! only promises that [`decode`] gives back what [`encode`] was given, and that it refuses
//! everything else without a panic.

mod parts;

use core::fmt;

use bytes::{Buf, BufMut, Bytes};
use onlyonce_core::{
    Cause, ClaimId, Credential, Doubt, Entry, Event, Evidence, Fence, Fingerprint, Flight, History,
    Holder, KeyId, Phase, Record, Reply, ReplyDigest, Revision, State, StateKind,
};
use parts::{Reader, put_bytes, put_time, put_varint};

/// The newest format that is written and read.
pub const VERSION: u8 = 3;
/// The oldest that is read.
const OLDEST: u8 = 1;

const HAS_FINGERPRINT: u8 = 1 << 0;
const HAS_CREDENTIAL: u8 = 1 << 1;
const HAS_FIRST_COMMIT: u8 = 1 << 2;
const HAS_KEY_TIME: u8 = 1 << 3;
const HAS_EVIDENCE: u8 = 1 << 4;
const HAS_HISTORY: u8 = 1 << 5;
const HAS_RERUN: u8 = 1 << 6;
/// The attempt is not the first, or a run was authorised.
const HAS_ATTEMPTS: u8 = 1 << 7;

const DETAIL_SEALED: u8 = 1 << 0;
const DETAIL_KEPT: u8 = 1 << 1;
const DETAIL_COMMITTING: u8 = 1 << 2;
const DETAIL_DOUBT: u8 = 1 << 3;
const DETAIL_ONLY: u8 = 1 << 4;
const DETAIL_TIME_NAMESPACE: u8 = 1 << 5;
const DETAILS_KNOWN: u8 = (1 << 6) - 1;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// Written by a newer onlyonce: no older one may guess what it means.
    Version(u8),
    /// The bytes end inside this field.
    Truncated(&'static str),
    /// This field holds a value that no record has.
    Invalid(&'static str),
    /// Bytes are left over after the record.
    TrailingBytes(usize),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(
                f,
                "record format {version} is not known here, where the newest is {VERSION}: use a \
                 newer onlyonce"
            ),
            Self::Truncated(field) => write!(f, "the record ends inside its {field}"),
            Self::Invalid(field) => write!(f, "the record's {field} is not valid"),
            Self::TrailingBytes(bytes) => write!(f, "{bytes} bytes follow the record"),
        }
    }
}

impl std::error::Error for CodecError {}

/// The oldest format that can say what `record` says.
fn version(record: &Record) -> u8 {
    let names_time = match &record.state {
        State::InFlight(flight) => flight.holder.time_namespace != 0,
        State::Released { .. }
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => false,
    };
    if names_time || record.has_alarm() {
        3
    } else if record.is_erased() {
        2
    } else {
        OLDEST
    }
}

/// Appends the bytes of `record` with its key id to `out`.
pub fn encode(id: KeyId, record: &Record, out: &mut Vec<u8>) {
    let at = out.len();
    out.put_slice(&[
        version(record) << 4 | record.state.kind() as u8,
        flags(record),
        details(&record.state),
    ]);
    out.put_slice(id.as_bytes());
    // Times and fences are near the revision, so their distance to it is a short number.
    let base = record.revision.get();
    put_varint(out, base);
    put_varint(out, base - record.fence.get());
    if !is_first_attempt(record) {
        put_varint(out, record.fence.get() - record.first_fence.get());
        put_varint(out, record.attempt.into());
        put_varint(out, record.runs_authorised.into());
    }
    if let Some(fingerprint) = &record.fingerprint {
        out.put_u8(fingerprint.version());
        out.put_slice(fingerprint.digest());
    }
    if let Some(credential) = &record.credential {
        out.put_slice(credential.as_bytes());
    }
    if let Some(at) = record.first_commit_at {
        put_time(out, base, at);
    }
    if let Some(at) = record.key_time {
        put_time(out, base, at);
    }
    if let Some(evidence) = &record.evidence {
        put_bytes(out, evidence.as_bytes());
    }
    if !record.history.entries().is_empty() {
        encode_history(&record.history, base, out);
    }
    encode_state(&record.state, base, out);
    debug_assert_eq!(
        decode(Bytes::copy_from_slice(&out[at..])).as_ref(),
        Ok(&(id, record.clone())),
        "a record must read back as it was written"
    );
}

/// The commonest shape of a record, for which three numbers need not be written.
fn is_first_attempt(record: &Record) -> bool {
    record.attempt == 1 && record.runs_authorised == 0 && record.first_fence == record.fence
}

fn flags(record: &Record) -> u8 {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    flag(record.fingerprint.is_some(), HAS_FINGERPRINT)
        | flag(record.credential.is_some(), HAS_CREDENTIAL)
        | flag(record.first_commit_at.is_some(), HAS_FIRST_COMMIT)
        | flag(record.key_time.is_some(), HAS_KEY_TIME)
        | flag(record.evidence.is_some(), HAS_EVIDENCE)
        | flag(!record.history.entries().is_empty(), HAS_HISTORY)
        | flag(record.rerun, HAS_RERUN)
        | flag(!is_first_attempt(record), HAS_ATTEMPTS)
}

fn details(state: &State) -> u8 {
    let only = |doubt: &Doubt| if doubt.only.is_some() { DETAIL_ONLY } else { 0 };
    match state {
        State::InFlight(flight) => {
            let phase = match flight.phase {
                Phase::Prepared => 0,
                Phase::Committing => DETAIL_COMMITTING,
            };
            let names_time = flight.holder.time_namespace != 0;
            phase
                | flight.inherited.as_ref().map_or(0, |doubt| DETAIL_DOUBT | only(doubt))
                | if names_time { DETAIL_TIME_NAMESPACE } else { 0 }
        }
        State::Released { .. } => 0,
        State::Completed { reply, sealed, .. } => {
            let kept = if reply.content().is_some() { DETAIL_KEPT } else { 0 };
            kept | if *sealed { DETAIL_SEALED } else { 0 }
        }
        State::Unknown(doubt) => DETAIL_DOUBT | only(doubt),
        State::Tombstone { sealed, .. } => {
            if *sealed {
                DETAIL_SEALED
            } else {
                0
            }
        }
    }
}

fn encode_history(history: &History, base: u64, out: &mut Vec<u8>) {
    put_varint(out, history.entries().len() as u64);
    for entry in history.entries() {
        put_time(out, base, entry.at);
        out.put_u8(entry.event as u8);
        put_varint(out, entry.fence.get());
        put_bytes(out, entry.by.as_bytes());
        put_bytes(out, entry.why.as_bytes());
    }
}

fn encode_state(state: &State, base: u64, out: &mut Vec<u8>) {
    match state {
        State::InFlight(flight) => {
            out.put_slice(flight.claim_id.as_bytes());
            out.put_slice(&flight.holder.host);
            out.put_slice(&flight.holder.boot);
            out.put_u32_le(flight.holder.pid_namespace);
            out.put_u32_le(flight.holder.pid);
            put_varint(out, flight.holder.started);
            if flight.holder.time_namespace != 0 {
                out.put_u32_le(flight.holder.time_namespace);
            }
            put_time(out, base, flight.lease_until);
            if let Some(doubt) = &flight.inherited {
                encode_doubt(doubt, base, out);
            }
        }
        State::Released { since } => put_time(out, base, *since),
        State::Completed { reply, answered_at, retain_until, .. } => {
            out.put_u16_le(reply.status());
            put_time(out, base, *answered_at);
            put_time(out, base, *retain_until);
            if let Some(content) = reply.content() {
                // The content runs to the end of the record.
                out.put_slice(content);
            }
        }
        State::Unknown(doubt) => encode_doubt(doubt, base, out),
        State::Tombstone { answered_at, status, forget_at, digest, .. } => {
            out.put_u16_le(*status);
            put_time(out, base, *answered_at);
            put_time(out, base, *forget_at);
            out.put_slice(digest.as_bytes());
        }
    }
}

fn encode_doubt(doubt: &Doubt, base: u64, out: &mut Vec<u8>) {
    put_time(out, base, doubt.since);
    out.put_u8(doubt.cause as u8);
    if let Some(only) = doubt.only {
        put_varint(out, only.get());
    }
}

/// Reads one record and its key id from exactly these bytes. A kept reply shares their memory.
///
/// # Errors
/// [`CodecError`] names the field that is wrong.
pub fn decode(bytes: Bytes) -> Result<(KeyId, Record), CodecError> {
    let mut reader = Reader { bytes, base: 0 };
    let first = reader.u8("version")?;
    let written = known_version(first >> 4)?;
    let kind = StateKind::from_number(first & 0x0F).ok_or(CodecError::Invalid("state"))?;
    let flags = reader.u8("flags")?;
    let details = reader.u8("details")?;
    if details & !DETAILS_KNOWN != 0 {
        return Err(CodecError::Invalid("details"));
    }
    let has = |flag: u8| flags & flag != 0;
    let id = KeyId::from_bytes(reader.array("key id")?);
    reader.base = reader.varint("revision")?;
    let revision = Revision::new(reader.base).ok_or(CodecError::Invalid("revision"))?;
    let fence = earlier(reader.base, reader.varint("fence")?, "fence")?;
    let (first_fence, attempt, runs_authorised) = match has(HAS_ATTEMPTS) {
        true => decode_attempts(fence, &mut reader)?,
        false => (fence, 1, 0),
    };
    let fingerprint = match has(HAS_FINGERPRINT) {
        true => Some(Fingerprint::new(reader.u8("fingerprint")?, reader.array("fingerprint")?)),
        false => None,
    };
    let credential = match has(HAS_CREDENTIAL) {
        true => Some(Credential::from_bytes(reader.array("credential")?)),
        false => None,
    };
    let first_commit_at = match has(HAS_FIRST_COMMIT) {
        true => Some(reader.time("first commit")?),
        false => None,
    };
    let key_time = match has(HAS_KEY_TIME) {
        true => Some(reader.time("key time")?),
        false => None,
    };
    let evidence = match has(HAS_EVIDENCE) {
        true => {
            Some(Evidence::new(reader.bytes("evidence")?).ok_or(CodecError::Invalid("evidence"))?)
        }
        false => None,
    };
    let history = match has(HAS_HISTORY) {
        true => decode_history(&mut reader)?,
        false => History::default(),
    };
    let state = decode_state(kind, details, &mut reader)?;
    if self::details(&state) != details {
        return Err(CodecError::Invalid("details"));
    }
    if reader.bytes.has_remaining() {
        return Err(CodecError::TrailingBytes(reader.bytes.remaining()));
    }
    let record = Record {
        revision,
        fingerprint,
        credential,
        first_fence,
        fence,
        attempt,
        first_commit_at,
        runs_authorised,
        rerun: has(HAS_RERUN),
        key_time,
        evidence,
        history,
        state,
    };
    // Each record has one spelling, in the version of its newest part.
    if version(&record) == written { Ok((id, record)) } else { Err(CodecError::Invalid("version")) }
}

fn known_version(version: u8) -> Result<u8, CodecError> {
    match version {
        OLDEST..=VERSION => Ok(version),
        _ => Err(CodecError::Version(version)),
    }
}

fn decode_attempts(fence: Fence, reader: &mut Reader) -> Result<(Fence, u32, u32), CodecError> {
    let first_fence = earlier(fence.get(), reader.varint("first fence")?, "first fence")?;
    Ok((first_fence, reader.varint32("attempt")?, reader.varint32("runs authorised")?))
}

fn earlier(number: u64, distance: u64, field: &'static str) -> Result<Fence, CodecError> {
    number.checked_sub(distance).and_then(Fence::new).ok_or(CodecError::Invalid(field))
}

fn decode_history(reader: &mut Reader) -> Result<History, CodecError> {
    let count = reader.varint("history")?;
    if count == 0 || u64::from(u8::MAX) < count {
        return Err(CodecError::Invalid("history"));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let at = reader.time("history time")?;
        let event = reader.u8("history event")?;
        let event = Event::from_number(event).ok_or(CodecError::Invalid("history event"))?;
        let fence = reader.fence("history fence")?;
        let by = reader.text("history name")?;
        let why = reader.text("history reason")?;
        entries.push(Entry { at, event, fence, by, why });
    }
    Ok(History::from_entries(entries))
}

fn decode_state(kind: StateKind, details: u8, reader: &mut Reader) -> Result<State, CodecError> {
    let has = |detail: u8| details & detail != 0;
    Ok(match kind {
        StateKind::InFlight => State::InFlight(Flight {
            claim_id: ClaimId::from_bytes(reader.array("claim id")?),
            holder: Holder {
                host: reader.array("holder")?,
                boot: reader.array("holder")?,
                pid_namespace: u32::from_le_bytes(reader.array("holder")?),
                pid: u32::from_le_bytes(reader.array("holder")?),
                started: reader.varint("holder")?,
                time_namespace: match has(DETAIL_TIME_NAMESPACE) {
                    true => u32::from_le_bytes(reader.array("holder")?),
                    false => 0,
                },
            },
            lease_until: reader.time("lease")?,
            phase: match has(DETAIL_COMMITTING) {
                true => Phase::Committing,
                false => Phase::Prepared,
            },
            inherited: match has(DETAIL_DOUBT) {
                true => Some(decode_doubt(details, reader)?),
                false => None,
            },
        }),
        StateKind::Released => State::Released { since: reader.time("released")? },
        StateKind::Completed => {
            let status = reader.u16("status")?;
            let answered_at = reader.time("answered at")?;
            let retain_until = reader.time("retain until")?;
            let reply = match has(DETAIL_KEPT) {
                true => Reply::kept(status, reader.rest()),
                false => Reply::not_kept(status),
            };
            State::Completed { reply, answered_at, retain_until, sealed: has(DETAIL_SEALED) }
        }
        StateKind::Unknown => State::Unknown(decode_doubt(details, reader)?),
        StateKind::Tombstone => State::Tombstone {
            status: reader.u16("status")?,
            answered_at: reader.time("answered at")?,
            forget_at: reader.time("forget at")?,
            sealed: has(DETAIL_SEALED),
            digest: ReplyDigest::from_bytes(reader.array("reply digest")?),
        },
    })
}

fn decode_doubt(details: u8, reader: &mut Reader) -> Result<Doubt, CodecError> {
    let since = reader.time("unknown since")?;
    let cause = Cause::from_number(reader.u8("cause")?).ok_or(CodecError::Invalid("cause"))?;
    let only = match details & DETAIL_ONLY != 0 {
        true => Some(reader.fence("attempt in doubt")?),
        false => None,
    };
    Ok(Doubt { since, cause, only })
}

#[cfg(test)]
mod tests;
