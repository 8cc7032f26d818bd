//! Where programs are, and what to say when they are not installed.

use std::path::PathBuf;
use std::process::Command;

/// Finds a server's program: what the environment variable `variable` names, or `program` in the
/// search path or in one of `folders`, where Debian keeps programs that people seldom call.
pub fn find(program: &str, variable: &str, folders: &[&str]) -> PathBuf {
    if let Some(named) = std::env::var_os(variable) {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(folders.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!("{program} is not installed: `cargo xtask install` installs what tests use")
        })
}

/// A command that is killed with the thread that starts it.
pub(crate) fn mortal(program: &PathBuf) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
