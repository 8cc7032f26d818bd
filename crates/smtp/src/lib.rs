//! Hands one message to one mail server for one recipient, and knows at each moment whether the
//! server may have taken it.
//!
//! To a mail server a message is nothing until the end of its content was said: the final dot, or
//! the last chunk. A server that loses the connection before that must forget the message (RFC
//! 5321, section 4.1.1.10). So all before it can be repeated at will, and only from there to the
//! server's answer can nobody tell. The two halves are two calls here:
//!
//! - [`Session::stage`] does everything before the end: whatever fails there, the message was
//!   certainly not taken.
//! - [`Staged::commit`] says the end and reads the answer. Between the two the caller writes down
//!   that the message may now be on its way.
//!
//! One recipient a transaction, so that one recipient's refusal is nobody else's. The end of the
//! content is never sent together with anything else.

mod address;
mod answer;
mod connect;
mod content;
mod failed;
mod relay;
mod session;
mod wire;

pub use address::{Mailbox, MailboxError};
pub use answer::{Answer, Verdict};
pub use content::{Content, ContentError};
pub use failed::{Failed, Stage};
pub use relay::{Login, Mechanism, Password, Relay, Security, Waits};
pub use session::{Committed, Envelope, Notify, Session, Staged};
