//! Time that a test does not wait for: the newest number in a journal is what tells how old the
//! others are, and the binary's clock never runs below it.
//!
//! The test program starts itself again for it, and `aged` does nothing unless it is told what: a
//! program that another thread is about to start would have our open journal for a moment.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{Engine, Sweeper};
use onlyonce_core::{KeyId, Policy, Record, Revision, State, StateKind};
use onlyonce_journal::{Journal, Settings, Start};
use onlyonce_store::{Filter, Store as _};
use onlyonce_tokio::TokioRuntime;

/// Segments of a journal that is small.
const SMALL: Settings = Settings { segment_bytes: 1 << 20, ..Settings::DEFAULT };
const HOUR: Duration = Duration::from_secs(3_600);

/// A journal that nobody else has open now, and an engine on it.
struct Opened {
    journal: Journal,
    engine: Engine,
}

impl Opened {
    async fn at(folder: &Path) -> Self {
        let journal = Journal::open(folder, SMALL).unwrap();
        let (store, runtime) = (Arc::new(journal.clone()), Arc::new(TokioRuntime::new()));
        let engine = Engine::start(store, runtime, onlyonce::Settings::default(), None);
        Self { journal, engine: engine.await.unwrap() }
    }

    /// Ends what is due, and moves what is old.
    async fn pass(&self) {
        Sweeper::new(self.engine.clone(), Policy::default()).pass().await.unwrap();
    }

    /// One of the tombstones.
    async fn tombstone(&self) -> Record {
        let filter = Filter { state: Some(StateKind::Tombstone), limit: 1 };
        let mut page = self.journal.list(filter, None).await.unwrap();
        page.records.pop().expect("a tombstone").1
    }

    /// Another tombstone, which may be forgotten after that time.
    async fn beside(&self, until: Duration) {
        let (mut record, now) = (self.tombstone().await, self.engine.now());
        if let State::Tombstone { forget_at, .. } = &mut record.state {
            *forget_at = now.plus(until);
        }
        record.revision = Revision::after(Some(record.revision), now);
        self.add(record).await;
    }

    /// The newest record is that much younger than all others.
    async fn go_on(&self, by: Duration) {
        let (mut record, then) = (self.tombstone().await, self.engine.now().plus(by));
        if let State::Tombstone { forget_at, .. } = &mut record.state {
            *forget_at = then.plus(1_000 * HOUR);
        }
        record.revision = Revision::after(None, then);
        self.add(record).await;
    }

    /// Adds a record under a key that nobody asks for.
    async fn add(&self, record: Record) {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&record.revision.get().to_be_bytes());
        let added = self.journal.swap(KeyId::from_bytes(id), None, Some(record)).await;
        added.unwrap();
    }
}

const FOLDER: &str = "ONLYONCE_TEST_AGED";
const HOURS: &str = "ONLYONCE_TEST_HOURS";
const WORK: &str = "ONLYONCE_TEST_WORK";

/// Makes a journal with a small first segment.
pub(crate) fn init(folder: &Path) {
    start(folder, "init", None);
}

/// Ends the answers that are kept no more. `beside` makes another tombstone at the same time, which
/// may be forgotten that many hours after.
pub(crate) fn end_answers(folder: &Path, beside: Option<u32>) {
    start(folder, "end", beside);
}

/// Lets that many hours go by.
pub(crate) fn go_on(folder: &Path, by: u32) {
    start(folder, "on", Some(by));
}

/// Lets the journal do what is due.
pub(crate) fn pass(folder: &Path) {
    start(folder, "pass", None);
}

fn start(folder: &Path, work: &str, hours: Option<u32>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "ageing::aged"]).env(FOLDER, folder).env(WORK, work);
    if let Some(hours) = hours {
        command.env(HOURS, hours.to_string());
    }
    let ran = command.stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{work}: {ran:?}");
}

/// Not a test of its own: what the processes of the others do.
#[test]
fn aged() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let work = std::env::var(WORK).unwrap();
    if work == "init" {
        return Journal::init(&folder, SMALL, Start::First).unwrap();
    }
    let hours = std::env::var(HOURS).ok().map(|hours| hours.parse::<u32>().unwrap() * HOUR);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let opened = Opened::at(&folder).await;
        match (work.as_str(), hours) {
            ("on", Some(by)) => opened.go_on(by).await,
            ("end", Some(until)) => {
                opened.pass().await;
                opened.beside(until).await;
            }
            (_, _) => opened.pass().await,
        }
        opened.journal.close();
    });
}
