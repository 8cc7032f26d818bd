//! Mail servers: Postfix and Exim, unpacked below `target` since a machine can have one only, a
//! relay before them and a sink behind them. Dovecot is for a mailbox that gets copies.

mod dovecot;
mod exim;
mod postfix;
mod relay;
mod sink;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub use dovecot::Dovecot;
pub use exim::Exim;
pub use postfix::Postfix;
pub use relay::{Cut, Fate, MailRelay, Word};
pub use sink::{Arrived, MailSink};

/// Where a server was unpacked: below `target` of the repository, or of the one that this is a
/// copy in.
fn unpacked(name: &str, program: &str) -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut there = above.map(|it| it.join("target").join(name));
    there.find(|it| it.join(program).is_file()).unwrap_or_else(|| {
        panic!("{name} is not installed: `cargo xtask install` unpacks what tests use")
    })
}

/// The numbers of a user and of its group.
fn user(name: &str) -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let user = users.lines().find(|line| line.split(':').next() == Some(name));
    let user = user.unwrap_or_else(|| {
        panic!("there is no user {name}: `cargo xtask install` makes those that tests use")
    });
    let number = |at| user.split(':').nth(at).unwrap().parse().unwrap();
    (number(2), number(3))
}

/// A folder that other users can pass through: these servers work as users of their own, which
/// only the superuser can become.
fn folder() -> TempDir {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root, "mail servers are started by the superuser: run this as root");
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    folder
}

/// Makes a folder in it, for this user and group.
fn make(path: &Path, (user, group): (u32, u32), mode: u32) {
    fs::create_dir_all(path).unwrap();
    chown(path, Some(user), Some(group)).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
