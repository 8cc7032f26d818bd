//! Questions to the record service: asked again, the same, until they are answered.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::error::{Kind, OnceError};
use crate::http1::{Http, Lost, is_address};
use crate::problem::{from_problem, problem_of, retry_after};

/// How long one question may take, beside the time that it is asked to wait.
pub(crate) const ASK_TIME: Duration = Duration::from_secs(10);
/// The first pause after a failure, and the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The shortest pause, also where none was asked for.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// How long to wait before the next try: longer each time, and by chance, so that those who failed
/// together do not come back together.
pub(crate) fn pause_after(tries: u32) -> Duration {
    let most = PAUSE_FIRST.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
    let chance = getrandom::u32().unwrap_or(u32::MAX);
    most / 2 + most.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

/// A document of a question or an answer.
pub(crate) type Document = Map<String, Value>;

/// Where questions go, and who asks.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    base: String,
    bearer: Option<HeaderValue>,
    http: Http,
}

impl Desk {
    pub(crate) fn new(url: &str, http: Http) -> Result<Self, OnceError> {
        let base = format!("{}/v1/", url.trim_end_matches('/'));
        let uri: Option<Uri> = base.parse().ok().filter(is_address);
        match uri {
            Some(_) => Ok(Self { base, bearer: None, http }),
            None => {
                let text = format!("{url:?} is not an address of http or https");
                Err(OnceError::new(Kind::Invalid, text, ""))
            }
        }
    }

    pub(crate) fn with_token(mut self, token: &str) -> Result<Self, OnceError> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| OnceError::new(Kind::Invalid, "the token is no text of a field", ""))?;
        bearer.set_sensitive(true);
        self.bearer = Some(bearer);
        Ok(self)
    }

    pub(crate) fn with_http(self, http: Http) -> Self {
        Self { http, ..self }
    }

    /// The document of the answer. The same is asked again while no answer came, or one that says
    /// that asking again helps; a running attempt is not among those.
    pub(crate) async fn asked(
        &self,
        name: &str,
        body: &Document,
        patience: Duration,
        ask_time: Duration,
    ) -> Result<Document, OnceError> {
        let until = Instant::now() + patience;
        let mut tries = 0;
        loop {
            let error = match self.once(name, body, ask_time).await {
                Ok(document) => return Ok(document),
                Err(error) => error,
            };
            if !error.is_retryable() || error.kind() == Kind::InProgress {
                return Err(error);
            }
            let pause = error.retry_after().unwrap_or_else(|| pause_after(tries));
            if until < Instant::now() + pause {
                return Err(error);
            }
            tries += 1;
            sleep(pause.max(PAUSE_MIN)).await;
        }
    }

    /// Asks one time.
    pub(crate) async fn once(
        &self,
        name: &str,
        body: &Document,
        ask_time: Duration,
    ) -> Result<Document, OnceError> {
        let key = body.get("key").and_then(Value::as_str).unwrap_or_default();
        let place = format!("{}{name}", self.base);
        let bytes = Bytes::from(Value::Object(body.clone()).to_string());
        let mut request = Request::post(&place).header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request
            .body(Full::new(bytes))
            .map_err(|error| OnceError::new(Kind::Invalid, format!("{place}: {error}"), key))?;
        let answer = match self.http.send(request, ask_time).await {
            Ok(answer) => answer,
            Err(Lost(why)) => {
                return Err(OnceError::new(Kind::StoreAway, format!("{place}: {why}"), key));
            }
        };
        if let Some(problem) = problem_of(&answer) {
            return Err(from_problem(problem, key, retry_after(&answer)));
        }
        if answer.status == 200
            && let Ok(document) = serde_json::from_slice(&answer.body)
        {
            return Ok(document);
        }
        // Something in between has answered in the service's place.
        let text = format!("{place}: status {}, no answer of a record service", answer.status);
        let kind = if answer.status < 500 { Kind::Refused } else { Kind::StoreAway };
        let mut error = OnceError::new(kind, text, key);
        error.inner().retry_after = retry_after(&answer);
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ_by_chance() {
        for tries in [0, 1, 5, 6, 31, u32::MAX] {
            let most = PAUSE_FIRST.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
            let all: Vec<_> = (0..50).map(|_| pause_after(tries)).collect();
            assert!(all.iter().all(|it| most / 2 <= *it && *it <= most), "{all:?}");
            assert!(all.iter().any(|it| *it != all[0]));
        }
    }
}
