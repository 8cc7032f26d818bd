//! Sends each message to each recipient once, as far as a mail server lets anybody know.
//!
//! This crate cannot choose or open a store, read a clock or parse a command line. Nor can it send
//! to the servers of the recipients: it hands everything to one [`Relay`](onlyonce_smtp::Relay), or
//! to one [`Provider`](provider::Provider).
//!
//! - [`frozen`] makes of a text one [`Message`] a recipient, whose bytes never change again.
//! - [`Spool`] is the folder where they wait. Nothing disappears from it by itself.
//! - [`Feed`] brings the rows of a caller's table
//!   ([`Outbox`](onlyonce::store::outbox::Outbox)) to the spool.
//! - [`Letter`] is the effect: what cannot deliver anything, then the end of the content.
//! - [`Rules`] say what becomes of an outcome that nobody knows: it is held, or somebody is asked,
//!   such as the server's own queue and log. A [`Class`] of messages may have rules of its own, a
//!   [`Destination`] limits of its own.
//! - [`Sender`] takes what waits and sends it, several at once, with pauses after refusals for now.

mod kinds;
mod lanes;
mod letter;
mod message;
mod meter;
mod outbox;
mod probe;
mod rules;
mod sender;
mod spool;
mod trust;

pub use kinds::{Class, Destination};
pub use letter::{Bounds, Letter, Ready, Route};
pub use message::{Message, MessageError, frozen, item_key};
pub use meter::{Histogram, Meter};
pub use onlyonce_provider as provider;
pub use outbox::{Feed, FeedError, sender_name};
pub use probe::{Archive, Asking, Place, Whom};
pub use rules::{Keyed, Rules};
pub use sender::{Became, Pace, Sender, SenderError};
pub use spool::{Added, Shelf, Spool, SpoolError};
pub use trust::trusted;
