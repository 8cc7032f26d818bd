//! `[limits]` as it is written in the file, and what its values may be.

use onlyonce_listen::bounds::{
    BODIES, CONNECTIONS, DURING, HEAD_BYTES, HEAD_FIELDS, STREAMS, WAITERS, WITHIN, span, time,
};
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

/// As long as a request may ask for.
const WAIT: Bounds<Span> = Bounds(span(0)..=span(600_000), "from \"0s\" to \"10m\"");

impl Table {
    pub(super) fn checked(self, source: &Source<'_>) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let within = |said, default, bounds| time(source, said, default, bounds);
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
