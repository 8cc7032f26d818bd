//! Runs a script to its end, and keeps the proof that it may still be running.
//!
//! A script that an apply has begun lives on when the apply is killed. So its standard error is a
//! locked file, which its own children inherit, those in the background too: as long as one of them
//! has it open the lock is held (flock(2)), and whoever cannot have it knows that the script may
//! still act. A child that closes its standard error, as a daemon does, is out of sight.
//!
//! A lock is that of an opened file, wherever that is open, and what is begun for another resource
//! has all files of this process open for a moment. So a script has the file opened for it alone,
//! with a lock of its own, and the hold's is given back by word and not by closing it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

/// How much of what a script prints is read, from its end, in bytes.
const PRINTED_MAX: u64 = 64 << 10;

/// Taken while a script is being begun: what is opened for it is closed here before another program
/// can have it too.
static BEGINNING: Mutex<()> = Mutex::new(());

/// A script to run, and in what.
pub(crate) struct Script<'a> {
    /// For `sh -c`.
    pub(crate) text: &'a str,
    pub(crate) folder: &'a Path,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) within: Duration,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was not begun.
    NotBegun(io::Error),
    /// By itself, with this code.
    Code { code: i32, out: String, err: String },
    /// By a signal; it may have done anything before.
    Signal,
    /// It took too long and was killed.
    TooLong,
    /// Nobody knows how.
    Lost(io::Error),
}

/// That no script of a resource is running, or that this one alone is.
#[derive(Clone, Debug)]
pub(crate) struct Hold(Arc<Held>);

#[derive(Debug)]
struct Held {
    file: File,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        // What is not given back by word is when the file is closed.
        let _ = self.file.unlock();
    }
}

/// Where the locked files of a plan lie.
#[derive(Clone, Debug)]
pub(crate) struct Holds(pub(crate) PathBuf);

impl Holds {
    /// The hold of a resource, by its marker. `None`: an earlier attempt, or a script that it
    /// began, is still running.
    pub(crate) fn take(&self, marker: &str) -> io::Result<Option<Hold>> {
        // What scripts say may be nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let path = self.0.join(format!("{marker}.log"));
        let file = opened(&path)?;
        // Nobody has it; and then nobody can but those it is shared with, which are its scripts.
        match file.try_lock().and_then(|()| file.try_lock_shared()) {
            Ok(()) => Ok(Some(Hold(Arc::new(Held { file, path })))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

impl Hold {
    /// The file opened anew, and locked: for a script.
    fn shared(&self) -> io::Result<File> {
        let file = opened(&self.0.path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Script<'_> {
    /// Runs it. What it and its children leave running holds `hold`.
    pub(crate) async fn run(&self, hold: Option<&Hold>) -> Ended {
        let (mut child, mut out, mut err) = match self.start(hold) {
            Ok(started) => started,
            Err(error) => return Ended::NotBegun(error),
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let mut group = Group(id.and_then(Pid::from_raw));
        let status = match timeout(self.within, child.wait()).await {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => return Ended::Lost(error),
            Err(_) => {
                drop(group);
                let _ = child.wait().await;
                return Ended::TooLong;
            }
        };
        group.0 = None;
        let Some(code) = status.code() else { return Ended::Signal };
        match (printed(&mut out), printed(&mut err)) {
            (Ok(out), Ok(err)) => Ended::Code { code, out, err },
            (Err(error), _) | (_, Err(error)) => Ended::Lost(error),
        }
    }

    /// It prints into files, so that a child that it leaves behind holds up nobody.
    fn start(&self, hold: Option<&Hold>) -> io::Result<(tokio::process::Child, File, File)> {
        let out = tempfile::tempfile()?;
        let err = match hold {
            Some(Hold(held)) => held.file.try_clone()?,
            None => tempfile::tempfile()?,
        };
        // What the last one said.
        err.set_len(0)?;
        let _alone = BEGINNING.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = hold.map_or_else(|| err.try_clone(), Hold::shared)?;
        // The command is gone, and what was opened for it, before the next one is begun.
        let child = Command::new("sh")
            .arg("-c")
            .arg(self.text)
            .current_dir(self.folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(theirs)
            // A signal from the terminal is for us: what runs is let end.
            .process_group(0)
            .spawn()?;
        Ok((child, out, err))
    }
}

/// A script and what it has started: they are killed when nobody waits for them any more, unless
/// the script has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // What is gone already needs no killing.
        let _ = self.0.map(|group| kill_process_group(group, Signal::KILL));
    }
}

fn printed(file: &mut File) -> io::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(PRINTED_MAX)))?;
    let mut bytes = Vec::new();
    file.take(PRINTED_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(text: &str, within: Duration, hold: Option<&Hold>) -> Ended {
        let variables = vec![("ONLYONCE_KEY".to_owned(), "web".to_owned())];
        Script { text, folder: Path::new("/"), variables, within }.run(hold).await
    }

    const LONG: Duration = Duration::from_secs(60);

    /// Waits until no script of it runs any more; ten seconds at most.
    async fn until_free(holds: &Holds) {
        for _ in 0..2_000 {
            if holds.take("web").unwrap().is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("a script is still running");
    }

    #[tokio::test]
    async fn a_script_is_told_what_it_is_for_and_how_it_ended_is_known() {
        let Ended::Code { code, out, err } =
            run("echo $ONLYONCE_KEY in $PWD; echo no >&2; cat; exit 11", LONG, None).await
        else {
            panic!("it ended by itself")
        };
        assert_eq!((code, out.as_str(), err.as_str()), (11, "web in /\n", "no\n"));
        assert!(matches!(run("kill -9 $$", LONG, None).await, Ended::Signal));
        let short = Duration::from_millis(50);
        assert!(matches!(run("sleep 600", short, None).await, Ended::TooLong));
    }

    #[tokio::test]
    async fn a_script_that_nobody_waits_for_any_more_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let holds = Holds(folder.path().join("scripts"));
        let hold = holds.take("web").unwrap().unwrap();
        let begun = folder.path().join("begun");
        let text = format!("sleep 600 & touch {}; wait", begun.display());
        let mut running = Box::pin(run(&text, LONG, Some(&hold)));
        while !begun.exists() {
            let turn = timeout(Duration::from_millis(5), &mut running).await;
            assert!(turn.is_err(), "it does not end by itself");
        }
        drop(running);
        drop(hold);
        until_free(&holds).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_is_begun_for_one_resource_is_not_taken_for_a_script_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let holds = Holds(folder.path().join("scripts"));
        let begun = tokio::spawn(async {
            for _ in 0..100 {
                let many = [(); 4].map(|()| tokio::spawn(run("exit 0", LONG, None)));
                for one in many {
                    assert!(matches!(one.await.unwrap(), Ended::Code { code: 0, .. }));
                }
            }
        });
        while !begun.is_finished() {
            assert!(holds.take("web").unwrap().is_some(), "nothing of it runs");
            tokio::task::yield_now().await;
        }
        begun.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_script_leaves_running_is_known_to_run() {
        let folder = tempfile::tempdir().unwrap();
        let holds = Holds(folder.path().join("scripts"));
        let hold = holds.take("web").unwrap().unwrap();
        assert!(holds.take("web").unwrap().is_none(), "this very apply has it");
        let left = run("sleep 600 & echo $!", LONG, Some(&hold)).await;
        let Ended::Code { out, .. } = left else { panic!("{left:?}") };
        drop(hold);
        assert!(holds.take("web").unwrap().is_none(), "a child of the script still runs");
        assert!(holds.take("other").unwrap().is_some(), "another resource's");
        let child = Pid::from_raw(out.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, Signal::KILL).unwrap();
        until_free(&holds).await;
    }
}
