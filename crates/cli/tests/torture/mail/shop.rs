//! A shop with a store and a spool, and its sender: the real binary.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use super::{Stop, TRIES_MAX};

/// Who adds messages at once.
const ADDERS: usize = 4;
/// How many recipients a message has; each is a message of its own.
const RECIPIENTS: usize = 20;

pub(crate) struct Shop {
    binary: PathBuf,
    folder: tempfile::TempDir,
    server: SocketAddr,
    environment: Vec<(&'static str, String)>,
    doubts: Doubts,
    stop: Stop,
}

/// The keys of which senders have said that nobody knows. They stay so until somebody is asked.
type Doubts = Arc<Mutex<BTreeSet<String>>>;

/// A sender, killed when it is dropped.
pub(crate) struct Sender(Child, Option<JoinHandle<()>>);

impl Sender {
    /// Without a word to it.
    pub(crate) fn kill(self) {}
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
        // Nothing more is heard then.
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// Notes what a sender says, until it ends.
fn hear(said: ChildStdout, doubts: Doubts) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            let key = line.strip_prefix("unknown ").and_then(|it| it.split_once(": "));
            if let Some((key, _)) = key {
                doubts.lock().unwrap().insert(key.to_owned());
            }
        }
    })
}

impl Shop {
    pub(crate) fn open(
        binary: &Path,
        server: SocketAddr,
        environment: Vec<(&'static str, String)>,
        stop: &Stop,
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        crate::proxy::init(binary, &folder.path().join("journal"))?;
        let (binary, doubts, stop) = (binary.to_owned(), Doubts::default(), stop.clone());
        Ok(Self { binary, folder, server, environment, doubts, stop })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).envs(self.environment.iter().cloned());
        command.arg("--spool").arg(self.folder.path().join("spool"));
        command.stdin(Stdio::null()).env_remove("ONLYONCE_STORE");
        command
    }

    fn on_store(&self, words: &[&str]) -> Command {
        let mut command = self.command(words);
        let journal = self.folder.path().join("journal");
        command.arg("--store").arg(format!("journal:{}", journal.display()));
        command
    }

    /// Takes in messages: the recipient of each is its name.
    pub(crate) fn add(&self, messages: usize) -> Result<(), String> {
        let file = self.folder.path().join("mail.eml");
        let text = "From: shop@shop.example\nSubject: Welcome\n\n.Hello\n";
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        let first: Vec<usize> = (0..messages).step_by(RECIPIENTS).collect();
        let add = |first: &usize| {
            self.stop.check()?;
            let mut command = self.command(&["mail", "add", "--from", "shop@shop.example"]);
            command.args(["--key", &format!("news/{first}")]).arg(&file);
            for number in *first..messages.min(first + RECIPIENTS) {
                command.args(["--to", &name(number)]);
            }
            said(&mut command).map(drop)
        };
        std::thread::scope(|threads| {
            let adders = first.chunks(first.len().div_ceil(ADDERS).max(1));
            let adders = adders.map(|some| threads.spawn(move || some.iter().try_for_each(add)));
            let adders: Vec<_> = adders.collect();
            adders.into_iter().try_for_each(|it| it.join().map_err(|_| "an adder".to_owned())?)
        })
    }

    /// A sender that goes on until it is killed.
    pub(crate) fn start(&self) -> Result<Sender, String> {
        let mut command = self.sender(&[]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let said = child.stdout.take();
        let hearing = said.map(|said| hear(said, Arc::clone(&self.doubts)));
        Ok(Sender(child, hearing))
    }

    fn sender(&self, flags: &[&str]) -> Command {
        let mut command = self.on_store(&["mail", "run", "--tls", "none", "--workers", "8"]);
        command.args(["--server", &self.server.to_string()]).args(flags);
        command
    }

    /// How many files wait.
    pub(crate) fn waiting(&self) -> usize {
        self.names("queue").len()
    }

    /// The names of the files on a shelf of the spool.
    fn names(&self, shelf: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("spool").join(shelf));
        entries.into_iter().flatten().filter_map(|it| Some(it.ok()?.path())).collect()
    }

    /// The recipients of what lies on a shelf of the spool.
    pub(crate) fn recipients(&self, shelf: &str) -> Result<Vec<String>, String> {
        let recipient = |path: &PathBuf| {
            let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
            let line = bytes.split(|it| *it == b'\n').next().unwrap_or_default();
            let line: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            line["to"].as_str().map(ToOwned::to_owned).ok_or_else(|| "no recipient".to_owned())
        };
        self.names(shelf).iter().map(recipient).collect()
    }

    /// What the status says.
    pub(crate) fn status(&self) -> Result<Value, String> {
        let said = said(&mut self.on_store(&["mail", "status", "--json"]))?;
        serde_json::from_str(&said).map_err(|error| error.to_string())
    }

    /// Whether senders have said of all that waits that nobody knows. To ask the status each time
    /// would take longer than what is between.
    pub(crate) fn said_only_doubts(&self) -> bool {
        self.waiting() <= self.doubts.lock().unwrap().len()
    }

    /// Whether nothing is left to be tried: all that waits is in doubt.
    fn only_doubts(&self) -> Result<bool, String> {
        let status = self.status()?;
        Ok(status["unknown"]["messages"] == self.waiting())
    }

    /// Lets senders try all that waits, until all that is left is in doubt.
    pub(crate) fn until_only_doubts(&self) -> Result<(), String> {
        for _ in 0..TRIES_MAX {
            self.stop.check()?;
            said(&mut self.sender(&["--once"]))?;
            if self.only_doubts()? {
                return Ok(());
            }
        }
        Err(format!("something waits for ever: {}", self.status()?))
    }

    /// Lets senders with these flags try all that waits, until nothing does.
    pub(crate) fn until_settled(&self, flags: &[&str]) -> Result<(), String> {
        for _ in 0..TRIES_MAX {
            self.stop.check()?;
            if self.waiting() == 0 {
                return Ok(());
            }
            said(&mut self.sender(flags))?;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err(format!("some doubts are never settled: {}", self.status()?))
    }
}

/// The recipient of a message, which is its name.
pub(crate) fn name(number: usize) -> String {
    format!("r{number}@mail.example")
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String, String> {
    let ended = command.output().map_err(|error| error.to_string())?;
    if ended.status.success() {
        return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&ended.stderr);
    Err(format!("{command:?} ended with {}: {error}", ended.status))
}
