//! `onlyonce run`: a command that was asked for once happens once. Effects are lines that the
//! command appends to a file.

mod died;
mod output;
mod refused;
mod signals;
mod together;
mod unknown;

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::process::{onlyonce, until};

/// The exit codes of its own, as the documents have them.
const IN_PROGRESS: i32 = 190;
const MISMATCH: i32 = 191;
const UNKNOWN: i32 = 192;
const GONE: i32 = 193;
const EXPIRED: i32 = 194;
const STORE: i32 = 195;
const NOT_EXECUTED: i32 = 196;
const SEALED: i32 = 197;

/// A folder with a store of commands, and a file where their effects are counted.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        onlyonce(["store", "init", "--first", "--store", &place.store()]).done();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The store of this user.
    fn store(&self) -> String {
        let state = self.path("onlyonce");
        std::fs::create_dir_all(&state).unwrap();
        format!("sqlite:{}", state.join("run.db").display())
    }

    /// A wrapper of `sh -c SCRIPT`, with these flags. `$EFFECTS` names the file of effects.
    fn command(&self, flags: &[&str], script: &str) -> Command {
        let mut command = self.plain(flags);
        command.args(["--", "sh", "-c", script]);
        command
    }

    fn plain(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onlyonce"));
        command.arg("run").args(flags).current_dir(self.0.path());
        command.env("XDG_STATE_HOME", self.0.path()).env("EFFECTS", self.path("effects"));
        command.env_remove("ONLYONCE_STORE").env_remove("ONLYONCE_KEY");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, flags: &[&str], script: &str) -> Ended {
        Wrapper::start(self.command(flags, script)).ended()
    }

    fn start(&self, flags: &[&str], script: &str) -> Wrapper {
        Wrapper::start(self.command(flags, script))
    }

    /// How many effects there were.
    fn effects(&self) -> usize {
        std::fs::read_to_string(self.path("effects")).map_or(0, |it| it.lines().count())
    }

    #[track_caller]
    fn until_effects(&self, count: usize) {
        until("an effect", || (self.effects() == count).then_some(()));
    }

    /// What `onlyonce keys list` says of the one key.
    fn key(&self) -> serde_json::Value {
        let listed = onlyonce(["keys", "list", "--json", "--store", &self.store()]).done();
        assert_eq!(listed.lines().count(), 1, "{listed}");
        serde_json::from_str(&listed).unwrap()
    }

    /// Settles the one key.
    #[track_caller]
    fn resolve(&self, verdict: &[&str]) {
        let (key, store) = (self.key(), self.store());
        let fence = key["fence"].to_string();
        let id = key["id"].as_str().unwrap();
        let arguments = ["keys", "resolve", id, "--fence", &fence, "--why", "seen"];
        onlyonce(arguments.iter().chain(&["--store", &store]).chain(verdict)).done();
    }
}

/// How a wrapper ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    /// `None` if a signal ended it.
    code: Option<i32>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Ended {
    /// That it ended with this code; the lines that are onlyonce's own.
    #[track_caller]
    fn said(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        let text = String::from_utf8_lossy(&self.err);
        text.lines().filter(|it| it.starts_with("onlyonce: ")).collect::<Vec<_>>().join("\n")
    }

    /// That it ended with a code of its own: it ran nothing, and says in one line why.
    #[track_caller]
    fn refused(&self, code: i32, says: &str) {
        let said = self.said(code);
        assert!(said.contains(says) && said.lines().count() == 1, "{self}");
        assert!(self.out.is_empty(), "{self}");
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (out, err) = (String::from_utf8_lossy(&self.out), String::from_utf8_lossy(&self.err));
        write!(f, "{:?}\nout: {out}\nerr: {err}", self.code)
    }
}

/// A wrapper that runs, killed when it is dropped.
struct Wrapper {
    child: Child,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<Vec<u8>>>,
}

impl Wrapper {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().map(reading);
        let err = child.stderr.take().map(reading);
        Self { child, out, err }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a power cut does; what it has run goes on.
    fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    #[track_caller]
    fn ended(mut self) -> Ended {
        let status = until("the end of a wrapper", || self.child.try_wait().unwrap());
        let all = |it: Option<JoinHandle<Vec<u8>>>| it.map(|it| it.join().unwrap());
        let (out, err) = (all(self.out.take()), all(self.err.take()));
        Ended { code: status.code(), out: out.unwrap_or_default(), err: err.unwrap_or_default() }
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reading(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// A process whose number stands in a file, ended when it is dropped.
struct Left(Pid);

impl Left {
    #[track_caller]
    fn named_in(file: &std::path::Path) -> Self {
        Self(until("a number in a file", || {
            let text = std::fs::read_to_string(file).ok()?;
            Pid::from_raw(text.strip_suffix('\n')?.parse().ok()?)
        }))
    }

    /// Ends it, and waits until it has.
    #[track_caller]
    fn end(&self) {
        // It may have ended already, and then there is nothing to end.
        let _ = kill_process(self.0, Signal::KILL);
        until("the end of a process", || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).ok();
            let is_zombie = state.is_some_and(|it| it.contains(") Z "));
            (is_zombie || test_kill_process(self.0).is_err()).then_some(())
        });
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        self.end();
    }
}

/// Writes to a command's input.
fn with_input(mut command: Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped());
    let mut wrapper = Wrapper::start(command);
    wrapper.child.stdin.take().unwrap().write_all(input).unwrap();
    wrapper.ended()
}

/// The arguments of a command that is no shell.
fn arguments<'a>(words: &'a [&'a str]) -> impl Iterator<Item = &'a OsStr> {
    words.iter().map(OsStr::new)
}
