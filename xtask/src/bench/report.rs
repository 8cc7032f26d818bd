//! The report: figures, ratios and honest marks, as Markdown.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::goals::{self, Bound, Goal};
use super::http::{BARE, FIRST, Http, KEYLESS, MEMORY, NGINX, REPLAY, Row, STATIC};
use super::journal::Line;
use super::load::Sample;
use super::machine::Machine;
use super::peers::Peers;
use super::{Arguments, median, stores};
use crate::{Outcome, clock, repo};

/// What one run found.
pub(super) struct Report {
    machine: Machine,
    pub(super) journal: Option<Vec<Line>>,
    pub(super) stores: Option<Vec<Line>>,
    pub(super) http: Option<Http>,
    pub(super) peers: Option<Peers>,
}

impl Report {
    /// Nothing measured yet.
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine, journal: None, stores: None, http: None, peers: None }
    }

    /// Writes it to a page of the repository.
    pub(super) fn write(&self, arguments: &Arguments, page: &str) -> Outcome {
        let path = repo::root().join(page);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, self.text(arguments))?;
        println!("written: {page}");
        Ok(())
    }

    /// As Markdown.
    pub(super) fn text(&self, arguments: &Arguments) -> String {
        let mut text = String::new();
        let Arguments { seconds, rounds, .. } = arguments;
        let (today, machine) = (clock::today(), self.machine.line());
        let even = if rounds % 2 == 0 { ", the lower of the two in the middle" } else { "" };
        let measured = format!(
            "Machine: {machine}.\n{rounds} rounds of {seconds} s per cell, in turns (A B C A B C); \
             figures are medians over rounds{even}.\nLoad, target and upstream share the cores, \
             so CPU per request and ratios mean more than rates.\n\nA ratio is taken within a \
             round; the median of the rounds is shown.\n\n"
        );
        if let Some(peers) = &self.peers {
            text.push_str("# Side by side with other idempotency layers\n\n");
            text.push_str(&format!("Written by `cargo xtask bench peers` on {today}.\n{measured}"));
            text.push_str(&peers.text());
            return text;
        }
        text.push_str("# Benchmarks\n\n");
        text.push_str(&format!("Written by `cargo xtask bench` on {today}.\n{measured}"));
        text.push_str("## Goals\n\n");
        let mut goals = goals::journal(self.journal.as_deref());
        goals.extend(stores::goals(self.stores.as_deref()));
        goals.extend(goals::http(self.http.as_ref()));
        goal_table(&mut text, &goals);
        if let Some(lines) = &self.journal {
            text.push_str("\n## Journal\n\n");
            for some in lines.chunk_by(|one, next| one.name == next.name) {
                journal_table(&mut text, some);
                text.push('\n');
            }
        }
        if let Some(lines) = &self.stores {
            text.push_str("\n## Shared stores: claims and completions with a reply of 1 KiB\n\n");
            journal_table(&mut text, lines);
        }
        if let Some(http) = &self.http {
            text.push_str("\n## HTTP: POST of 290 bytes, reply of 1 KiB\n\n");
            http_table(&mut text, &http.rows);
            text.push_str("\n## HTTP: ratios\n\n");
            ratio_table(&mut text, &http.rows);
            for missing in &http.missing {
                let missing = missing.replace(&*repo::root().to_string_lossy(), ".");
                text.push_str(&format!("\nNot measured: {missing}.\n"));
            }
        }
        text
    }
}

fn goal_table(text: &mut String, goals: &[Goal]) {
    text.push_str("| what | goal | measured | |\n|---|---|---|---|\n");
    for goal in goals {
        let bound = match goal.bound {
            Bound::AtLeast(bound) => format!("at least {bound}"),
            Bound::AtMost(bound) => format!("at most {bound}"),
        };
        let measured = goal.measured.map_or("-".to_owned(), number);
        row(text, [goal.what.clone(), bound, measured, goal.mark().to_owned()]);
    }
}

fn journal_table(text: &mut String, lines: &[Line]) {
    let fields: BTreeSet<&str> =
        lines.iter().flat_map(|line| line.figures.keys().map(String::as_str)).collect();
    let head = ["what", "callers"].into_iter().chain(fields.iter().copied());
    row(text, head.clone().map(str::to_owned));
    row(text, head.map(|_| "---".to_owned()));
    for line in lines {
        let callers = line.callers.map_or("-".to_owned(), |callers| callers.to_string());
        let figures = fields.iter().map(|field| line.figure(field).map_or("-".to_owned(), number));
        row(text, [line.name.clone(), callers].into_iter().chain(figures));
    }
}

fn http_table(text: &mut String, rows: &[Row]) {
    text.push_str("| target | connections | requests/s | p50 ms | p99 ms | CPU us/request | ");
    text.push_str("runs/request | not 2xx | broken |\n|---|---|---|---|---|---|---|---|---|\n");
    for Row { target, connections, samples } in rows {
        let middle = |figure: fn(&Sample) -> f64| {
            median(samples.iter().map(figure)).map_or("-".to_owned(), number)
        };
        let sum = |count: fn(&Sample) -> u64| samples.iter().map(count).sum::<u64>().to_string();
        row(
            text,
            [
                (*target).to_owned(),
                connections.to_string(),
                middle(|sample| sample.requests_per_s),
                middle(|sample| sample.p50_ms),
                middle(|sample| sample.p99_ms),
                middle(|sample| sample.cpu_us),
                middle(|sample| sample.runs),
                sum(|sample| sample.refused),
                sum(|sample| sample.broken),
            ],
        );
    }
}

fn ratio_table(text: &mut String, rows: &[Row]) {
    let pairs = [
        (FIRST, BARE),
        (FIRST, NGINX),
        (KEYLESS, BARE),
        (KEYLESS, NGINX),
        (REPLAY, MEMORY),
        (REPLAY, STATIC),
        (BARE, NGINX),
    ];
    let connections: BTreeSet<u32> = rows.iter().map(|row| row.connections).collect();
    text.push_str("| target / baseline | connections | requests/s | p99 | CPU per request |\n");
    text.push_str("|---|---|---|---|---|\n");
    for (target, baseline) in pairs {
        for &connections in &connections {
            let ratio = |figure: fn(&Sample) -> f64| {
                goals::ratio(rows, connections, target, baseline, figure)
            };
            let Some(rate) = ratio(|sample| sample.requests_per_s) else { continue };
            let shown = |found: Option<f64>| found.map_or("-".to_owned(), number);
            row(
                text,
                [
                    format!("{target} / {baseline}"),
                    connections.to_string(),
                    number(rate),
                    shown(ratio(|sample| sample.p99_ms)),
                    shown(ratio(|sample| sample.cpu_us)),
                ],
            );
        }
    }
}

/// One row of a Markdown table.
pub(super) fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    for cell in cells {
        let _ = write!(text, "| {cell} ");
    }
    text.push_str("|\n");
}

/// Three figures are all that a shared machine can say.
pub(super) fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
