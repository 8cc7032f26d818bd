//! The binary as a child that never outlives its test, and the folder that it works in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::upstream::Upstream;

/// How often a condition is looked at, and how many times before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOKS_MAX: u32 = 6_000;

/// Looks until there is something to see.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    panic!("never: {what}")
}

/// How a command ended, and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// That it was done; and what it printed.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// That it ended with this code; and what it told.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        self.err
    }
}

/// Runs a command to its end.
pub(crate) fn onlyonce<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    Running::start(arguments).ended()
}

/// The same as somebody does whose shell is in this folder.
pub(crate) fn onlyonce_in<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Ran {
    Running::start_in(folder, arguments).ended()
}

/// A command that runs, killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    out: Said,
    err: Said,
}

impl Running {
    pub(crate) fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self::start_in(Path::new("."), arguments)
    }

    /// With this in its environment too.
    pub(crate) fn start_with<S: AsRef<OsStr>>(
        arguments: impl IntoIterator<Item = S>,
        environment: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onlyonce"));
        Self::spawn(command.args(arguments).envs(environment))
    }

    fn start_in<S: AsRef<OsStr>>(folder: &Path, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onlyonce"));
        Self::spawn(command.args(arguments).current_dir(folder))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .env_remove("ONLYONCE_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Said::by(child.stdout.take().unwrap());
        let err = Said::by(child.stderr.take().unwrap());
        Self { child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ran {
        let status = until("the end of a command", || self.child.try_wait().unwrap());
        Ran { code: status.code(), out: self.out.all(), err: self.err.all() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was said so far, read by a thread so that the child can always write.
struct Said {
    text: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Said {
    fn by(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let saying = Arc::clone(&text);
        let reading = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| 0 < read) {
                saying.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reading: Some(reading) }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn all(&mut self) -> String {
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        self.so_far()
    }
}

/// A folder with a store in it, or one that is going to be.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// With a store that remembers that there never was another.
    pub(crate) fn with_store() -> Self {
        let folder = Self::empty();
        onlyonce(["store", "init", "--first", "--store", &folder.store()]).done();
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The journal's folder.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    /// The store's address.
    pub(crate) fn store(&self) -> String {
        format!("journal:{}", self.journal().display())
    }

    /// Writes a file beside the journal and says where.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

/// All files of a folder with what is in them, but for the note of who has it. The socket of that
/// one is no file: who opens it as one is told ENXIO.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_name() != "lock" && entry.path().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// A proxy that listens.
pub(crate) struct Proxy {
    running: Running,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// Starts one on a free port, with more arguments.
    #[track_caller]
    pub(crate) fn start_with(store: &str, upstream: &Upstream, more: &[&str]) -> Self {
        Self::start_in(store, upstream, more, [])
    }

    /// With this in its environment too.
    #[track_caller]
    pub(crate) fn start_in(
        store: &str,
        upstream: &Upstream,
        more: &[&str],
        environment: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let url = upstream.url();
        let arguments = ["proxy", "--listen", "127.0.0.1:0", "--upstream", &url, "--store", store];
        let mut running = Running::start_with(arguments.iter().chain(more), environment);
        let address = until("a proxy that listens", || {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("it ended early: {status}\n{}{}", running.out.all(), running.err.all());
            }
            let said = running.out.so_far();
            let from = said.find("listening on http://")? + "listening on http://".len();
            said[from..].split_once(' ')?.0.parse().ok()
        });
        Self { running, address }
    }

    #[track_caller]
    pub(crate) fn start(folder: &Folder, upstream: &Upstream) -> Self {
        Self::start_with(&folder.store(), upstream, &[])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// All that it printed until it listened.
    pub(crate) fn hello(&self) -> String {
        self.running.out.so_far()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    pub(crate) fn ended(self) -> Ran {
        self.running.ended()
    }

    /// Ends it as a service manager does; it must end well.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        self.ended().done();
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        assert_eq!(self.ended().code, None);
    }
}

/// A record service that listens.
pub(crate) struct Service {
    running: Running,
    /// `http://ADDRESS` or `unix:PATH`.
    pub(crate) url: String,
}

impl Service {
    /// Starts one with these arguments behind `serve`.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut running = Running::start(["serve"].iter().chain(arguments));
        let url = until("a service that listens", || {
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("it ended early: {status}\n{}{}", running.out.all(), running.err.all());
            }
            let said = running.out.so_far();
            let (_, rest) = said.split_once("listening on ")?;
            rest.split_once(' ').map(|(url, _)| url.to_owned())
        });
        Self { running, url }
    }

    /// Ends it as a service manager does; it must end well.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.running.signal(Signal::TERM);
        self.running.ended().done();
    }

    /// Ends it as a power cut does.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::KILL);
        assert_eq!(self.running.ended().code, None);
    }
}
