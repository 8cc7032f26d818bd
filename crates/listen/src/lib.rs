//! What everything that listens shares: connections that keep no place in silence, TLS, counts for
//! operators, and configuration text whose mistakes are named with their line.
//!
//! It knows nothing of what is asked on a connection, and cannot name a store.

mod accept;
pub mod bounds;
mod connection;
mod handles;
mod metrics;
mod pace;
mod start;
mod telemetry;
pub mod text;
pub mod tls;

pub use accept::{Accepting, Listener};
pub use connection::{Limits, Peer};
pub use handles::raise_open_files;
pub use pace::{Busy, Pace, Paced, Parcel, Turn, Watched};
pub use start::StartError;
pub use telemetry::{Taken, Telemetry};
