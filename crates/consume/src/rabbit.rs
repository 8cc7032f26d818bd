//! Takes messages from a queue of RabbitMQ, one acknowledgement for one durable record.
//!
//! A delivery is settled on the connection that it came by; what another connection says of it,
//! the broker refuses. What is to come later waits in a queue of its own for each pause, so that it
//! holds up nothing: the broker puts it back. Whatever is moved is published first, and
//! acknowledged once the broker has confirmed that. A crash in between makes two of it, which are
//! one to the inbox.

mod address;
mod post;
mod session;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lapin::Connection;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;

use crate::inbox::{Handler, Inbox, InboxError};
use crate::rabbit::address::Address;
use crate::rabbit::post::{Post, carried};
use crate::rabbit::session::Session;
use crate::tls::AddressError;
use crate::work::{Told, keep_connected};

/// How long a broker may take to answer a connection, and to say goodbye.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The queues of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Where messages come from. It must exist.
    pub from: String,
    /// Where messages are put aside. Default: `from` with `.aside`.
    pub aside: String,
    /// How long a message waits that is to come later: the first time, the second, and so on; the
    /// last one counts for all further times. Each has a queue, `from` with `.later.` and its
    /// milliseconds. Default 1 s, 5 s, 30 s, 3 min; at most 16.
    pub pauses: Vec<Duration>,
    /// Whether the queues for later and aside are made: quorum queues, which lose nothing on the
    /// way back. Default `true`; else they must exist.
    pub make: bool,
}

impl Queues {
    /// Those of the consumer of this queue.
    pub fn of(from: &str) -> Self {
        let pauses = [1, 5, 30, 180].map(Duration::from_secs).to_vec();
        Self { from: from.to_owned(), aside: format!("{from}.aside"), pauses, make: true }
    }

    /// Where a message waits that has paused so often.
    fn later(&self, pauses: u32) -> (String, Duration) {
        let last = self.pauses.len().saturating_sub(1);
        let at = usize::try_from(pauses).unwrap_or(last).min(last);
        let pause = self.pauses.get(at).copied().unwrap_or(Duration::from_secs(1));
        (format!("{}.later.{}", self.from, pause.as_millis()), pause)
    }

    fn all_later(&self) -> Vec<(String, Duration)> {
        let pauses = u32::try_from(self.pauses.len().clamp(1, 16)).unwrap_or(16);
        (0..pauses).map(|pauses| self.later(pauses)).collect()
    }
}

/// How a consumer takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumption {
    /// How many messages are taken at once, and carried out at once. Default 16.
    pub prefetch: u16,
    /// The pause after a connection was lost, and while the store is away; twice as long after each
    /// further one that does not open, up to thirty times. Default 1 s.
    pub pause: Duration,
}

impl Default for Consumption {
    fn default() -> Self {
        Self { prefetch: 16, pause: Duration::from_secs(1) }
    }
}

/// Why a consumer has ended.
#[derive(Debug)]
pub enum RabbitError {
    /// The store is gone for good. What was delivered and not recorded comes again.
    Inbox(InboxError),
    /// The broker could not be asked. What was moved until then is moved.
    Broker(String),
}

impl fmt::Display for RabbitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox(error) => error.fmt(f),
            Self::Broker(why) => write!(f, "RabbitMQ: {why}"),
        }
    }
}

impl std::error::Error for RabbitError {}

impl From<lapin::Error> for RabbitError {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error.to_string())
    }
}

/// A consumer of one queue.
#[derive(Clone)]
pub struct Rabbit {
    address: Address,
    queues: Arc<Queues>,
    how: Consumption,
}

impl Rabbit {
    /// One that finds its broker there: `amqp://user:password@host:port/vhost?heartbeat=10`.
    ///
    /// `amqps://` is TLS, with the options of [`Tls`](crate::Tls). `auth_mechanism=external` lets
    /// the broker take the user from our certificate.
    ///
    /// # Errors
    /// The address is not understood, or names a file that cannot be used.
    pub fn new(url: &str, queues: Queues, how: Consumption) -> Result<Self, AddressError> {
        Ok(Self { address: Address::parse(url)?, queues: Arc::new(queues), how })
    }

    /// Takes messages until `stop`, and connects again whenever the broker is lost. What is being
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
    ) -> Result<(), RabbitError> {
        let tell = Arc::new(tell);
        let work = |session: Session, stop| session.run(inbox, handler, stop, &tell);
        let ended = keep_connected(self.how.pause, stop, &*tell, || self.open(), work);
        ended.await.map_err(RabbitError::Inbox)
    }

    /// Hands in again what was put aside, at most so many and only what lies there now. Each is
    /// then what it was, but for what had been said of it. What was answered is not run again,
    /// however long ago that was; what is in doubt is put aside again, unless that was settled.
    ///
    /// Says how many were moved.
    ///
    /// # Errors
    /// The broker could not be asked. What was moved until then is moved; one of them may lie in
    /// both queues, which runs it once.
    pub async fn replay(&self, limit: u32) -> Result<u32, RabbitError> {
        let (connection, channel) = self.connect().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let aside = self.queues.aside.as_str();
        let there = channel.queue_declare(aside.into(), passive, FieldTable::default()).await?;
        let post = Post::new(channel.clone());
        let mut moved = 0;
        while moved < limit.min(there.message_count()) {
            let got = channel.basic_get(aside.into(), BasicGetOptions::default()).await?;
            let Some(message) = got else { break };
            let delivery = &message.delivery;
            let properties = carried(&delivery.properties, &[]);
            post.move_to(&self.queues.from, &delivery.data, properties).await?;
            delivery.ack(BasicAckOptions::default()).await?;
            moved += 1;
        }
        connection.close(200, "moved".into()).await?;
        Ok(moved)
    }

    async fn connect(&self) -> Result<(Connection, lapin::Channel), lapin::Error> {
        let connected = timeout(CONNECT_MAX, self.address.connect()).await;
        let silent = |_| lapin::Error::from(std::io::Error::other("the broker does not answer"));
        let connection = connected.map_err(silent)??;
        let channel = connection.create_channel().await?;
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await?;
        Ok((connection, channel))
    }

    async fn open(&self) -> Result<Session, lapin::Error> {
        let (connection, channel) = self.connect().await?;
        if self.queues.make {
            post::make(&channel, &self.queues).await?;
        }
        Session::open(connection, channel, Arc::clone(&self.queues), self.how).await
    }
}
