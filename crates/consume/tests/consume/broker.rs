//! A real broker, and what a publisher and an operator do with it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use onlyonce_consume::{Consumption, Message, Queues, Rabbit, RabbitError, Told};
use onlyonce_testbed::RabbitMq;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::desk::Desk;

/// The queue that messages come from.
pub(crate) const FROM: &str = "orders";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What an operator finds in a queue: body and headers that are text.
pub(crate) type Found = (String, Vec<(String, String)>);

/// A broker with the queue `orders`.
pub(crate) struct Broker {
    pub(crate) server: RabbitMq,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        Self::started(RabbitMq::start).await
    }

    pub(crate) async fn started(start: impl FnOnce() -> RabbitMq + Send + 'static) -> Self {
        let server = tokio::task::spawn_blocking(start).await.unwrap();
        let broker = Self { server };
        broker.make(FROM).await;
        broker
    }

    /// Killed without a word, and started again.
    pub(crate) async fn kill_and_restart(&mut self) {
        tokio::task::block_in_place(|| self.server.restart());
    }

    async fn channel(&self) -> (Connection, Channel) {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&self.server.url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        (connection, channel)
    }

    pub(crate) async fn make(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    }

    /// Sends these messages in order, each named like its content.
    pub(crate) async fn send(&self, names: &[String]) {
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), properties(name))).collect();
        self.publish(&all).await;
    }

    pub(crate) async fn publish(&self, all: &[(&str, BasicProperties)]) {
        let (connection, channel) = self.channel().await;
        for (body, properties) in all {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let body = body.as_bytes();
            let sent =
                channel.basic_publish("".into(), FROM.into(), options, body, properties.clone());
            assert!(sent.await.unwrap().await.unwrap().is_ack());
        }
        connection.close(200, "sent".into()).await.unwrap();
    }

    /// How many messages lie ready in a queue.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let (connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        let count = found.map_or(0, |queue| queue.message_count());
        let _ = connection.close(200, "looked".into()).await;
        count
    }

    /// Takes all that lies in a queue, for good.
    pub(crate) async fn empty(&self, queue: &str) -> Vec<Found> {
        let (connection, channel) = self.channel().await;
        let mut all = Vec::new();
        while let Some(got) =
            channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap()
        {
            let body = String::from_utf8(got.delivery.data.clone()).unwrap();
            let headers = got.delivery.properties.headers().iter().flat_map(|it| it.inner());
            #[allow(clippy::wildcard_enum_match_arm, reason = "most values are no text")]
            let text = headers.filter_map(|(name, value)| match value {
                AMQPValue::LongString(it) => Some((name.to_string(), it.to_string())),
                _ => None,
            });
            all.push((body, text.collect()));
            got.delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        connection.close(200, "taken".into()).await.unwrap();
        all
    }

    pub(crate) fn consumer(&self, queues: Queues, prefetch: u16) -> Rabbit {
        rabbit(&self.server.url(), queues, prefetch)
    }
}

pub(crate) fn rabbit(url: &str, queues: Queues, prefetch: u16) -> Rabbit {
    let how = Consumption { prefetch, pause: Duration::from_millis(100) };
    Rabbit::new(&format!("{url}?heartbeat=5"), queues, how).unwrap()
}

/// Queues whose pauses are short.
pub(crate) fn queues() -> Queues {
    let pauses = [100, 300].map(Duration::from_millis).to_vec();
    Queues { pauses, ..Queues::of(FROM) }
}

pub(crate) fn properties(name: &str) -> BasicProperties {
    BasicProperties::default().with_message_id(name.into()).with_delivery_mode(2)
}

/// A consumer that runs until it is stopped.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), RabbitError>>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Running {
    pub(crate) fn start(desk: &Desk, rabbit: &Rabbit) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (hand, inbox, rabbit) = (desk.hand.clone(), desk.inbox.clone(), rabbit.clone());
        let telling = Arc::clone(&told);
        let ended = tokio::spawn(async move {
            let handler = Arc::new(move |message: &Arc<Message>| hand.effect(message));
            let tell = move |it| telling.lock().unwrap().push(it);
            let stopped = async { drop(stopped.await) };
            rabbit.run(&inbox, &handler, stopped, tell).await
        });
        Self { stop, ended, told }
    }

    pub(crate) fn count(&self, is: impl Fn(&Told) -> bool) -> usize {
        self.told.lock().unwrap().iter().filter(|it| is(it)).count()
    }

    pub(crate) async fn stop(self) -> Vec<Told> {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// Looks until it is so; fails the test after three minutes.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = what.to_owned();
    async move {
        for _ in 0..9_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("never: {what}")
    }
}
