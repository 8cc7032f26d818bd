//! A client for APIs that know idempotency keys, such as those behind `onlyonce proxy`: one key for
//! each intent, whatever is retried or restarted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use rustls::ClientConfig;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::desk::pause_after;
use crate::error::{Kind, OnceError, ReuseKey};
use crate::http1::{Answer, Http, Lost, is_address};
use crate::intents::IntentStore;
use crate::problem::{from_problem, problem_of, retry_after};
use crate::uuid7;

/// What whoever stands in front answers when the same may do better later.
const PASSING: [u16; 6] = [408, 425, 429, 502, 503, 504];
/// Answers of the service itself, however they look.
const ANSWERED: [&str; 4] = ["executed", "replayed", "unrecorded", "unprotected"];

/// How requests are sent.
#[derive(Clone, Debug)]
pub struct Retrying {
    /// For how long to send again before giving up: after that no attempt begins. Default 60 s.
    pub patience: Duration,
    /// For how long one attempt may go without an answer. A shorter one than the operation takes
    /// does no harm: the next attempt joins the first. Default 30 s.
    pub attempt_time: Duration,
    /// The longest `Retry-After` that is waited for; a longer one is cut to it. Default 30 s.
    pub retry_after_max: Duration,
    /// The field that carries the key. Default `Idempotency-Key`.
    pub key_name: HeaderName,
}

impl Default for Retrying {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(60),
            attempt_time: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(30),
            key_name: HeaderName::from_static("idempotency-key"),
        }
    }
}

/// Sends requests that happen once. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use onlyonce_client::{FileIntents, RetryingClient, json_request};
///
/// let api = RetryingClient::new(FileIntents::new("/var/lib/shop/intents")?);
/// let order = json_request("https://api.example/orders", &serde_json::json!({"cart": 17}))?;
/// let answer = api.send("pay cart 17", order).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RetryingClient {
    store: Arc<dyn IntentStore>,
    http: Http,
    options: Retrying,
}

impl std::fmt::Debug for RetryingClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryingClient").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A POST of a JSON document.
///
/// # Errors
/// [`Kind::Invalid`]: the address is none, or the document has no form in JSON.
pub fn json_request(url: &str, document: &impl Serialize) -> Result<Request<Bytes>, OnceError> {
    let invalid = |error: &dyn std::fmt::Display| {
        OnceError::new(Kind::Invalid, format!("a request for {url}: {error}"), "")
    };
    let body = serde_json::to_vec(document).map_err(|error| invalid(&error))?;
    let request = Request::builder().method(Method::POST).uri(url);
    let request = request.header(CONTENT_TYPE, "application/json");
    request.body(Bytes::from(body)).map_err(|error| invalid(&error))
}

impl RetryingClient {
    /// One whose keys are kept there: [`FileIntents`](crate::FileIntents) if they are to outlive
    /// the process.
    pub fn new(store: impl IntentStore) -> Self {
        Self { store: Arc::new(store), http: Http::default(), options: Retrying::default() }
    }

    /// Trusts, and shows, these certificates.
    #[must_use]
    pub fn with_tls(self, config: Arc<ClientConfig>) -> Self {
        Self { http: Http::with_tls(config), ..self }
    }

    /// Sends so.
    #[must_use]
    pub fn with_options(self, options: Retrying) -> Self {
        Self { options, ..self }
    }

    /// Sends the request of an intent until it is answered, always with the intent's key, and gives
    /// the answer, whatever its status: an error that the API answered is an answer.
    ///
    /// `intent` is your name for the one thing that is wanted, such as `pay cart 17`: the same for
    /// everything that is to happen once together, in every process. Its key is kept until
    /// [`forget`](Self::forget), also when it was answered. The request has an absolute address.
    ///
    /// Dropping the future sends nothing more; the key stays, and the request may have happened.
    ///
    /// # Errors
    /// [`Kind::OutcomeUnknown`] at once if nobody knows whether it happened; [`Kind::InProgress`],
    /// [`Kind::NoAnswer`], [`Kind::StoreAway`] or [`Kind::NotExecuted`] when patience is over (the
    /// same may follow later); [`Kind::Mismatch`], [`Kind::Gone`], [`Kind::Expired`],
    /// [`Kind::Sealed`] or [`Kind::Refused`] if that is what the key meets; [`Kind::NotKept`] or
    /// [`Kind::Invalid`] if nothing was sent.
    pub async fn send(&self, intent: &str, request: Request<Bytes>) -> Result<Answer, OnceError> {
        self.check(&request)?;
        let until = Instant::now() + self.options.patience;
        let mut key = self.kept(intent, |store, intent| store.take(intent, &uuid7)).await?;
        let (mut replaced, mut tries) = (false, 0);
        loop {
            let sending = self.http.send(self.with_key(&request, &key)?, self.options.attempt_time);
            let verdict = match sending.await {
                Ok(answer) => judged(answer, &key),
                Err(Lost(why)) => Verdict::Again(OnceError::new(Kind::NoAnswer, why, &key)),
            };
            let error = match verdict {
                Verdict::Final(answer) => return Ok(answer),
                Verdict::NewKey(_) if !replaced => {
                    // The service says that this key can never be right, so nothing ran under it.
                    replaced = true;
                    let old = key;
                    let new = move |store: &dyn IntentStore, intent: &str| {
                        store.replace(intent, &old, &uuid7)
                    };
                    key = self.kept(intent, new).await?;
                    continue;
                }
                Verdict::NewKey(error) | Verdict::Stop(error) => return Err(error),
                Verdict::Again(error) => error,
            };
            let told = error.retry_after().unwrap_or_default().min(self.options.retry_after_max);
            let pause = pause_after(tries).max(told);
            if until <= Instant::now() + pause {
                return Err(error);
            }
            sleep(pause).await;
            tries += 1;
        }
    }

    /// The intent is over. The next [`send`](Self::send) of its name is a new operation with a new
    /// key: say so when the outcome is known and noted, or when something new is wanted.
    ///
    /// # Errors
    /// [`Kind::NotKept`]: the key may still be there.
    pub async fn forget(&self, intent: &str) -> Result<(), OnceError> {
        self.kept(intent, |store, intent| store.forget(intent)).await
    }

    /// Does something with the store, which may wait for a disk.
    async fn kept<T: Send + 'static>(
        &self,
        intent: &str,
        work: impl FnOnce(&dyn IntentStore, &str) -> io::Result<T> + Send + 'static,
    ) -> Result<T, OnceError> {
        let (store, name) = (Arc::clone(&self.store), intent.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&*store, &name)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| {
            let is_wrong = error.kind() == io::ErrorKind::InvalidInput;
            let kind = if is_wrong { Kind::Invalid } else { Kind::NotKept };
            OnceError::new(kind, format!("the key of the intent {intent:?}: {error}"), "")
        })
    }

    fn check(&self, request: &Request<Bytes>) -> Result<(), OnceError> {
        let wrong = |text: String| Err(OnceError::new(Kind::Invalid, text, ""));
        if !is_address(request.uri()) {
            return wrong(format!("{} is not an address of http or https", request.uri()));
        }
        if request.headers().contains_key(&self.options.key_name) {
            let name = &self.options.key_name;
            return wrong(format!("{name} is the intent's and is not given by hand"));
        }
        Ok(())
    }

    fn with_key(
        &self,
        request: &Request<Bytes>,
        key: &str,
    ) -> Result<Request<Full<Bytes>>, OnceError> {
        let value = HeaderValue::try_from(format!("\"{key}\"")).map_err(|_| {
            OnceError::new(Kind::NotKept, "the key that is kept cannot stand in a field", key)
        })?;
        let mut copy = request.clone().map(Full::new);
        copy.headers_mut().insert(self.options.key_name.clone(), value);
        Ok(copy)
    }
}

/// What an answer means for whoever sent the request.
enum Verdict {
    /// It is the answer.
    Final(Answer),
    /// The same, with the same key, may do better.
    Again(OnceError),
    /// The key can never be right, and nothing ran under it.
    NewKey(OnceError),
    /// Nothing more is sent.
    Stop(OnceError),
}

/// Reads `Idempotency-Status` and the problem, never the status alone: the API behind onlyonce
/// answers 409 and 422 too.
fn judged(answer: Answer, key: &str) -> Verdict {
    let mark = answer.idempotency_status().unwrap_or_default();
    if ANSWERED.contains(&mark) {
        return Verdict::Final(answer);
    }
    let (status, wait) = (answer.status, retry_after(&answer));
    if let Some(problem) = problem_of(&answer) {
        let error = from_problem(problem, key, wait);
        // With 422 the key has run, with another request: that is for the caller to look at.
        return if error.reuse_key() == Some(ReuseKey::MustNot) && status == 400 {
            Verdict::NewKey(error)
        } else if error.is_retryable() {
            Verdict::Again(error)
        } else {
            Verdict::Stop(error)
        };
    }
    let (is_unknown, is_free) = (mark == "unknown", mark == "not-executed");
    if !is_unknown && !PASSING.contains(&status) {
        return Verdict::Final(answer);
    }
    let with = |kind, text: &str| {
        let mut error = OnceError::new(kind, format!("status {status}, {text}"), key);
        error.inner().retry_after = wait;
        error.inner().answer = Some(answer);
        error
    };
    if is_unknown {
        Verdict::Stop(with(Kind::OutcomeUnknown, "and who answered does not know if it happened"))
    } else if is_free {
        Verdict::Again(with(Kind::NotExecuted, "and it was not executed"))
    } else {
        Verdict::Again(with(Kind::NoAnswer, "and nothing says that it is final"))
    }
}
