//! Alarms of an engine behind a command that ends by itself or has no port for operators: they are
//! told on standard error and counted.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use onlyonce::{EngineEvent, Observer};

/// What was answered a second time, differently: it may have happened twice. All of it is of one
/// process.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    second_replies: AtomicU64,
}

impl Alarms {
    /// Adds them to a page in the text format of Prometheus; `labels` stand behind the name.
    pub(crate) fn render(&self, page: &mut String, name: &str, labels: &str) {
        let help = "Answered a second time, differently: it may have happened twice.";
        let count = self.second_replies.load(Ordering::Relaxed);
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} counter");
        let _ = writeln!(page, "{name}{labels} {count}");
    }
}

impl Observer for Alarms {
    fn on(&self, event: &EngineEvent) {
        let EngineEvent::SecondReply { id, fence } = event else { return };
        self.second_replies.fetch_add(1, Ordering::Relaxed);
        let fence = fence.get();
        // It is in the record too; whoever is not there to read this finds it there.
        let _ = writeln!(
            io::stderr().lock(),
            "alarm: {id} was answered a second time, differently (attempt {fence}): it may have \
             happened twice; look where it happens, and at `onlyonce keys get {id}`"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use onlyonce::{Answer, Engine, Ran, Request, Settings, direct};
    use onlyonce_core::{Fingerprint, Key, Outcome, Policy, Reply, Scope, Secret, Verdict};
    use onlyonce_store::MemoryStore;
    use onlyonce_tokio::TokioRuntime;
    use tokio::sync::Notify;

    use super::*;

    /// A person has said what became of it, and then it says something else.
    #[tokio::test]
    async fn a_late_answer_that_differs_is_counted() {
        let (store, alarms) = (Arc::new(MemoryStore::new()), Arc::new(Alarms::default()));
        let engine = async |observer| {
            let runtime = Arc::new(TokioRuntime::new());
            Engine::start(store.clone(), runtime, Settings::default(), observer).await.unwrap()
        };
        let (scope, key) = (Scope::new("mail").unwrap(), Key::new("welcome/7").unwrap());
        let id = Secret::from_bytes([7; 32]).key_id(&scope, &key);
        let request = Request::new(id, Fingerprint::new(1, [1; 32]));
        let late = engine(Some(alarms.clone() as Arc<dyn Observer>)).await;
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let policy = Policy::default();
        let sending = async {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            let send = direct(move |_attempt| async move {
                begun.notify_one();
                go.notified().await;
                Ran::Happened(Reply::kept(200, "queued as 1"))
            });
            late.once(&request, &policy, Duration::ZERO, send).await.unwrap()
        };
        let meanwhile = async {
            begun.notified().await;
            // It has this store alone, so it takes all before it for dead.
            let other = engine(None).await;
            let fence = other.look(&request, &policy).await.unwrap().record.unwrap().fence;
            let verdict = Verdict::Happened(Reply::kept(200, "queued as 2"));
            let said = other.resolve(id, &policy, fence, verdict, "ann", "looked").await;
            assert_eq!(said.unwrap().outcome, Outcome::Done);
            go.notify_one();
        };
        let (answer, ()) = tokio::join!(sending, meanwhile);
        // The first one stays.
        assert_eq!(answer, Answer::Replayed(Reply::kept(200, "queued as 2")));
        let mut page = String::new();
        alarms.render(&mut page, "onlyonce_x_total", "{plan=\"shop\"}");
        assert!(page.ends_with("\nonlyonce_x_total{plan=\"shop\"} 1\n"), "{page}");
    }
}
