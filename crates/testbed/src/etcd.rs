//! etcd: one member, or a cluster whose members can be cut off from each other.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Server, until};
use crate::program::{find, mortal};
use crate::relay::Relay;
use crate::tls::Authority;

/// A member of etcd.
#[derive(Debug)]
pub struct Etcd {
    name: String,
    client: Port,
    /// Where it listens with TLS, if it does.
    tls: Option<Port>,
    /// Where it listens for other members.
    peer: Port,
    /// Where other members reach it, and the way from there.
    relay: Relay,
    folder: TempDir,
    arguments: Vec<String>,
    server: Option<Server>,
}

impl Etcd {
    /// A single one.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A single one with these arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut etcd = Self::prepare("m0", arguments);
        let initial = format!("m0={}", etcd.peer_url());
        etcd.arguments.extend(["--initial-cluster".to_owned(), initial]);
        etcd.launch();
        etcd.await_health();
        etcd
    }

    /// A single one that listens with TLS at a port of its own too; to clients only that have a
    /// certificate of the authority, if these must be `certified`.
    pub fn start_with_tls(authority: &Authority, certified: bool) -> Self {
        let mut etcd = Self::prepare("m0", &[]);
        let pair = authority.server(etcd.folder.path());
        let initial = format!("m0={}", etcd.peer_url());
        etcd.tls = Some(Port::free());
        etcd.arguments.extend(["--initial-cluster".to_owned(), initial]);
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        etcd.arguments.extend([format!("--cert-file={certificate}"), format!("--key-file={key}")]);
        if certified {
            let ca = authority.certificate().display().to_string();
            let must = "--client-cert-auth".to_owned();
            etcd.arguments.extend([format!("--trusted-ca-file={ca}"), must]);
        }
        etcd.launch();
        etcd.await_health();
        etcd
    }

    /// The port where it listens with TLS.
    ///
    /// # Panics
    /// It does not.
    pub fn tls_port(&self) -> u16 {
        self.tls.as_ref().expect("it has no TLS").number()
    }

    /// A single one with what another had when this snapshot was taken.
    pub fn from_snapshot(snapshot: &Path) -> Self {
        let mut etcd = Self::prepare("m0", &[]);
        let initial = format!("m0={}", etcd.peer_url());
        let mut restore = etcdctl();
        restore.args(["snapshot", "restore"]).arg(snapshot).args(["--name", "m0"]);
        restore.args(["--initial-cluster", &initial, "--data-dir", "data"]);
        restore.args(["--initial-advertise-peer-urls", &etcd.peer_url()]);
        said(restore.current_dir(etcd.folder.path()));
        etcd.arguments.extend(["--initial-cluster".to_owned(), initial]);
        etcd.launch();
        etcd.await_health();
        etcd
    }

    /// Takes a snapshot of what it has, into a file that is not there.
    pub fn snapshot(&self, to: &Path) {
        let mut save = etcdctl();
        save.args(["--endpoints", &self.address().to_string(), "snapshot", "save"]).arg(to);
        said(&mut save);
    }

    fn prepare(name: &str, arguments: &[&str]) -> Self {
        let peer = Port::free();
        let relay = Relay::to(peer.address());
        Self {
            name: name.to_owned(),
            client: Port::free(),
            tls: None,
            relay,
            peer,
            folder: tempfile::tempdir().unwrap(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            server: None,
        }
    }

    fn peer_url(&self) -> String {
        format!("http://{}", self.relay.address())
    }

    fn launch(&mut self) {
        let mut command = mortal(&find("etcd", "ONLYONCE_TEST_ETCD", &[]));
        let tls = self.tls.as_ref().map(|port| format!(",https://{}", port.address()));
        let client = format!("http://{}{}", self.client.address(), tls.unwrap_or_default());
        let peer = format!("http://{}", self.peer.address());
        command.args(["--name", &self.name, "--data-dir", "data"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &self.peer_url()]);
        // Members on one machine: an election takes no longer than it must.
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        command.args(["--logger", "zap", "--log-outputs", "stderr"]);
        command.args(&self.arguments).current_dir(self.folder.path());
        self.server = Some(Server::start(command, &self.log()));
    }

    fn await_health(&mut self) {
        let (log, address) = (self.log(), self.client.address());
        let server = self.server.as_mut().unwrap();
        server.await_ready(&log, || is_healthy(address));
    }

    /// Adds to what it starts with from now on.
    pub fn add_argument(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// Starts it, on the data and the ports that it had, and waits until it has a leader.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
        self.await_health();
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
        self.server.as_ref().expect("the member was killed")
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddr {
        self.client.address()
    }

    /// Asks its gateway of JSON: the answer's body, or nothing if there is none.
    pub fn post(&self, path: &str, body: &str) -> Option<String> {
        http(self.client.address(), &format!("POST {path}"), body)
    }

    /// Whether it leads, as it says itself.
    pub fn leads(&self) -> bool {
        let Some(status) = self.post("/v3/maintenance/status", "{}") else { return false };
        let text = |name: &str| {
            let at = status.find(&format!("\"{name}\":\""))? + name.len() + 4;
            status[at..].split('"').next().map(str::to_owned)
        };
        text("leader").is_some() && text("leader") == text("member_id")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

/// Members that know each other.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Etcd>,
}

impl EtcdCluster {
    /// Three.
    pub fn start() -> Self {
        let mut members: Vec<Etcd> =
            ["m0", "m1", "m2"].iter().map(|name| Etcd::prepare(name, &[])).collect();
        let all: Vec<String> =
            members.iter().map(|one| format!("{}={}", one.name, one.peer_url())).collect();
        for member in &mut members {
            member.arguments.extend(["--initial-cluster".to_owned(), all.join(",")]);
            member.launch();
        }
        members.iter_mut().for_each(Etcd::await_health);
        Self { members }
    }

    /// Its members.
    pub fn members(&mut self) -> &mut [Etcd] {
        &mut self.members
    }

    /// One more, which has no vote; says which.
    pub fn add_learner(&mut self) -> usize {
        let mut learner = Etcd::prepare("learner", &["--initial-cluster-state", "existing"]);
        let body = format!("{{\"peerURLs\":[\"{}\"],\"isLearner\":true}}", learner.peer_url());
        // A cluster that has just come together does not take one yet.
        let add = || self.members[0].post("/v3/cluster/member/add", &body);
        until("it is taken", || add().filter(|answer| answer.contains("\"isLearner\":true")));
        let known = self.members.iter().chain([&learner]);
        let all: Vec<String> =
            known.map(|one| format!("{}={}", one.name, one.peer_url())).collect();
        learner.arguments.extend(["--initial-cluster".to_owned(), all.join(",")]);
        learner.launch();
        until("the learner answers", || learner.post("/v3/maintenance/status", "{}"));
        self.members.push(learner);
        self.members.len() - 1
    }

    /// Waits until one of them leads, and says which.
    pub fn await_leader(&self) -> usize {
        until("a leader", || self.members.iter().position(Etcd::leads))
    }

    /// Cuts a member off from the others in both directions. Clients still reach it.
    pub fn isolate(&self, at: usize) {
        let process = self.members[at].server().id();
        for (other, member) in self.members.iter().enumerate() {
            match other == at {
                true => member.relay.cut(),
                false => member.relay.bar(&[process]),
            }
        }
    }

    /// Joins all of them again.
    pub fn mend(&self) {
        self.members.iter().for_each(|member| member.relay.mend());
    }
}

fn etcdctl() -> Command {
    let mut command = Command::new(find("etcdctl", "ONLYONCE_TEST_ETCDCTL", &[]));
    command.env("ETCDCTL_API", "3");
    command
}

/// Runs a command to its end, which must be a good one.
fn said(command: &mut Command) {
    let ended = command.output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {error}");
}

fn is_healthy(address: SocketAddr) -> bool {
    http(address, "GET /health", "").is_some_and(|body| body.contains("true"))
}

fn http(address: SocketAddr, request: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\nconnection: close\r\n"
    );
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
