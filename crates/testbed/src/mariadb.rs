//! MariaDB: one server, replicas of it, and a node of a cluster.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Server, until};
use crate::program::{find, mortal};

/// Settings of a small server; those that decide what is kept are the server's own.
const SMALL: [(&str, &str); 7] = [
    ("innodb_buffer_pool_size", "32M"),
    ("innodb_log_file_size", "24M"),
    ("innodb_fast_shutdown", "2"),
    ("performance_schema", "OFF"),
    ("skip_name_resolve", "ON"),
    ("max_connections", "100"),
    ("bind_address", "127.0.0.1"),
];
/// Where Debian keeps the server.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/usr/libexec"];
/// What makes a server a node of a Galera cluster.
const GALERA: &str = "/usr/lib/galera/libgalera_smm.so";

/// A MariaDB server. Its user `root`, of this machine, has no password.
#[derive(Debug)]
pub struct MariaDb {
    // Dropped in this order: nobody writes to a folder that is gone.
    server: Option<Server>,
    folder: TempDir,
    port: Port,
    /// Where nodes of a cluster would reach it, if it is one.
    nodes: Option<Port>,
    settings: Vec<(String, String)>,
}

impl MariaDb {
    /// One with the server's own settings.
    pub fn start() -> Self {
        let mut server = Self::prepare();
        server.restart();
        server
    }

    /// A replica of another, which must have been started with `log_bin` and a `server_id`, and
    /// which has nothing yet but what it logs.
    pub fn replica_of(primary: &Self) -> Self {
        let mut replica = Self::prepare();
        replica.set("server_id", "2");
        replica.restart();
        let host = format!("MASTER_HOST='127.0.0.1', MASTER_PORT={}", primary.port());
        replica.sql("mysql", &format!("CHANGE MASTER TO {host}, MASTER_USER='root'"));
        replica.sql("mysql", "START SLAVE");
        replica
    }

    /// The first node of a Galera cluster that has no other.
    pub fn galera() -> Self {
        let mut node = Self::prepare();
        let nodes = Port::free();
        assert!(
            Path::new(GALERA).is_file(),
            "{GALERA} is not installed: `cargo xtask install` installs what tests use"
        );
        let provider =
            format!("gmcast.listen_addr=tcp://127.0.0.1:{}; base_host=127.0.0.1", nodes.number());
        node.nodes = Some(nodes);
        for (name, value) in [
            ("wsrep_on", "ON"),
            ("wsrep_provider", GALERA),
            ("wsrep_cluster_address", "gcomm://"),
            ("wsrep_node_address", "127.0.0.1"),
            ("wsrep_provider_options", &provider),
            ("wsrep_sst_method", "rsync"),
            ("binlog_format", "ROW"),
            ("innodb_autoinc_lock_mode", "2"),
        ] {
            node.set(name, value);
        }
        node.restart();
        node
    }

    /// The data of a new server.
    fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = SMALL.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let port = Port::free();
        let made = Self { server: None, folder, port, nodes: None, settings: settings.into() };
        copy(&template(), &made.data());
        made
    }

    /// Starts it, on the data and the port that it had.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = mortal(&find("mariadbd", "ONLYONCE_TEST_MARIADB", &FOLDERS));
        command.arg("--no-defaults").arg(format!("--user={}", user()));
        command.arg(format!("--datadir={}", self.data().display()));
        command.arg(format!("--port={}", self.port()));
        for (name, file) in [("socket", "socket"), ("pid-file", "pid"), ("tmpdir", "")] {
            command.arg(format!("--{name}={}", self.folder.path().join(file).display()));
        }
        for (name, value) in &self.settings {
            command.arg(format!("--{}={value}", name.replace('_', "-")));
        }
        let log = self.folder.path().join("server.log");
        let mut server = Server::start(command, &log);
        let mut ask = self.client("mysql");
        ask.args(["--execute", "SELECT 1"]);
        server.await_ready(&log, || ask.output().is_ok_and(|ended| ended.status.success()));
        self.server = Some(server);
        if self.nodes.is_some() {
            until("the cluster", || {
                let ready = self.sql("mysql", "SHOW STATUS LIKE 'wsrep_ready'");
                ready.ends_with("ON").then_some(())
            });
        }
    }

    /// Lets it end in good order, with nothing left to be replayed.
    pub fn stop(&mut self) {
        self.sql("mysql", "SET GLOBAL innodb_fast_shutdown = 0");
        self.server.iter_mut().for_each(Server::stop);
        self.server = None;
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
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Lets it start with its own value from now on.
    pub fn unset(&mut self, name: &str) {
        self.settings.retain(|(known, _)| known != name);
    }

    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The address of a database, as its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port())
    }

    /// What statements print, without headings, a row a line with tabs between the columns.
    ///
    /// # Panics
    /// One of them is refused; with what the server says.
    pub fn sql(&self, database: &str, text: &str) -> String {
        said(self.client(database).args(["--execute", text]))
    }

    fn client(&self, database: &str) -> Command {
        let mut ask = Command::new(find("mariadb", "ONLYONCE_TEST_MARIADB_CLIENT", &[]));
        ask.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root"]);
        ask.args(["--host=127.0.0.1", &format!("--port={}", self.port()), database]);
        ask
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// The data of a new server, made once on this machine for each program: it takes half a second.
fn template() -> PathBuf {
    let server = fs::metadata(find("mariadbd", "ONLYONCE_TEST_MARIADB", &FOLDERS)).unwrap();
    let (made, length, owner) = (server.mtime(), server.len(), rustix::process::geteuid());
    let name = format!("onlyonce-testbed-mariadb-{}-{made}-{length}", owner.as_raw());
    let place = std::env::temp_dir().join(name);
    if place.is_dir() {
        return place;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut make = mortal(&find("mariadb-install-db", "ONLYONCE_TEST_MARIADB_INSTALL", &[]));
    make.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
    make.args(["--innodb-flush-method=nosync", "--innodb-log-file-size=24M"]);
    make.arg(format!("--datadir={}", data.display()));
    make.arg(format!("--tmpdir={}", folder.path().display()));
    // It must be said for the superuser, and may be for everybody.
    make.arg(format!("--user={}", user()));
    said(&mut make);
    // Another test may have been faster; its data are the same.
    if let Err(error) = fs::rename(&data, &place) {
        assert!(place.is_dir(), "{}: {error}", place.display());
    }
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The user that the server is to run as: ourselves.
fn user() -> String {
    let id = rustix::process::geteuid().as_raw();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ours = users.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()));
    ours.and_then(|line| line.split(':').next()).unwrap_or("root").to_owned()
}

/// What a command printed.
fn said(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&ended.stdout).trim_end().to_owned()
}
