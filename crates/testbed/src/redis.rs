//! Redis: one server, replicas, sentinels, a cluster.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Server, until};
use crate::program::{find, mortal};
use crate::tls::Authority;

/// What a store can rely on: every write is on the medium before it is confirmed.
const DURABLE: [(&str, &str); 4] = [
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("save", ""),
    ("repl-diskless-sync-delay", "0"),
];

/// A Redis server.
#[derive(Debug)]
pub struct Redis {
    port: Port,
    /// Where it listens with TLS, if it does.
    tls: Option<Port>,
    folder: TempDir,
    settings: Vec<(String, String)>,
    server: Option<Server>,
}

impl Redis {
    /// One with durable settings.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One with these settings of `redis.conf` after the durable ones.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let settings = DURABLE.iter().chain(settings);
        let settings = settings.map(|(name, value)| (name.to_string(), value.to_string()));
        let mut redis = Self {
            port: Port::free(),
            tls: None,
            folder: tempfile::tempdir().unwrap(),
            settings: settings.collect(),
            server: None,
        };
        redis.restart();
        redis
    }

    /// One that listens with TLS at a port of its own too.
    pub fn start_with_tls(authority: &Authority) -> Self {
        let mut redis = Self::start();
        let pair = authority.server(redis.folder.path());
        let port = redis.tls.insert(Port::free()).number().to_string();
        redis.set("tls-port", &port);
        redis.set("tls-cert-file", &pair.certificate.display().to_string());
        redis.set("tls-key-file", &pair.key.display().to_string());
        redis.set("tls-ca-cert-file", &authority.certificate().display().to_string());
        redis.set("tls-auth-clients", "no");
        redis.restart();
        redis
    }

    /// The port where it listens with TLS.
    ///
    /// # Panics
    /// It does not.
    pub fn tls_port(&self) -> u16 {
        self.tls.as_ref().expect("it has no TLS").number()
    }

    /// A replica of another, in step with it.
    pub fn replica_of(master: &Self) -> Self {
        let replica = Self::start_with(&[("replicaof", &format!("127.0.0.1 {}", master.port()))]);
        let in_step =
            || replica.info("replication").contains("master_link_status:up").then_some(());
        until("the replica is in step", in_step);
        replica
    }

    /// Starts it, on the data and the port that it had.
    pub fn restart(&mut self) {
        self.kill();
        // It hears of a write that is refused by an error, as on a full disk, and lives.
        let mut command = mortal(&PathBuf::from("env"));
        command.arg("--ignore-signal=XFSZ");
        command.arg(find("redis-server", "ONLYONCE_TEST_REDIS_SERVER", &[]));
        command.current_dir(self.folder.path());
        command.args(["--bind", "127.0.0.1", "--port", &self.port.number().to_string()]);
        // A cluster's nodes talk at a port of their own, which is elsewhere if it is not named.
        for (name, value) in &self.settings {
            command.arg(format!("--{name}"));
            // An empty value is one: `--save ""` takes no snapshots.
            match name.as_str() {
                "save" => command.arg(value),
                _ => command.args(value.split(' ')),
            };
        }
        let log = self.log();
        let mut server = Server::start(command, &log);
        let address = self.address();
        server.await_ready(&log, || {
            ask(address, &["PING"]).is_ok_and(|answer| !answer.starts_with("-LOADING"))
        });
        self.server = Some(server);
    }

    /// Ends it without a word (SIGKILL).
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Its process.
    ///
    /// # Panics
    /// It was killed.
    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("the server was killed")
    }

    /// Sets what it starts with from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// From now on none of its files takes a byte more (`RLIMIT_FSIZE`).
    pub fn bound_files(&self) {
        let id = i32::try_from(self.server().id()).ok().and_then(Pid::from_raw);
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        prlimit(id, Resource::Fsize, none).unwrap();
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where its data is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One command, and the answer in the words of the protocol.
    ///
    /// # Panics
    /// It does not answer.
    pub fn ask(&self, command: &[&str]) -> String {
        ask(self.address(), command).unwrap()
    }

    /// A section of what it tells about itself.
    pub fn info(&self, section: &str) -> String {
        self.ask(&["INFO", section])
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

/// One command on a connection of its own. Answers of several lines come whole if they come at
/// once, which those that tests ask for do.
fn ask(address: SocketAddr, command: &[&str]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut bytes = format!("*{}\r\n", command.len());
    for word in command {
        bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(bytes.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        answer.extend_from_slice(&piece[..length]);
        if length == 0 || whole(&answer) {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
    }
}

/// Whether a string of a known length, or a line, has come to its end.
fn whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(2).position(|it| it == b"\r\n") else { return false };
    let line = String::from_utf8_lossy(&answer[..end]);
    match line.strip_prefix('$').map(str::parse::<usize>) {
        Some(Ok(length)) => end + 2 + length + 2 <= answer.len(),
        Some(Err(_)) | None => true,
    }
}

/// A server that watches a master and lets a replica follow it.
#[derive(Debug)]
pub struct Sentinel {
    redis: Redis,
}

impl Sentinel {
    /// One that watches `master` by the name `main`, and alone decides after half a second.
    pub fn watching(master: &Redis) -> Self {
        let mut redis = Redis {
            port: Port::free(),
            tls: None,
            folder: tempfile::tempdir().unwrap(),
            settings: Vec::new(),
            server: None,
        };
        let config = redis.folder.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            redis.port(),
            master.port(),
        );
        std::fs::write(&config, text).unwrap();
        let program = find("redis-server", "ONLYONCE_TEST_REDIS_SERVER", &[]);
        let mut command = mortal(&program);
        command.arg(&config).arg("--sentinel").current_dir(redis.folder.path());
        let log = redis.log();
        let mut server = Server::start(command, &log);
        let address = redis.address();
        server.await_ready(&log, || ask(address, &["PING"]).is_ok());
        redis.server = Some(server);
        Self { redis }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.redis.port()
    }

    /// Waits until it knows of a replica, without which it has nobody to promote.
    pub fn await_replica(&self) {
        let known = || self.redis.info("sentinel").contains("slaves=1").then_some(());
        until("the sentinel knows the replica", known);
    }

    /// Waits until the master is another than the one at this port.
    pub fn await_other_master(&self, port: u16) {
        let moved = || {
            let answer = self.redis.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
            (!answer.contains(&port.to_string())).then_some(())
        };
        until("another master", moved);
    }
}

/// Three masters that share the slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
    replicas: Vec<Redis>,
    buses: Vec<Port>,
}

/// Slots of a cluster.
const SLOTS: usize = 16_384;

impl RedisCluster {
    /// One of three masters without replicas.
    pub fn start() -> Self {
        let buses: Vec<Port> = (0..3).map(|_| Port::free()).collect();
        let nodes: Vec<Redis> = buses.iter().map(Self::node).collect();
        for (at, node) in nodes.iter().enumerate() {
            let (from, until) = (at * SLOTS / 3, (at + 1) * SLOTS / 3 - 1);
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &until.to_string()]);
            let first = &nodes[0];
            let (port, bus) = (first.port().to_string(), buses[0].number().to_string());
            node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let cluster = Self { nodes, replicas: Vec::new(), buses };
        until("the cluster is whole", || cluster.is_whole().then_some(()));
        cluster
    }

    /// A node that knows no other.
    fn node(bus: &Port) -> Redis {
        Redis::start_with(&[
            ("cluster-enabled", "yes"),
            ("cluster-port", &bus.number().to_string()),
            ("cluster-node-timeout", "2000"),
        ])
    }

    /// Lets a replica follow the first of its masters, and waits until it is in step.
    pub fn add_replica(&mut self) {
        let bus = Port::free();
        let replica = Self::node(&bus);
        let first = &self.nodes[0];
        let (port, first_bus) = (first.port().to_string(), self.buses[0].number().to_string());
        replica.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &first_bus]);
        let id = first.ask(&["CLUSTER", "MYID"]);
        let id = id.lines().nth(1).unwrap_or_default().to_owned();
        until("the replica knows its master", || {
            replica.ask(&["CLUSTER", "REPLICATE", &id]).starts_with("+OK").then_some(())
        });
        until("the replica is in step", || {
            first.info("replication").contains("state=online").then_some(())
        });
        self.replicas.push(replica);
        self.buses.push(bus);
    }

    /// Its masters.
    pub fn nodes(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// Whether all nodes say that all slots are served.
    pub fn is_whole(&self) -> bool {
        self.nodes.iter().all(|node| {
            let info = node.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    }
}
