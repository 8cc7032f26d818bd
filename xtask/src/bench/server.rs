//! Servers under load: each its own process on a free port, ended by its id when dropped.

use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::process::Guarded;
use crate::{Failure, repo};

/// How long a server has until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// A running server.
pub(super) struct Server {
    guard: Guarded,
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
}

impl Server {
    /// One of the servers of `examples/baseline.rs`.
    pub(super) fn baseline(arguments: &[&str]) -> Result<Self, Failure> {
        let program = repo::root().join("target/release/examples/baseline");
        Self::told(Command::new(program).args(arguments))
    }

    /// Starts a server that says `listening on http://HOST:PORT` on either of its outputs.
    pub(super) fn told(command: &mut Command) -> Result<Self, Failure> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut guard = Guarded::spawn(command)?;
        let (sender, lines) = channel();
        let child = guard.child();
        if let Some(pipe) = child.stdout.take() {
            pass_on(pipe, sender.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            pass_on(pipe, sender);
        }
        let port =
            told_port(&lines).map_err(|said| format!("{command:?} does not listen: {said}"))?;
        listens(Self { guard, port })
    }

    /// Starts a server that was told its port.
    pub(super) fn at(port: u16, command: &mut Command) -> Result<Self, Failure> {
        let mut log = tempfile::tempfile()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        listens(Self { guard: Guarded::spawn(command)?, port }).map_err(|failure| {
            let mut said = String::new();
            // What it said is only a hint; the failure stands without it.
            let _ = log.rewind().and_then(|()| log.read_to_string(&mut said));
            format!("{failure}; it said: {}", said.lines().take(3).collect::<Vec<_>>().join(" / "))
                .into()
        })
    }

    /// nginx with a configuration of its own in `folder`; `location` is what it does with `/`.
    pub(super) fn nginx(folder: &Path, upstream: u16, location: &str) -> Result<Self, Failure> {
        let port = free_port()?;
        let folder_name = folder.display();
        let root = rustix::process::geteuid().is_root();
        let user = if root { "user root;" } else { "" };
        let configuration = format!(
            "daemon off; worker_processes 2; pid {folder_name}/pid; {user}
             error_log {folder_name}/error.log;
             events {{ worker_connections 4096; }}
             http {{
               access_log off; keepalive_requests 1000000000;
               client_body_temp_path {folder_name}/body; proxy_temp_path {folder_name}/proxy;
               fastcgi_temp_path {folder_name}/f; uwsgi_temp_path {folder_name}/u;
               scgi_temp_path {folder_name}/s;
               upstream behind {{
                 server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000;
               }}
               server {{
                 listen 127.0.0.1:{port} backlog=4096;
                 location / {{ {location} }}
               }}
             }}"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
        Self::at(port, &mut command)
    }

    /// The URL of `path` on it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// How many POSTs a `baseline upstream` has answered.
    pub(super) fn runs(&self) -> Result<u64, Failure> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"GET /runs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, runs) = answer.split_once("\r\n\r\n").ok_or("the upstream does not count")?;
        Ok(runs.trim().parse()?)
    }

    /// CPU microseconds used so far by it and by the processes it started, ended ones excepted.
    pub(super) fn cpu_us(&self) -> u64 {
        cpu_us(self.guard.id())
    }
}

/// Waits until the server takes a connection.
fn listens(mut server: Server) -> Result<Server, Failure> {
    let watch = Stopwatch::start();
    while watch.elapsed() < LISTENS_WITHIN {
        if TcpStream::connect(("127.0.0.1", server.port)).is_ok() {
            return Ok(server);
        }
        if let Some(status) = server.guard.try_wait()? {
            return Err(format!("a server ended before it listened: {status}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("nothing listens on port {} after {LISTENS_WITHIN:?}", server.port).into())
}

/// Reads a pipe to its end so that the server never blocks on it.
fn pass_on(pipe: impl Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // Nobody listens any more once the port is known; the pipe is still drained.
            let _ = sender.send(line);
        }
    });
}

fn told_port(lines: &Receiver<String>) -> Result<u16, String> {
    let watch = Stopwatch::start();
    let mut said = Vec::new();
    while let Some(left) = LISTENS_WITHIN.checked_sub(watch.elapsed()) {
        let Ok(line) = lines.recv_timeout(left) else { break };
        if let Some(port) = port_in(&line) {
            return Ok(port);
        }
        said.push(line);
    }
    Err(said.join("\n"))
}

/// The port in `... listening on http://HOST:PORT...`.
fn port_in(line: &str) -> Option<u16> {
    let (_, url) = line.split_once("listening on http://")?;
    let (_, port) = url.split_once(':')?;
    let end = port.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(port.len());
    port[..end].parse().ok()
}

/// A port that was free a moment ago, for servers that cannot choose one themselves.
pub(super) fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn cpu_us(process: u32) -> u64 {
    let own = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .ok()
        .and_then(|stat| cpu_ticks(&stat))
        .map_or(0, |ticks| ticks * (1_000_000 / rustix::param::clock_ticks_per_second()));
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    own + children.split_whitespace().filter_map(|id| id.parse().ok()).map(cpu_us).sum::<u64>()
}

/// `utime + stime` of all threads, which the kernel counts in ticks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name of the program, in brackets, may contain spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::{cpu_ticks, port_in};

    #[test]
    fn the_port_is_read_from_the_line() {
        assert_eq!(port_in("INFO listening on http://127.0.0.1:8080 store=journal"), Some(8080));
        assert_eq!(port_in("listening on http://127.0.0.1:9"), Some(9));
        assert_eq!(port_in("listening"), None);
    }

    #[test]
    fn the_ticks_are_read_behind_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 5";
        assert_eq!(cpu_ticks(stat), Some(42));
    }
}
