//! Time that a test does not wait for: the newest number in a journal is what tells how old the
//! others are, and the binary's clock never runs below it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{Engine, Sweeper};
use onlyonce_core::{KeyId, Policy, Record, Revision, State, StateKind};
use onlyonce_journal::{Journal, JournalErrorKind};
use onlyonce_store::{Filter, Store as _};
use onlyonce_tokio::TokioRuntime;

use crate::bench::{SMALL, until};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// A journal that nobody else has open now, and an engine on it.
struct Opened {
    journal: Journal,
    engine: Engine,
}

impl Opened {
    async fn at(folder: &Path) -> Self {
        // A program that another thread is about to start has our open files for a moment.
        let journal = until("the journal", || match Journal::open(folder, SMALL) {
            Err(error) if error.kind() == JournalErrorKind::Locked => None,
            opened => Some(opened.unwrap()),
        });
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

    /// Adds a record under a key that nobody asks for.
    async fn add(&self, record: Record) {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&record.revision.get().to_be_bytes());
        let added = self.journal.swap(KeyId::from_bytes(id), None, Some(record)).await;
        added.unwrap();
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

/// Ends the answers that are kept no more. `beside` makes another tombstone at the same time, which
/// may be forgotten that long after.
pub(crate) fn end_answers(folder: &Path, beside: Option<Duration>) {
    now(async {
        let opened = Opened::at(folder).await;
        opened.pass().await;
        if let Some(until) = beside {
            let mut record = opened.tombstone().await;
            let now = opened.engine.now();
            if let State::Tombstone { forget_at, .. } = &mut record.state {
                *forget_at = now.plus(until);
            }
            record.revision = Revision::after(Some(record.revision), now);
            opened.add(record).await;
        }
        opened.journal.close();
    });
}

/// Lets that much time go by.
pub(crate) fn go_on(folder: &Path, by: Duration) {
    now(async {
        let opened = Opened::at(folder).await;
        let mut record = opened.tombstone().await;
        let then = opened.engine.now().plus(by);
        record.revision = Revision::after(None, then);
        if let State::Tombstone { forget_at, .. } = &mut record.state {
            *forget_at = then.plus(1_000 * HOUR);
        }
        opened.add(record).await;
        opened.journal.close();
    });
}

/// Lets the journal do what is due.
pub(crate) fn pass(folder: &Path) {
    now(async {
        let opened = Opened::at(folder).await;
        opened.pass().await;
        opened.journal.close();
    });
}
