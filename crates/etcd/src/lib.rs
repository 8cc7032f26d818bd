//! A store in etcd, for several machines: what it has confirmed, a majority of its members has.
//!
//! A swap is one transaction, which compares the revision that etcd itself counts for a key. So
//! an acknowledged claim survives the loss of any member, and a member that is cut off from the
//! others confirms nothing.
//!
//! It cannot decide anything: it knows records and revisions, not what they mean.

mod cache;
mod client;
mod door;
mod error;
mod facts;
mod fence;
mod inner;
mod layout;
mod listing;
mod members;
mod notice;
mod store;
mod sync;
mod target;
mod wire;

pub use facts::doctor;
pub use store::Etcd;
pub use target::{RISKS, Target};
