//! A granted claim: what its holder says, and how it is renewed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::desk::{ASK_TIME, Desk, Document};
use crate::error::{Kind, OnceError};

/// How long a key's freeing, or that one cannot tell, is said again; its lease ends anyway.
const LAST_WORD_TIME: Duration = Duration::from_secs(5);

/// How operations are claimed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose keys they are; needed where the caller's token has several scopes.
    pub scope: Option<String>,
    /// For how long a claim is exclusive without being renewed. Default: the scope's.
    pub lease: Option<Duration>,
    /// For how long a reply is kept. Default: the scope's.
    pub retention: Option<Duration>,
    /// For how long to wait for another attempt's result. Default 30 s.
    pub wait: Duration,
    /// For how long to ask again when the service or its store do not answer. Default 30 s.
    pub patience: Duration,
    /// Who claims, for the log of the service.
    pub holder: Option<String>,
    /// When the operation was first wanted, since 1970, for keys that carry no time.
    pub first_sent: Option<Duration>,
    /// Whether the operation says [`Attempt::commit`] by itself, before the first byte that can
    /// take effect. Default `false`.
    pub prepared: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scope: None,
            lease: None,
            retention: None,
            wait: Duration::from_secs(30),
            patience: Duration::from_secs(30),
            holder: None,
            first_sent: None,
            prepared: false,
        }
    }
}

impl Options {
    /// What every question about a key has.
    pub(crate) fn about(&self, key: &str) -> Document {
        let mut document = Document::new();
        if let Some(scope) = &self.scope {
            document.insert("scope".into(), json!(scope));
        }
        document.insert("key".into(), json!(key));
        document
    }

    pub(crate) fn lease_in(&self, document: &mut Document) {
        if let Some(lease) = self.lease {
            document.insert("lease_ms".into(), millis(lease));
        }
    }
}

/// A time as documents have it.
pub(crate) fn millis(time: Duration) -> Value {
    json!(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// What an operation may know and say of the attempt that it is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attempt(pub(crate) Arc<Claim>);

impl Attempt {
    /// The key. Send it to a receiver that drops duplicates.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The number of the claim. Send it to a receiver that refuses older ones.
    pub fn fence(&self) -> u64 {
        self.0.fence
    }

    /// 1 for the first attempt of the key.
    pub fn number(&self) -> u64 {
        self.0.attempt
    }

    /// Whether the claim is over although the operation runs. Begin nothing more then; what has
    /// happened is still to be returned.
    pub fn is_lost(&self) -> bool {
        *self.0.over.borrow()
    }

    /// Waits until it is.
    pub async fn lost(&self) {
        let _ = self.0.over.subscribe().wait_for(|over| *over).await;
    }

    /// Says that the operation may happen from now on, for [`Options::prepared`].
    ///
    /// # Errors
    /// Nothing may be sent.
    pub async fn commit(&self) -> Result<(), OnceError> {
        self.0.commit().await
    }

    /// Keeps what was learnt, such as the id of a charge: at most 128 characters, for whoever has
    /// to settle an unknown outcome.
    ///
    /// # Errors
    /// It is not kept.
    pub async fn note(&self, evidence: &str) -> Result<(), OnceError> {
        let more = [("evidence", json!(evidence))];
        self.0.say("note", self.0.options.patience, more).await.map(drop)
    }
}

/// What is said under one claim.
#[derive(Debug)]
pub(crate) struct Claim {
    desk: Desk,
    pub(crate) key: String,
    pub(crate) options: Options,
    fence: u64,
    attempt: u64,
    lease: Duration,
    ends: Mutex<Instant>,
    over: watch::Sender<bool>,
}

impl Claim {
    /// `None` if what was granted is not understood.
    pub(crate) fn new(desk: Desk, key: &str, options: Options, granted: &Document) -> Option<Self> {
        let number = |name| granted.get(name).and_then(Value::as_u64);
        let lease = Duration::from_millis(number("lease_left_ms")?);
        Some(Self {
            desk,
            key: key.to_owned(),
            options,
            fence: number("fence")?,
            attempt: number("attempt")?,
            lease,
            ends: Mutex::new(Instant::now() + lease),
            over: watch::Sender::new(false),
        })
    }

    fn about(&self, more: impl IntoIterator<Item = (&'static str, Value)>) -> Document {
        let mut document = self.options.about(&self.key);
        document.insert("fence".into(), json!(self.fence));
        document.extend(more.into_iter().map(|(name, it)| (name.to_owned(), it)));
        document
    }

    pub(crate) async fn say(
        &self,
        name: &str,
        patience: Duration,
        more: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Result<Document, OnceError> {
        self.desk.asked(name, &self.about(more), patience, ASK_TIME).await
    }

    /// Nothing may be begun under a claim that is nearly over, such as when the answer was long on
    /// its way: somebody else may be let in.
    pub(crate) async fn commit(&self) -> Result<(), OnceError> {
        let mut document = self.about([]);
        self.options.lease_in(&mut document);
        let patience = self.options.patience;
        // Counted from before the question, which may have been asked more than once.
        let begun = Instant::now();
        let done = self.desk.asked("commit", &document, patience, ASK_TIME).await?;
        let ends = begun + left_of(&done);
        *self.ends() = ends;
        if ends.saturating_duration_since(Instant::now()) < self.lease / 3 {
            let text = "too little of the claim's time is left to begin";
            return Err(OnceError::new(Kind::Fenced, text, &self.key));
        }
        Ok(())
    }

    /// When the claim is over, unless it is renewed.
    fn ends(&self) -> MutexGuard<'_, Instant> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews at a third of the lease, until the claim is over.
    async fn renewals(&self) {
        let mut ends = *self.ends();
        let mut pause = self.lease / 3;
        let mut document = self.about([]);
        self.options.lease_in(&mut document);
        while !*self.over.borrow() {
            sleep(pause).await;
            let begun = Instant::now();
            let is_over = match self.desk.once("renew", &document, self.lease / 3).await {
                Ok(done) => {
                    // Counted from before the question: the service counts from when it came.
                    ends = begun + left_of(&done);
                    pause = self.lease / 3;
                    false
                }
                Err(error) => {
                    pause = self.lease / 10;
                    !error.is_retryable()
                }
            };
            if is_over || ends <= Instant::now() {
                self.over.send_replace(true);
            }
        }
    }
}

/// How much of a claim's time was left when the service said this.
fn left_of(done: &Document) -> Duration {
    Duration::from_millis(done.get("lease_left_ms").and_then(Value::as_u64).unwrap_or(0))
}

/// Renews a claim until it is dropped.
pub(crate) struct Renewals(JoinHandle<()>);

impl Renewals {
    pub(crate) fn begin(claim: &Arc<Claim>) -> Self {
        let claim = Arc::clone(claim);
        Self(tokio::spawn(async move { claim.renewals().await }))
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says how an attempt ended that has no result, also if the operation panics or is dropped. If
/// nobody hears it, the lease ends the claim.
pub(crate) struct LastWord {
    claim: Arc<Claim>,
    /// Nothing was begun: `release`. It may have happened: `abandon`. Its end is known: none.
    pub(crate) word: Option<&'static str>,
}

impl LastWord {
    pub(crate) fn new(claim: &Arc<Claim>) -> Self {
        Self { claim: Arc::clone(claim), word: Some("release") }
    }

    /// Says this, and waits until it was heard.
    pub(crate) async fn say(mut self, word: &'static str) {
        self.word = Some(word);
        let _ = self.claim.say(word, LAST_WORD_TIME, []).await;
        self.word = None;
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let (Some(word), Ok(runtime)) = (self.word, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let claim = Arc::clone(&self.claim);
        runtime.spawn(async move { claim.say(word, LAST_WORD_TIME, []).await });
    }
}
