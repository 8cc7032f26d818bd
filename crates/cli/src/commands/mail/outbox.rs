//! `onlyonce mail outbox`, and the rows of an outbox on their way to the spool and back.

use std::str::FromStr;

use onlyonce_core::{Secret, Timestamp};
use onlyonce_mail::{
    Became, Feed, FeedError, Outbox, OutboxError, Posted, Spool, Told, sender_name,
};
use onlyonce_postgres::{Address, AddressError, OUTBOX, Outbox as Table};
use onlyonce_store::{BoxFuture, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Duration, sleep};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::now;

/// How often the table is looked at for new messages.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Answer<'a, T> = BoxFuture<'a, Result<T, OutboxError>>;

/// Where an outbox is.
#[derive(Clone, Debug)]
pub(crate) struct At(Address);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: AddressError| {
            format!("an outbox is in PostgreSQL, postgres://USER@HOST/DATABASE: {error}")
        })
    }
}

/// Makes the table, or prints what makes it.
pub(super) async fn make(at: Option<At>) -> Result<(), Failure> {
    let Some(At(address)) = at else {
        return Ok(output::line(OUTBOX.trim_end())?);
    };
    let place = address.to_string();
    let made = Table::install(address).await;
    made.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
    output::line(&format!(
        "made onlyonce_mail.outbox in {place}\na program that writes messages needs no more than \
         GRANT USAGE ON SCHEMA onlyonce_mail and GRANT EXECUTE ON FUNCTION onlyonce_mail.send\n\
         a sender needs no more than that usage and GRANT EXECUTE ON FUNCTION onlyonce_mail.take, \
         onlyonce_mail.ours, onlyonce_mail.tell"
    ))?;
    Ok(())
}

/// A table as the sender of mail knows it.
struct Rows(Table);

fn row(it: onlyonce_postgres::Posted) -> Posted {
    let onlyonce_postgres::Posted { number, key, sender, recipient, message, posted, taken } = it;
    Posted { number, key, from: sender, to: recipient, text: message, posted, taken }
}

fn rows(
    asked: Result<Vec<onlyonce_postgres::Posted>, StoreError>,
) -> Result<Vec<Posted>, OutboxError> {
    asked.map(|rows| rows.into_iter().map(row).collect()).map_err(failed)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what a call has failed with")]
fn failed(error: StoreError) -> OutboxError {
    OutboxError(error.to_string())
}

impl Outbox for Rows {
    fn take(&self, now: Timestamp, most: usize) -> Answer<'_, Vec<Posted>> {
        Box::pin(async move { rows(self.0.take(now, most).await) })
    }

    fn ours(&self, after: i64, most: usize) -> Answer<'_, Vec<Posted>> {
        Box::pin(async move { rows(self.0.ours(after, most).await) })
    }

    fn tell<'a>(&'a self, number: i64, told: Told, said: &'a str) -> Answer<'a, ()> {
        Box::pin(async move { self.0.tell(number, told.name(), said).await.map_err(failed) })
    }
}

/// Brings rows to the spool while messages are sent, and back what became of them.
pub(super) struct Feeding {
    feed: Feed,
    heard: UnboundedReceiver<(String, Became)>,
}

/// Says what became of messages.
pub(super) type Hearing = UnboundedSender<(String, Became)>;

impl Feeding {
    /// For this outbox, by the sender whose store has this secret.
    pub(super) async fn open(
        at: At,
        secret: &Secret,
        spool: &Spool,
    ) -> Result<(Self, Hearing), Failure> {
        let table = Table::open(at.0, sender_name(secret)).await;
        let table = table.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        let feed = Feed::new(Box::new(Rows(table)), spool.clone());
        // No more than there are messages in the spool.
        let (hearing, heard) = unbounded_channel();
        Ok((Self { feed, heard }, hearing))
    }

    /// Brings what waits.
    pub(super) async fn fill(&mut self) -> Result<(), Failure> {
        self.feed.fill(now()).await.map_err(|error| failure(&error))
    }

    /// Goes on until it is dropped. The table may be away meanwhile, and what is in the spool is
    /// sent.
    pub(super) async fn go_on(&mut self) {
        let mut said = String::new();
        loop {
            let done = self.feed.fill(now()).await;
            let now_said = done.err().map(|it| it.to_string()).unwrap_or_default();
            if !now_said.is_empty() && now_said != said {
                // Whoever does not read it is no reason to end.
                let _ = output::line(&format!("the outbox waits: {now_said}"));
            }
            said = now_said;
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                Some((name, became)) = self.heard.recv() => self.feed.became(&name, &became),
            }
            self.hear();
        }
    }

    /// Tells the rows what there is to tell. What is not told now the next sender tells.
    pub(super) async fn end(&mut self) -> Result<(), Failure> {
        self.hear();
        self.feed.write().await.map_err(|error| failure(&error))
    }

    fn hear(&mut self) {
        while let Ok((name, became)) = self.heard.try_recv() {
            self.feed.became(&name, &became);
        }
    }
}

fn failure(error: &FeedError) -> Failure {
    let hint = "what was sent is recorded, and nothing is sent twice: run it again";
    Failure::new(Exit::Unavailable, error.to_string()).with_hint(hint)
}
