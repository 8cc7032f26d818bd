//! Other idempotency layers that package registries have, side by side with us.
//!
//! Each is installed into `target/peers` by its own package manager, within a time limit, and run
//! on free ports. What cannot be installed or started is said in the report, with the reason.
//! Layers that live in a process answer by themselves and are spared the hop to an upstream.

use super::load::{self, Cell, Mode, Sample};
use super::server::Server;
use super::{Arguments, http, median, report};
use crate::{Failure, install, repo, steps};

mod runs;

use runs::Folder;

/// How many callers, each with one request at a time.
const CALLERS: u32 = 32;

/// A peer before it is installed.
struct Peer {
    name: &'static str,
    /// Whether a reply it gave survives a crash of the machine it ran on.
    durable: &'static str,
    /// How many times its rate ours is to reach.
    goal: f64,
    start: fn(&Folder) -> Result<Running, Failure>,
}

/// A peer that answers.
pub(super) struct Running {
    pub(super) server: Server,
    pub(super) path: &'static str,
    /// What it needs beside itself, a Redis say; ended after it.
    pub(super) helpers: Vec<Server>,
}

const PEERS: [Peer; 5] = [
    Peer {
        name: "idempotent-proxy, memory",
        durable: "no",
        goal: 2.0,
        start: runs::idempotent_proxy,
    },
    Peer {
        name: "node-idempotency core in Express, Redis",
        durable: "no: Redis without persistence",
        goal: 5.0,
        start: runs::node_idempotency_express,
    },
    Peer {
        name: "node-idempotency core in node:http, Redis",
        durable: "no: Redis without persistence",
        goal: 5.0,
        start: runs::node_idempotency,
    },
    Peer {
        name: "idemkit in uvicorn with 2 workers, Redis",
        durable: "no: Redis without persistence",
        goal: 12.0,
        start: runs::idemkit,
    },
    Peer { name: "Restate, one node", durable: "yes", goal: 50.0, start: runs::restate },
];

/// The head of the table.
const HEAD: &str = "| target | durable | requests/s | p50 ms | p99 ms | CPU us/request | \
                    not 2xx | broken | ours / theirs | goal | |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|\n";

/// What was found: ours first, then the peers, then what is missing.
pub(super) struct Peers {
    rows: Vec<Row>,
    missing: Vec<String>,
}

struct Row {
    name: &'static str,
    durable: &'static str,
    goal: Option<f64>,
    samples: Vec<Sample>,
}

/// Installs, starts and measures them all in turns.
pub(super) fn measure(arguments: &Arguments) -> Result<Peers, Failure> {
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| name.contains(word))
    };
    install::run(&[("redis-server", "redis-server"), ("npm", "npm"), ("node", "nodejs")])?;
    let upstream = Server::baseline(&["upstream"])?;
    let folder = Folder::open(upstream.url("/payments"))?;
    let mut missing = Vec::new();
    let mut running = Vec::new();
    let mut rows = Vec::new();
    let mut add = |name, durable, goal, started: Result<Running, Failure>| match started {
        Ok(started) => {
            running.push(started);
            rows.push(Row { name, durable, goal, samples: Vec::new() });
        }
        Err(failure) => missing.push(format!("{name}: {failure}")),
    };
    let store = format!("journal:{}", folder.scratch("journal").display());
    let ours = http::onlyonce(&upstream.url(""), &store);
    let ours = ours.map(|server| Running { server, path: "/payments", helpers: Vec::new() });
    add("onlyonce proxy, journal", "yes", None, ours);
    for peer in PEERS.iter().filter(|peer| wanted(peer.name)) {
        println!("starting {}", peer.name);
        add(peer.name, peer.durable, Some(peer.goal), (peer.start)(&folder));
    }
    let mut run = 1;
    for round in 0..=arguments.rounds {
        for (row, Running { server, path, helpers }) in rows.iter_mut().zip(&running) {
            run += 1;
            let sample = load::put(&Cell {
                server,
                helpers,
                upstream: &upstream,
                path,
                mode: Mode::First,
                run,
                connections: CALLERS,
                // The first round only warms up.
                seconds: if round == 0 { 1 } else { arguments.seconds },
            })?;
            println!("round {round}, {}: {sample:?}", row.name);
            if round > 0 {
                row.samples.push(sample);
            }
        }
    }
    Ok(Peers { rows, missing })
}

impl Peers {
    /// As Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "Fresh keys, {CALLERS} callers, POST of 290 bytes, reply of 1 KiB. *Durable* says \
             whether an answered\nrequest is remembered after the machine crashes. Layers that \
             live in a process answer by themselves;\nthe proxies forward to an upstream. CPU \
             time is that of the layer with its Redis or its service.\n\n{HEAD}"
        );
        let ours = self.rows.iter().find(|row| row.goal.is_none());
        for row in &self.rows {
            let middle = |figure: fn(&Sample) -> f64| {
                median(row.samples.iter().map(figure)).map_or("-".to_owned(), report::number)
            };
            let sum =
                |count: fn(&Sample) -> u64| row.samples.iter().map(count).sum::<u64>().to_string();
            let ratio = ours.filter(|_| row.goal.is_some()).and_then(|ours| ratio(ours, row));
            let mark = match (row.goal, ratio) {
                (None, _) => "",
                (Some(_), None) => "not measured",
                (Some(goal), Some(ratio)) if ratio >= goal => "met",
                (Some(_), Some(_)) => "**missed**",
            };
            let cells = [
                row.name.to_owned(),
                row.durable.to_owned(),
                middle(|sample| sample.requests_per_s),
                middle(|sample| sample.p50_ms),
                middle(|sample| sample.p99_ms),
                middle(|sample| sample.cpu_us),
                sum(|sample| sample.refused),
                sum(|sample| sample.broken),
                ratio.map_or("-".to_owned(), report::number),
                row.goal.map_or("-".to_owned(), |goal| format!("at least {goal}")),
                mark.to_owned(),
            ];
            report::row(&mut text, cells);
        }
        for missing in &self.missing {
            let missing = missing.replace(&*repo::root().to_string_lossy(), ".");
            text.push_str(&format!("\nNot measured: {missing}.\n"));
        }
        text
    }
}

/// The median over rounds of our rate over theirs.
fn ratio(ours: &Row, theirs: &Row) -> Option<f64> {
    let pairs = ours.samples.iter().zip(&theirs.samples);
    median(pairs.map(|(one, other)| one.requests_per_s / other.requests_per_s))
}

/// Runs an installer within a time limit.
fn within(minutes: u32, name: &str, command: &mut std::process::Command) -> Result<(), Failure> {
    let mut limited = std::process::Command::new("timeout");
    limited.arg(format!("{minutes}m")).arg(command.get_program()).args(command.get_args());
    steps::quiet(name, &mut limited).map_err(|failure| format!("not installed: {failure}").into())
}
