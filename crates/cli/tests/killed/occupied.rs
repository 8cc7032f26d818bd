//! Holders that are stopped before receivers that only the Rust API knows: a folder, where a name
//! can be occupied, and a table beside the records, which is written in one transaction with them.
//! The test program starts itself again for each holder, and `holder` does nothing unless it is
//! told what.

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
use onlyonce_sqlite::{Sqlite, TxError};
use onlyonce_tokio::TokioRuntime;
use rusqlite::{Connection, TransactionBehavior};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::until;

const FOLDER: &str = "ONLYONCE_TEST_FOLDER";
/// A holder with it stays before its first byte until it is told to go on.
const STAYS: &str = "ONLYONCE_TEST_STAYS";
/// The receiver: [`SEALABLE`] or [`TRANSACTIONAL`].
const CLASS: &str = "ONLYONCE_TEST_CLASS";
const SEALABLE: &str = "sealable";
const TRANSACTIONAL: &str = "transactional";

/// The thread itself stays: nothing is asked between this and the first byte.
fn stay(folder: &Path) {
    if std::env::var_os(STAYS).is_some() {
        File::create(folder.join("here")).unwrap();
        until("a word to go on", || folder.join("go").exists().then_some(()));
    }
}

fn id() -> KeyId {
    KeyId::from_bytes([7; 16])
}

fn policy(always: Always) -> Policy {
    Policy {
        lease: Duration::from_secs(2),
        skew_max: Duration::from_millis(100),
        on_unknown: OnUnknown::Auto,
        receiver: Receiver::always(always),
        ..Policy::default()
    }
}

/// A name in a folder for each claim: whoever takes it first has it, and nobody takes it back.
#[derive(Clone)]
struct Names {
    folder: PathBuf,
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
        stay(&self.folder);
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

/// A row beside the records, and in one transaction with the one of its key.
struct Row {
    folder: PathBuf,
    store: Arc<Sqlite>,
}

impl Row {
    fn write(&self, fence: Fence, reply: Reply) -> Result<(), TxError> {
        let once = self.store.transactions();
        let mut connection = Connection::open(self.folder.join("once.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let tx = tx.map_err(|error| once.failed(&error))?;
        let number = fence.get().to_string();
        let wrote = tx.execute("INSERT INTO orders (fence) VALUES (?1)", [number]);
        wrote.map_err(|error| once.failed(&error))?;
        let policy = policy(Always::Transactional);
        once.complete(&tx, id(), fence, reply, &policy)?;
        once.commit(tx)
    }
}

impl Effect for Row {
    type Prepared = ();

    async fn prepare(&mut self, _attempt: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), attempt: Attempt) -> Ran {
        stay(&self.folder);
        let reply = Reply::kept(201, "ran");
        match self.write(attempt.fence, reply.clone()) {
            Ok(()) => Ran::Happened(reply),
            Err(_) => Ran::CannotTell(Cause::Abandoned),
        }
    }
}

/// Not a test of its own: what the processes of the others do.
#[test]
fn holder() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let class = std::env::var(CLASS).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let store = Arc::new(Sqlite::open(&folder.join("once.db")).unwrap());
        let (shared, tokio) = (Arc::clone(&store), Arc::new(TokioRuntime::new()));
        let engine = Engine::start(shared, tokio, Settings::default(), None).await.unwrap();
        let request = Request::new(id(), Fingerprint::new(1, [7; 32]));
        let folder = folder.clone();
        if class == SEALABLE {
            let (policy, names) = (policy(Always::Sealable), Names { folder });
            engine.once(&request, &policy, Duration::ZERO, names).await.unwrap()
        } else {
            let row = Row { folder, store };
            let policy = policy(Always::Transactional);
            engine.once(&request, &policy, Duration::ZERO, row).await.unwrap()
        }
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
    fn start(class: &str, folder: &Path, stays: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "occupied::holder"]).env(FOLDER, folder).env(CLASS, class);
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

/// How often it happened.
fn effects(class: &str, folder: &Path) -> usize {
    if class == SEALABLE {
        let paths = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        let names = paths.filter(|it| it.to_string_lossy().contains("/order-"));
        return names.filter(|it| std::fs::read_to_string(it).unwrap() == "ran").count();
    }
    let connection = Connection::open(folder.join("once.db")).unwrap();
    let count = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let count = connection.query_row("SELECT count(*) FROM orders", (), count).unwrap();
    usize::try_from(count).unwrap()
}

/// What stands above the table.
const STORY: &str = "\
    The same with two programs of the Rust API (`onlyonce::Effect`) on one SQLite file, stopped \
    right before their first byte. The sealable receiver is a folder in which a name is taken \
    once: the next one takes the stopped one's name, so that it cannot take effect any more, and \
    runs under a name of its own. The transactional one is a table in the same file: its row and \
    the answer in the record are one transaction, which is the latest claim's alone.";

/// Plays a row, and holds it to what is promised.
fn played(class: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    Sqlite::init(&folder.join("once.db"), Floor::NONE).unwrap();
    let connection = Connection::open(folder.join("once.db")).unwrap();
    connection.execute_batch("CREATE TABLE orders (fence TEXT NOT NULL)").unwrap();
    drop(connection);
    let stopped = Holder::start(class, folder, true);
    until("a holder before its first byte", || folder.join("here").exists().then_some(()));
    stopped.signal(Signal::STOP);
    let next = until("the next one's answer", || {
        let told = Holder::start(class, folder, false).told();
        (told != "refused").then_some(told)
    });
    assert_eq!((next.as_str(), effects(class, folder)), ("ran", 1), "{class}");
    File::create(folder.join("go")).unwrap();
    stopped.signal(Signal::CONT);
    assert_eq!((stopped.told().as_str(), effects(class, folder)), ("replayed", 1), "{class}");
    assert_eq!(Holder::start(class, folder, false).told(), "replayed", "{class}");
}

/// Plays the rows.
pub(crate) fn section() -> String {
    std::thread::scope(|threads| {
        let playing = [SEALABLE, TRANSACTIONAL].map(|class| threads.spawn(move || played(class)));
        playing.into_iter().for_each(|row| row.join().unwrap());
    });
    let mut page = format!("\n{STORY}\n\n");
    page += "| receiver | the next one | effects | goes on | is told | effects then | ";
    page += "the same key again | promised |\n|---|---|---|---|---|---|---|---|\n";
    let told = "what the next one was told";
    for (class, does, promise) in [
        (SEALABLE, "seals, and runs", "exactly once, or provably never"),
        (TRANSACTIONAL, "runs", "exactly once"),
    ] {
        page +=
            &format!("| {class} | {does} | 1 | after that | {told} | 1 | replayed | {promise} |\n");
    }
    page
}
