//! What becomes of messages of which nobody knows whether they were carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onlyonce::{Attempt, InDoubt, Probed, Ran, direct};
use onlyonce::{Effect, Engine};
use onlyonce_consume::{Message, Settings, Settled, Why};
use onlyonce_core::{Always, Cause, Key, OnUnknown, Policy, Receiver, Reply, StateKind, Verdict};

use crate::desk::{Desk, again, done, message, reply};

fn unknown(settled: &Settled) -> Vec<(&'static str, String)> {
    let Settled::Aside(aside) = settled else { panic!("not put aside: {settled:?}") };
    assert_eq!((aside.why, aside.happened()), (Why::Unknown, "unknown"));
    aside.headers()
}

#[tokio::test]
async fn what_nobody_knows_is_put_aside_and_runs_once_more_if_somebody_says_so() {
    let desk = Desk::open(Settings::default()).await;
    desk.hand.ends(|_| Ran::CannotTell(Cause::TimedOut));
    let headers = unknown(&desk.take(message("m")).await);
    for (name, value) in [("onlyonce-state", "unknown"), ("onlyonce-cause", "timed-out")] {
        assert!(headers.contains(&(name, value.to_owned())), "{headers:?}");
    }
    desk.hand.ends(|body| Ran::Happened(reply(body)));
    for _ in 0..3 {
        unknown(&desk.take(again("m")).await);
    }
    assert_eq!(desk.hand.outside.times("m"), 1);
    let record = desk.record("m").await;
    assert_eq!(record.state.kind(), StateKind::Unknown);
    let id = desk.inbox.id(&Key::new("m").unwrap());
    let engine: &Engine = desk.inbox.engine();
    let (policy, fence) = (onlyonce_consume::policy(), record.fence);
    let verdict = Verdict::NotExecuted;
    engine.resolve(id, &policy, fence, verdict, "olga", "looked").await.unwrap();
    assert_eq!(desk.take(message("m")).await, done("m", false));
    assert_eq!(desk.take(message("m")).await, done("m", true));
    assert_eq!(desk.hand.outside.times("m"), 2);
}

#[tokio::test]
async fn what_somebody_says_has_happened_is_done_and_not_run() {
    let desk = Desk::open(Settings::default()).await;
    desk.hand.ends(|_| Ran::CannotTell(Cause::ConnectionLost));
    unknown(&desk.take(message("m")).await);
    let (fence, id) = (desk.record("m").await.fence, desk.inbox.id(&Key::new("m").unwrap()));
    let verdict = Verdict::Happened(reply("m"));
    let policy = onlyonce_consume::policy();
    desk.inbox.engine().resolve(id, &policy, fence, verdict, "olga", "looked").await.unwrap();
    assert_eq!(desk.take(message("m")).await, done("m", true));
    assert_eq!(desk.hand.outside.times("m"), 1);
}

#[tokio::test]
async fn where_a_second_run_is_harmless_it_is_tried_again_up_to_the_bound() {
    let receiver = Receiver::always(Always::UniqueName);
    let policy = Policy { on_unknown: OnUnknown::Retry, receiver, ..onlyonce_consume::policy() };
    let desk = Desk::open(Settings { policy, attempts_max: 3, ..Settings::default() }).await;
    let mut runs = 0;
    desk.hand.ends(move |body| {
        runs += 1;
        if runs < 3 { Ran::CannotTell(Cause::TimedOut) } else { Ran::Happened(reply(body)) }
    });
    for _ in 0..2 {
        let settled = desk.take(again("m")).await;
        assert!(matches!(settled, Settled::Later { .. }), "{settled:?}");
    }
    assert_eq!(desk.take(again("m")).await, done("m", false));

    desk.hand.ends(|_| Ran::CannotTell(Cause::TimedOut));
    for _ in 0..2 {
        assert!(matches!(desk.take(again("n")).await, Settled::Later { .. }));
    }
    for _ in 0..3 {
        unknown(&desk.take(again("n")).await);
    }
    assert_eq!(desk.hand.outside.times("n"), 3);
}

/// A message that ends its process, or its task, leaves no word; it is counted all the same.
#[tokio::test]
async fn a_message_that_kills_its_handler_each_time_is_put_aside() {
    let receiver = Receiver::always(Always::UniqueName);
    let policy = Policy { on_unknown: OnUnknown::Retry, receiver, ..onlyonce_consume::policy() };
    let desk = Desk::open(Settings { policy, attempts_max: 4, ..Settings::default() }).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let handler = move |_: &Arc<Message>| {
        let counted = Arc::clone(&counted);
        direct(move |_: Attempt| async move {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose")
        })
    };
    for _ in 0..10 {
        let message = Arc::new(again("m"));
        let settled = desk.inbox.take(message, &handler).await.unwrap();
        assert!(!matches!(settled, Settled::Done { .. }), "{settled:?}");
    }
    assert_eq!(runs.load(Ordering::SeqCst), 4);
    unknown(&desk.inbox.take(Arc::new(again("m")), &handler).await.unwrap());
}

/// A receiver that can be asked, and says what it is told to say.
struct Asked(Desk, Option<Reply>);

impl Effect for Asked {
    type Prepared = ();

    async fn prepare(&mut self, _: Attempt) -> Result<(), Reply> {
        Ok(())
    }

    async fn commit(&mut self, (): (), _: Attempt) -> Ran {
        self.0.hand.outside.happens("m");
        Ran::CannotTell(Cause::TimedOut)
    }

    async fn probe(&mut self, _: &InDoubt) -> Probed {
        self.1.clone().map_or(Probed::DidNotHappen, Probed::Happened)
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_receiver_can_be_asked_about_is_settled_by_asking() {
    let (settle, late) = (Duration::from_secs(60), Duration::from_secs(10));
    let receiver = Receiver::queryable(settle, late);
    let policy = Policy { on_unknown: OnUnknown::Probe, receiver, ..onlyonce_consume::policy() };
    let desk = Desk::open(Settings { policy, ..Settings::default() }).await;
    let asked = |found: Option<Reply>| {
        let desk = Desk {
            inbox: desk.inbox.clone(),
            hand: desk.hand.clone(),
            store: Arc::clone(&desk.store),
        };
        let slot = std::sync::Mutex::new(Some(Asked(desk, found)));
        move |_: &Arc<Message>| slot.lock().unwrap().take().unwrap()
    };
    let take = |found| {
        let (inbox, handler) = (desk.inbox.clone(), asked(found));
        async move { inbox.take(Arc::new(message("m")), &handler).await.unwrap() }
    };
    // It ran, nobody knows; a "no" is not final yet, and nothing runs.
    for _ in 0..3 {
        assert!(matches!(take(None).await, Settled::Later { .. }));
    }
    assert_eq!(desk.hand.outside.times("m"), 1);
    tokio::time::sleep(settle + late + Duration::from_secs(2)).await;
    // By now it is: it runs once more, and then is found.
    assert!(matches!(take(None).await, Settled::Later { .. }));
    assert_eq!(desk.hand.outside.times("m"), 2);
    assert_eq!(take(Some(reply("m"))).await, done("m", true));
    assert_eq!(desk.hand.outside.times("m"), 2);
}

/// A doubt that no remedy has settled is somebody's business in the end.
#[tokio::test(start_paused = true)]
async fn a_doubt_that_lasts_is_put_aside() {
    let receiver = Receiver::queryable(Duration::from_secs(60), Duration::from_secs(10));
    let policy = Policy { on_unknown: OnUnknown::Probe, receiver, ..onlyonce_consume::policy() };
    let desk = Desk::open(Settings { policy, ..Settings::default() }).await;
    desk.hand.ends(|_| Ran::CannotTell(Cause::TimedOut));
    assert!(matches!(desk.take(message("m")).await, Settled::Later { pauses: 0, .. }));
    tokio::time::sleep(Duration::from_secs(300)).await;
    // Its handler cannot ask; the pauses grow.
    assert!(matches!(desk.take(message("m")).await, Settled::Later { pauses: 4, .. }));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    unknown(&desk.take(message("m")).await);
    assert_eq!(desk.hand.outside.times("m"), 1);
}
