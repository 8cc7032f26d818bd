//! One connection to the broker: deliveries are settled on the connection that they came by.

use std::future::Future;
use std::sync::Arc;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Consumer};
use onlyonce_core::Reply;
use tokio::time::{sleep, timeout};

use crate::inbox::{Handler, Inbox, Settled};
use crate::rabbit::post::{Post, Posted, answering, carried, message};
use crate::rabbit::{CONNECT_MAX, Consumption, Queues};
use crate::work::{Ended, Told, Unsettled, Work};

impl From<lapin::Error> for Unsettled {
    fn from(error: lapin::Error) -> Self {
        Self::Broker(error.to_string())
    }
}

/// A connection that consumes.
pub(crate) struct Session {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    desk: Desk,
}

/// What settles a delivery.
#[derive(Clone)]
struct Desk {
    post: Post,
    queues: Arc<Queues>,
    how: Consumption,
}

impl Session {
    pub(crate) async fn open(
        connection: Connection,
        channel: Channel,
        queues: Arc<Queues>,
        how: Consumption,
    ) -> Result<Self, lapin::Error> {
        channel.basic_qos(how.prefetch.max(1), BasicQosOptions::default()).await?;
        let from = ShortString::from(queues.from.as_str());
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let tag = ShortString::default();
        let consumer = channel.basic_consume(from, tag, options, arguments).await?;
        let desk = Desk { post: Post::new(channel.clone()), queues, how };
        Ok(Self { connection, channel, consumer, desk })
    }

    /// Settles deliveries until the broker or the store is lost, or `stop`. What was delivered and
    /// not begun when it stops goes back to the queue.
    pub(crate) async fn run<H: Handler, T: Fn(Told) + Send + Sync + 'static>(
        mut self,
        inbox: &Inbox,
        handler: &Arc<H>,
        mut stop: impl Future<Output = ()> + Unpin,
        tell: &Arc<T>,
    ) -> Ended {
        // The broker hands out no more than it was told to.
        let mut work = Work::new(usize::MAX);
        let desk = &self.desk;
        let settle = |delivery: Delivery| {
            let (desk, inbox) = (desk.clone(), inbox.clone());
            let (handler, tell) = (Arc::clone(handler), Arc::clone(tell));
            async move { desk.settle(&delivery, &inbox, &*handler, &*tell).await }
        };
        let mut ended = work.take(&mut self.consumer, &mut stop, settle).await;
        if matches!(ended, Ended::Stopped) {
            let tag = self.consumer.tag();
            let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
            let _ = timeout(CONNECT_MAX, cancel).await;
            ended = work.finish().await;
        }
        work.leave();
        let _ = timeout(CONNECT_MAX, self.connection.close(200, "done".into())).await;
        ended
    }
}

impl Desk {
    async fn settle<H: Handler>(
        &self,
        delivery: &Delivery,
        inbox: &Inbox,
        handler: &H,
        tell: &(dyn Fn(Told) + Send + Sync),
    ) -> Result<(), Unsettled> {
        let message = Arc::new(message(delivery));
        let settled = inbox.take(message, handler).await.map_err(Unsettled::Store)?;
        match settled {
            Settled::Done { reply, replayed } => {
                self.answer(delivery, &reply, tell).await?;
                delivery.ack(BasicAckOptions::default()).await?;
                tell(if replayed { Told::Duplicate } else { Told::Done });
            }
            Settled::Later { pauses, why } => {
                let (queue, _) = self.queues.later(pauses);
                self.move_to(delivery, &queue, &[("onlyonce-later", why.clone())]).await?;
                tell(Told::Later(why));
            }
            Settled::StoreAway { why } => {
                tell(Told::Later(why));
                self.put_back(delivery).await?;
            }
            Settled::Aside(aside) => {
                let mut headers = aside.headers();
                headers.push(("onlyonce-queue", self.queues.from.clone()));
                self.move_to(delivery, &self.queues.aside, &headers).await?;
                tell(Told::Aside(aside.why, aside.text));
            }
        }
        Ok(())
    }

    /// Sends what a message was answered to whoever asked for it, before it is acknowledged.
    async fn answer(
        &self,
        delivery: &Delivery,
        reply: &Reply,
        tell: &(dyn Fn(Told) + Send + Sync),
    ) -> Result<(), Unsettled> {
        let Some(to) = delivery.properties.reply_to() else { return Ok(()) };
        let content = reply.content();
        let properties = answering(&delivery.properties, reply.status(), content.is_some());
        let body = content.map_or(&[][..], |it| it);
        match self.post.post(to.as_str(), body, properties).await? {
            Posted::Taken => Ok(()),
            Posted::Nowhere => {
                tell(Told::Unanswered(to.to_string()));
                Ok(())
            }
            Posted::Refused => {
                let why = "an answer was not taken by the broker";
                Err(lapin::Error::from(std::io::Error::other(why)).into())
            }
        }
    }

    async fn move_to(
        &self,
        delivery: &Delivery,
        queue: &str,
        headers: &[(&'static str, String)],
    ) -> Result<(), Unsettled> {
        let properties = carried(&delivery.properties, headers);
        self.post.move_to(queue, &delivery.data, properties).await?;
        delivery.ack(BasicAckOptions::default()).await?;
        Ok(())
    }

    async fn put_back(&self, delivery: &Delivery) -> Result<(), Unsettled> {
        sleep(self.how.pause).await;
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        delivery.nack(options).await?;
        Ok(())
    }
}
