//! The goals, each a ratio or a bound, and whether this run met it.

use super::http::{BARE, FIRST, Http, MEMORY, NGINX, REPLAY, Row};
use super::journal::Line;
use super::load::Sample;
use super::median;

/// A goal and what was measured.
pub(super) struct Goal {
    pub(super) what: String,
    pub(super) bound: Bound,
    /// `None` if the run has no figure for it.
    pub(super) measured: Option<f64>,
}

/// What a figure is held to.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// The mark of the report.
    pub(super) fn mark(&self) -> &'static str {
        match (self.measured, self.bound) {
            (None, _) => "not measured",
            (Some(found), Bound::AtLeast(bound)) if found >= bound => "met",
            (Some(found), Bound::AtMost(bound)) if found <= bound => "met",
            (Some(_), Bound::AtLeast(_) | Bound::AtMost(_)) => "**missed**",
        }
    }
}

/// The goals of the HTTP part, at 64 and 256 connections.
pub(super) fn http(http: Option<&Http>) -> Vec<Goal> {
    let rows = http.map_or(&[][..], |http| &http.rows);
    let cpu = |sample: &Sample| sample.cpu_us;
    let rate = |sample: &Sample| sample.requests_per_s;
    let mut goals = Vec::new();
    for connections in [64, 256] {
        let at = |what: &str| format!("{what}, {connections} connections");
        goals.push(Goal {
            what: at("CPU per first request / bare hyper proxy"),
            bound: Bound::AtMost(1.35),
            measured: ratio(rows, connections, FIRST, BARE, cpu),
        });
        goals.push(Goal {
            what: at("CPU per first request / nginx proxy_pass (the second goal)"),
            bound: Bound::AtMost(1.0),
            measured: ratio(rows, connections, FIRST, NGINX, cpu),
        });
        goals.push(Goal {
            what: at("replays per second / hyper from memory"),
            bound: Bound::AtLeast(0.7),
            measured: ratio(rows, connections, REPLAY, MEMORY, rate),
        });
    }
    goals
}

/// The median over rounds of one target's figure over another's in the same round.
pub(super) fn ratio(
    rows: &[Row],
    connections: u32,
    target: &str,
    baseline: &str,
    figure: impl Fn(&Sample) -> f64,
) -> Option<f64> {
    let find =
        |name: &str| rows.iter().find(|row| row.target == name && row.connections == connections);
    let (target, baseline) = (find(target)?, find(baseline)?);
    let pairs = target.samples.iter().zip(&baseline.samples);
    median(pairs.map(|(one, other)| figure(one) / figure(other)).filter(|ratio| ratio.is_finite()))
}

/// The goals of the journal part.
pub(super) fn journal(lines: Option<&[Line]>) -> Vec<Goal> {
    let lines = lines.unwrap_or_default();
    let mut goals = Vec::new();
    for callers in [64, 256] {
        let pairs = lines
            .iter()
            .filter(|line| line.callers == Some(callers))
            .filter_map(|line| Some(line.figure("pairs_per_s")? / line.figure("raw_pairs_per_s")?));
        goals.push(Goal {
            what: format!(
                "durable pairs per second / the same bytes appended raw, {callers} callers"
            ),
            bound: Bound::AtLeast(0.8),
            measured: median(pairs),
        });
    }
    let figures = |field: &'static str| lines.iter().filter_map(move |line| line.figure(field));
    let mean = |values: Vec<f64>| {
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let bounded = |what: &str, bound, measured| Goal { what: what.into(), bound, measured };
    let over_before = |field: &'static str| {
        let ratios = lines
            .iter()
            .filter_map(move |line| Some(line.figure(field)? / line.figure("p99_before_ms")?));
        ratios.reduce(f64::max)
    };
    goals.extend([
        bounded(
            "memory per key with a kept reply, bytes",
            Bound::AtMost(64.0),
            mean(figures("bytes_per_key").collect()),
        ),
        bounded(
            "memory per tombstone older than a day, bytes",
            Bound::AtMost(2.0),
            figures("old_bytes_each").reduce(f64::max),
        ),
        bounded(
            "disk per tombstone older than a day, bytes",
            Bound::AtMost(96.0),
            figures("old_disk_bytes_each").reduce(f64::max),
        ),
        bounded(
            "open after kill -9, ms",
            Bound::AtMost(1000.0),
            figures("open_ms").reduce(f64::max),
        ),
        bounded(
            "p99 of claims while 1 M records expire / before",
            Bound::AtMost(1.5),
            over_before("p99_during_ms"),
        ),
        bounded(
            "p99 of claims in the minute after / before",
            Bound::AtMost(2.0),
            over_before("p99_after_ms"),
        ),
        bounded(
            "disk after 1 M records expired / a journal of what still lives",
            Bound::AtMost(1.1),
            lines
                .iter()
                .filter_map(|line| Some(line.figure("disk_after")? / line.figure("disk_needed")?))
                .reduce(f64::max),
        ),
    ]);
    goals
}

#[cfg(test)]
mod tests {
    use super::{Bound, Goal};

    #[test]
    fn a_goal_without_a_figure_is_not_met() {
        let goal = |bound, measured| Goal { what: String::new(), bound, measured }.mark();
        assert_eq!(goal(Bound::AtLeast(0.7), None), "not measured");
        assert_eq!(goal(Bound::AtLeast(0.7), Some(0.7)), "met");
        assert_eq!(goal(Bound::AtMost(1.0), Some(1.01)), "**missed**");
    }
}
