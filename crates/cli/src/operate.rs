//! What an operator can ask and change, and where it is done: in this process if the store
//! lets it in, else in the process that has the journal, through its socket.

mod encryption;
pub(crate) mod socket;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use onlyonce::{Acted, Engine, Observer, Settings};
use onlyonce_core::limits::FOREVER;
use onlyonce_core::{Fence, KeyId, Outcome, Policy, Reply, StateKind, Timestamp, Verdict};
use onlyonce_journal::Backup;
use onlyonce_store::{Cursor, Filter};
use onlyonce_tokio::TokioRuntime;
use serde::{Deserialize, Serialize};

use crate::args::StoreArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::place::{Opened, now};
use crate::vault::{self, Vault};
pub(crate) use view::{View, time};

/// A question or a change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// A page of keys.
    List { state: Option<String>, after: Option<String>, limit: usize },
    /// One key.
    Get { id: String },
    /// Settle an unknown outcome; how long its answer is kept in milliseconds.
    Resolve {
        id: String,
        fence: u64,
        verdict: Finding,
        retention: Option<u64>,
        by: String,
        why: String,
    },
    /// Say that a key must never run; the time that it carries in milliseconds.
    Seal { id: String, key_time: Option<u64>, by: String, why: String },
    /// Erase what a key was answered.
    Erase { id: String, by: String, why: String },
    /// A page of which key kept answers are encrypted with; those that are not with the newest are
    /// encrypted anew if `renew`.
    Encryption { after: Option<String>, renew: bool },
    /// No answer needs another key than this one: somebody has looked at all pages, the first of
    /// them then, in milliseconds.
    Encrypted {
        newest: String,
        #[serde(default)]
        began: u64,
    },
    /// Copy the journal to this folder.
    Backup { to: String },
}

/// What somebody found out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Finding {
    /// It happened; the reply's content in base64.
    Happened { status: u16, content: String },
    /// It did not.
    NotExecuted,
    /// Nobody knows; let it run again.
    RunAgain,
}

/// The answer to an [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Told {
    /// Keys, and where the next page begins.
    Page { keys: Vec<View>, damaged: Vec<String>, next: Option<String> },
    /// The key, if it has a record.
    Key(Option<Box<View>>),
    /// What the change came to, and the key as it stands now.
    Resolved { done: bool, text: String, key: Option<Box<View>> },
    /// How many answers are encrypted with which key, those that cannot be opened, where the next
    /// page begins, the names of the keys in the key file, the newest first, and when the page was
    /// looked at, in milliseconds.
    Encryption {
        found: BTreeMap<String, u64>,
        renewed: u64,
        unread: Vec<String>,
        next: Option<String>,
        keys: Vec<String>,
        #[serde(default)]
        at: u64,
    },
    /// The copy is there.
    BackedUp { segments: usize, shelves: usize, bytes: u64 },
    /// It failed.
    Failed { exit: u8, text: String },
}

impl Told {
    /// A failure of the other side is one here.
    pub(crate) fn done(self) -> Result<Self, Failure> {
        match self {
            Self::Failed { exit, text } => {
                Err(Failure::new(Exit::from_code(exit).unwrap_or(Exit::Unknown), text))
            }
            told @ (Self::Page { .. }
            | Self::Key(_)
            | Self::Encryption { .. }
            | Self::Resolved { .. }
            | Self::BackedUp { .. }) => Ok(told),
        }
    }
}

/// What questions are answered with.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) engine: Engine,
    pub(crate) opened: Opened,
    pub(crate) vault: Option<Vault>,
    pub(crate) policy: Policy,
}

/// Answers one question.
pub(crate) async fn answer(desk: &Desk, ask: Ask) -> Told {
    let Desk { engine, policy, .. } = desk;
    let told = match ask {
        Ask::List { state, after, limit } => list(engine, state, after, limit).await,
        Ask::Get { id } => get(engine, &id).await,
        Ask::Resolve { id, fence, verdict, retention, by, why } => match kept(policy, retention) {
            Ok(policy) => resolve(engine, &policy, &id, fence, verdict, (&by, &why)).await,
            Err(failure) => Err(failure),
        },
        Ask::Seal { id, key_time, by, why } => {
            seal(engine, policy, &id, key_time, (&by, &why)).await
        }
        Ask::Erase { id, by, why } => erase(engine, policy, &id, (&by, &why)).await,
        Ask::Encryption { after, renew } => encryption::page(desk, after, renew).await,
        Ask::Encrypted { newest, began } => encryption::settle(desk, &newest, began).await,
        Ask::Backup { to } => backup(&desk.opened, to.into()).await,
    };
    told.unwrap_or_else(|failure| Told::Failed { exit: failure.exit as u8, text: failure.what })
}

/// The policy, with another retention if one is given.
fn kept(policy: &Policy, retention: Option<u64>) -> Result<Policy, Failure> {
    let Some(millis) = retention else { return Ok(*policy) };
    let retention = Duration::from_millis(millis);
    let remember = policy.remember.max(retention);
    let policy = Policy { retention, remember, ..*policy }.check();
    policy.map_err(|error| Failure::new(Exit::Usage, format!("--retention: {error}")))
}

async fn list(
    engine: &Engine,
    state: Option<String>,
    after: Option<String>,
    limit: usize,
) -> Result<Told, Failure> {
    let state = state.as_deref().map(state_named).transpose()?;
    let after = cursor(after)?;
    let page = engine.list(Filter { state, limit }, after).await?;
    Ok(Told::Page {
        keys: page.records.iter().map(|(id, record)| View::of(*id, record)).collect(),
        damaged: page.damaged.iter().map(|(id, error)| format!("{id}: {error}")).collect(),
        next: page.next.map(|cursor| BASE64.encode(cursor.0)),
    })
}

fn cursor(after: Option<String>) -> Result<Option<Cursor>, Failure> {
    let bytes = after.map(|after| BASE64.decode(after).map_err(|_| usage("the page")));
    Ok(bytes.transpose()?.map(Cursor))
}

fn state_named(name: &str) -> Result<StateKind, Failure> {
    StateKind::from_name(name).ok_or_else(|| usage("the state"))
}

fn usage(what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{what} is not understood"))
}

pub(crate) fn id_of(text: &str) -> Result<KeyId, Failure> {
    KeyId::from_hex(text).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{text:?} is no id: 32 hexadecimal digits"))
    })
}

async fn get(engine: &Engine, id: &str) -> Result<Told, Failure> {
    let id = id_of(id)?;
    let record = engine.get(id).await?;
    Ok(Told::Key(record.map(|record| Box::new(View::of(id, &record)))))
}

async fn resolve(
    engine: &Engine,
    policy: &Policy,
    id: &str,
    fence: u64,
    finding: Finding,
    (by, why): (&str, &str),
) -> Result<Told, Failure> {
    let id = id_of(id)?;
    let fence = Fence::new(fence).ok_or_else(|| usage("the fence"))?;
    let verdict = match finding {
        Finding::Happened { status, content } => {
            let content = BASE64.decode(content).map_err(|_| usage("the reply"))?;
            Verdict::Happened(Reply::kept(status, Bytes::from(content)))
        }
        Finding::NotExecuted => Verdict::NotExecuted,
        Finding::RunAgain => Verdict::RunAgain,
    };
    let Acted { outcome, record } = engine.resolve(id, policy, fence, verdict, by, why).await?;
    let (done, text) = match outcome {
        Outcome::Done => (true, "done"),
        Outcome::Absent => (false, "there is no record of this key"),
        Outcome::Fenced => (false, "the key has moved on: a later claim stands there now"),
        Outcome::InvalidFence => (false, "no claim of this key ever had this fence"),
        Outcome::InFlight { .. } => (false, "the operation is running; wait until it ends"),
        Outcome::SecondReply => (false, "it was answered already, with another answer"),
        Outcome::Granted(_)
        | Outcome::Replay { .. }
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::OutcomeUnknown { .. }
        | Outcome::Gone { .. }
        | Outcome::Expired => (false, "nothing is in doubt about this key"),
    };
    let key = record.map(|record| Box::new(View::of(id, &record)));
    Ok(Told::Resolved { done, text: text.to_owned(), key })
}

async fn seal(
    engine: &Engine,
    policy: &Policy,
    id: &str,
    key_time: Option<u64>,
    (by, why): (&str, &str),
) -> Result<Told, Failure> {
    let id = id_of(id)?;
    let key_time = key_time.map(Timestamp::from_millis);
    // Whoever comes later is told by a problem, which is made when it is told.
    let refusal = Reply::kept(410, Bytes::new());
    let Acted { outcome, record } = engine.seal(id, policy, refusal, key_time, by, why).await?;
    let (done, text) = match outcome {
        Outcome::Done => (true, "done"),
        Outcome::InFlight { .. } => (false, "the operation is running"),
        Outcome::OutcomeUnknown { .. } => (false, "nobody knows whether it happened"),
        Outcome::Expired => (false, "the key is too old: it never runs anyway"),
        Outcome::Replay { sealed: true, .. } | Outcome::Gone { sealed: true, .. } => {
            (false, "it was sealed already")
        }
        Outcome::Replay { .. } | Outcome::Gone { .. } => (false, "it has happened"),
        Outcome::Granted(_)
        | Outcome::Mismatch
        | Outcome::CredentialChanged
        | Outcome::Fenced
        | Outcome::InvalidFence
        | Outcome::SecondReply
        | Outcome::Absent => (false, "the key is left as it is"),
    };
    let key = record.map(|record| Box::new(View::of(id, &record)));
    Ok(Told::Resolved { done, text: text.to_owned(), key })
}

async fn erase(
    engine: &Engine,
    policy: &Policy,
    id: &str,
    (by, why): (&str, &str),
) -> Result<Told, Failure> {
    let id = id_of(id)?;
    let Acted { outcome, record } = engine.erase(id, policy, by, why).await?;
    let (done, text) = match (outcome, &record) {
        (Outcome::Done, _) => (true, "done"),
        (Outcome::InFlight { .. }, _) => {
            (false, "the operation is running: there is no answer yet; wait until it ends")
        }
        (Outcome::OutcomeUnknown { .. }, _) => {
            (false, "nobody knows whether it happened: there is no answer to erase")
        }
        (Outcome::Absent, None) => (false, "there is no record of this key"),
        (Outcome::Absent | Outcome::Expired, _) => {
            (false, "it did not happen: there is no answer to erase")
        }
        (
            Outcome::Granted(_)
            | Outcome::Replay { .. }
            | Outcome::Gone { .. }
            | Outcome::Mismatch
            | Outcome::CredentialChanged
            | Outcome::Fenced
            | Outcome::InvalidFence
            | Outcome::SecondReply,
            _,
        ) => (false, "the key is left as it is"),
    };
    let key = record.map(|record| Box::new(View::of(id, &record)));
    Ok(Told::Resolved { done, text: text.to_owned(), key })
}

/// Copies the journal on a thread that may block.
async fn backup(opened: &Opened, to: PathBuf) -> Result<Told, Failure> {
    let Some((journal, _)) = opened.journal() else { return Err(usage("a backup of this store")) };
    let journal = journal.clone();
    let copying = tokio::task::spawn_blocking(move || journal.backup(&to, now()));
    let Backup { segments, shelves, bytes } = copying.await.map_err(std::io::Error::other)??;
    Ok(Told::BackedUp { segments, shelves, bytes })
}

/// Where questions are answered.
#[allow(clippy::large_enum_variant, reason = "made once a command, boxing would cost more")]
pub(crate) enum Operator {
    /// Here: the store is one that others may have too, or the journal was free.
    Here(Desk),
    /// In the process that has the journal.
    There(socket::Client),
}

impl Operator {
    /// Opens the store, or finds the process that has the journal.
    pub(crate) async fn at(args: &StoreArgs) -> Result<Self, Failure> {
        Self::watched(args, None).await
    }

    /// The same; `observer` is told what happens to keys here.
    pub(crate) async fn watched(
        args: &StoreArgs,
        observer: Option<Arc<dyn Observer>>,
    ) -> Result<Self, Failure> {
        let opened = match args.store.open_or_find().await? {
            Ok(opened) => opened,
            Err(dir) => return Ok(Self::There(socket::Client::new(dir))),
        };
        let wrapped = vault::open(&opened, args.key_file.as_deref()).await?;
        let (store, vault) = wrapped.watched();
        let runtime = Arc::new(TokioRuntime::new());
        let engine = Engine::start(store, runtime, Settings::default(), observer).await?;
        // How long keys are remembered only the policies of the routes tell. What is written here
        // must not be forgotten before that, so it is never due: the price is its few bytes.
        let policy = Policy { remember: FOREVER, ..Policy::default() };
        Ok(Self::Here(Desk { engine, opened, vault, policy }))
    }

    /// Asks; failures of the other side are failures here.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Told, Failure> {
        match self {
            Self::Here(desk) => answer(desk, ask).await.done(),
            Self::There(client) => client.ask(&ask).await?.done(),
        }
    }

    /// Lets the store go.
    pub(crate) fn close(&self) {
        match self {
            Self::Here(desk) => desk.opened.close(),
            Self::There(_) => {}
        }
    }
}
