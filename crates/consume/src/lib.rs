//! Runs the messages of a queue once, however often a broker delivers them.
//!
//! This crate cannot choose or open a store, or read a clock. It knows one broker, RabbitMQ; the
//! inbox knows none.
//!
//! - [`Message`] is what was delivered, [`KeyFrom`] says which operation it asks for.
//! - [`Handler`] makes an effect of a message; the engine runs it once per key.
//! - [`Inbox`] says what is to be done with a delivery: [`Settled`].
//! - [`Rabbit`] takes deliveries from a queue of RabbitMQ and does it.
//! - [`keep_connected`], [`Work`] and [`Tls`] are for consumers of other brokers.
//!
//! A message is acknowledged once its record is durable, and never before. What nobody knows is put
//! [`Aside`], with what the record says of it, and not run again by itself.

mod aside;
mod inbox;
mod message;
mod rabbit;
mod tls;
mod work;

pub use aside::{Aside, Why};
pub use inbox::{AHEAD_MAX, Handler, Inbox, InboxError, Settings, Settled, later, never, policy};
pub use message::{KeyFrom, MakeKey, Message, MessageError};
pub use rabbit::{Consumption, Queues, Rabbit, RabbitError};
pub use tls::{AddressError, Tls};
pub use work::{Ended, Told, Unsettled, Work, keep_connected};
