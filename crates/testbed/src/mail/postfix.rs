//! Postfix: one server, which delivers to a sink, or keeps everything in its queue.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{folder, make, unpacked, user};
use crate::port::Port;
use crate::process::{Server, processes_in, until};
use crate::program::mortal;

/// Whom its programs and its queue belong to, and the group of whoever hands mail in: those that
/// each system has.
const OWNER: &str = "daemon";
const GROUP: &str = "mail";

/// The services that are needed to take, keep and deliver mail.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";

/// A Postfix that takes mail for everybody from this machine.
#[derive(Debug)]
pub struct Postfix {
    // Dropped in this order: nobody writes to a folder that is gone.
    server: Option<Server>,
    folder: TempDir,
    root: PathBuf,
    port: Port,
}

impl Postfix {
    /// One that delivers everything to this server; without one, everything stays in its queue.
    pub fn start(to: Option<SocketAddr>) -> Self {
        Self::start_with(to, "")
    }

    /// The same with more lines of `main.cf`.
    pub fn start_with(to: Option<SocketAddr>, settings: &str) -> Self {
        let root = unpacked("postfix", "usr/lib/postfix/sbin/master");
        let (folder, port) = (folder(), Port::free());
        let mut postfix = Self { server: None, folder, root, port };
        postfix.prepare(to, settings);
        postfix.restart();
        postfix
    }

    fn prepare(&self, to: Option<SocketAddr>, settings: &str) {
        let path = |name: &str| self.folder.path().join(name);
        let (owner, group) = (user(OWNER), user(GROUP).1);
        make(&path("etc"), (0, 0), 0o755);
        make(&path("data"), owner, 0o700);
        make(&path("queue"), (0, 0), 0o755);
        let queue = path("queue");
        make(&queue.join("pid"), (0, 0), 0o755);
        make(&queue.join("public"), (owner.0, group), 0o710);
        make(&queue.join("maildrop"), (owner.0, group), 0o730);
        for name in ["active", "bounce", "corrupt", "defer", "deferred", "flush"] {
            make(&queue.join(name), owner, 0o700);
        }
        for name in ["hold", "incoming", "private", "saved", "trace"] {
            make(&queue.join(name), owner, 0o700);
        }
        let at = self.folder.path().display();
        let root = self.root.display();
        let libraries = self.libraries();
        let delivery = match to {
            Some(to) => format!("default_transport = smtp:[{}]:{}\n", to.ip(), to.port()),
            None => "default_transport = smtp:[127.0.0.1]:9\ndefer_transports = smtp\n".to_owned(),
        };
        let config = format!(
            "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\n\
             meta_directory = {at}/etc\ncommand_directory = {root}/usr/sbin\n\
             daemon_directory = {root}/usr/lib/postfix/sbin\n\
             shlib_directory = {root}/usr/lib/postfix\nmail_owner = {OWNER}\n\
             setgid_group = {GROUP}\nmyhostname = mx.postfix.example\nmydestination =\n\
             local_recipient_maps =\nalias_maps =\nalias_database =\ninet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\nsmtpd_peername_lookup = no\n\
             smtpd_client_connection_count_limit = 0\nsmtpd_error_sleep_time = 0\n\
             disable_dns_lookups = yes\nmax_idle = 10s\nsmtp_tls_security_level = none\n\
             in_flow_delay = 0\n\
             maillog_file = {at}/mail.log\nmaillog_file_prefixes = {at}\n\
             import_environment = MAIL_CONFIG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH={libraries} \
             POSTLOG_SERVICE POSTLOG_HOSTNAME\n{delivery}{settings}\n"
        );
        fs::write(path("etc/main.cf"), config).unwrap();
        fs::write(path("etc/dynamicmaps.cf"), "").unwrap();
        let port = self.port.number();
        let services = format!("127.0.0.1:{port} inet n - n - - smtpd\n{SERVICES}");
        fs::write(path("etc/master.cf"), services).unwrap();
    }

    /// Starts it, on the queue and the port that it had.
    pub fn restart(&mut self) {
        self.kill();
        let queue = self.folder.path().join("queue");
        let mut command = mortal(&self.root.join("usr/lib/postfix/sbin/master"));
        command.arg("-c").arg(self.config()).arg("-s").env_clear().envs(self.environment());
        let (said, address) = (self.folder.path().join("said"), self.address());
        let mut server = Server::start(command, &said);
        server.await_ready(&said, || {
            TcpStream::connect(address).is_ok() && queue.join("public/qmgr").exists()
        });
        self.server = Some(server);
    }

    /// Ends it without a word (SIGKILL), and the processes that it has started.
    pub fn kill(&mut self) {
        self.server = None;
        let queue = self.folder.path().join("queue");
        // They work in the queue. Without their master they would end, once nothing is to be done.
        until("the end of the server", || {
            let left = processes_in(&queue);
            for id in left.iter().filter_map(|id| Pid::from_raw(i32::try_from(*id).ok()?)) {
                let _ = kill_process(id, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its folder of configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("etc")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("mail.log")
    }

    /// What its programs need in their environment: they are not where they were built for.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.programs().display());
        [("PATH", path), ("LD_LIBRARY_PATH", self.libraries())].into()
    }

    /// What is in its queue, each as a JSON object: what `postqueue -j` prints.
    ///
    /// # Panics
    /// It does not answer.
    pub fn queue(&self) -> Vec<String> {
        let mut command = Command::new(self.programs().join("postqueue"));
        command.arg("-c").arg(self.config()).arg("-j").envs(self.environment());
        let ended = command.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{said}");
        String::from_utf8_lossy(&ended.stdout).lines().map(ToOwned::to_owned).collect()
    }

    fn programs(&self) -> PathBuf {
        self.root.join("usr/sbin")
    }

    fn libraries(&self) -> String {
        Path::new(&self.root).join("usr/lib/postfix").display().to_string()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.kill();
    }
}
