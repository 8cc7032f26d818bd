//! A consumer of one stream.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::ServerAddr;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;
use onlyonce_consume::{AddressError, Handler, Inbox, InboxError, Tls, Told, keep_connected};

use crate::session::{SUBJECT, Session, carried, posted};

/// How long the server may take to answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The consumer by which messages are handed in again.
const REPLAY: &str = "onlyonce-replay";

/// Where messages are, and how they are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// The stream that messages come from. It must exist.
    pub from: String,
    /// The name of the durable consumer. If it does not exist it is made: explicit
    /// acknowledgements, and no bound on deliveries, since the server drops what is over it
    /// without a word.
    pub consumer: String,
    /// The stream where messages are put aside, made if it does not exist. Default: the consumer's
    /// name with `-aside`; its subject is `onlyonce.aside.` and the consumer's name.
    pub aside: String,
    /// How many messages are carried out at once. Default 16.
    pub at_once: usize,
    /// How long the server waits for a word about a delivery before it delivers again, if the
    /// consumer is made here. A word is said at a third of it. Default 30 s.
    pub ack_wait: Duration,
    /// How long a message waits that is to come later: the first time, the second, and so on; the
    /// last one counts for all further times. Default 1 s, 5 s, 30 s, 3 min.
    pub pauses: Vec<Duration>,
    /// The pause after the server was lost, and while the store is away; twice as long after each
    /// further connection that does not open, up to thirty times. Default 1 s.
    pub pause: Duration,
}

impl Streams {
    /// Those of the consumer of this name.
    pub fn of(from: &str, consumer: &str) -> Self {
        Self {
            from: from.to_owned(),
            consumer: consumer.to_owned(),
            aside: format!("{consumer}-aside"),
            at_once: 16,
            ack_wait: Duration::from_secs(30),
            pauses: [1, 5, 30, 180].map(Duration::from_secs).to_vec(),
            pause: Duration::from_secs(1),
        }
    }

    /// The subject of what is put aside.
    pub(crate) fn aside_subject(&self) -> String {
        format!("onlyonce.aside.{}", self.consumer)
    }

    pub(crate) fn later(&self, pauses: u32) -> Duration {
        let at = usize::try_from(pauses).unwrap_or(usize::MAX);
        let last = self.pauses.last().copied().unwrap_or(self.pause);
        self.pauses.get(at).copied().unwrap_or(last)
    }
}

/// Why a consumer has ended.
#[derive(Debug)]
pub enum NatsError {
    /// The store is gone for good. What was delivered and not recorded comes again.
    Inbox(InboxError),
    /// The server could not be asked. What was moved until then is moved.
    Server(String),
}

impl NatsError {
    pub(crate) fn server(error: impl fmt::Display) -> Self {
        Self::Server(error.to_string())
    }
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox(error) => error.fmt(f),
            Self::Server(why) => write!(f, "NATS: {why}"),
        }
    }
}

impl std::error::Error for NatsError {}

/// A consumer of one stream.
#[derive(Clone)]
pub struct Jet {
    address: String,
    /// If nothing may be said that is not encrypted.
    tls: Option<Tls>,
    streams: Arc<Streams>,
}

impl Jet {
    /// One that finds its server there: `nats://user:password@host:port`.
    ///
    /// `tls://` is TLS, with the options of [`Tls`]; `nats://` is too if the server says so, which
    /// somebody in between could keep from us.
    ///
    /// # Errors
    /// The address is not understood, or names a file that cannot be used.
    pub fn new(address: &str, streams: Streams) -> Result<Self, AddressError> {
        let secure = address.starts_with("tls://");
        if !secure && !address.starts_with("nats://") {
            return Err(AddressError::new("it must begin with nats:// or tls://"));
        }
        let (address, tls) = Tls::taken_from(address)?;
        if let Some((_, option)) = address.split_once('?') {
            let name = option.split_once(['=', '&']).map_or(option, |(name, _)| name);
            return Err(AddressError::new(format!("`{name}` is no option of it")));
        }
        let known = address.parse::<ServerAddr>();
        known.map_err(|error| AddressError::new(error.to_string()))?;
        // Files are read here too, so that a mistake is found before anything runs.
        let tls = match secure {
            true => tls.config().map(|_| Some(tls))?,
            false => tls.refused_for("tls://").map(|()| None)?,
        };
        Ok(Self { address, tls, streams: Arc::new(streams) })
    }

    /// Takes messages until `stop`, and connects again whenever the server is lost. What is being
    /// carried out when it stops is waited for; drop this to give that up, which cancels nothing.
    /// `tell` is told what happens.
    ///
    /// # Errors
    /// The store is gone for good.
    pub async fn run<H: Handler>(
        &self,
        inbox: &Inbox,
        handler: &Arc<H>,
        stop: impl Future<Output = ()>,
        tell: impl Fn(Told) + Send + Sync + 'static,
    ) -> Result<(), NatsError> {
        let tell = Arc::new(tell);
        let work = |session: Session, stop| session.run(inbox, handler, stop, &tell);
        let ended = keep_connected(self.streams.pause, stop, &*tell, || self.open(), work);
        ended.await.map_err(NatsError::Inbox)
    }

    /// Hands in again what was put aside, at most so many and only what lies there now. What was
    /// answered is not run again, however long ago that was; what is in doubt is put aside again,
    /// unless that was settled. Says how many were moved.
    ///
    /// # Errors
    /// The server could not be asked. What was moved until then is moved; one of them may lie in
    /// both streams, which runs it once.
    pub async fn replay(&self, limit: usize) -> Result<usize, NatsError> {
        let context = self.connect().await?;
        let aside = self.aside(&context).await?;
        let there = aside.cached_info().state.messages;
        let config = pull::Config {
            durable_name: Some(REPLAY.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        let made = aside.get_or_create_consumer(REPLAY, config).await;
        let consumer: Consumer<pull::Config> = made.map_err(NatsError::server)?;
        let limit = limit.min(usize::try_from(there).unwrap_or(usize::MAX));
        let got = consumer.fetch().max_messages(limit).messages().await;
        let mut messages = got.map_err(NatsError::server)?;
        let mut moved = 0;
        while let Some(message) = messages.next().await {
            let message = message.map_err(NatsError::server)?;
            let from = message.headers.as_ref().and_then(|all| all.get(SUBJECT));
            let Some(subject) = from.map(|it| it.as_str().to_owned()) else { continue };
            let headers = carried(&message, &[]);
            posted(&context, subject, headers, message.payload.clone()).await?;
            message.double_ack().await.map_err(NatsError::server)?;
            moved += 1;
        }
        Ok(moved)
    }

    async fn connect(&self) -> Result<Context, NatsError> {
        let options = async_nats::ConnectOptions::new().name("onlyonce");
        let options = options.connection_timeout(CONNECT_MAX).max_reconnects(1);
        let options = match &self.tls {
            Some(tls) => {
                let config = tls.config().map_err(NatsError::server)?;
                options.require_tls(true).tls_client_config(config)
            }
            // Should the server ask for it.
            None => match Tls::default().config() {
                Ok(config) => options.tls_client_config(config),
                Err(_) => options,
            },
        };
        let client = options.connect(&self.address).await.map_err(NatsError::server)?;
        Ok(jetstream::new(client))
    }

    async fn aside(&self, context: &Context) -> Result<jetstream::stream::Stream, NatsError> {
        let config = Config {
            name: self.streams.aside.clone(),
            subjects: vec![self.streams.aside_subject()],
            // What is acknowledged there goes.
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        };
        context.get_or_create_stream(config).await.map_err(NatsError::server)
    }

    async fn open(&self) -> Result<Session, NatsError> {
        let context = self.connect().await?;
        self.aside(&context).await?;
        let streams = Arc::clone(&self.streams);
        let from = context.get_stream(&streams.from).await.map_err(NatsError::server)?;
        let config = pull::Config {
            durable_name: Some(streams.consumer.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: streams.ack_wait,
            max_deliver: -1,
            ..pull::Config::default()
        };
        let made = from.get_or_create_consumer(&streams.consumer, config).await;
        let consumer: Consumer<pull::Config> = made.map_err(NatsError::server)?;
        Session::open(context, &consumer, streams).await
    }
}
