//! `[limits]` as it is written in the file, and what its values may be.

use std::time::Duration;

use onlyonce_listen::text::{Bounds, ConfigError, Size, Source, Span};
use serde::Deserialize;
use toml::Spanned;

use super::Limits;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    head_bytes: Option<Spanned<Size>>,
    head_fields: Option<Spanned<usize>>,
    connections: Option<Spanned<usize>>,
    streams: Option<Spanned<u32>>,
    waiters: Option<Spanned<usize>>,
    bodies: Option<Spanned<Size>>,
    head_time: Option<Spanned<Span>>,
    body_time: Option<Spanned<Span>>,
    write_time: Option<Spanned<Span>>,
    wait_time: Option<Spanned<Span>>,
    drain_time: Option<Spanned<Span>>,
}

const fn span(millis: u64) -> Span {
    Span(Duration::from_millis(millis))
}

/// Below 8 KiB hyper cannot read a head at all.
const HEAD_BYTES: Bounds<Size> =
    Bounds(Size(8 << 10)..=Size(16 << 20), "from \"8KiB\" to \"16MiB\"");
/// Any request has some, and a map of them holds 32,768.
const HEAD_FIELDS: Bounds<usize> = Bounds(10..=10_000, "from 10 to 10000");
const CONNECTIONS: Bounds<usize> = Bounds(1..=1_000_000, "from 1 to 1000000");
const STREAMS: Bounds<u32> = Bounds(1..=10_000, "from 1 to 10000");
const WAITERS: Bounds<usize> = Bounds(0..=1_000_000, "from 0 to 1000000");
const BODIES: Bounds<Size> = Bounds(Size(1 << 20)..=Size(1 << 40), "from \"1MiB\" to \"1024GiB\"");
/// A time in which something must happen. In none, nothing could.
const WITHIN: Bounds<Span> = Bounds(span(10)..=span(86_400_000), "from \"10ms\" to \"1d\"");
/// A time that may be none.
const DURING: Bounds<Span> = Bounds(span(0)..=span(86_400_000), "from \"0s\" to \"1d\"");
/// As long as a request may ask for.
const WAIT: Bounds<Span> = Bounds(span(0)..=span(600_000), "from \"0s\" to \"10m\"");

impl Table {
    pub(super) fn checked(self, source: &Source<'_>) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let within = |said: Option<Spanned<Span>>, default, bounds| {
            source.within(said, Span(default), bounds).map(|span| span.0)
        };
        Ok(Limits {
            head_bytes: source.within(self.head_bytes, Size(default.head_bytes), &HEAD_BYTES)?.0,
            head_fields: source.within(self.head_fields, default.head_fields, &HEAD_FIELDS)?,
            connections: source.within(self.connections, default.connections, &CONNECTIONS)?,
            streams: source.within(self.streams, default.streams, &STREAMS)?,
            waiters: source.within(self.waiters, default.waiters, &WAITERS)?,
            bodies: source.within(self.bodies, Size(default.bodies), &BODIES)?.0,
            head_time: within(self.head_time, default.head_time, &WITHIN)?,
            body_time: within(self.body_time, default.body_time, &WITHIN)?,
            write_time: within(self.write_time, default.write_time, &WITHIN)?,
            wait_time: within(self.wait_time, default.wait_time, &WAIT)?,
            drain_time: within(self.drain_time, default.drain_time, &DURING)?,
        })
    }
}
