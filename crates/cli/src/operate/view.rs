//! A record as operators see it.

use std::time::{Duration, UNIX_EPOCH};

use onlyonce_core::{KeyId, Phase, Record, State, Timestamp};
use serde::{Deserialize, Serialize};

/// One key. Times are in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) id: String,
    pub(crate) state: String,
    pub(crate) fence: u64,
    pub(crate) attempt: u32,
    /// When it came into this state, as far as the record says.
    pub(crate) since: String,
    /// What there is to say about the state, in a few words.
    pub(crate) about: String,
    pub(crate) runs_authorised: u32,
    /// Whether it was answered a second time, differently. A proxy of an earlier version does not
    /// say.
    #[serde(default)]
    pub(crate) alarm: bool,
    pub(crate) key_time: Option<String>,
    pub(crate) evidence: Option<String>,
    pub(crate) history: Vec<Note>,
}

/// A line of a key's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) at: String,
    pub(crate) event: String,
    pub(crate) fence: u64,
    pub(crate) by: String,
    pub(crate) why: String,
}

impl View {
    pub(crate) fn of(id: KeyId, record: &Record) -> Self {
        let (since, mut about) = state(record);
        if record.has_alarm() {
            about.push_str("; alarm: another answer came");
        }
        let history = record.history.entries().iter().map(|entry| Note {
            at: time(entry.at),
            event: entry.event.name().to_owned(),
            fence: entry.fence.get(),
            by: entry.by.clone(),
            why: entry.why.clone(),
        });
        let evidence = record.evidence.as_ref();
        Self {
            id: id.to_string(),
            state: record.state.kind().name().to_owned(),
            fence: record.fence.get(),
            attempt: record.attempt,
            since: time(since),
            about,
            runs_authorised: record.runs_authorised,
            alarm: record.has_alarm(),
            key_time: record.key_time.map(time),
            evidence: evidence.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned()),
            history: history.collect(),
        }
    }
}

fn state(record: &Record) -> (Timestamp, String) {
    match &record.state {
        State::InFlight(flight) => {
            let phase = match flight.phase {
                Phase::Prepared => "prepared, nothing was sent yet",
                Phase::Committing => "it may be happening",
            };
            let until = time(flight.lease_until);
            // A claim's fence is when it was granted.
            let since = Timestamp::from_millis(record.fence.get());
            (since, format!("{phase}; process {}, lease until {until}", flight.holder.pid))
        }
        State::Released { since } => (*since, "it did not happen; the key is free".to_owned()),
        State::Completed { reply, answered_at, retain_until, sealed } => {
            let what = if *sealed { "sealed" } else { "answered" };
            if record.is_erased() {
                let about = format!("{what} with {}; the answer was erased", reply.status());
                return (*answered_at, about);
            }
            let size = match reply.content() {
                Some(content) => format!("{} bytes kept", content.len()),
                None => "content not kept".to_owned(),
            };
            let until = time(*retain_until);
            (*answered_at, format!("{what} with {}, {size} until {until}", reply.status()))
        }
        State::Unknown(doubt) => (doubt.since, format!("nobody knows: {}", doubt.cause.name())),
        State::Tombstone { answered_at, status, sealed, .. } => {
            let what = if *sealed { "sealed" } else { "answered" };
            let gone = if record.is_erased() { "the answer was erased" } else { "no longer kept" };
            (*answered_at, format!("{what} with {status}; {gone}"))
        }
    }
}

/// `2026-11-25T10:00:00.000Z`
pub(crate) fn time(at: Timestamp) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(at.as_millis()));
    at.map_or_else(|| "never".to_owned(), |at| humantime::format_rfc3339_millis(at).to_string())
}
