//! RabbitMQ: one node.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Server;
use crate::program::{find, mortal};
use crate::tls::Authority;

/// Where Debian keeps the program; what it has in the search path changes the user first.
const FOLDER: &str = "/usr/lib/rabbitmq/bin";

/// A RabbitMQ broker. Whoever knocks as `guest` is let in.
#[derive(Debug)]
pub struct RabbitMq {
    // Dropped in this order: nobody writes to a folder that is gone.
    server: Option<Server>,
    /// The directory of nodes that this one enters itself in; it outlives the broker.
    mapper: Option<Server>,
    folder: TempDir,
    /// Its own certificate and key, if it listens with TLS.
    certificates: Option<TempDir>,
    port: Port,
    /// Where it listens with TLS, if it does.
    tls: Option<Port>,
    /// Where nodes would reach it; there are none.
    nodes: Port,
    /// Where the directory of nodes listens; nobody else uses it.
    names: Port,
}

impl RabbitMq {
    /// One without queues.
    pub fn start() -> Self {
        let mut broker = Self::prepare("", "[].");
        broker.restart();
        broker
    }

    /// One that listens with TLS at a port of its own too; there to clients only that have a
    /// certificate of the authority, if these must be `certified`. Such a client may be the user
    /// that its certificate names (`auth_mechanism=external`).
    pub fn start_with_tls(authority: &Authority, certified: bool) -> Self {
        let tls = Port::free();
        let certificates = tempfile::tempdir().unwrap();
        let pair = authority.server(certificates.path());
        let mut settings = format!(
            "listeners.ssl.default = {}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_{}\n\
             ssl_options.fail_if_no_peer_cert = {certified}\nssl_cert_login_from = common_name\n\
             auth_mechanisms.1 = PLAIN\n",
            tls.address(),
            authority.certificate().display(),
            pair.certificate.display(),
            pair.key.display(),
            if certified { "peer" } else { "none" },
        );
        let mut plugins = "[].";
        if certified {
            settings.push_str("auth_mechanisms.2 = EXTERNAL\n");
            plugins = "[rabbitmq_auth_mechanism_ssl].";
        }
        let mut broker = Self::prepare(&settings, plugins);
        (broker.tls, broker.certificates) = (Some(tls), Some(certificates));
        broker.restart();
        broker
    }

    fn prepare(settings: &str, plugins: &str) -> Self {
        let (port, nodes, names) = (Port::free(), Port::free(), Port::free());
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "listeners.tcp.default = 127.0.0.1:{}\nraft.wal_max_size_bytes = 4194304\n\
             disk_free_limit.absolute = 1MB\n{settings}",
            port.number()
        );
        fs::write(folder.path().join("rabbitmq.conf"), config).unwrap();
        // Instead of what the machine's own broker would read.
        fs::write(folder.path().join("plugins"), plugins).unwrap();
        fs::write(folder.path().join("environment"), "").unwrap();
        let (tls, certificates) = (None, None);
        Self { port, tls, nodes, names, certificates, folder, mapper: None, server: None }
    }

    /// Starts it, on the data and the port that it had, and waits until it answers.
    pub fn restart(&mut self) {
        self.kill();
        let (folder, log) = (self.folder.path().to_owned(), self.log());
        if self.mapper.is_none() {
            let mut command = mortal(&find("epmd", "ONLYONCE_TEST_EPMD", &[]));
            command.args(["-address", "127.0.0.1", "-port", &self.names.number().to_string()]);
            let mut mapper = Server::start(command, &folder.join("epmd.log"));
            let names = self.names.address();
            mapper.await_ready(&folder.join("epmd.log"), || TcpStream::connect(names).is_ok());
            self.mapper = Some(mapper);
        }
        let program = find("rabbitmq-server", "ONLYONCE_TEST_RABBITMQ", &[]);
        let inner = Path::new(FOLDER).join("rabbitmq-server");
        let mut command = mortal(if inner.is_file() { &inner } else { &program });
        // It is the broker itself then, and not a script that waits for it.
        command.env("RUNNING_UNDER_SYSTEMD", "1").env("HOME", &folder);
        command.env("ERL_EPMD_PORT", self.names.number().to_string());
        command.env("RABBITMQ_NODENAME", "onlyonce@localhost");
        command.env("RABBITMQ_DIST_PORT", self.nodes.number().to_string());
        command.env("RABBITMQ_LOGS", "-");
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none");
        for (name, file) in [
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_CONF_ENV_FILE", "environment"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_GENERATED_CONFIG_DIR", "generated"),
        ] {
            command.env(name, folder.join(file));
        }
        command.current_dir(&folder);
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
        self.server.as_ref().expect("the broker was killed")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Where it listens with TLS.
    ///
    /// # Panics
    /// It does not.
    pub fn tls_address(&self) -> SocketAddr {
        self.tls.as_ref().expect("it has no TLS").address()
    }

    /// Its address for clients.
    pub fn url(&self) -> String {
        url(self.address())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

/// The address for clients of a broker that is reached there, such as through a relay.
pub fn url(address: SocketAddr) -> String {
    format!("amqp://guest:guest@{address}/%2f")
}

/// Whether it says its first word to a client of AMQP 0-9-1.
fn answers(address: SocketAddr) -> bool {
    let hello = || {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").ok()?;
        let mut frame = [0];
        stream.read_exact(&mut frame).ok()?;
        (frame == [1]).then_some(())
    };
    hello().is_some()
}
