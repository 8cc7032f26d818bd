//! One connection to the server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Context, Message};
use futures_util::{FutureExt as _, StreamExt as _};
use onlyonce_consume::{Ended, Handler, Inbox, Message as Taken, Settled, Told, Unsettled, Work};
use tokio::time::sleep;

use crate::jet::{NatsError, Streams};

/// What the sender calls a message. The server drops a second one of the same id for a while, so a
/// message that is moved does not carry it.
const ID: &str = "Nats-Msg-Id";
/// What it is called once it was moved.
const MOVED_ID: &str = "onlyonce-id";
/// The subject of a message that was put aside.
pub(crate) const SUBJECT: &str = "onlyonce-subject";
/// How often the server says that it is there although it has no message.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A connection that consumes.
pub(crate) struct Session {
    messages: pull::Stream,
    desk: Desk,
}

/// What settles a delivery.
#[derive(Clone)]
struct Desk {
    context: Context,
    streams: Arc<Streams>,
    /// How long the server waits for a word.
    ack_wait: Duration,
}

impl Session {
    pub(crate) async fn open(
        context: Context,
        consumer: &Consumer<pull::Config>,
        streams: Arc<Streams>,
    ) -> Result<Self, NatsError> {
        let batch = consumer.stream().max_messages_per_batch(streams.at_once.max(1));
        let messages = batch.heartbeat(HEARTBEAT).messages().await.map_err(NatsError::server)?;
        let ack_wait = consumer.cached_info().config.ack_wait;
        Ok(Self { messages, desk: Desk { context, streams, ack_wait } })
    }

    /// Settles deliveries until the server or the store is lost, or `stop`. What has come and was
    /// not begun when it stops is given back; what is still on its way comes again after
    /// `ack_wait`.
    pub(crate) async fn run<H: Handler, T: Fn(Told) + Send + Sync + 'static>(
        mut self,
        inbox: &Inbox,
        handler: &Arc<H>,
        mut stop: impl Future<Output = ()> + Unpin,
        tell: &Arc<T>,
    ) -> Ended {
        let desk = &self.desk;
        let mut work = Work::new(desk.streams.at_once);
        let settle = |message: Message| {
            let (desk, inbox) = (desk.clone(), inbox.clone());
            let (handler, tell) = (Arc::clone(handler), Arc::clone(tell));
            async move {
                let settled = desk.settle(&message, &inbox, &*handler, &*tell).await;
                settled.map_err(|error| match error {
                    NatsError::Inbox(error) => Unsettled::Store(error),
                    NatsError::Server(why) => Unsettled::Broker(why),
                })
            }
        };
        let mut ended = work.take(&mut self.messages, &mut stop, settle).await;
        if matches!(ended, Ended::Stopped) {
            while let Some(Some(Ok(message))) = self.messages.next().now_or_never() {
                let _ = message.ack_with(AckKind::Nak(None)).await;
            }
            ended = work.finish().await;
        }
        work.leave();
        ended
    }
}

impl Desk {
    async fn settle<H: Handler>(
        &self,
        message: &Message,
        inbox: &Inbox,
        handler: &H,
        tell: &(dyn Fn(Told) + Send + Sync),
    ) -> Result<(), NatsError> {
        let taking = inbox.take(Arc::new(taken(message)), handler);
        let settled = self.while_told(message, taking).await.map_err(NatsError::Inbox)?;
        match settled {
            Settled::Done { replayed, .. } => {
                message.double_ack().await.map_err(NatsError::server)?;
                tell(if replayed { Told::Duplicate } else { Told::Done });
            }
            Settled::Later { pauses, why } => {
                self.give_back(message, self.streams.later(pauses)).await?;
                tell(Told::Later(why));
            }
            Settled::StoreAway { why } => {
                self.give_back(message, self.streams.pause).await?;
                tell(Told::Later(why));
            }
            Settled::Aside(aside) => {
                let mut headers = aside.headers();
                headers.push((SUBJECT, message.subject.to_string()));
                let headers = carried(message, &headers);
                let subject = self.streams.aside_subject();
                posted(&self.context, subject, headers, message.payload.clone()).await?;
                message.double_ack().await.map_err(NatsError::server)?;
                tell(Told::Aside(aside.why, aside.text));
            }
        }
        Ok(())
    }

    async fn give_back(&self, message: &Message, pause: Duration) -> Result<(), NatsError> {
        message.ack_with(AckKind::Nak(Some(pause))).await.map_err(NatsError::server)
    }

    /// Says that a message is being carried out, until it was, so that it is not delivered again.
    async fn while_told<F: Future>(&self, message: &Message, taking: F) -> F::Output {
        let mut taking = std::pin::pin!(taking);
        loop {
            tokio::select! {
                settled = &mut taking => return settled,
                () = sleep(self.ack_wait / 3) => {
                    // If it does not arrive, the message is delivered again, and waits.
                    let _ = message.ack_with(AckKind::Progress).await;
                }
            }
        }
    }
}

/// Publishes, and waits until the server keeps it.
pub(crate) async fn posted(
    context: &Context,
    subject: String,
    headers: HeaderMap,
    body: impl AsRef<[u8]>,
) -> Result<(), NatsError> {
    let body = body.as_ref().to_vec().into();
    let sent = context.publish_with_headers(subject, headers, body).await;
    let kept = sent.map_err(NatsError::server)?.await.map_err(NatsError::server)?;
    match kept.duplicate {
        false => Ok(()),
        true => Err(NatsError::server("a message that was moved was taken for a duplicate")),
    }
}

/// What a message carries on when it is moved: what its sender gave it, and `more`. What the server
/// and we said of it before goes.
pub(crate) fn carried(message: &Message, more: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        let said = ["onlyonce-", "Nats-"].iter().any(|it| name.starts_with(it));
        for value in values.iter().filter(|_| !said) {
            headers.append(name, value.clone());
        }
    }
    if let Some(id) = id(message) {
        headers.insert(MOVED_ID, id.as_str());
    }
    for (name, value) in more {
        // A header is a line.
        let line: String = value.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        headers.insert(*name, line.as_str());
    }
    headers
}

fn id(message: &Message) -> Option<String> {
    let headers = message.headers.as_ref()?;
    let found = headers.get(ID).or_else(|| headers.get(MOVED_ID))?;
    Some(found.as_str().to_owned())
}

/// What the inbox is told of a delivery.
fn taken(message: &Message) -> Taken {
    let all = message.headers.iter().flat_map(HeaderMap::iter);
    let headers = all.flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(move |value| (name.to_owned(), value.as_str().to_owned()))
    });
    Taken {
        body: message.payload.to_vec(),
        id: id(message),
        headers: headers.collect(),
        redelivered: message.info().is_ok_and(|info| 1 < info.delivered),
    }
}
