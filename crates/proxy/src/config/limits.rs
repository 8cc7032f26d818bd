//! `[limits]` as it is written in the file, and what its values may be.

use onlyonce_listen::bounds::{
    BODIES, CONNECTIONS, DURING, HEAD_BYTES, HEAD_FIELDS, STREAMS, WAITERS, WITHIN, time,
};
use onlyonce_listen::text::{ConfigError, Size, Source, Span};
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
    connect_time: Option<Spanned<Span>>,
    write_time: Option<Spanned<Span>>,
    answer_time: Option<Spanned<Span>>,
    upstream_idle: Option<Spanned<Span>>,
    drain_time: Option<Spanned<Span>>,
}

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
            connect_time: within(self.connect_time, default.connect_time, &WITHIN)?,
            write_time: within(self.write_time, default.write_time, &WITHIN)?,
            answer_time: within(self.answer_time, default.answer_time, &WITHIN)?,
            upstream_idle: within(self.upstream_idle, default.upstream_idle, &DURING)?,
            drain_time: within(self.drain_time, default.drain_time, &DURING)?,
        })
    }
}
