//! What an inbox promises, whoever delivers.

use std::sync::Arc;
use std::time::Duration;

use onlyonce::store::{MemoryStore, Store as _};
use onlyonce::{Attempt, Engine, FLOOR_AGE_MAX, Run, Sweeper, direct};
use onlyonce_consume::{AHEAD_MAX, Inbox, Message, Settings, Settled, Why, later, never};
use onlyonce_core::{Floor, Key, Outcome, Policy, Reply};
use uuid::{NoContext, Timestamp, Uuid};

use crate::desk::{Desk, Hand, again, done, message, reply, secret};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn why(settled: &Settled) -> Why {
    let Settled::Aside(aside) = settled else { panic!("not put aside: {settled:?}") };
    aside.why
}

/// Case B119. A stretch of messages comes again, mixed with new ones, twice.
#[tokio::test]
async fn a_message_runs_once_however_often_it_is_delivered() {
    let desk = Desk::open(Settings::default()).await;
    for number in 0..500 {
        let name = format!("m{number}");
        assert_eq!(desk.take(message(&name)).await, done(&name, false));
    }
    for round in 0..2 {
        for number in 0..600 {
            let name = format!("m{number}");
            let was_there = number < 500 || round == 1;
            assert_eq!(desk.take(again(&name)).await, done(&name, was_there));
        }
    }
    let runs = desk.hand.outside.lines();
    assert_eq!(runs, (0..600).map(|number| format!("m{number}")).collect::<Vec<_>>());
}

/// Case B113. Two consumers of one message, on one store.
#[tokio::test]
async fn two_consumers_of_a_message_run_it_once_each() {
    let first = Desk::open(Settings::default()).await;
    let engine = first.inbox.engine().clone();
    let inbox = Inbox::new(engine, secret(), "mail", Settings::default()).unwrap();
    let second = Desk { inbox, hand: Hand::new(), store: Arc::clone(&first.store) };
    for desk in [&first, &second] {
        assert_eq!(desk.take(message("m")).await, done("m", false));
        assert_eq!(desk.take(again("m")).await, done("m", true));
        assert_eq!(desk.hand.outside.times("m"), 1);
    }
}

#[tokio::test]
async fn a_delivery_during_the_run_waits_or_comes_later_and_never_runs() {
    let wait = Duration::from_millis(50);
    let desk = Desk::open(Settings { wait, ..Settings::default() }).await;
    desk.hand.takes(Duration::from_millis(600));
    let (first, second) = tokio::join!(desk.take(message("m")), desk.take(message("m")));
    assert_eq!(first, done("m", false));
    assert!(matches!(second, Settled::Later { .. }), "{second:?}");
    let patient = Inbox::new(desk.inbox.engine().clone(), secret(), "x", Settings::default());
    let desk = Desk { inbox: patient.unwrap(), hand: desk.hand, store: desk.store };
    let (first, second) = tokio::join!(desk.take(message("n")), desk.take(message("n")));
    assert_eq!((first, second), (done("n", false), done("n", true)));
    assert_eq!(desk.hand.outside.lines(), ["m", "n"]);
}

#[tokio::test]
async fn what_cannot_be_told_from_other_messages_is_put_aside_and_not_run() {
    let sent = Some("sent".to_owned());
    let desk = Desk::open(Settings { sent, ..Settings::default() }).await;
    let at = |millis: u64| vec![("sent".to_owned(), millis.to_string())];
    let now = desk.inbox.engine().now().as_millis();
    let ahead = now + 2 * AHEAD_MAX.as_millis() as u64;
    for wrong in [
        Message { id: None, headers: at(now), ..message("m") },
        Message { id: Some("  ".into()), headers: at(now), ..message("m") },
        Message { id: Some("x".repeat(256)), headers: at(now), ..message("m") },
        message("m"),
        Message { headers: vec![("sent".into(), "yesterday".into())], ..message("m") },
        Message { headers: at(ahead), ..message("m") },
    ] {
        assert_eq!(why(&desk.take(wrong).await), Why::NoKey);
    }
    assert_eq!(desk.hand.outside.lines(), Vec::<String>::new());

    let good = Message { headers: at(now), ..message("m") };
    assert_eq!(desk.take(good.clone()).await, done("m", false));
    for other in
        [Message { body: b"n".to_vec(), ..good.clone() }, Message { headers: at(now - 1), ..good }]
    {
        let settled = desk.take(other).await;
        assert_eq!(why(&settled), Why::Mismatch);
        let Settled::Aside(aside) = settled else { panic!() };
        assert_eq!(aside.happened(), "no", "it speaks of the message that is put aside");
    }
    assert_eq!(desk.hand.outside.lines(), ["m"]);
}

#[tokio::test]
async fn what_fails_for_now_is_tried_up_to_the_bound_and_what_never_works_once() {
    let desk = Desk::open(Settings { attempts_max: 3, ..Settings::default() }).await;
    desk.hand.ends(|_| later("the other end is busy"));
    for pauses in 0..2 {
        let why = "the other end is busy".to_owned();
        assert_eq!(desk.take(again("m")).await, Settled::Later { pauses, why });
    }
    let settled = desk.take(again("m")).await;
    let Settled::Aside(aside) = &settled else { panic!("{settled:?}") };
    assert_eq!((aside.why, aside.happened()), (Why::Exhausted, "no"));
    let headers = aside.headers();
    assert!(headers.contains(&("onlyonce-attempts", "3".to_owned())), "{headers:?}");
    assert!(headers.contains(&("onlyonce-state", "released".to_owned())), "{headers:?}");
    // Handed in again it has one more attempt, and no more.
    assert_eq!(why(&desk.take(message("m")).await), Why::Exhausted);
    assert_eq!(why(&desk.take(again("m")).await), Why::Exhausted);
    assert_eq!(desk.hand.outside.times("m"), 4);

    desk.hand.ends(|_| never("it is no order"));
    assert_eq!(why(&desk.take(message("n")).await), Why::Never);
    assert_eq!(desk.hand.outside.times("n"), 1);
    // Once somebody has mended what was wrong, both run.
    desk.hand.ends(|body| onlyonce::Ran::Happened(reply(body)));
    assert_eq!(desk.take(message("m")).await, done("m", false));
    assert_eq!(desk.take(message("n")).await, done("n", false));
}

#[tokio::test]
async fn a_handler_that_panics_holds_up_nothing() {
    let desk = Desk::open(Settings::default()).await;
    let handler = |message: &Arc<Message>| {
        assert!(!message.body.is_empty(), "on purpose");
        direct(|_: Attempt| async { onlyonce::Ran::Happened(reply("m")) })
    };
    let empty = Message { body: Vec::new(), ..message("e") };
    let settled = desk.inbox.take(Arc::new(empty), &handler).await.unwrap();
    assert_eq!(why(&settled), Why::Never);
}

/// What was put aside is handed in again when its answer is long gone, and when even its record is.
#[tokio::test(start_paused = true)]
async fn what_is_handed_in_after_retention_does_not_run_twice() {
    let kept = Desk::open(Settings::default()).await;
    assert_eq!(kept.take(message("m")).await, done("m", false));
    tokio::time::sleep(400 * DAY).await;
    let gone = Settled::Done { reply: Reply::not_kept(200), replayed: true };
    assert_eq!(kept.take(message("m")).await, gone);
    assert_eq!(kept.hand.outside.times("m"), 1);

    // A store that forgets: a key that carries its time is refused from then on.
    let policy = Policy { retention: DAY, remember: 2 * DAY, ..Policy::default() };
    let desk = Desk::with(policy).await;
    let now = desk.inbox.engine().now().as_millis();
    let name = Uuid::new_v7(Timestamp::from_unix(NoContext, now / 1_000, 0)).to_string();
    assert_eq!(desk.take(message(&name)).await, done(&name, false));
    let id = desk.inbox.id(&Key::new(name.clone()).unwrap());
    forget(desk.inbox.engine(), policy).await;
    assert_eq!(desk.inbox.engine().get(id).await.unwrap(), None, "it is forgotten");
    let settled = desk.take(message(&name)).await;
    assert_eq!(why(&settled), Why::Expired);
    let Settled::Aside(aside) = settled else { panic!() };
    assert_eq!(aside.happened(), "unknown");
    assert_eq!(desk.hand.outside.times(&name), 1);
}

/// Sweeps day after day until everything is forgotten that may be.
async fn forget(engine: &Engine, policy: Policy) {
    let mut sweeper = Sweeper::new(engine.clone(), policy);
    for _ in 0..6 {
        tokio::time::sleep(DAY + 4 * FLOOR_AGE_MAX).await;
        sweeper.pass().await.unwrap();
    }
}

/// Nothing is known of a message that is older than a store that was made anew.
#[tokio::test]
async fn a_message_older_than_the_store_is_put_aside() {
    let store = Arc::new(MemoryStore::new());
    let at = onlyonce_core::Timestamp::from_millis(1_000_000);
    store.raise_floor(Floor::at(at)).await.unwrap();
    let desk = Desk::on(store, Settings { sent: Some("sent".into()), ..Settings::default() }).await;
    let headers = vec![("sent".to_owned(), "999999".to_owned())];
    assert_eq!(why(&desk.take(Message { headers, ..message("m") }).await), Why::Expired);
    assert_eq!(desk.hand.outside.times("m"), 0);
}

#[tokio::test]
async fn a_message_that_was_called_off_before_it_came_never_runs() {
    let desk = Desk::open(Settings::default()).await;
    let key = Key::new("m").unwrap();
    let refusal = Reply::kept(410, "cancelled");
    let seal = || desk.inbox.seal(&key, refusal.clone(), "olga", "the customer has called");
    assert_eq!(seal().await.unwrap(), Outcome::Done);
    for message in [message("m"), again("m")] {
        let settled = desk.take(message).await;
        assert_eq!(settled, Settled::Done { reply: refusal.clone(), replayed: true });
    }
    assert_eq!(desk.hand.outside.times("m"), 0);
    // Too late is said.
    let (key, refusal) = (Key::new("n").unwrap(), Reply::kept(410, "cancelled"));
    desk.take(message("n")).await;
    let told = desk.inbox.seal(&key, refusal, "olga", "too late").await.unwrap();
    assert!(matches!(&told, Outcome::Replay { sealed: false, .. }), "{told:?}");
}

/// A handler may also be an effect with a phase in which nothing is sent.
#[test]
fn every_effect_can_be_a_handlers() {
    fn takes<R: Run>(_: impl onlyonce_consume::Handler<Run = R>) {}
    takes(|_: &Arc<Message>| direct(|_: Attempt| async { later("not now") }));
}
