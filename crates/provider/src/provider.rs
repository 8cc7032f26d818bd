//! The adapter: a message becomes a request, and an answer what became of the message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use onlyonce_ask::aws::{Credentials, Target, signed};
use onlyonce_ask::template::Template;
use onlyonce_ask::{Answer, Connection, Failed};
use onlyonce_core::{Cause, Timestamp};
use serde_json::Value;
use tokio::time::Instant;

use crate::body::{Body, filled};
use crate::letter::Letter;
use crate::look::{Look, Looked, address, plain};

/// The longest part of an answer that is shown, in characters.
const SAID_MAX: usize = 300;

/// A provider, as its file describes it. It prints itself without what is secret in its
/// environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub(crate) url: Template,
    pub(crate) headers: Vec<(String, Template)>,
    pub(crate) body: Body,
    /// Where in the answer the provider's id is.
    pub(crate) id: Option<IdIn>,
    /// Statuses that say that it does not take the message, now or later.
    pub(crate) refused: Vec<u16>,
    /// Statuses that say that it does not take it now.
    pub(crate) later: Vec<u16>,
    /// For how long it remembers a key.
    pub(crate) window: Option<Duration>,
    /// How long a request that was given up may need to be carried out.
    pub(crate) late: Duration,
    /// How long connecting may take, and then the answer.
    pub(crate) within: Duration,
    pub(crate) look: Option<Look>,
    /// How requests are signed, if they are.
    pub(crate) aws: Option<Signing>,
}

/// AWS Signature Version 4, with the credentials of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signing {
    pub(crate) region: Template,
    pub(crate) service: String,
}

/// Where an id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdIn {
    /// At this JSON pointer (RFC 6901).
    Body(String),
    /// In this header field.
    Header(String),
}

/// A message was certainly not taken by this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whether to send it again later. If not, it will be refused again.
    pub retryable: bool,
    /// What the provider has answered with, if it was the provider.
    pub status: Option<u16>,
    /// What happened, for a person.
    pub text: String,
}

/// A request that is ready on a connection, of which nothing was sent.
#[derive(Debug)]
pub struct Ready {
    provider: Arc<Provider>,
    connection: Connection,
    request: Request<Full<Bytes>>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The provider has the message.
    Accepted {
        /// What it has answered with.
        status: u16,
        /// What it calls the message, if it says so.
        id: Option<String>,
        /// How long nobody knew: from the first byte of the request to the answer.
        window: Duration,
    },
    /// It has said that it does not take it.
    Refused(Refused),
    /// Nobody can tell.
    Unknown(Cause, String),
}

impl Provider {
    /// For how long the provider remembers a key: a second request within this time is answered as
    /// the first one was, and sends nothing.
    pub const fn window(&self) -> Option<Duration> {
        self.window
    }

    /// How long a request that was given up may still need to be carried out.
    pub const fn late(&self) -> Duration {
        self.late
    }

    /// If it can be asked for a message: how long what it has taken may not be found yet, and how
    /// long what was sent may need to be taken.
    pub fn bounds(&self) -> Option<(Duration, Duration)> {
        self.look.as_ref().map(|it| (it.settle, it.late))
    }

    /// Where its requests go, with the environment's part; what is of a message stays a reference.
    pub fn place(&self) -> String {
        let of_system = |name: &str| std::env::var(name.strip_prefix("env.")?).ok();
        let filled = self.url.fill(|name| of_system(name).or_else(|| Some(format!("${{{name}}}"))));
        filled.unwrap_or_else(|_| self.url.text())
    }

    /// The variables of the environment that it needs.
    pub fn variables(&self) -> Vec<&str> {
        let of_look = self.look.iter().flat_map(|look| {
            look.headers.iter().map(|(_, value)| value).chain(std::iter::once(&look.url))
        });
        let all = self.headers.iter().map(|(_, value)| value).chain([&self.url]).chain(of_look);
        let all = all.chain(self.body.templates()).chain(self.aws.iter().map(|it| &it.region));
        let mut names: Vec<&str> = all
            .flat_map(Template::references)
            .filter_map(|name| name.strip_prefix("env."))
            .chain(self.aws.iter().flat_map(|_| ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Connects, and makes the request, signed for `now` if it is. Nothing is sent of it. Can be
    /// repeated at will.
    ///
    /// # Errors
    /// The message was certainly not taken.
    pub async fn prepare(
        self: &Arc<Self>,
        letter: &Letter,
        now: Timestamp,
    ) -> Result<Ready, Refused> {
        let request = self.request(letter, now)?;
        let connection = Connection::open(request.uri(), self.within).await.map_err(|failed| {
            let (Failed::NotSent(text) | Failed::Lost(_, text) | Failed::Cut(_, text)) = failed;
            Refused { retryable: true, status: None, text }
        })?;
        Ok(Ready { provider: Arc::clone(self), connection, request })
    }

    /// Asks whether it has a message.
    pub async fn look(&self, letter: &Letter) -> Looked {
        match &self.look {
            Some(look) => look.ask(letter, self.within).await,
            None => Looked::CannotTell,
        }
    }

    fn request(&self, letter: &Letter, now: Timestamp) -> Result<Request<Full<Bytes>>, Refused> {
        let never = |text: &str| Refused { retryable: false, status: None, text: text.to_owned() };
        let carries = |name: &str| {
            let all = self.body.templates();
            all.iter().any(|it| it.references().contains(name))
        };
        if !carries("raw") {
            if 0 < letter.attachments() {
                return Err(never(
                    "it has attachments, and the provider's file has no place for \
                                  them",
                ));
            }
            if !["text", "html"].iter().any(|it| carries(it) && letter.value(it).is_some()) {
                return Err(never("it has no text that the provider's file has a place for"));
            }
        }
        // What the environment lacks may be there another time; what the message lacks will not.
        let lacks = |text: String| Refused {
            retryable: !text.starts_with("the message has no"),
            status: None,
            text,
        };
        let url = address(&self.url, letter).map_err(lacks)?;
        let (media, content) = self.body.filled(letter).map_err(lacks)?;
        let fields = match &self.aws {
            Some(signing) => signing.fields(letter, &url, media, &content, now).map_err(lacks)?,
            None => vec![("content-type", media.to_owned())],
        };
        let mut request = Request::builder().method(Method::POST).uri(url);
        request = request.header("accept", "application/json");
        for (name, value) in fields {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, filled(value, letter).map_err(lacks)?);
        }
        // What is wrong is not shown: a field may hold a secret.
        let made = request.body(Full::new(Bytes::from(content)));
        made.map_err(|_| Refused {
            retryable: true,
            status: None,
            text: "no request can be made of the provider's file".to_owned(),
        })
    }

    fn judged(&self, answered: Result<Answer, Failed>, window: Duration) -> Sent {
        let (status, answer) = match answered {
            Ok(answer) => (answer.status, Ok(answer)),
            Err(Failed::NotSent(text)) => {
                return Sent::Refused(Refused { retryable: true, status: None, text });
            }
            Err(Failed::Lost(cause, text)) => return Sent::Unknown(cause, text),
            // The status counts, whatever is lost of the rest.
            Err(Failed::Cut(status, text)) => (status, Err(text)),
        };
        let said = match &answer {
            Ok(answer) => said(answer),
            Err(text) => text.clone(),
        };
        let text = format!("answered with {status}: {said}");
        let refused = |retryable, text| Refused { retryable, status: Some(status), text };
        match status {
            200..=299 => {
                let id = answer.ok().and_then(|answer| self.id.as_ref()?.of(&answer));
                Sent::Accepted { status, id, window }
            }
            _ if self.refused.contains(&status) => Sent::Refused(refused(false, text)),
            _ if self.later.contains(&status) => Sent::Refused(refused(true, text)),
            // Whoever answers with another status may have taken it, or have been asked before.
            _ => Sent::Unknown(Cause::GatewayAnswer, text),
        }
    }
}

impl Ready {
    /// Sends the request and reads the answer. Before this is called, the caller has made durable
    /// that the message may be taken.
    pub async fn send(self) -> Sent {
        let begun = Instant::now();
        let answered = self.connection.send(self.request, self.provider.within).await;
        self.provider.judged(answered, begun.elapsed())
    }

    /// Whom it leads to.
    pub fn server(&self) -> String {
        self.request.uri().host().unwrap_or_default().to_owned()
    }
}

impl Signing {
    fn fields(
        &self,
        letter: &Letter,
        url: &str,
        media: &str,
        content: &str,
        now: Timestamp,
    ) -> Result<Vec<(&'static str, String)>, String> {
        let url: http::Uri = url.parse().map_err(|_| "`url` is no address".to_owned())?;
        let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"/-_.~".contains(&it);
        if url.query().is_some() || !url.path().bytes().all(is_plain) {
            return Err("an address with a query or odd characters is not signed".to_owned());
        }
        let region = filled(&self.region, letter)?;
        let host = url.authority().map(ToString::to_string).unwrap_or_default();
        let (service, path) = (&*self.service, url.path());
        let target = Target { region: &region, service, host: &host, path };
        Ok(signed(&Credentials::of_environment()?, target, media, content, now))
    }
}

impl IdIn {
    fn of(&self, answer: &Answer) -> Option<String> {
        let id = match self {
            Self::Header(name) => answer.headers.get(name)?.to_str().ok()?.to_owned(),
            Self::Body(pointer) => {
                let body: Value = serde_json::from_slice(&answer.body).ok()?;
                plain(body.pointer(pointer)?)
            }
        };
        (!id.is_empty()).then_some(id)
    }
}

fn said(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let plain = |it: char| if it.is_control() { ' ' } else { it };
    text.trim().chars().take(SAID_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider() -> Provider {
        let file = "url = \"https://a.example/\"\nid = \"/id\"\njson = { text = \"${text}\" }\n";
        Provider::read("mail.toml", file).unwrap()
    }

    fn judged(answered: Result<Answer, Failed>) -> Sent {
        provider().judged(answered, Duration::ZERO)
    }

    fn answer(status: u16, body: &str) -> Result<Answer, Failed> {
        let (headers, body) = (http::HeaderMap::new(), Bytes::from(body.to_owned()));
        Ok(Answer { status, headers, body })
    }

    #[test]
    fn only_what_was_definitely_answered_is_known() {
        let accepted = |status, id: Option<&str>| {
            let (id, window) = (id.map(ToOwned::to_owned), Duration::ZERO);
            Sent::Accepted { status, id, window }
        };
        assert_eq!(judged(answer(202, "{\"id\":\"m-1\"}")), accepted(202, Some("m-1")));
        assert_eq!(judged(answer(200, "no JSON")), accepted(200, None));
        assert_eq!(judged(Err(Failed::Cut(200, "cut".into()))), accepted(200, None));
        for (status, retryable) in
            [(400, false), (413, false), (422, false), (401, true), (429, true)]
        {
            for answered in [answer(status, "no"), Err(Failed::Cut(status, "cut".into()))] {
                let Sent::Refused(refused) = judged(answered) else { panic!("{status}") };
                assert_eq!((refused.retryable, refused.status), (retryable, Some(status)));
            }
        }
        for status in [100, 301, 408, 409, 418, 500, 502, 503, 504] {
            assert!(matches!(judged(answer(status, "x")), Sent::Unknown(..)), "{status}");
        }
        let lost = judged(Err(Failed::Lost(Cause::TimedOut, "x".into())));
        assert!(matches!(lost, Sent::Unknown(Cause::TimedOut, _)));
        let Sent::Refused(refused) = judged(Err(Failed::NotSent("x".into()))) else { panic!() };
        assert!(refused.retryable);
    }

    #[test]
    fn what_a_message_lacks_is_told_for_good_and_what_the_environment_lacks_for_now() {
        let letter =
            |raw: &str| Letter::read("00ff", "ann@mail.example", "", raw.as_bytes()).unwrap();
        let plain = "From: a@b.example\r\n\r\nHello\r\n";
        let now = Timestamp::default();
        assert!(provider().request(&letter(plain), now).is_ok());
        let rich = "From: a@b.example\r\nContent-Type: text/html\r\n\r\n<p>Hello\r\n";
        let refused = provider().request(&letter(rich), now).unwrap_err();
        assert!(!refused.retryable && refused.text.contains("no text"), "{refused:?}");
        let lacking = "url = \"https://a.example/\"\njson = { text = \"${text}\", subject = \
                       \"Re: ${subject}\" }\n";
        let lacking = Provider::read("mail.toml", lacking).unwrap();
        let refused = lacking.request(&letter(plain), now).unwrap_err();
        assert!(!refused.retryable && refused.text.contains("`${subject}`"), "{refused:?}");
        let of_system = "url = \"https://a.example/\"\njson = { text = \"${text}\", key = \
                         \"${env.ONLYONCE_NO_SUCH}\" }\n";
        let of_system = Provider::read("mail.toml", of_system).unwrap();
        assert_eq!(of_system.variables(), ["ONLYONCE_NO_SUCH"]);
        assert!(of_system.request(&letter(plain), now).unwrap_err().retryable);
    }
}
