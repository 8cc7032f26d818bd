//! The record kept for one key id: everything that is known about one intended operation.

use core::fmt;

use crate::fingerprint::{Credential, Fingerprint};
use crate::limits::{EVIDENCE_BYTES_MAX, HISTORY_ENTRIES_MAX, HISTORY_TEXT_BYTES_MAX};
use crate::reply::{Reply, ReplyDigest};
use crate::revision::{Fence, Revision};
use crate::time::Timestamp;

/// All we keep for a key id. Absent is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the write that made it so.
    pub revision: Revision,
    /// What the request must look like. `None` matches every request: the record was sealed, or
    /// its first attempt was refused as unauthenticated.
    pub fingerprint: Option<Fingerprint>,
    /// The unverified credential that made the latest claim, if it was unverified.
    pub credential: Option<Credential>,
    /// The earliest claim of this record's life; a fence below it belongs to a deleted record.
    pub first_fence: Fence,
    /// The latest claim ever granted; commands that name an older one are fenced.
    pub fence: Fence,
    /// How many claims were granted, saturating. Zero if it was sealed before any.
    pub attempt: u32,
    /// When an attempt first entered its dangerous phase.
    pub first_commit_at: Option<Timestamp>,
    /// How many runs beyond the first a policy or a person has authorised, saturating.
    pub runs_authorised: u32,
    /// Whether a person had it run again although an earlier attempt may have happened.
    pub rerun: bool,
    /// The time the key carries, if it carries one.
    pub key_time: Option<Timestamp>,
    /// What the latest holder noted, such as an external id.
    pub evidence: Option<Evidence>,
    /// Who changed the course of this record, when and why. Ordinary claims leave no entry.
    pub history: History,
    /// Where it stands.
    pub state: State,
}

impl Record {
    /// Whether what was answered was erased on demand.
    pub fn is_erased(&self) -> bool {
        self.history.count(Event::Erased) != 0
    }

    /// Whether it was answered a second time, differently: an operation that may have happened
    /// twice, which a person should look at.
    pub fn has_alarm(&self) -> bool {
        self.history.count(Event::SecondReply) != 0
    }

    /// Whether any attempt with this key may have taken effect. `false` is certain.
    pub fn may_have_run(&self) -> bool {
        match &self.state {
            State::InFlight(flight) => {
                self.rerun || flight.inherited.is_some() || flight.phase == Phase::Committing
            }
            State::Released { .. } => self.rerun,
            State::Completed { sealed, .. } | State::Tombstone { sealed, .. } => {
                !sealed || self.rerun
            }
            State::Unknown(_) => true,
        }
    }
}

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A holder may be running the operation.
    InFlight(Flight),
    /// Known not to have happened; the same request may claim again.
    Released {
        /// Since when.
        since: Timestamp,
    },
    /// Definitely answered, or sealed: this is what to say.
    Completed {
        /// What is answered.
        reply: Reply,
        /// When it was completed.
        answered_at: Timestamp,
        /// Until when the reply is kept.
        retain_until: Timestamp,
        /// It was sealed and never runs from then on: the reply is the refusal.
        sealed: bool,
    },
    /// Nobody knows whether it happened.
    Unknown(Doubt),
    /// It was answered or sealed; the reply is no longer kept; the key is still refused.
    Tombstone {
        /// When it was completed.
        answered_at: Timestamp,
        /// The status of the reply.
        status: u16,
        /// When the sweeper may delete the record.
        forget_at: Timestamp,
        /// It never ran.
        sealed: bool,
        /// What the reply was, to tell a repeated completion from another one.
        digest: ReplyDigest,
    },
}

impl State {
    /// The state without its data, for filters and metrics.
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::InFlight(_) => StateKind::InFlight,
            Self::Released { .. } => StateKind::Released,
            Self::Completed { .. } => StateKind::Completed,
            Self::Unknown(_) => StateKind::Unknown,
            Self::Tombstone { .. } => StateKind::Tombstone,
        }
    }
}

/// The name of a [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StateKind {
    /// [`State::InFlight`]
    InFlight = 1,
    /// [`State::Released`]
    Released = 2,
    /// [`State::Completed`]
    Completed = 3,
    /// [`State::Unknown`]
    Unknown = 4,
    /// [`State::Tombstone`]
    Tombstone = 5,
}

impl StateKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::InFlight, Self::Released, Self::Completed, Self::Unknown, Self::Tombstone];

    /// The name used in commands, metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Released => "released",
            Self::Completed => "completed",
            Self::Unknown => "unknown",
            Self::Tombstone => "tombstone",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind with this number in a record's bytes.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A claim that is held: who has it, until when, and how far it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The attempt that was granted this claim.
    pub claim_id: ClaimId,
    /// The process that runs it.
    pub holder: Holder,
    /// When the claim lapses unless it is renewed.
    pub lease_until: Timestamp,
    /// Whether anything may have been sent.
    pub phase: Phase,
    /// The unknown outcome this claim was granted out of; it is not settled by releasing.
    pub inherited: Option<Doubt>,
}

/// How far an attempt has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Certainly nothing was sent that can take effect.
    Prepared,
    /// The operation may have happened.
    Committing,
}

/// An outcome that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// When knowledge was lost.
    pub since: Timestamp,
    /// How it was lost.
    pub cause: Cause,
    /// The attempt in doubt if it is the only one; its holder may still say that it never sent.
    pub only: Option<Fence>,
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The holder stopped renewing its claim after the operation may have begun.
    Lapsed = 1,
    /// The holder's process is provably gone.
    HolderDied = 2,
    /// The holder gave up its claim without an outcome, such as on a panic.
    Abandoned = 3,
    /// The connection broke after the request was sent.
    ConnectionLost = 4,
    /// No answer came in time.
    TimedOut = 5,
    /// A gateway answered in the receiver's place (HTTP 502, 503, 504).
    GatewayAnswer = 6,
    /// The answer broke off.
    AnswerCut = 7,
    /// The store was restored from a backup that may be older than the operation.
    Restored = 8,
}

impl Cause {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Lapsed,
        Self::HolderDied,
        Self::Abandoned,
        Self::ConnectionLost,
        Self::TimedOut,
        Self::GatewayAnswer,
        Self::AnswerCut,
        Self::Restored,
    ];

    /// The name used in problems, commands and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lapsed => "lapsed",
            Self::HolderDied => "holder-died",
            Self::Abandoned => "abandoned",
            Self::ConnectionLost => "connection-lost",
            Self::TimedOut => "timed-out",
            Self::GatewayAnswer => "gateway-answer",
            Self::AnswerCut => "answer-cut",
            Self::Restored => "restored",
        }
    }

    /// The cause with this number in a record's bytes.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| *cause as u8 == number)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// 128 random bits made for one attempt, never reused: repeating a claim with it is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId([u8; 16]);

impl ClaimId {
    /// The claim id with these random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, for stores.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// The process that holds a claim. It serves only to prove that process gone; it never grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    /// A hash of the host's machine id.
    pub host: [u8; 8],
    /// The host's boot id.
    pub boot: [u8; 16],
    /// The inode of the process's pid namespace.
    pub pid_namespace: u32,
    /// The process id in that namespace.
    pub pid: u32,
    /// When the process started, in clock ticks since boot, as its time namespace counts them.
    pub started: u64,
    /// The inode of that time namespace; zero if it is not known, as in older records.
    pub time_namespace: u32,
}

/// Bounded bytes that a holder noted about its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence(Vec<u8>);

impl Evidence {
    /// Evidence of at most [`EVIDENCE_BYTES_MAX`] bytes; `None` above.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (bytes.len() <= EVIDENCE_BYTES_MAX).then_some(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What changed the course of a record, oldest first. Bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Vec<Entry>);

/// One thing that changed the course of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// The claim it was about.
    pub fence: Fence,
    /// Who did it.
    pub by: String,
    /// The reason given.
    pub why: String,
}

impl Entry {
    /// All of it but when it was.
    pub(crate) fn without_time(&self) -> (Event, Fence, &str, &str) {
        (self.event, self.fence, &self.by, &self.why)
    }
}

/// What a history entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Event {
    /// Someone found out that it happened.
    ResolvedHappened = 1,
    /// Someone found out that it did not and can no longer happen.
    ResolvedNotExecuted = 2,
    /// Someone had it run again without knowing.
    ResolvedRunAgain = 3,
    /// The policy let an unknown outcome run again.
    RetriedByPolicy = 4,
    /// A holder that had lost its claim reported success.
    LateCompletion = 5,
    /// The key was sealed.
    Sealed = 6,
    /// The holder's process was proved gone.
    HolderDied = 7,
    /// The record came out of a backup or a salvage.
    Restored = 8,
    /// The kept reply was erased before its time.
    Erased = 9,
    /// Someone reported another success than the one that is recorded.
    SecondReply = 10,
}

impl Event {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::ResolvedHappened,
        Self::ResolvedNotExecuted,
        Self::ResolvedRunAgain,
        Self::RetriedByPolicy,
        Self::LateCompletion,
        Self::Sealed,
        Self::HolderDied,
        Self::Restored,
        Self::Erased,
        Self::SecondReply,
    ];

    /// The name used in commands and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResolvedHappened => "resolved-happened",
            Self::ResolvedNotExecuted => "resolved-not-executed",
            Self::ResolvedRunAgain => "resolved-run-again",
            Self::RetriedByPolicy => "retried-by-policy",
            Self::LateCompletion => "late-completion",
            Self::Sealed => "sealed",
            Self::HolderDied => "holder-died",
            Self::Restored => "restored",
            Self::Erased => "erased",
            Self::SecondReply => "second-reply",
        }
    }

    /// The event with this number in a record's bytes.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|event| *event as u8 == number)
    }
}

impl History {
    /// A history read back from a store; entries over the bound are dropped as [`Self::push`] does.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut history = Self::default();
        entries.into_iter().for_each(|entry| history.push(entry));
        history
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// How many entries tell of `event`.
    pub fn count(&self, event: Event) -> usize {
        self.0.iter().filter(|entry| entry.event == event).count()
    }

    /// Appends an entry. When full, the second oldest goes: how it began is worth keeping.
    pub fn push(&mut self, mut entry: Entry) {
        cut(&mut entry.by);
        cut(&mut entry.why);
        if self.0.len() == HISTORY_ENTRIES_MAX {
            self.0.remove(1);
        }
        self.0.push(entry);
    }
}

/// Shortens `text` to the bound at a character boundary.
fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(HISTORY_TEXT_BYTES_MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u64, why: &str) -> Entry {
        Entry {
            at: Timestamp::from_millis(at),
            event: Event::Sealed,
            fence: Fence::new(1).unwrap(),
            by: String::new(),
            why: why.to_owned(),
        }
    }

    #[test]
    fn history_is_bounded_and_keeps_the_first_and_the_latest() {
        let history = History::from_entries((0..40).map(|at| entry(at, "")));
        let times: Vec<u64> = history.entries().iter().map(|it| it.at.as_millis()).collect();
        assert_eq!(times.len(), HISTORY_ENTRIES_MAX);
        assert_eq!((times[0], times[1], times[15]), (0, 25, 39));
    }

    #[test]
    fn history_text_is_cut_at_a_character() {
        let history = History::from_entries([entry(0, &"é".repeat(200))]);
        assert_eq!(history.entries()[0].why.len(), HISTORY_TEXT_BYTES_MAX);
        let history = History::from_entries([entry(0, &format!("x{}", "é".repeat(200)))]);
        assert_eq!(history.entries()[0].why.len(), HISTORY_TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn numbers_and_names_read_back() {
        for kind in StateKind::ALL {
            assert_eq!(StateKind::from_number(kind as u8), Some(kind));
            assert_eq!(StateKind::from_name(kind.name()), Some(kind));
        }
        for cause in Cause::ALL {
            assert_eq!(Cause::from_number(cause as u8), Some(cause));
        }
        for event in Event::ALL {
            assert_eq!(Event::from_number(event as u8), Some(event));
        }
        assert_eq!(StateKind::from_number(0), None);
    }
}
