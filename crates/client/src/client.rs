//! The client of the record service, and the order of events around an operation: claim, commit,
//! run, complete.
//!
//! - The claim is `prepared` until just before the operation runs. A claim whose answer is lost for
//!   good, or whose process dies before the operation began, frees its key by itself.
//! - Whatever is asked is asked again, the same, until it is answered or patience is over.
//! - Nothing that is sent after the operation has run can make it run again.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::canonical::{Field, fingerprint, hex};
use crate::claim::{Attempt, Claim, LastWord, Options, Renewals, millis};
use crate::desk::{ASK_TIME, Desk, Document};
use crate::error::{Kind, OnceError};
use crate::http1::Http;

/// The longest that one question waits for another attempt.
const POLL_TIME: Duration = Duration::from_secs(20);
/// How often a claim that was over before it began anything is made anew.
const CLAIMS_MAX: u32 = 3;

/// Why an operation has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// It certainly did not happen and no longer can: its key is free again.
    DidNotHappen(E),
    /// It may have happened. `?` makes this of every error, since an answer that did not come may
    /// have been a yes.
    CannotTell(E),
}

impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Self::CannotTell(error)
    }
}

/// Why [`Client::once`] has no result, or has one that is not as it should be.
#[derive(Debug)]
pub enum Failed<T, E> {
    /// It did not run here.
    Refused(OnceError),
    /// It happened here just now, and this is wrong with its record.
    Happened {
        /// What the operation returned. Keep it.
        result: T,
        /// [`Kind::NotRecorded`], [`Kind::ResultNotJson`] or [`Kind::SecondReply`].
        error: OnceError,
    },
    /// It ran here and did not happen: the key is free.
    DidNotHappen(E),
    /// It ran here, and nobody knows whether it happened: the key is unknown from now on.
    CannotTell(E),
}

impl<T, E> Failed<T, E> {
    /// What onlyonce has to say of it, if the operation is not the one that says it.
    pub fn error(&self) -> Option<&OnceError> {
        match self {
            Self::Refused(error) | Self::Happened { error, .. } => Some(error),
            Self::DidNotHappen(_) | Self::CannotTell(_) => None,
        }
    }
}

impl<T, E> From<OnceError> for Failed<T, E> {
    fn from(error: OnceError) -> Self {
        Self::Refused(error)
    }
}

impl<T, E: fmt::Display> fmt::Display for Failed<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) | Self::Happened { error, .. } => error.fmt(f),
            Self::DidNotHappen(error) => write!(f, "it did not happen: {error}"),
            Self::CannotTell(error) => write!(f, "nobody knows whether it happened: {error}"),
        }
    }
}

impl<T: fmt::Debug, E: fmt::Debug + fmt::Display> std::error::Error for Failed<T, E> {}

/// Runs operations once, with the record service keeping the records. Cheap to clone.
///
/// ```no_run
/// # async fn charge(key: &str) -> std::io::Result<u32> { Ok(7) }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use onlyonce_client::{Client, key_from};
///
/// let client = Client::new("http://127.0.0.1:8081")?.with_token("the token")?;
/// let key = key_from("charge", ["order-7829".into()])?;
/// let receipt: u32 = client
///     .once(&key, 1000, async |attempt| Ok(charge(attempt.key()).await?))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    desk: Desk,
    options: Options,
}

impl Client {
    /// One of the service at `url`, such as `http://127.0.0.1:8081`. With https it trusts the
    /// certificates that this system trusts.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: it is no address of http or https.
    pub fn new(url: &str) -> Result<Self, OnceError> {
        Ok(Self { desk: Desk::new(url, Http::default())?, options: Options::default() })
    }

    /// Asks as the caller with this token.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: it cannot stand in a field of HTTP.
    pub fn with_token(self, token: &str) -> Result<Self, OnceError> {
        Ok(Self { desk: self.desk.with_token(token)?, ..self })
    }

    /// Trusts, and shows, these certificates.
    #[must_use]
    pub fn with_tls(self, config: Arc<ClientConfig>) -> Self {
        Self { desk: self.desk.with_http(Http::with_tls(config)), ..self }
    }

    /// Claims so.
    #[must_use]
    pub fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// Runs `operation` if it has not been run under `key`, and gives its result; or gives the
    /// result that it had before. Results are what JSON makes of them, for the first caller too.
    ///
    /// `inputs` is what must not change under the key: with others it is refused. Without any
    /// (`()`), the key alone decides. While the operation runs its claim is renewed. If this future
    /// is dropped while it runs, or the operation panics, the outcome is unknown.
    ///
    /// # Errors
    /// [`Failed`] says whether it ran here.
    pub async fn once<T, E, F, R>(
        &self,
        key: &str,
        inputs: impl Into<Field>,
        operation: F,
    ) -> Result<T, Failed<T, E>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(Attempt) -> R,
        R: Future<Output = Result<T, Failure<E>>>,
    {
        let question = self.question(key, &inputs.into())?;
        let claim = match self.granted(key, &question).await? {
            Granted::Answered(reply) => return Ok(result_of(&reply, key)?),
            Granted::Claim(claim) => claim,
        };
        let mut last = LastWord::new(&claim);
        last.word = Some("abandon");
        let ended = {
            let _renewals = Renewals::begin(&claim);
            operation(Attempt(Arc::clone(&claim))).await
        };
        match ended {
            Ok(value) => {
                last.word = None;
                completed(&claim, value).await
            }
            Err(Failure::DidNotHappen(error)) => {
                last.say("release").await;
                Err(Failed::DidNotHappen(error))
            }
            Err(Failure::CannotTell(error)) => {
                last.say("abandon").await;
                Err(Failed::CannotTell(error))
            }
        }
    }

    /// Asks an endpoint by its name, such as `get` or `resolve`, and gives the answer's document
    /// (docs/openapi.json).
    ///
    /// # Errors
    /// What the problem is that it was answered with, or [`Kind::StoreAway`].
    pub async fn ask(
        &self,
        name: &str,
        body: serde_json::Map<String, Value>,
    ) -> Result<serde_json::Map<String, Value>, OnceError> {
        self.desk.asked(name, &body, self.options.patience, ASK_TIME).await
    }

    fn question(&self, key: &str, inputs: &Field) -> Result<Document, OnceError> {
        let invalid = |error| OnceError::new(Kind::Invalid, format!("inputs: {error}"), key);
        let mut question = self.options.about(key);
        question.insert("fingerprint".into(), json!(fingerprint(inputs).map_err(invalid)?));
        if let Some(first) = self.options.first_sent {
            question.insert("first_sent_ms".into(), millis(first));
        }
        Ok(question)
    }

    /// A claim under which the operation may happen, or the reply of the attempt that was.
    async fn granted(&self, key: &str, question: &Document) -> Result<Granted, OnceError> {
        let until = Instant::now() + self.options.wait;
        let mut claims = 1;
        loop {
            let granted = match self.claimed(key, question).await {
                Ok(granted) => granted,
                Err(busy) if busy.kind() == Kind::InProgress => {
                    match self.waited(question, busy, until).await? {
                        Some(reply) => return Ok(Granted::Answered(reply)),
                        // It is free, and whoever asks first may have it.
                        None => continue,
                    }
                }
                Err(error) => return Err(error),
            };
            let claim = match granted.get("outcome").and_then(Value::as_str) {
                Some("replay") => return Ok(Granted::Answered(granted)),
                Some("granted") => {
                    Claim::new(self.desk.clone(), key, self.options.clone(), &granted)
                }
                _ => None,
            };
            let Some(claim) = claim.map(Arc::new) else {
                let text = "the answer to a claim is not understood";
                return Err(OnceError::new(Kind::Refused, text, key));
            };
            if self.options.prepared {
                return Ok(Granted::Claim(claim));
            }
            let mut last = LastWord::new(&claim);
            match claim.commit().await {
                Ok(()) => {
                    last.word = None;
                    return Ok(Granted::Claim(claim));
                }
                // A claim that was over, or nearly, before it began anything: another may be made.
                Err(error) if error.kind() == Kind::Fenced && claims < CLAIMS_MAX => {
                    last.say("release").await;
                    claims += 1;
                }
                Err(error) => {
                    // Nothing was begun, and nobody else can know that.
                    last.say("release").await;
                    return Err(error);
                }
            }
        }
    }

    async fn claimed(&self, key: &str, question: &Document) -> Result<Document, OnceError> {
        // Made once, so that the claim can be repeated after a lost answer.
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|error| OnceError::new(Kind::Invalid, format!("no chance: {error}"), key))?;
        let mut body = question.clone();
        body.insert("claim_id".into(), json!(hex(&id)));
        body.insert("phase".into(), json!("prepared"));
        self.options.lease_in(&mut body);
        if let Some(holder) = &self.options.holder {
            body.insert("holder".into(), json!(holder));
        }
        self.desk.asked("claim", &body, self.options.patience, ASK_TIME).await
    }

    /// The reply of the attempt that runs, or `None` once the key is free.
    async fn waited(
        &self,
        question: &Document,
        mut busy: OnceError,
        until: Instant,
    ) -> Result<Option<Document>, OnceError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(busy);
            }
            let wait = left.min(POLL_TIME).max(Duration::from_millis(1));
            let mut body = question.clone();
            body.insert("wait_ms".into(), millis(wait));
            let begun = Instant::now();
            match self.desk.asked("wait", &body, left, wait + ASK_TIME).await {
                Ok(document) => return Ok(Some(document)),
                Err(error) if error.kind() == Kind::InProgress => busy = error,
                Err(error) if error.problem_name() == Some("no-record") => return Ok(None),
                Err(error) => return Err(error),
            }
            if begun.elapsed() < wait / 2 {
                // The service waits for less time than it was asked to.
                let pause = busy.retry_after().unwrap_or(Duration::from_secs(1));
                sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
            }
        }
    }
}

/// What a claim came to.
enum Granted {
    Answered(Document),
    Claim(Arc<Claim>),
}

async fn completed<T, E>(claim: &Claim, value: T) -> Result<T, Failed<T, E>>
where
    T: Serialize + DeserializeOwned,
{
    // What later callers get, so that the first one gets the same.
    let told = serde_json::to_value(&value).and_then(|told| Ok((T::deserialize(&told)?, told)));
    let (first, told) = match told {
        Ok(told) => told,
        Err(why) => return Err(without(claim, value, &why.to_string()).await),
    };
    match complete(claim, json!({"status": 200, "json": told})).await {
        Ok(()) => Ok(first),
        Err(error) if error.kind() == Kind::SecondReply => {
            Err(Failed::Happened { result: first, error })
        }
        Err(error) if error.problem_name() == Some("body-too-large") => {
            match complete(claim, json!({"status": 200})).await {
                Ok(()) => Ok(first),
                Err(error) => Err(Failed::Happened { result: first, error: unrecorded(error) }),
            }
        }
        Err(error) if error.problem_name() == Some("request-invalid") => {
            Err(without(claim, value, &error.to_string()).await)
        }
        Err(error) => Err(Failed::Happened { result: first, error: unrecorded(error) }),
    }
}

/// It happened, and there is no reply that can be kept.
async fn without<T, E>(claim: &Claim, result: T, why: &str) -> Failed<T, E> {
    let error = match complete(claim, json!({"status": 200})).await {
        Ok(()) => {
            let text = format!("it happened, and its result has no form in JSON: {why}");
            OnceError::new(Kind::ResultNotJson, text, &claim.key)
        }
        Err(error) => unrecorded(error),
    };
    Failed::Happened { result, error }
}

async fn complete(claim: &Claim, reply: Value) -> Result<(), OnceError> {
    let kept = claim.options.retention.map(|it| ("retention_ms", millis(it)));
    let more = std::iter::once(("reply", reply)).chain(kept);
    claim.say("complete", claim.options.patience, more).await.map(drop)
}

fn unrecorded(error: OnceError) -> OnceError {
    if error.kind() == Kind::SecondReply {
        return error;
    }
    error.into_cause_of(Kind::NotRecorded, "it happened, and that could not be recorded")
}

fn result_of<T: DeserializeOwned>(document: &Document, key: &str) -> Result<T, OnceError> {
    let reply = document.get("reply").and_then(Value::as_object);
    let member = |name| reply.and_then(|it| it.get(name));
    let bytes = member("base64").and_then(Value::as_str).and_then(|it| STANDARD.decode(it).ok());
    let found = member("json").or(member("text")).cloned().or(bytes.map(Value::from));
    let gone = |text: String| OnceError::new(Kind::Gone, text, key);
    let found =
        found.ok_or_else(|| gone("it happened, and what it returned is not kept".into()))?;
    T::deserialize(found)
        .map_err(|error| gone(format!("it happened, and returned another type: {error}")))
}
