//! What is published: messages that are moved, and answers.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};

use crate::message::Message;
use crate::rabbit::Queues;

/// Written to the broker's disk before it is confirmed.
const PERSISTENT: u8 = 2;
/// Longest name or value that AMQP keeps in a short string, in bytes.
const SHORT_MAX: usize = 255;

/// Whether the broker has taken a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// It has, and keeps it.
    Taken,
    /// There is no queue of this name.
    Nowhere,
    /// It has not.
    Refused,
}

/// Publishes on a channel that confirms.
#[derive(Clone)]
pub(crate) struct Post {
    channel: Channel,
}

impl Post {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// Hands a message to a queue, and waits for the broker's word.
    pub(crate) async fn post(
        &self,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<Posted, lapin::Error> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, queue) = (ShortString::default(), short(queue));
        let sent = self.channel.basic_publish(exchange, queue, options, body, properties).await?;
        Ok(match sent.await? {
            Confirmation::Ack(None) => Posted::Taken,
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Posted::Nowhere,
            Confirmation::Nack(None) | Confirmation::NotRequested => Posted::Refused,
        })
    }

    /// The same, where anything but taken is an error.
    pub(crate) async fn move_to(
        &self,
        queue: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), lapin::Error> {
        match self.post(queue, body, properties).await? {
            Posted::Taken => Ok(()),
            other @ (Posted::Nowhere | Posted::Refused) => {
                let why = format!("a message was not taken by the queue {queue}: {other:?}");
                Err(std::io::Error::other(why).into())
            }
        }
    }
}

/// Makes the queues for later and aside, if they are not there.
pub(crate) async fn make(channel: &Channel, queues: &Queues) -> Result<(), lapin::Error> {
    let quorum = || {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments
    };
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(short(&queues.aside), options, quorum()).await?;
    for (name, pause) in queues.all_later() {
        let mut arguments = quorum();
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(millis(pause)));
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(&queues.from));
        // Else the broker may lose a message on its way back when it is killed.
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
        channel.queue_declare(short(&name), options, arguments).await?;
    }
    Ok(())
}

fn millis(pause: Duration) -> i64 {
    i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// Names of queues are bounded where they are made; a longer one is no queue's.
fn short(name: &str) -> ShortString {
    let end = (0..=SHORT_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
    ShortString::from(&name[..end.unwrap_or_default()])
}

/// What a message carries on when it is moved: what its sender gave it, and `more`. What the broker
/// and we said of it before goes, and so does its time to live.
pub(crate) fn carried(from: &BasicProperties, more: &[(&'static str, String)]) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in from.headers().iter().flat_map(|it| it.inner()) {
        let said = ["onlyonce-", "x-death", "x-first-death", "x-last-death", "x-delivery-count"];
        if !said.iter().any(|it| name.as_str().starts_with(it)) {
            headers.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in more {
        headers.insert(ShortString::from(*name), text(value));
    }
    let mut to = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    if let Some(it) = from.content_type() {
        to = to.with_content_type(it.clone());
    }
    if let Some(it) = from.content_encoding() {
        to = to.with_content_encoding(it.clone());
    }
    if let Some(it) = from.priority() {
        to = to.with_priority(*it);
    }
    if let Some(it) = from.correlation_id() {
        to = to.with_correlation_id(it.clone());
    }
    if let Some(it) = from.reply_to() {
        to = to.with_reply_to(it.clone());
    }
    if let Some(it) = from.message_id() {
        to = to.with_message_id(it.clone());
    }
    if let Some(it) = from.timestamp() {
        to = to.with_timestamp(*it);
    }
    if let Some(it) = from.kind() {
        to = to.with_type(it.clone());
    }
    if let Some(it) = from.app_id() {
        to = to.with_app_id(it.clone());
    }
    to
}

/// What an answer carries. It is the same each time the same message is answered.
pub(crate) fn answering(asked: &BasicProperties, status: u16, kept: bool) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("onlyonce-status".into(), text(&status.to_string()));
    headers.insert("onlyonce-kept".into(), text(if kept { "yes" } else { "no" }));
    let to = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    match asked.correlation_id().as_ref().or(asked.message_id().as_ref()) {
        Some(it) => to.with_correlation_id(it.clone()),
        None => to,
    }
}

/// What the inbox is told of a delivery.
pub(crate) fn message(delivery: &lapin::message::Delivery) -> Message {
    let properties = &delivery.properties;
    let headers = properties.headers().iter().flat_map(|it| it.inner());
    let headers = headers.filter_map(|(name, it)| Some((name.to_string(), is_text(it)?)));
    let headers: Vec<_> = headers.collect();
    let came_back = headers.iter().any(|(name, _)| name == "onlyonce-later");
    Message {
        body: delivery.data.clone(),
        id: properties.message_id().as_ref().map(ToString::to_string),
        redelivered: delivery.redelivered || came_back,
        headers,
    }
}

/// A header's value, if it is text or a whole number.
#[allow(clippy::wildcard_enum_match_arm, reason = "the broker's values, most of which are no text")]
fn is_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(it) => String::from_utf8(it.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(it) => Some(it.to_string()),
        AMQPValue::LongLongInt(it) => Some(it.to_string()),
        AMQPValue::LongInt(it) => Some(it.to_string()),
        AMQPValue::ShortInt(it) => Some(it.to_string()),
        AMQPValue::ShortShortInt(it) => Some(it.to_string()),
        AMQPValue::LongUInt(it) => Some(it.to_string()),
        _ => None,
    }
}
