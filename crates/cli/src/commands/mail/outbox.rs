//! `onlyonce mail outbox`, and the rows of an outbox on their way to the spool and back.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use onlyonce_core::{Secret, Timestamp};
use onlyonce_mail::{
    Became, Feed, FeedError, Outbox, OutboxError, Posted, Spool, Told, sender_name,
};
use onlyonce_postgres::Address;
use onlyonce_store::outbox::Counted;
use onlyonce_store::{BoxFuture, OpenError, StoreError, outbox};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Duration, sleep};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::now;

/// How often the table is looked at for new messages.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a role of PostgreSQL needs.
const GRANTS: &str = "a program that writes messages needs no more than GRANT USAGE ON SCHEMA \
    onlyonce_mail and GRANT EXECUTE ON FUNCTION onlyonce_mail.send\n\
    a sender needs no more than that usage and GRANT EXECUTE ON FUNCTION onlyonce_mail.take, \
    onlyonce_mail.ours, onlyonce_mail.tell, onlyonce_mail.counts";

type Answer<'a, T> = BoxFuture<'a, Result<T, OutboxError>>;

/// Where an outbox is.
#[derive(Clone, Debug)]
pub(crate) enum At {
    Postgres(Address),
    Sqlite(PathBuf),
}

/// The kinds of databases that have one.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    Sqlite,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("sqlite:") {
            Some("") => Err("an outbox in SQLite is sqlite:FILE".to_owned()),
            Some(file) => Ok(Self::Sqlite(file.into())),
            None => text.parse().map(Self::Postgres).map_err(|error| {
                format!(
                    "an outbox is in PostgreSQL, postgres://USER@HOST/DATABASE, or in SQLite, \
                     sqlite:FILE: {error}"
                )
            }),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(address) => address.fmt(f),
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
        }
    }
}

/// Prints what makes the table.
pub(super) fn print(kind: Kind) -> Result<(), Failure> {
    let text = match kind {
        Kind::Postgres => onlyonce_postgres::OUTBOX,
        Kind::Sqlite => onlyonce_sqlite::OUTBOX,
    };
    Ok(output::line(text.trim_end())?)
}

/// Makes the table.
pub(super) async fn make(at: At) -> Result<(), Failure> {
    let place = at.to_string();
    let (made, table, then) = match at {
        At::Postgres(address) => {
            let made = onlyonce_postgres::Outbox::install(address).await;
            (made, "onlyonce_mail.outbox", GRANTS)
        }
        At::Sqlite(file) => {
            let made = blocking(move || onlyonce_sqlite::Outbox::install(&file)).await?;
            let then = "a program writes messages by INSERT INTO onlyonce_mail_send";
            (made, "onlyonce_mail_outbox", then)
        }
    };
    made.map_err(|error| unavailable(&error))?;
    Ok(output::line(&format!("made {table} in {place}\n{then}"))?)
}

/// How many rows of each kind there are, by whether the store with this secret has taken them.
pub(super) async fn counts(at: At, secret: &Secret) -> Result<Vec<Counted>, Failure> {
    let counted = match Table::open(at, secret).await? {
        Table::Postgres(table) => table.counts().await,
        Table::Sqlite(table) => blocking(move || locked(&table).counts()).await?,
    };
    counted.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))
}

/// Waits for the disk on a thread that may.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let called = tokio::task::spawn_blocking(call).await;
    called.map_err(|error| std::io::Error::other(error).into())
}

fn unavailable(error: &OpenError) -> Failure {
    Failure::new(Exit::Unavailable, error.to_string())
}

/// A table as the sender of mail knows it.
#[allow(clippy::large_enum_variant, reason = "made once a command, boxing would cost more")]
enum Table {
    Postgres(onlyonce_postgres::Outbox),
    Sqlite(Arc<Mutex<onlyonce_sqlite::Outbox>>),
}

impl Table {
    /// For the sender whose store has this secret.
    async fn open(at: At, secret: &Secret) -> Result<Self, Failure> {
        let who = sender_name(secret);
        let opened = match at {
            At::Postgres(address) => {
                onlyonce_postgres::Outbox::open(address, who).await.map(Self::Postgres)
            }
            At::Sqlite(file) => blocking(move || onlyonce_sqlite::Outbox::open(&file, who))
                .await?
                .map(|it| Self::Sqlite(Arc::new(Mutex::new(it)))),
        };
        opened.map_err(|error| unavailable(&error))
    }
}

/// The table, to do one thing with it.
fn locked(
    table: &Arc<Mutex<onlyonce_sqlite::Outbox>>,
) -> std::sync::MutexGuard<'_, onlyonce_sqlite::Outbox> {
    // What a panic has left is opened anew.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same, on a thread that may wait.
async fn asked<T: Send + 'static>(
    table: &Arc<Mutex<onlyonce_sqlite::Outbox>>,
    ask: impl FnOnce(&mut onlyonce_sqlite::Outbox) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, OutboxError> {
    let table = Arc::clone(table);
    let asked = blocking(move || ask(&mut locked(&table))).await;
    asked.map_err(|failure| OutboxError(failure.what))?.map_err(failed)
}

fn rows(rows: Vec<outbox::Posted>) -> Vec<Posted> {
    let row = |it| {
        let outbox::Posted { number, key, sender, recipient, message, posted, taken } = it;
        Posted { number, key, from: sender, to: recipient, text: message, posted, taken }
    };
    rows.into_iter().map(row).collect()
}

#[allow(clippy::needless_pass_by_value, reason = "it is what a call has failed with")]
fn failed(error: StoreError) -> OutboxError {
    OutboxError(error.to_string())
}

impl Outbox for Table {
    fn take(&self, now: Timestamp, most: usize) -> Answer<'_, Vec<Posted>> {
        Box::pin(async move {
            let taken = match self {
                Self::Postgres(table) => table.take(now, most).await.map_err(failed),
                Self::Sqlite(table) => asked(table, move |it| it.take(now, most)).await,
            };
            taken.map(rows)
        })
    }

    fn ours(&self, after: i64, most: usize) -> Answer<'_, Vec<Posted>> {
        Box::pin(async move {
            let ours = match self {
                Self::Postgres(table) => table.ours(after, most).await.map_err(failed),
                Self::Sqlite(table) => asked(table, move |it| it.ours(after, most)).await,
            };
            ours.map(rows)
        })
    }

    fn tell<'a>(&'a self, number: i64, told: Told, said: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let state = told.name();
            match self {
                Self::Postgres(table) => table.tell(number, state, said).await.map_err(failed),
                Self::Sqlite(table) => {
                    let said = said.to_owned();
                    asked(table, move |it| it.tell(number, state, &said)).await
                }
            }
        })
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
        let table = Table::open(at, secret).await?;
        let feed = Feed::new(Box::new(table), spool.clone());
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
