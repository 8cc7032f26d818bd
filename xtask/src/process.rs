//! Child processes that never outlive us: each has its own process group, which is ended by its
//! id when its guard is dropped, when we panic, and when we are interrupted.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::clock::Stopwatch;
use crate::{Failure, Outcome};

/// How long a child has to end by itself once asked.
const ENDS_WITHIN: Duration = Duration::from_secs(3);
/// How often a child is looked at while we wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The groups that are alive, by the id of their leader.
static GROUPS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn groups() -> MutexGuard<'static, BTreeSet<u32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every child on Ctrl-C, SIGTERM and SIGHUP, then us.
pub(crate) fn kill_children_on_signal() -> Outcome {
    ctrlc::set_handler(|| {
        for group in groups().iter() {
            signal(*group, Signal::KILL);
        }
        std::process::exit(130);
    })?;
    Ok(())
}

fn signal(group: u32, signal: Signal) {
    let Ok(group) = i32::try_from(group) else { return };
    if let Some(group) = Pid::from_raw(group) {
        // The group may be gone already, and then there is nothing to end.
        let _ = kill_process_group(group, signal);
    }
}

/// A child with its group; dropping it ends them.
pub(crate) struct Guarded {
    child: Child,
    ended: bool,
}

impl Guarded {
    /// Starts `command` as the leader of a new group.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let program = command.get_program().to_string_lossy().into_owned();
        // Taken before the spawn so that a signal in between does not miss the child.
        let mut alive = groups();
        let child = command
            .process_group(0)
            .spawn()
            .map_err(|failure| format!("cannot start {program}: {failure}"))?;
        alive.insert(child.id());
        Ok(Self { child, ended: false })
    }

    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, to take its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended, and how.
    pub(crate) fn try_wait(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            self.forget();
        }
        Ok(status)
    }

    /// Asks it to end by itself.
    pub(crate) fn interrupt(&self) {
        signal(self.child.id(), Signal::TERM);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn forget(&mut self) {
        if !self.ended {
            self.ended = true;
            groups().remove(&self.child.id());
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Asked first: nginx ends its workers only when it is asked.
        signal(self.child.id(), Signal::TERM);
        let waited = Stopwatch::start();
        while waited.elapsed() < ENDS_WITHIN {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        signal(self.child.id(), Signal::KILL);
        let _ = self.child.wait();
        self.forget();
    }
}

/// Runs `command` to its end; what it wrote to standard output, and how it ended.
pub(crate) fn output(command: &mut Command) -> Result<(String, ExitStatus), Failure> {
    let mut guard = Guarded::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let mut bytes = Vec::new();
    if let Some(mut pipe) = guard.child().stdout.take() {
        pipe.read_to_end(&mut bytes)?;
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), guard.wait()?))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::{Guarded, output};

    /// Whether a process still runs; one that only waits to be reaped does not.
    fn runs(id: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    }

    #[test]
    fn a_dropped_guard_ends_the_child_and_what_it_started() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & echo $!; wait"]).stdout(Stdio::piped());
        let mut guard = Guarded::spawn(&mut shell).unwrap();
        let mut said = BufReader::new(guard.child().stdout.take().unwrap()).lines();
        let (child, grandchild) = (guard.id().to_string(), said.next().unwrap().unwrap());
        assert!(runs(&child) && runs(&grandchild));
        drop(guard);
        assert!(!runs(&child));
        // The pipe is at its end once the grandchild, who holds it too, has ended.
        assert!(said.next().is_none());
    }

    #[test]
    fn what_a_child_says_is_returned() {
        let (said, status) = output(Command::new("sh").args(["-c", "echo word; exit 3"])).unwrap();
        assert_eq!((said.as_str(), status.code()), ("word\n", Some(3)));
    }

    #[test]
    fn the_end_of_a_child_is_reported() {
        let mut guard = Guarded::spawn(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        assert_eq!(guard.wait().unwrap().code(), Some(7));
    }
}
