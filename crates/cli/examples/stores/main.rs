//! How many pairs of a claim and a completion a second each shared store confirms through the
//! engine, and a bare client in turns with it: the same inserts and updates as array statements of
//! the same batch size for PostgreSQL and MariaDB, the same two calls for Redis.
//!
//! `cargo run --release -p onlyonce-cli --example stores` starts servers of its own and prints what
//! it finds; `--json` prints one object per line for `cargo xtask bench stores`. `--only` names
//! stores, `--callers`, `--seconds` and `--rounds` shorten or lengthen it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program of the terminal")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

mod load;
mod mysql;
mod other;
mod postgres;
mod redis;

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::{Engines, Figures};

/// How much, and of what.
struct Options {
    json: bool,
    callers: Vec<usize>,
    time: Duration,
    rounds: usize,
    only: Vec<String>,
}

fn options() -> Options {
    let (callers, time) = (vec![1, 64, 256], Duration::from_secs(3));
    let mut options = Options { json: false, callers, time, rounds: 3, only: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => options.json = true,
            "--callers" => {
                options.callers = value().split(',').map(|it| it.parse().unwrap()).collect();
            }
            "--seconds" => options.time = Duration::from_secs_f64(value().parse().unwrap()),
            "--rounds" => options.rounds = value().parse().unwrap(),
            "--only" => options.only = value().split(',').map(str::to_owned).collect(),
            other => panic!("{other:?} is not known"),
        }
    }
    options
}

/// One round of a cell: the store, and what it is compared with.
struct Cell {
    store: Figures,
    /// Swaps of one commit, where the server counts its commits.
    swaps_per_commit: Option<f64>,
    /// Pairs a second of the bare client.
    bare: Option<f64>,
    /// Pairs a second of a bare client that compares nothing, beside the other.
    plain: Option<f64>,
}

/// A store on a server of its own, and a bare client of the same server.
trait Bench {
    /// Where the engine keeps its records.
    fn engines(&self) -> &Engines;
    /// How many transactions that wrote something the server has committed.
    async fn commits(&mut self) -> Option<u64>;
    /// Pairs a second of a bare client: by so many callers, or so many swaps in a transaction.
    async fn bare(&mut self, callers: usize, batch: usize, time: Duration) -> Option<f64>;
    /// Pairs a second of a client that does less than a store must.
    async fn plain(&mut self, callers: usize, time: Duration) -> Option<f64>;
}

async fn cell(bench: &mut impl Bench, callers: usize, time: Duration) -> Cell {
    let before = bench.commits().await;
    let store = bench.engines().pairs(callers, time).await;
    let commits = bench.commits().await.zip(before).map(|(after, before)| after - before);
    let swaps_per_commit = commits.map(|commits| 2.0 * store.pairs as f64 / commits as f64);
    let batch = swaps_per_commit.map_or(1, |swaps| swaps.round().max(1.0) as usize);
    let bare = bench.bare(callers, batch, time).await;
    let plain = bench.plain(callers, time).await;
    Cell { store, swaps_per_commit, bare, plain }
}

/// All rounds over all numbers of callers; a line for each number.
async fn measure(name: &str, mut bench: impl Bench, options: &Options) -> Vec<Value> {
    // What a server does for the first time, and the pages that it has not got yet.
    bench.engines().pairs(64, options.time / 3).await;
    let mut rounds: Vec<Vec<Cell>> = Vec::new();
    for _ in 0..options.rounds {
        let mut round = Vec::new();
        for &callers in &options.callers {
            round.push(cell(&mut bench, callers, options.time).await);
        }
        rounds.push(round);
    }
    let line = |(at, callers): (usize, &usize)| {
        let cells = || rounds.iter().map(|round| &round[at]);
        let middle = |figure: &dyn Fn(&Cell) -> Option<f64>| median(cells().filter_map(figure));
        let ratio = |cell: &Cell| cell.bare.map(|bare| cell.store.pairs_per_s / bare);
        let mut line = json!({
            "name": name,
            "callers": callers,
            "pairs_per_s": middle(&|cell| Some(cell.store.pairs_per_s)),
            "p50_ms": middle(&|cell| Some(cell.store.p50_ms)),
            "p99_ms": middle(&|cell| Some(cell.store.p99_ms)),
        });
        for (field, figure) in [
            ("swaps_per_commit", middle(&|cell| cell.swaps_per_commit)),
            ("bare_pairs_per_s", middle(&|cell| cell.bare)),
            ("plain_pairs_per_s", middle(&|cell| cell.plain)),
            ("ratio", middle(&ratio)),
        ] {
            if let Some(figure) = figure {
                line[field] = json!(figure);
            }
        }
        line
    };
    options.callers.iter().enumerate().map(line).collect()
}

/// The middle value; of two middle ones the lower.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let options = options();
    for name in ["postgres", "mysql", "redis", "etcd", "sqlite"] {
        if !options.only.is_empty() && !options.only.iter().any(|only| name.contains(only)) {
            continue;
        }
        let lines = match name {
            "postgres" => measure(name, postgres::start().await, &options).await,
            "mysql" => measure(name, mysql::start().await, &options).await,
            "redis" => measure(name, redis::start().await, &options).await,
            "etcd" => measure(name, other::etcd().await, &options).await,
            _ => measure(name, other::sqlite().await, &options).await,
        };
        for line in lines {
            if options.json {
                println!("{line}");
            } else {
                println!("{line:#}");
            }
        }
    }
}
