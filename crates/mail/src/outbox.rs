//! A table that callers write messages into, in transactions of their own, and how its rows come
//! to the spool and learn what became of them.
//!
//! A row is made ours first, and that is durable; then its message is put into the spool; in the
//! end the row is told. Wherever that is cut off, the row is still ours, and is looked at again
//! when the next sender begins: the spool knows each message by its key, and so does its record.
//!
//! A row that was told that nobody knows is told when that is over, as after a person's word: its
//! record is looked at from time to time, since the next attempt may be an hour away.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;

use onlyonce::Engine;
use onlyonce::store::StoreError;
use onlyonce::store::outbox::{Outbox, Posted, Told};
use onlyonce_core::{KeyId, Record, Secret, State, Timestamp};
use onlyonce_failpoint::failpoint;
use onlyonce_smtp::Mailbox;

use crate::message::{Message, frozen, hex};
use crate::sender::{Became, Sender, answered, text};
use crate::spool::{Added, Shelf, Spool, SpoolError};

/// How many rows are asked for at once, and how many records are looked at.
const PAGE: usize = 200;
/// The longest text that a row is told, in characters.
const SAID_MAX: usize = 500;

/// A row could not be brought to the spool, or be told what became of it. It is tried again.
#[derive(Debug)]
pub enum FeedError {
    /// The table cannot be reached or does not answer.
    Outbox(StoreError),
    /// The spool.
    Spool(SpoolError),
    /// The files of some rows in the spool are damaged; all others were brought.
    Damaged {
        /// The number of the first of these rows.
        row: i64,
        /// How many more there are.
        more: usize,
        /// What is the matter with its file.
        error: SpoolError,
    },
}

/// Brings the rows of an outbox to the spool, and back to them what became of their messages.
pub struct Feed {
    outbox: Box<dyn Outbox>,
    spool: Spool,
    engine: Engine,
    secret: Secret,
    /// The rows whose messages wait in the spool, by the message's name.
    rows: BTreeMap<String, Row>,
    /// The message whose record was looked at last; those after it are next.
    looked: String,
    /// What is still to be told.
    later: VecDeque<(i64, Told, String)>,
    /// Rows whose files in the spool are damaged, at most as many as are asked for at once.
    stuck: Vec<Posted>,
    /// Whether all rows that are ours are known here.
    knows_ours: bool,
    /// How many rows are asked for at once: fewer after a call that failed, since the messages may
    /// have been too large to come in time.
    most: usize,
}

/// A row whose message waits in the spool.
struct Row {
    number: i64,
    /// What its record is found by.
    id: KeyId,
    /// Whether it was told that nobody knows.
    is_unknown: bool,
}

/// Who a sender with the store of this secret is to outboxes: 64 hexadecimal digits. Rows that it
/// has taken belong to the store that has the records of their messages.
pub fn sender_name(secret: &Secret) -> String {
    hex(&secret.derive("outbox of mail"))
}

impl Feed {
    /// One that has read nothing yet, for the sender with this engine. The secret is that of the
    /// engine's store.
    pub fn new(outbox: Box<dyn Outbox>, spool: Spool, engine: Engine, secret: Secret) -> Self {
        let (rows, looked) = (BTreeMap::new(), String::new());
        let (later, stuck, knows_ours, most) = (VecDeque::new(), Vec::new(), false, PAGE);
        Self { outbox, spool, engine, secret, rows, looked, later, stuck, knows_ours, most }
    }

    /// Brings all rows that wait to the spool, and tells what there is to tell.
    ///
    /// # Errors
    /// Some rows could not be brought or told. Repeat it later: none is lost, and none is brought
    /// twice.
    pub async fn fill(&mut self, now: Timestamp) -> Result<(), FeedError> {
        self.write().await?;
        let mut damaged = None;
        // Whatever goes wrong from here on, rows may be ours that we have not seen.
        if std::mem::take(&mut self.knows_ours) {
            for row in std::mem::take(&mut self.stuck) {
                self.bring(row, &mut damaged)?;
            }
        } else {
            self.stuck.clear();
            let read = self.read_ours(&mut damaged).await;
            self.sized(read)?;
        }
        self.knows_ours = true;
        while self.stuck.len() < PAGE {
            self.knows_ours = false;
            failpoint!("outbox.take.before", now);
            let asked = self.most;
            let taken = self.outbox.take(now, asked).await.map_err(FeedError::Outbox);
            let taken = self.sized(taken)?;
            let count = taken.len();
            failpoint!("outbox.take.after", count);
            for row in taken {
                self.bring(row, &mut damaged)?;
            }
            self.knows_ours = true;
            if count < asked {
                break;
            }
            self.most = (2 * asked).min(PAGE);
        }
        self.look().await;
        self.write().await?;
        let more = self.stuck.len().saturating_sub(1);
        damaged.map_or(Ok(()), |(row, error)| Err(FeedError::Damaged { row, more, error }))
    }

    /// Fewer rows are asked for after a call that failed.
    fn sized<T>(&mut self, asked: Result<T, FeedError>) -> Result<T, FeedError> {
        if matches!(asked, Err(FeedError::Outbox(_))) {
            self.most = (self.most / 2).max(1);
        }
        asked
    }

    /// [`Self::put`], where one damaged file holds up no other row; the first one is kept.
    fn bring(
        &mut self,
        row: Posted,
        damaged: &mut Option<(i64, SpoolError)>,
    ) -> Result<(), FeedError> {
        match self.put(&row) {
            Err(FeedError::Spool(error)) if error.is_of_the_file() => {
                damaged.get_or_insert((row.number, error));
                self.stuck.push(row);
                Ok(())
            }
            put => put,
        }
    }

    /// Notes what became of a message, if it came from a row. [`Self::write`] tells it.
    pub fn became(&mut self, name: &str, became: &Became) {
        let Some(row) = self.rows.get_mut(name) else { return };
        let (told, said) = match became {
            Became::Sent(said) => (Told::Sent, said),
            Became::Refused(said) => (Told::Refused, said),
            // It is said at each attempt, and written once.
            Became::Unknown(said) if !row.is_unknown => (Told::Unknown, said),
            Became::Unknown(_) | Became::Waiting(_) => return,
        };
        row.is_unknown = true;
        self.later.push_back((row.number, told, shown(said)));
        if told.is_last() {
            self.rows.remove(name);
        }
    }

    /// Notes of rows that were told that nobody knows whether that is over; of some of them in
    /// turns where there are many.
    async fn look(&mut self) {
        let after = std::mem::take(&mut self.looked);
        let next = self.rows.range_mut::<str, _>((Bound::Excluded(&*after), Bound::Unbounded));
        let mut count = 0;
        for (name, row) in next.filter(|(_, row)| row.is_unknown).take(PAGE) {
            self.looked.clone_from(name);
            count += 1;
            // What the store does not say now is looked at again.
            let record = self.engine.get(row.id).await.ok().flatten();
            if let Some((told, said)) = record.as_ref().and_then(told) {
                row.is_unknown = false;
                self.later.push_back((row.number, told, shown(&said)));
            }
        }
        if count < PAGE {
            self.looked.clear();
        }
    }

    /// Tells rows what there is to tell.
    ///
    /// # Errors
    /// Some were not told, or may not have been. They are told when this is repeated, or by the
    /// next sender.
    pub async fn write(&mut self) -> Result<(), FeedError> {
        while let Some((number, told, said)) = self.later.front() {
            failpoint!("outbox.tell.before", told);
            self.outbox.tell(*number, *told, said).await?;
            failpoint!("outbox.tell.after", told);
            self.later.pop_front();
        }
        Ok(())
    }

    /// Rows that an earlier sender took, or that were taken by a call whose answer was lost.
    async fn read_ours(
        &mut self,
        damaged: &mut Option<(i64, SpoolError)>,
    ) -> Result<(), FeedError> {
        let mut after = i64::MIN;
        loop {
            let page = self.outbox.ours(after, self.most).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.number;
            for row in page {
                self.bring(row, damaged)?;
            }
        }
    }

    /// Brings a row that is ours to the spool, unless its message is there.
    fn put(&mut self, row: &Posted) -> Result<(), FeedError> {
        let refused = |why: &str| (row.number, Told::Refused, format!("nothing was sent: {why}"));
        let message = match message(row) {
            Ok(message) => message,
            Err(why) => {
                self.later.push_back(refused(&shown(&why)));
                return Ok(());
            }
        };
        let name = message.name();
        let ended = match self.spool.add(&message)? {
            Added::New => None,
            Added::There => self.spool.shelf(&name),
            Added::Other => {
                self.later.push_back(refused("another message was taken in under its key"));
                return Ok(());
            }
        };
        let said = "known from the spool".to_owned();
        match ended {
            Some(Shelf::Sent) => self.later.push_back((row.number, Told::Sent, said)),
            Some(Shelf::Refused) => self.later.push_back((row.number, Told::Refused, said)),
            Some(Shelf::Queue) | None => {
                // The scope is a constant, and the tests have seen that it is one.
                let Ok(id) = Sender::id(&self.secret, &message) else { return Ok(()) };
                let Posted { number, is_unknown, .. } = *row;
                self.rows.insert(name, Row { number, id, is_unknown });
            }
        }
        Ok(())
    }
}

/// The message of a row, the same each time; or why it cannot be sent, for a person.
fn message(row: &Posted) -> Result<Message, String> {
    let mailbox = |what: &str, text: &str| {
        Mailbox::new(text).map_err(|error| format!("{what} {text:?}: {error}"))
    };
    let from = mailbox("sender", &row.sender)?;
    let to = [mailbox("recipient", &row.recipient)?];
    let frozen = frozen(&row.key, Some(&from), &to, &row.message, row.posted);
    let frozen = frozen.map_err(|error| error.to_string())?;
    let message = frozen.into_iter().next().ok_or("there is no recipient")?;
    Ok(message.known_since(row.taken))
}

/// What a row is told of which nobody knew, where the record of its message says more by now.
fn told(record: &Record) -> Option<(Told, String)> {
    let goes_on = || {
        let said = if record.may_have_run() {
            "it was let go, though nobody knows whether it was sent before"
        } else {
            "it was not sent"
        };
        Some((Told::Taken, format!("{said}; it is tried again")))
    };
    match &record.state {
        State::Released { .. } => goes_on(),
        State::Completed { reply, sealed: false, .. } => {
            match answered(reply.status(), text(reply)) {
                Became::Sent(said) => Some((Told::Sent, said)),
                Became::Refused(said) => Some((Told::Refused, said)),
                Became::Unknown(_) | Became::Waiting(_) => None,
            }
        }
        // The sender says what becomes of these.
        State::InFlight(_)
        | State::Completed { .. }
        | State::Unknown(_)
        | State::Tombstone { .. } => None,
    }
}

/// As a row can keep it: on one line, and not too long.
fn shown(text: &str) -> String {
    let plain = |it: char| if it.is_control() { ' ' } else { it };
    text.chars().take(SAID_MAX).map(plain).collect()
}

impl From<StoreError> for FeedError {
    fn from(error: StoreError) -> Self {
        Self::Outbox(error)
    }
}

impl From<SpoolError> for FeedError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(error)
    }
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbox(error) => error.fmt(f),
            Self::Spool(error) => error.fmt(f),
            Self::Damaged { row, more, error } => {
                write!(f, "the file of row {row}")?;
                if *more != 0 {
                    write!(f, ", and of {more} more,")?;
                }
                write!(f, " is damaged: {error}; remove it: it is made anew from the row, and ")?;
                f.write_str("the record says whether the message was sent")
            }
        }
    }
}

impl std::error::Error for FeedError {}
