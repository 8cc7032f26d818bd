//! What the values of `[limits]` may be, the same wherever connections are accepted.

use std::time::Duration;

use toml::Spanned;

use crate::text::{Bounds, ConfigError, Size, Source, Span};

/// Below 8 KiB hyper cannot read a head at all.
pub const HEAD_BYTES: Bounds<Size> =
    Bounds(Size(8 << 10)..=Size(16 << 20), "from \"8KiB\" to \"16MiB\"");
/// Any request has some, and a map of them holds 32,768.
pub const HEAD_FIELDS: Bounds<usize> = Bounds(10..=10_000, "from 10 to 10000");
/// Connections at once.
pub const CONNECTIONS: Bounds<usize> = Bounds(1..=1_000_000, "from 1 to 1000000");
/// Requests at once on one connection.
pub const STREAMS: Bounds<u32> = Bounds(1..=10_000, "from 1 to 10000");
/// Requests that wait for another's outcome.
pub const WAITERS: Bounds<usize> = Bounds(0..=1_000_000, "from 0 to 1000000");
/// Less than one body of the usual limit would refuse what is allowed else.
pub const BODIES: Bounds<Size> =
    Bounds(Size(1 << 20)..=Size(1 << 40), "from \"1MiB\" to \"1024GiB\"");
/// A time in which something must happen. In none, nothing could.
pub const WITHIN: Bounds<Span> = Bounds(span(10)..=span(86_400_000), "from \"10ms\" to \"1d\"");
/// A time that may be none.
pub const DURING: Bounds<Span> = Bounds(span(0)..=span(86_400_000), "from \"0s\" to \"1d\"");

/// So many milliseconds, as a file has them.
pub const fn span(millis: u64) -> Span {
    Span(Duration::from_millis(millis))
}

/// What the file says of a time, or `default`.
///
/// # Errors
/// It is outside `bounds`: names the place.
pub fn time(
    source: &Source<'_>,
    said: Option<Spanned<Span>>,
    default: Duration,
    bounds: &Bounds<Span>,
) -> Result<Duration, ConfigError> {
    source.within(said, Span(default), bounds).map(|span| span.0)
}
