//! Commands under their keys, in this process: what runs, what does not, and who is told what.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use onlyonce::{Engine, Settings};
use onlyonce_core::{Always, Key, OnUnknown, Policy, Receiver, Secret};
use onlyonce_run::{Asking, Became, Codes, Ended, Locks, Order, Runner, Stream, scope};
use onlyonce_store::{MemoryStore, Store};
use onlyonce_tokio::TokioRuntime;

/// One test at a time: what another starts would inherit this one's locks.
static ONE: Mutex<()> = Mutex::new(());

/// How often something is looked for before a test fails, and the pause between.
const LOOKS_MAX: u32 = 2_000;
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A store, its locks, and a file where effects are counted.
struct Place {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
}

impl Place {
    fn new() -> Self {
        let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
        Self { _alone: ONE.lock().unwrap_or_else(PoisonError::into_inner), folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn runner(&self) -> Runner {
        let (store, runtime) = (Arc::clone(&self.store), Arc::new(TokioRuntime::new()));
        let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
        let locks = Locks::in_folder(&self.path("locks")).unwrap();
        Runner::new(engine, Secret::from_bytes([7; 32]), locks)
    }

    /// A shell in the folder, with one effect and what follows it.
    fn order(&self, then: &str) -> Order {
        let folder = self.folder.path();
        let script = format!("cd {}; echo x >> effects; {then}", folder.display());
        Order {
            key: Key::new("key").unwrap(),
            scope: scope("").unwrap(),
            command: ["sh", "-c", &script].map(Into::into).to_vec(),
            folder: Some(folder.to_owned()),
            env: Vec::new(),
            policy: Policy::default(),
            wait: Duration::from_secs(60),
            output_max: 1 << 20,
            codes: Codes::default(),
            asking: None,
        }
    }

    fn effects(&self) -> usize {
        std::fs::read_to_string(self.path("effects")).map_or(0, |it| it.lines().count())
    }

    async fn until_effects(&self, count: usize) {
        for _ in 0..LOOKS_MAX {
            if self.effects() == count {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        panic!("there are {} effects and not {count}", self.effects());
    }

    /// Leaves a run of the order in doubt, as a wrapper does that is killed, and what it ran alive.
    /// The store is one that a new process has alone, so that it knows the old one dead.
    fn killed(&self, order: &Order) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let (runner, order) = (self.runner().await, order.clone());
            tokio::spawn(async move { runner.run(&order).await });
            self.until_effects(1).await;
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
}

/// What becomes of it once nothing of an earlier run lives any more. Who finds it alive waits, and
/// is told what became of that; so it is asked once more.
async fn settled(runner: &Runner, order: &Order) -> Became {
    for _ in 0..LOOKS_MAX {
        if !matches!(runner.run(order).await, Became::InProgress) {
            return runner.run(order).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("something still lives")
}

fn code(became: &Became) -> Option<u8> {
    if let Became::Ran { ended, unrecorded: None, .. } = became { Some(ended.code) } else { None }
}

#[tokio::test]
async fn a_repeat_is_given_what_was_written_and_how_it_ended() {
    let place = Place::new();
    let order = place.order("printf out; sleep 0.1; printf err >&2; exit 3");
    let runner = place.runner().await;
    assert_eq!(code(&runner.run(&order).await), Some(3));
    for _ in 0..2 {
        let Became::Replayed { transcript, .. } = runner.run(&order).await else { panic!() };
        assert_eq!(transcript.ended, Ended::exited(3));
        let pieces: Vec<_> = transcript.pieces.iter().map(|(at, it)| (*at, &it[..])).collect();
        assert_eq!(pieces, [(Stream::Out, &b"out"[..]), (Stream::Err, &b"err"[..])]);
    }
    assert_eq!(place.effects(), 1);
}

#[tokio::test]
async fn exit_codes_mean_what_was_said() {
    let codes = Codes { not_executed: vec![75, 143], unknown: vec![28] };
    for (then, ran, runs) in [
        ("exit 75", Some(75), 2),
        ("kill -TERM $$; sleep 60", Some(143), 2),
        ("exit 28", None, 1),
        ("exit 4", Some(4), 1),
        ("kill -KILL $$; sleep 60", Some(137), 1),
    ] {
        let (place, codes) = (Place::new(), codes.clone());
        let order = Order { codes, ..place.order(then) };
        let runner = place.runner().await;
        let first = runner.run(&order).await;
        assert_eq!(code(&first), ran, "{then}: {first:?}");
        let again = runner.run(&order).await;
        assert_eq!(place.effects(), runs, "{then}: {again:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_did_not_happen() {
    let place = Place::new();
    let (runner, order) = (place.runner().await, place.order("exit 0"));
    let missing = Order { command: vec![place.path("none").into()], ..order.clone() };
    for _ in 0..2 {
        assert_eq!(code(&runner.run(&missing).await), Some(127));
    }
    // Another command may not have its key all the same.
    assert!(matches!(runner.run(&order).await, Became::Mismatch));
    assert_eq!(place.effects(), 0);
}

#[tokio::test]
async fn who_waits_is_told_and_runs_nothing() {
    let place = Place::new();
    let codes = Codes { not_executed: vec![75], unknown: Vec::new() };
    let then = "while test -e effects && ! test -e go; do sleep 0.01; done; exit 75";
    let order = Order { codes, ..place.order(then) };
    let (first, second) = (place.runner().await, place.runner().await);
    let running = tokio::spawn({
        let order = order.clone();
        async move { first.run(&order).await }
    });
    place.until_effects(1).await;
    let hasty = Order { wait: Duration::ZERO, ..order.clone() };
    assert!(matches!(second.run(&hasty).await, Became::InProgress));
    let other = Order { folder: None, ..order.clone() };
    assert!(matches!(second.run(&other).await, Became::Mismatch));
    let waiting = tokio::spawn(async move { second.run(&order).await });
    // It has looked at least once, and waits.
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::write(place.path("go"), "").unwrap();
    assert_eq!(code(&running.await.unwrap()), Some(75));
    let waited = waiting.await.unwrap();
    assert!(matches!(waited, Became::NotExecuted), "{waited:?}");
    assert_eq!(place.effects(), 1);
}

#[test]
fn while_what_a_killed_wrapper_ran_lives_nothing_runs_under_its_key() {
    let place = Place::new();
    let receiver = Receiver::always(Always::UniqueName);
    let policy = Policy { on_unknown: OnUnknown::Retry, receiver, ..Policy::default() };
    let then = "test $ONLYONCE_ATTEMPT != 1 || while test -e effects && ! test -e go; do \
                sleep 0.01; done; exit 3";
    let order = Order { policy, wait: Duration::ZERO, ..place.order(then) };
    place.killed(&order);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let runner = place.runner().await;
        for _ in 0..3 {
            let became = runner.run(&order).await;
            assert!(matches!(became, Became::InProgress), "{became:?}");
        }
        assert_eq!(place.effects(), 1);
        std::fs::write(place.path("go"), "").unwrap();
        // The run that it takes is the second, and is given again.
        let became = settled(&runner, &order).await;
        let ended = if let Became::Replayed { transcript, .. } = &became {
            Some(transcript.ended.code)
        } else {
            code(&became)
        };
        assert_eq!(ended, Some(3), "{became:?}");
        assert_eq!(place.effects(), 2);
    });
}

#[test]
fn a_probe_is_believed_as_far_as_was_said() {
    let (silent, no) = ("the probe did not say", "that counts once 3600s have passed");
    for (probe, not_yet) in [("printf found", None), ("exit 4", Some(silent)), ("exit 5", Some(no))]
    {
        let place = Place::new();
        let receiver = Receiver::queryable(Duration::ZERO, Duration::from_secs(3_600));
        let policy = Policy { on_unknown: OnUnknown::Probe, receiver, ..Policy::default() };
        let asking = Some(Asking { command: probe.into(), absent: vec![5] });
        let order = place.order("exec 1>&- 2>&-; sleep 0.1");
        let order = Order { policy, asking, wait: Duration::ZERO, ..order };
        place.killed(&order);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let runner = place.runner().await;
            let became = settled(&runner, &order).await;
            if let Some(why) = not_yet {
                // That it did not happen counts only after an hour.
                let Became::Unknown { notes, .. } = became else { panic!("{became:?}") };
                assert!(notes.len() == 1 && notes[0].contains(why), "{probe}: {notes:?}");
            } else {
                let Became::Replayed { transcript, .. } = became else { panic!("{became:?}") };
                assert_eq!(transcript.ended, Ended::exited(0));
                assert_eq!(&transcript.pieces[0].1[..], b"found");
            }
            assert_eq!(place.effects(), 1);
        });
    }
}
