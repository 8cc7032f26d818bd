//! Dovecot: one IMAP server on this machine, with one mailbox, which a test puts messages into.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{folder, make, user};
use crate::port::Port;
use crate::process::{Server, processes_in, until};
use crate::program::{find, mortal};

/// Whom its mail belongs to, and who asks its visitors who they are: users that each system has.
const OWNER: &str = "daemon";
const DOORMAN: &str = "nobody";

/// An IMAP server with the user `archive`, whose password is `secret`, and an INBOX.
#[derive(Debug)]
pub struct Dovecot {
    // Dropped in this order: nobody writes to a folder that is gone.
    server: Option<Server>,
    folder: TempDir,
    port: Port,
    delivered: usize,
}

impl Dovecot {
    /// One with an empty INBOX.
    ///
    /// # Panics
    /// It does not start.
    pub fn start() -> Self {
        let program = find("dovecot", "ONLYONCE_DOVECOT", &["/usr/sbin"]);
        let (folder, port) = (folder(), Port::free());
        let (at, owner) = (folder.path(), user(OWNER));
        for name in ["mail", "mail/Maildir", "mail/Maildir/new", "mail/Maildir/cur"] {
            make(&at.join(name), owner, 0o700);
        }
        make(&at.join("mail/Maildir/tmp"), owner, 0o700);
        for name in ["run", "state"] {
            make(&at.join(name), (0, 0), 0o755);
        }
        fs::write(at.join("dovecot.conf"), configuration(at, port.number(), owner)).unwrap();
        let mut command = mortal(&program);
        command.arg("-F").arg("-c").arg(at.join("dovecot.conf"));
        command.current_dir(at.join("run"));
        let (said, address) = (at.join("said"), port.address());
        let mut server = Server::start(command, &said);
        server.await_ready(&said, || TcpStream::connect(address).is_ok());
        Self { server: Some(server), folder, port, delivered: 0 }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Puts a message into INBOX, as whoever delivers to it does.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn deliver(&mut self, content: &[u8]) {
        self.delivered += 1;
        let maildir = self.folder.path().join("mail/Maildir");
        let name = format!("{}.M1P1.archive.example", 1_764_000_000 + self.delivered);
        let (tmp, new) = (maildir.join("tmp").join(&name), maildir.join("new").join(&name));
        fs::write(&tmp, content).unwrap();
        let (owner, group) = user(OWNER);
        std::os::unix::fs::chown(&tmp, Some(owner), Some(group)).unwrap();
        fs::rename(tmp, new).unwrap();
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.server = None;
        let run = self.folder.path().to_owned();
        until("the end of the server", || {
            let left = processes_in(&run);
            for id in left.iter().filter_map(|id| Pid::from_raw(i32::try_from(*id).ok()?)) {
                let _ = kill_process(id, Signal::KILL);
            }
            left.is_empty().then_some(())
        });
    }
}

fn configuration(at: &Path, port: u16, (owner, group): (u32, u32)) -> String {
    let at = at.display();
    format!(
        "protocols = imap\nlisten = 127.0.0.1\nbase_dir = {at}/run\nstate_dir = {at}/state\n\
         log_path = {at}/log\nssl = no\ndisable_plaintext_auth = no\n\
         default_internal_user = {OWNER}\ndefault_internal_group = {OWNER}\n\
         default_login_user = {DOORMAN}\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n\
         mail_location = maildir:~/Maildir\n\
         passdb {{\n driver = static\n args = password=secret\n}}\n\
         userdb {{\n driver = static\n args = uid={owner} gid={group} home={at}/mail\n}}\n\
         service imap-login {{\n chroot =\n inet_listener imap {{\n  port = {port}\n }}\n \
         inet_listener imaps {{\n  port = 0\n }}\n}}\n\
         service anvil {{\n chroot =\n}}\n"
    )
}
