//! The HTTP part: the proxy, and what it is compared with, under the same load in turns.

use std::process::Command;

use super::load::{self, Cell, Mode, Sample};
use super::server::Server;
use super::{Arguments, build};
use crate::{Failure, repo};

/// One target with one kind of request.
struct Target {
    name: &'static str,
    server: usize,
    mode: Mode,
}

/// The samples of one target at one number of connections, one per round.
pub(super) struct Row {
    pub(super) target: &'static str,
    pub(super) connections: u32,
    pub(super) samples: Vec<Sample>,
}

/// All rows, and what could not be measured.
pub(super) struct Http {
    pub(super) rows: Vec<Row>,
    pub(super) missing: Vec<String>,
}

pub(super) const DIRECT: &str = "upstream, direct";
pub(super) const BARE: &str = "bare hyper proxy";
pub(super) const NGINX: &str = "nginx proxy_pass";
pub(super) const FIRST: &str = "onlyonce, first requests";
pub(super) const REPLAY: &str = "onlyonce, replays";
pub(super) const KEYLESS: &str = "onlyonce, no key";
pub(super) const MEMORY: &str = "hyper from memory";
pub(super) const STATIC: &str = "nginx static";

/// Starts every server once and goes round the cells.
pub(super) fn measure(arguments: &Arguments) -> Result<Http, Failure> {
    let folder = super::scratch()?;
    let mut missing = Vec::new();
    let upstream = Server::baseline(&["upstream"])?;
    let (port, url) = (upstream.port, upstream.url(""));
    let nginx = |name: &str, location: &str| -> Result<Server, Failure> {
        let own = folder.path().join(name);
        std::fs::create_dir(&own)?;
        Server::nginx(&own, port, location)
    };
    let forward =
        "proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection '';";
    let fixed = format!("return 200 '{}';", "a".repeat(1024));
    let mut servers = vec![
        upstream,
        Server::baseline(&["proxy", &url])?,
        nginx("nginx-proxy", forward)?,
        Server::baseline(&["memory"])?,
        nginx("nginx-static", &fixed)?,
    ];
    let mut targets = vec![
        Target { name: DIRECT, server: 0, mode: Mode::First },
        Target { name: BARE, server: 1, mode: Mode::First },
        Target { name: NGINX, server: 2, mode: Mode::First },
        Target { name: MEMORY, server: 3, mode: Mode::Replay },
        Target { name: STATIC, server: 4, mode: Mode::Replay },
    ];
    let store = folder.path().join("journal");
    match onlyonce(&url, &format!("journal:{}", store.display())) {
        Ok(proxy) => {
            let server = servers.len();
            servers.push(proxy);
            for (name, mode) in
                [(FIRST, Mode::First), (REPLAY, Mode::Replay), (KEYLESS, Mode::Keyless)]
            {
                targets.push(Target { name, server, mode });
            }
        }
        Err(failure) => missing.push(format!("onlyonce proxy: {failure}")),
    }
    let wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| name.contains(word))
    };
    targets.retain(|target| wanted(target.name));
    let rows = rounds(arguments, &servers, &targets)?;
    Ok(Http { rows, missing })
}

/// The binary under test, in release mode, on a fresh journal.
pub(super) fn onlyonce(upstream: &str, store: &str) -> Result<Server, Failure> {
    build("-p onlyonce-cli --bin onlyonce")?;
    let mut command = Command::new(repo::root().join("target/release/onlyonce"));
    command.args(["proxy", "--upstream", upstream, "--listen", "127.0.0.1:0", "--store", store]);
    Server::told(&mut command)
}

fn rounds(
    arguments: &Arguments,
    servers: &[Server],
    targets: &[Target],
) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    let cell = |target: &Target, run, connections, seconds| Cell {
        server: &servers[target.server],
        helpers: &[],
        upstream: &servers[0],
        path: "/payments",
        mode: target.mode,
        run,
        connections,
        seconds,
    };
    for target in targets {
        load::put(&cell(target, 0, 64, 1))?;
        for &connections in &arguments.connections {
            rows.push(Row { target: target.name, connections, samples: Vec::new() });
        }
    }
    let mut run = 0;
    for round in 1..=arguments.rounds {
        for &connections in &arguments.connections {
            for target in targets {
                run += 1;
                // The keys that the warm-up has had answered.
                let keys = if target.mode == Mode::Replay { 0 } else { run };
                let sample = load::put(&cell(target, keys, connections, arguments.seconds))?;
                println!("round {round}, {connections} connections, {}: {sample:?}", target.name);
                let row = rows
                    .iter_mut()
                    .find(|row| row.target == target.name && row.connections == connections);
                if let Some(row) = row {
                    row.samples.push(sample);
                }
            }
        }
    }
    Ok(rows)
}
