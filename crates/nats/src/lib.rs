//! Takes messages from a stream of NATS JetStream, and runs each once.
//!
//! This crate cannot decide anything: [`Inbox`](onlyonce_consume::Inbox) says what is to be done
//! with a delivery, and [`Jet`] does it. It cannot choose or open a store.
//!
//! JetStream remembers ids of messages for two minutes, and takes an acknowledgement of an older
//! delivery for the newer one. Neither matters here: what was run is known to the record, and an
//! acknowledgement is sent for what the record says.

mod jet;
mod session;

pub use jet::{Jet, NatsError, Streams};
