//! A server's process: it ends with its test, and can be killed, frozen and started again.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at, and how many times before the test fails.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOKS_MAX: u32 = 12_000;

/// Looks until there is something to see; fails the test after a minute without.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..LOOKS_MAX {
        if let Some(seen) = look() {
            return seen;
        }
        thread::sleep(LOOK_EVERY);
    }
    panic!("never: {what}")
}

type Start = (Command, Sender<std::io::Result<Child>>);

/// Starts all children. The kernel tells a child of the end of the thread that started it, and
/// this one ends with the process; the thread of a test ends before what tests share.
static STARTER: LazyLock<Sender<Start>> = LazyLock::new(|| {
    let (sender, starts) = channel::<Start>();
    thread::spawn(move || {
        for (mut command, answer) in starts {
            let _ = answer.send(command.spawn());
        }
    });
    sender
});

/// A process of a server; killed when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it, with what it says in `log`. The command must be one that ends with the thread
    /// that starts it, as by `setpriv --pdeathsig KILL`.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let (sender, answer) = channel();
        STARTER.send((command, sender)).unwrap();
        Self { child: answer.recv().unwrap().unwrap() }
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// It ends instead, or does not answer for a minute; with what it said.
    pub fn await_ready(&mut self, log: &Path, mut answers: impl FnMut() -> bool) {
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        for _ in 0..LOOKS_MAX {
            if answers() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended ({status}):\n{}", said());
            }
            thread::sleep(LOOK_EVERY);
        }
        panic!("the server does not answer:\n{}", said());
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would, but for the system's own memory (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }

    /// Lets it stand still (SIGSTOP): connections stay open and nothing is answered. When this
    /// returns none of its threads does anything any more, which takes a moment.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.id());
        let stands = |thread: std::io::Result<std::fs::DirEntry>| {
            // One that is gone does nothing either.
            let Ok(thread) = thread else { return true };
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which stands in brackets (proc_pid_stat(5)).
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        until("it stands still", || {
            let Ok(mut threads) = std::fs::read_dir(&threads) else { return Some(()) };
            threads.all(stands).then_some(())
        });
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends a process that nobody waits for.
pub(crate) fn end(id: u32) {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _ = id.map(|id| kill_process(id, Signal::KILL));
}

/// The processes that work in a folder.
pub(crate) fn processes_in(folder: &Path) -> Vec<u32> {
    let Ok(wanted) = std::fs::metadata(folder) else { return Vec::new() };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            std::fs::metadata(format!("/proc/{id}/cwd"))
                .is_ok_and(|it| (it.dev(), it.ino()) == (wanted.dev(), wanted.ino()))
        })
        .collect()
}
