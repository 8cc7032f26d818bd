//! The real binary as a proxy.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Makes a journal.
pub(crate) fn init(binary: &Path, journal: &Path) -> Result<(), String> {
    let store = format!("journal:{}", journal.display());
    let made = Command::new(binary)
        .args(["store", "init", "--first", "--store", &store])
        .stdout(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("the store could not be made: {other:?}")),
    }
}

/// A proxy process, killed when it is dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    pub(crate) fn start(
        binary: &Path,
        journal: &Path,
        upstream: SocketAddr,
    ) -> Result<Self, String> {
        Self::start_under(&[], binary, journal, upstream)?
            .map_err(|status| format!("the proxy did not start: {status}"))
    }

    /// One on this store, which several may share, with a configuration.
    pub(crate) fn start_on(
        binary: &Path,
        config: &Path,
        store: &str,
        upstream: SocketAddr,
    ) -> Result<Self, String> {
        let more = ["--config", &config.display().to_string(), "--store", store];
        Self::launch(&[], binary, &more, upstream)?
            .map_err(|status| format!("the proxy did not start: {status}"))
    }

    /// Starts it as the last arguments of another command, which must become the proxy itself. The
    /// inner `Err` is how it ended before it listened.
    pub(crate) fn start_under(
        command: &[String],
        binary: &Path,
        journal: &Path,
        upstream: SocketAddr,
    ) -> Result<Result<Self, ExitStatus>, String> {
        let store = format!("journal:{}", journal.display());
        Self::launch(command, binary, &["--store", &store], upstream)
    }

    fn launch(
        command: &[String],
        binary: &Path,
        more: &[&str],
        upstream: SocketAddr,
    ) -> Result<Result<Self, ExitStatus>, String> {
        let binary = binary.display().to_string();
        let mut words = command.iter().chain([&binary]);
        let mut command = Command::new(words.next().unwrap_or(&binary));
        let mut child = command
            .args(words)
            .args(["proxy", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .args(["--upstream", &format!("http://{upstream}")])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let address = BufReader::new(out).lines().map_while(Result::ok).find_map(|line| {
            let rest = line.strip_prefix("listening on http://")?;
            rest.split(' ').next()?.parse().ok()
        });
        let Some(address) = address else {
            return child.wait().map(Err).map_err(|error| error.to_string());
        };
        Ok(Ok(Self { child, address }))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}
