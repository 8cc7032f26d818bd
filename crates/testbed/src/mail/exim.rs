//! Exim: one server, which delivers to a sink, or keeps everything in its queue.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{folder, make, unpacked, user};
use crate::port::Port;
use crate::process::Server;
use crate::program::mortal;

/// The user that Debian's program works as.
const OWNER: &str = "Debian-exim";

/// An Exim that takes mail for everybody from this machine.
#[derive(Debug)]
pub struct Exim {
    // Dropped in this order: nobody writes to a folder that is gone.
    server: Option<Server>,
    folder: TempDir,
    program: PathBuf,
    port: Port,
}

impl Exim {
    /// One that delivers everything to this server; without one, everything stays in its queue.
    pub fn start(to: Option<SocketAddr>) -> Self {
        Self::start_with(to, "")
    }

    /// The same with more lines in the main part of its configuration.
    pub fn start_with(to: Option<SocketAddr>, settings: &str) -> Self {
        let program = unpacked("exim4", "usr/sbin/exim4").join("usr/sbin/exim4");
        let (folder, port) = (folder(), Port::free());
        let owner = user(OWNER);
        for name in ["spool", "log"] {
            make(&folder.path().join(name), owner, 0o750);
        }
        let (at, number) = (folder.path().display(), port.number());
        let (program_, sink) = (program.display(), to.map_or(9, |it| it.port()));
        let chunking = match settings.contains("chunking_advertise_hosts") {
            true => "",
            false => "chunking_advertise_hosts = *\n",
        };
        let keeps = if to.is_some() { "false" } else { "true" };
        let config = format!(
            "exim_path = {program_}\nprimary_hostname = mx.exim.example\n\
             spool_directory = {at}/spool\nlog_file_path = {at}/log/%slog\n\
             pid_file_path = {at}/spool/pid\nlocal_interfaces = 127.0.0.1\n\
             daemon_smtp_ports = {number}\ndisable_ipv6\nhost_lookup =\n\
             rfc1413_query_timeout = 0s\ntls_advertise_hosts =\n{chunking}\
             smtp_accept_max = 200\nsmtp_accept_queue_per_connection = 0\nkeep_environment =\n\
             add_environment = PATH=/usr/sbin:/usr/bin\ndeliver_drop_privilege\n\
             acl_smtp_rcpt = everybody\nqueue_only = {keeps}\n{settings}\n\
             begin acl\neverybody:\n  accept\n\n\
             begin routers\nsink:\n  driver = manualroute\n  route_list = * 127.0.0.1\n\
             \x20 self = send\n  transport = sink\n\n\
             begin transports\nsink:\n  driver = smtp\n  port = {sink}\n  allow_localhost\n\n\
             begin retry\n* * F,1h,1s\n"
        );
        fs::write(folder.path().join("exim.conf"), config).unwrap();
        let mut exim = Self { server: None, folder, program, port };
        exim.restart();
        exim
    }

    /// Starts it, on the spool and the port that it had.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = mortal(&self.program);
        command.arg("-C").arg(self.config()).args(["-bdf", "-q2s"]);
        let (said, address) = (self.folder.path().join("said"), self.address());
        let mut server = Server::start(command, &said);
        server.await_ready(&said, || TcpStream::connect(address).is_ok());
        self.server = Some(server);
    }

    /// Ends it without a word (SIGKILL).
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its file of configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("exim.conf")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log/mainlog")
    }

    /// Its program.
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// What is in its queue, as `exim -bp` prints it.
    ///
    /// # Panics
    /// It does not answer.
    pub fn queue(&self) -> String {
        let mut command = Command::new(&self.program);
        let ended = command.arg("-C").arg(self.config()).arg("-bp").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{said}");
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }
}
