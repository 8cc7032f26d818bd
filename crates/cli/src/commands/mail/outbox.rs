//! `onlyonce mail outbox`, and the rows of an outbox on their way to the spool and back.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use onlyonce::Engine;
use onlyonce_core::{Secret, Timestamp};
use onlyonce_mail::{Became, Feed, FeedError, Spool, sender_name};
use onlyonce_store::outbox::{Counted, Outbox, Posted, Told};
use onlyonce_store::{BoxFuture, OpenError, StoreError, StoreErrorKind};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Duration, sleep};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::place::now;

/// How often the table is looked at for new messages.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a role of PostgreSQL needs.
const ROLES: &str = "a program that writes messages needs no more than GRANT USAGE ON SCHEMA \
    onlyonce_mail and GRANT EXECUTE ON FUNCTION onlyonce_mail.send\n\
    a sender needs no more than that usage and GRANT EXECUTE ON FUNCTION onlyonce_mail.take, \
    onlyonce_mail.ours, onlyonce_mail.tell, onlyonce_mail.counts";

/// What a user of MariaDB needs.
const USERS: &str = "a program that writes messages needs no more than GRANT EXECUTE ON PROCEDURE \
    onlyonce_mail_send\n\
    a sender needs no more than GRANT SELECT, UPDATE (state, taken_by, taken, said, ended) ON \
    onlyonce_mail_outbox";
/// How outboxes are named.
const NAMES: &str = "postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or sqlite:FILE";

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Where an outbox is.
#[derive(Clone, Debug)]
pub(crate) enum At {
    Postgres(onlyonce_postgres::Address),
    Mysql(onlyonce_mysql::Address),
    Sqlite(PathBuf),
}

/// The kinds of databases that have one.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    Postgres,
    #[value(alias = "mariadb")]
    Mysql,
    Sqlite,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |error: &dyn fmt::Display| format!("an outbox is {NAMES}: {error}");
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "sqlite" if rest.is_empty() => Err(wrong(&"no file is named")),
            "sqlite" => Ok(Self::Sqlite(rest.into())),
            "mysql" | "mariadb" => text.parse().map(Self::Mysql).map_err(|error| wrong(&error)),
            _ => text.parse().map(Self::Postgres).map_err(|error| wrong(&error)),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(address) => address.fmt(f),
            Self::Mysql(address) => address.fmt(f),
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
        }
    }
}

/// Prints what makes the table.
pub(super) fn print(kind: Kind) -> Result<(), Failure> {
    let text = match kind {
        Kind::Postgres => onlyonce_postgres::OUTBOX,
        Kind::Mysql => onlyonce_mysql::OUTBOX,
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
            (made, "onlyonce_mail.outbox", ROLES)
        }
        At::Mysql(address) => {
            let made = onlyonce_mysql::Outbox::install(address).await;
            (made, "onlyonce_mail_outbox", USERS)
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
    let counted = open(at, secret).await?.counts().await;
    counted.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))
}

/// The table, for the sender whose store has this secret.
async fn open(at: At, secret: &Secret) -> Result<Box<dyn Outbox>, Failure> {
    let who = sender_name(secret);
    let opened: Result<Box<dyn Outbox>, OpenError> = match at {
        At::Postgres(address) => {
            onlyonce_postgres::Outbox::open(address, who).await.map(|it| Box::new(it) as _)
        }
        At::Mysql(address) => {
            onlyonce_mysql::Outbox::open(address, who).await.map(|it| Box::new(it) as _)
        }
        At::Sqlite(file) => {
            let opened = blocking(move || onlyonce_sqlite::Outbox::open(&file, who)).await?;
            opened.map(|it| Box::new(OnDisk(Arc::new(Mutex::new(it)))) as _)
        }
    };
    opened.map_err(|error| unavailable(&error))
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

/// A table whose calls wait for the disk.
struct OnDisk(Arc<Mutex<onlyonce_sqlite::Outbox>>);

impl OnDisk {
    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut onlyonce_sqlite::Outbox) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        let table = Arc::clone(&self.0);
        Box::pin(async move {
            // What a panic has left is opened anew.
            let ask = move || ask(&mut table.lock().unwrap_or_else(PoisonError::into_inner));
            let asked = blocking(ask).await;
            asked.map_err(|failure| StoreError::new(StoreErrorKind::Unknown, failure.what))?
        })
    }
}

impl Outbox for OnDisk {
    fn take(&self, now: Timestamp, most: usize) -> Answer<'_, Vec<Posted>> {
        self.ask(move |it| it.take(now, most))
    }

    fn ours(&self, after: i64, most: usize) -> Answer<'_, Vec<Posted>> {
        self.ask(move |it| it.ours(after, most))
    }

    fn tell<'a>(&'a self, number: i64, told: Told, said: &'a str) -> Answer<'a, ()> {
        let said = said.to_owned();
        self.ask(move |it| it.tell(number, told, &said))
    }

    fn counts(&self) -> Answer<'_, Vec<Counted>> {
        self.ask(onlyonce_sqlite::Outbox::counts)
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
    /// For this outbox, by the sender with this engine, whose store has this secret.
    pub(super) async fn open(
        at: At,
        engine: &Engine,
        secret: &Secret,
        spool: &Spool,
    ) -> Result<(Self, Hearing), Failure> {
        let table = open(at, secret).await?;
        let feed = Feed::new(table, spool.clone(), engine.clone(), secret.clone());
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
            let now_said = done.err().map(|it| waits(&it)).unwrap_or_default();
            if !now_said.is_empty() && now_said != said {
                // Whoever does not read it is no reason to end.
                let _ = output::line(&now_said);
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

/// What does not go on, in a line.
fn waits(error: &FeedError) -> String {
    match error {
        FeedError::Outbox(_) | FeedError::Spool(_) => format!("the outbox waits: {error}"),
        FeedError::Damaged { .. } => format!("a row of the outbox waits: {error}"),
    }
}

fn failure(error: &FeedError) -> Failure {
    let hint = "what was sent is recorded, and nothing is sent twice: run it again";
    Failure::new(Exit::Unavailable, error.to_string()).with_hint(hint)
}
