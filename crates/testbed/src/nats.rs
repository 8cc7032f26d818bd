//! NATS: one server with JetStream.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Server;
use crate::program::{find, mortal};
use crate::tls::Authority;

/// A NATS server.
#[derive(Debug)]
pub struct Nats {
    // Dropped in this order: nobody writes to a folder that is gone.
    server: Option<Server>,
    folder: TempDir,
    port: Port,
    /// More arguments.
    more: Vec<String>,
}

impl Nats {
    /// One without streams.
    pub fn start() -> Self {
        let mut nats = Self::prepare();
        nats.restart();
        nats
    }

    /// One that speaks TLS alone, after its first word; to clients only that have a certificate of
    /// the authority, if these must be `certified`.
    pub fn start_with_tls(authority: &Authority, certified: bool) -> Self {
        let mut nats = Self::prepare();
        let pair = authority.server(nats.folder.path());
        for (name, file) in [("tlscert", &pair.certificate), ("tlskey", &pair.key)] {
            nats.more.push(format!("--{name}={}", file.display()));
        }
        if certified {
            let ca = authority.certificate();
            nats.more.extend(["--tlsverify".to_owned(), format!("--tlscacert={}", ca.display())]);
        } else {
            nats.more.push("--tls".to_owned());
        }
        nats.restart();
        nats
    }

    fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { server: None, folder, port: Port::free(), more: Vec::new() }
    }

    /// Starts it, on the data and the port that it had, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = mortal(&find("nats-server", "ONLYONCE_TEST_NATS", &["/usr/sbin"]));
        command.args(["--addr", "127.0.0.1", "--port", &self.port.number().to_string()]);
        command.arg("--jetstream").arg("--store_dir").arg(self.folder.path().join("data"));
        command.args(&self.more);
        let log = self.log();
        let mut server = Server::start(command, &log);
        let address = self.port.address();
        server.await_ready(&log, || answers(address));
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

/// Whether it says its first word.
fn answers(address: SocketAddr) -> bool {
    let word = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).ok()?;
        (&word == b"INFO").then_some(())
    };
    word().is_some()
}
