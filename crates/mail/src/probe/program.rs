//! Programs of a mail server, and what they print.

use std::ffi::OsString;
use std::process::Stdio;

use tokio::process::Command;

/// Where mail servers have their programs, which few people have in their search path.
const FOLDERS: &str = "/usr/sbin:/usr/local/sbin:/sbin";

/// What a program prints; it is ended when nobody waits for it any more.
///
/// # Errors
/// It cannot be run, or fails; for a person.
pub(super) async fn said(program: &str, arguments: &[OsString]) -> Result<String, String> {
    let mut command = Command::new(program);
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(FOLDERS);
    command.args(arguments).env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
    let ended = command.output().await.map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&ended.stderr);
    let line = error.lines().next().unwrap_or_default();
    Err(format!("{program} ended with {}: {line}", ended.status))
}

/// The same, of one that prints a single line.
pub(super) async fn line(program: &str, arguments: &[OsString]) -> Result<String, String> {
    said(program, arguments).await.map(|said| said.trim().to_owned())
}
