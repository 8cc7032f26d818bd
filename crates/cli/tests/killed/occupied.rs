//! A holder that is stopped before a receiver whose names can be occupied: a folder, where a name
//! is taken once. It is an effect of the Rust API; the test program starts itself again for each
//! holder, and `holder` does nothing unless it is told what.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{Answer, Attempt, Effect, Engine, InDoubt, Ran, Request, Sealing, Settings};
use onlyonce_core::{
    Always, Cause, Fence, Fingerprint, Floor, KeyId, OnUnknown, Policy, Receiver, Reply,
};
use onlyonce_sqlite::Sqlite;
use onlyonce_tokio::TokioRuntime;
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::until;

const FOLDER: &str = "ONLYONCE_TEST_FOLDER";
/// A holder with it stays before its first byte until it is told to go on.
const STAYS: &str = "ONLYONCE_TEST_STAYS";

/// A name in a folder for each claim: whoever takes it first has it, and nobody takes it back.
#[derive(Clone)]
struct Names {
    folder: PathBuf,
    stays: bool,
}

impl Names {
    fn of(&self, fence: Fence) -> PathBuf {
        self.folder.join(format!("order-{}", fence.get()))
    }

    /// Whether it was taken for this now; else what it was taken for.
    fn take(&self, fence: Fence, what: &str) -> io::Result<Result<(), String>> {
        let new = self.folder.join(format!("{what}-{}-{}", fence.get(), std::process::id()));
        std::fs::write(&new, what)?;
        // With all that is in it, or not at all.
        match std::fs::hard_link(&new, self.of(fence)) {
            Ok(()) => Ok(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                std::fs::read_to_string(self.of(fence)).map(Err)
            }
            Err(error) => Err(error),
        }
    }
}

impl Effect for Names {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), attempt: Attempt) -> Ran {
        if self.stays {
            // The thread itself stays: nothing is asked between this and the name.
            File::create(self.folder.join("here")).unwrap();
            until("a word to go on", || self.folder.join("go").exists().then_some(()));
        }
        match self.take(attempt.fence, "ran") {
            Ok(Ok(())) => Ran::Happened(Reply::kept(201, "ran")),
            Ok(Err(_)) | Err(_) => Ran::CannotTell(Cause::Abandoned),
        }
    }

    async fn seal(&mut self, doubt: &InDoubt) -> Sealing {
        match self.take(doubt.fence, "sealed") {
            Ok(Ok(())) => Sealing::Sealed,
            Ok(Err(what)) if what == "sealed" => Sealing::Sealed,
            Ok(Err(what)) => Sealing::Found(Reply::kept(201, what)),
            Err(_) => Sealing::CannotTell,
        }
    }
}

/// Not a test of its own: what the processes of the others do.
#[test]
fn holder() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let policy = Policy {
        lease: Duration::from_secs(2),
        skew_max: Duration::from_millis(100),
        on_unknown: OnUnknown::Auto,
        receiver: Receiver::always(Always::Sealable),
        ..Policy::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let store = Arc::new(Sqlite::open(&folder.join("once.db")).unwrap());
        let tokio = Arc::new(TokioRuntime::new());
        let engine = Engine::start(store, tokio, Settings::default(), None).await.unwrap();
        let request = Request::new(KeyId::from_bytes([7; 16]), Fingerprint::new(1, [7; 32]));
        let names = Names { folder: folder.clone(), stays: std::env::var_os(STAYS).is_some() };
        engine.once(&request, &policy, Duration::ZERO, names).await.unwrap()
    });
    let told = if matches!(answer, Answer::Reply(_)) {
        "ran"
    } else if matches!(answer, Answer::Replayed(_)) {
        "replayed"
    } else {
        "refused"
    };
    std::fs::write(folder.join(format!("told-{}", std::process::id())), told).unwrap();
}

/// A process that is ended when it is dropped.
struct Holder {
    child: Child,
    folder: PathBuf,
}

impl Holder {
    fn start(folder: &Path, stays: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "occupied::holder"]).env(FOLDER, folder);
        if stays {
            command.env(STAYS, "1");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Self { child, folder: folder.to_owned() }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it was told in the end.
    fn told(mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(self.folder.join(format!("told-{}", self.child.id()))).unwrap()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many names were taken for this.
fn taken(folder: &Path, what: &str) -> usize {
    let paths = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let names = paths.filter(|it| it.to_string_lossy().contains("/order-"));
    names.filter(|it| std::fs::read_to_string(it).unwrap() == what).count()
}

/// What stands above the table.
const STORY: &str = "\
    The same with two programs of the Rust API (`onlyonce::Effect`) on one SQLite file, before a \
    folder in which a name is taken once: the next one takes the stopped one's name, so that it \
    cannot take effect any more, and runs under a name of its own.";

/// Plays the row, and holds it to what is promised.
pub(crate) fn section() -> String {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    Sqlite::init(&folder.join("once.db"), Floor::NONE).unwrap();
    let stopped = Holder::start(folder, true);
    until("a holder before its first byte", || folder.join("here").exists().then_some(()));
    stopped.signal(Signal::STOP);
    let next = until("the next one's answer", || {
        let told = Holder::start(folder, false).told();
        (told != "refused").then_some(told)
    });
    assert_eq!((next.as_str(), taken(folder, "ran"), taken(folder, "sealed")), ("ran", 1, 1));
    File::create(folder.join("go")).unwrap();
    stopped.signal(Signal::CONT);
    assert_eq!(stopped.told(), "replayed");
    assert_eq!((taken(folder, "ran"), taken(folder, "sealed")), (1, 1));
    assert_eq!(Holder::start(folder, false).told(), "replayed");
    let mut page = format!("\n{STORY}\n\n");
    page += "| receiver | stopped | the next one | effects | goes on | is told | effects then | ";
    page += "the same key again | promised |\n|---|---|---|---|---|---|---|---|---|\n";
    page += "| sealable | late | seals, and runs | 1 | after that | what the next one was told ";
    page += "| 1 | replayed | exactly once, or provably never |\n";
    page
}
