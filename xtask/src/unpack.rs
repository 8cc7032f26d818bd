//! Mail servers for tests, unpacked below `target`: a machine can have one only, and its own stays
//! as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::{Outcome, install, process, repo, steps};

/// A folder below `target`, its program there, and the Debian package.
type Unpacked = (&'static str, &'static str, &'static str);

const SERVERS: [Unpacked; 2] = [
    ("postfix", "usr/lib/postfix/sbin/master", "postfix"),
    ("exim4", "usr/sbin/exim4", "exim4-daemon-light"),
];
/// The user that Debian's Exim looks for, and does not start without.
const USER: &str = "Debian-exim";

/// Unpacks those that are not there, and installs the libraries that they need.
pub(crate) fn mail_servers() -> Outcome {
    for (name, program, package) in SERVERS {
        let folder = repo::root().join("target").join(name);
        if !folder.join("done").is_file() {
            println!("    unpacking {package}");
            unpack(&folder, program, package).map_err(|failure| {
                format!("{failure}\n{package} cannot be unpacked to {}", folder.display())
            })?;
        }
    }
    user()
}

fn unpack(folder: &Path, program: &str, package: &str) -> Outcome {
    let parts = folder.join("packages");
    // What an earlier try has left may be half of it.
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(&parts)?;
    let download = format!("cd '{}' && apt-get download -q {package}", parts.display());
    let get = || steps::quiet("download", Command::new("sh").args(["-c", &download]));
    get().or_else(|_| {
        // An image without package lists: fetch them once, then try again.
        steps::quiet("apt-update", &mut install::apt("update"))?;
        get()
    })?;
    for part in fs::read_dir(&parts)? {
        let mut unpack = Command::new("dpkg-deb");
        steps::quiet("unpack", unpack.arg("-x").arg(part?.path()).arg(folder))?;
    }
    // Nobody needs a program of the superuser's for everybody in a folder of builds.
    fs::set_permissions(folder.join(program), fs::Permissions::from_mode(0o755))?;
    install::run_packages(&libraries(package)?)?;
    Ok(fs::write(folder.join("done"), package)?)
}

/// The libraries that a package asks for.
fn libraries(package: &str) -> Result<Vec<String>, crate::Failure> {
    let (said, _) = process::output(Command::new("apt-cache").args(["depends", package]))?;
    let named = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: lib"));
    Ok(named.map(|name| format!("lib{name}")).collect())
}

fn user() -> Outcome {
    let users = fs::read_to_string("/etc/passwd")?;
    if users.lines().any(|line| line.split(':').next() == Some(USER)) {
        return Ok(());
    }
    let nobody = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"];
    let mut make = install::as_root("useradd");
    steps::quiet("useradd", make.args(nobody).args(["--shell", "/usr/sbin/nologin", USER]))
}
