//! PostgreSQL: one server, and standbys of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{Server, end, processes_in, until};
use crate::program::find;
use crate::tls::Authority;

/// Settings of a small server; those that decide what is kept are the server's own.
const SMALL: [(&str, &str); 5] = [
    ("shared_buffers", "16MB"),
    ("max_wal_size", "128MB"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    // Files in its folder, and none that a kill leaves in memory for ever.
    ("dynamic_shared_memory_type", "mmap"),
];

/// A PostgreSQL server. Whoever asks at its port is let in as the user that he names.
#[derive(Debug)]
pub struct Postgres {
    port: Port,
    folder: TempDir,
    settings: Vec<(String, String)>,
    server: Option<Server>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Postgres {
    /// One with the server's own settings.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One with these settings.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut postgres = Self::prepare(settings);
        let data = postgres.data();
        let mut make = owned(&program("initdb"));
        make.args(["--no-sync", "--auth", "trust", "--username", "postgres", "--encoding", "UTF8"]);
        make.args(["--locale", "C", "--pgdata"]).arg(&data);
        said(make.current_dir(postgres.folder.path()));
        postgres.restart();
        postgres
    }

    /// One that lets its superuser in as ever, and everybody else by TLS only: with a certificate
    /// of this authority for a client of the user's name if that is `certified`.
    pub fn start_with_tls(authority: &Authority) -> Self {
        let mut postgres = Self::start();
        let pair = authority.server(postgres.folder.path());
        let ca = postgres.folder.path().join("ca.pem");
        let files = [("ssl_cert_file", pair.certificate), ("ssl_key_file", pair.key)];
        for (name, file) in files.into_iter().chain([("ssl_ca_file", ca)]) {
            postgres.set(name, &file.display().to_string());
        }
        postgres.set("ssl", "on");
        let rules = "host all postgres 127.0.0.1/32 trust\n\
                     hostssl all certified 127.0.0.1/32 cert\n\
                     hostssl all all 127.0.0.1/32 trust\n";
        fs::write(postgres.data().join("pg_hba.conf"), rules).unwrap();
        postgres.restart();
        postgres
    }

    /// A standby of another, which it reads from.
    pub fn standby_of(primary: &Self) -> Self {
        let mut postgres = Self::prepare(&[]);
        let mut copy = owned(&program("pg_basebackup"));
        copy.args(["--no-sync", "--checkpoint", "fast", "--write-recovery-conf"]);
        copy.args(["--username", "postgres", "--host", "127.0.0.1", "--port"]);
        copy.arg(primary.port().to_string()).arg("--pgdata").arg(postgres.data());
        said(copy.current_dir(postgres.folder.path()));
        postgres.restart();
        postgres
    }

    fn prepare(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some((user, group)) = server_user() {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let settings = SMALL.iter().chain(settings);
        let settings = settings.map(|(name, value)| (name.to_string(), value.to_string()));
        Self { port: Port::free(), folder, settings: settings.collect(), server: None }
    }

    /// Starts it, on the data and the port that it had.
    pub fn restart(&mut self) {
        self.kill();
        let data = self.data();
        let mut command = owned(&program("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(self.folder.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.number().to_string()]);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.current_dir(self.folder.path());
        let log = self.folder.path().join("server.log");
        let mut server = Server::start(command, &log);
        let port = self.port.number().to_string();
        server.await_ready(&log, || {
            let mut ask = Command::new(program("pg_isready"));
            ask.args(["-q", "-U", "postgres", "-d", "postgres", "-h", "127.0.0.1", "-p", &port]);
            ask.status().is_ok_and(|status| status.success())
        });
        self.server = Some(server);
    }

    /// Ends it without a word (SIGKILL), with all its processes: one that serves a connection
    /// answers for a moment more when only the first is gone, and one that has nothing to do may
    /// stay.
    pub fn kill(&mut self) {
        self.server = None;
        let data = self.data();
        until("the end of its processes", || {
            let left = processes_in(&data);
            left.iter().for_each(|id| end(*id));
            left.is_empty().then_some(())
        });
        // The system keeps some memory of one that was killed, and has room for so many: its
        // number is the second of the seventh line.
        let told = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        let line = told.lines().nth(6).unwrap_or_default();
        if let Some(number) = line.split_whitespace().nth(1) {
            let _ = Command::new("ipcrm").args(["-m", number]).output();
        }
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The address of a database, as its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// What statements print, without headings, each in a transaction of its own.
    ///
    /// # Panics
    /// One of them is refused; with what the server says.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let mut ask = Command::new(program("psql"));
        ask.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]);
        ask.args(["127.0.0.1", "-p", &self.port().to_string(), "-d", database]);
        for statement in text.split_inclusive(';') {
            ask.args(["-c", statement]);
        }
        said(&mut ask)
    }

    /// A dump of a schema, as statements for [`Self::load`].
    pub fn dump(&self, database: &str, schema: &str) -> String {
        let mut dump = Command::new(program("pg_dump"));
        dump.args(["-U", "postgres", "-h", "127.0.0.1", "-p", &self.port().to_string()]);
        said(dump.args(["-n", schema, "-d", database]))
    }

    /// Carries out a dump.
    ///
    /// # Panics
    /// A statement is refused; with what the server says.
    pub fn load(&self, database: &str, dump: &str) {
        let file = self.folder.path().join("dump.sql");
        fs::write(&file, dump).unwrap();
        let mut load = Command::new(program("psql"));
        load.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", "127.0.0.1"]);
        load.args(["-p", &self.port().to_string(), "-d", database, "-f"]).arg(file);
        said(&mut load);
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// A program of the newest server that is installed.
fn program(name: &str) -> PathBuf {
    let mut folders: Vec<String> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").display().to_string()))
        .collect();
    folders.sort_unstable_by_key(|folder| std::cmp::Reverse((folder.len(), folder.clone())));
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let server = find("postgres", "ONLYONCE_TEST_POSTGRES", &folders);
    // Not what may lead there from the search path: the programs lie beside each other.
    let server = server.canonicalize().unwrap_or(server);
    server.parent().unwrap_or(Path::new("/")).join(name)
}

/// The user that the server runs as, if we are the superuser, whom it refuses.
pub(crate) fn server_user() -> Option<(u32, u32)> {
    let is_root = rustix::process::geteuid().is_root();
    let users = if is_root { fs::read_to_string("/etc/passwd").unwrap() } else { return None };
    let number = |at| {
        let user = users.lines().find(|line| line.starts_with("postgres:"));
        let user = user.expect("there is no user postgres: `cargo xtask install` makes it");
        user.split(':').nth(at).unwrap().parse().unwrap()
    };
    Some((number(2), number(3)))
}

/// A command as the server's user, killed with the thread that starts it.
pub(crate) fn owned(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((user, group)) = server_user() {
        let (user, group) = (format!("--reuid={user}"), format!("--regid={group}"));
        command.args([&user, &group, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// What a command printed.
fn said(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?}: {error}");
    String::from_utf8_lossy(&ended.stdout).trim_end().to_owned()
}
