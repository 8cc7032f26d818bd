//! The consumer before a real JetStream.

use std::time::Duration;

use onlyonce::Ran;
use onlyonce_consume::{KeyFrom, Settings, Told, Why, later, never};
use onlyonce_core::{Cause, Key, Policy, Verdict};
use onlyonce_nats::{Jet, Streams};
use onlyonce_testbed::{Relay, Way};

use crate::desk::{Desk, reply};
use crate::server::{Running, Stream, streams, until};

/// Keys stand in a header here: copies have ids of their own, else the server would drop them.
fn settings() -> Settings {
    Settings { key: KeyFrom::Header("order".to_owned()), ..Settings::default() }
}

fn is_settled(told: &Told) -> bool {
    matches!(told, Told::Done | Told::Duplicate)
}

/// Each message twice, the network cut, answers lost, the server killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_runs_once_over_cuts_and_kills_of_the_server() {
    let mut stream = Stream::start().await;
    let relay = Relay::to(stream.server.address());
    let desk = Desk::open(settings()).await;
    desk.hand.takes(Duration::from_millis(20));
    let url = format!("nats://{}", relay.address());
    let ack_wait = Duration::from_secs(2);
    let running =
        Running::start(&desk, &Jet::new(&url, Streams { ack_wait, ..streams() }).unwrap());
    let mut sent = Vec::new();
    for round in 0..6 {
        let some: Vec<_> = (0..30).map(|number| format!("r{round}-{number}")).collect();
        let twice: Vec<_> = some.iter().chain(&some).map(|it| (&**it, &**it)).collect();
        stream.send(&twice).await;
        sent.extend(some);
        let part = sent.len() - 20;
        until("some ran", || part <= desk.hand.outside.lines().len()).await;
        match round % 3 {
            0 => relay.cut(),
            1 => stream.restart(),
            _ => {
                relay.lose(Way::ToServer);
                tokio::time::sleep(Duration::from_millis(100)).await;
                relay.cut();
            }
        }
        relay.mend();
    }
    until("all ran", || sent.len() <= desk.hand.outside.lines().len()).await;
    until("all copies are settled", || 2 * sent.len() <= running.count(is_settled)).await;
    let told = running.stop().await;
    assert!(told.iter().any(|it| matches!(it, Told::Lost(_))));
    for name in &sent {
        assert_eq!(desk.hand.outside.times(name), 1, "{name}");
    }
    assert_eq!(stream.count("warehouse-aside").await, 0);
}

/// A run that takes longer than the server waits for a word is not delivered again meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_told_that_a_long_run_goes_on() {
    let stream = Stream::start().await;
    let wait = Duration::from_millis(100);
    let desk = Desk::open(Settings { wait, ..settings() }).await;
    desk.hand.takes(Duration::from_secs(5));
    let ack_wait = Duration::from_secs(1);
    let jet = Jet::new(&stream.url(), Streams { ack_wait, ..streams() }).unwrap();
    let running = Running::start(&desk, &jet);
    stream.send(&[("m", "m")]).await;
    until("it is done", || running.count(is_settled) == 1).await;
    let told = running.stop().await;
    assert_eq!(told, [Told::Connected, Told::Done], "no other delivery of it came");
    assert_eq!(desk.hand.outside.lines(), ["m"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_the_servers_until_its_end_is_recorded() {
    let stream = Stream::start().await;
    let desk = Desk::open(settings()).await;
    let (go, gate) = std::sync::mpsc::channel::<()>();
    desk.hand.ends(move |body| {
        tokio::task::block_in_place(|| gate.recv().unwrap());
        Ran::Happened(reply(body))
    });
    let running = Running::start(&desk, &Jet::new(&stream.url(), streams()).unwrap());
    stream.send(&[("m", "m")]).await;
    until("it happens", || desk.hand.outside.times("m") == 1).await;
    assert_eq!(stream.unacknowledged().await, 1);
    go.send(()).unwrap();
    until("it is done", || running.count(is_settled) == 1).await;
    assert_eq!(stream.unacknowledged().await, 0);
    running.stop().await;
    assert_eq!(desk.hand.outside.lines(), ["m"]);
}

/// What nobody knows and what cannot work is put aside with its record; handed in again, when no
/// answer is kept, it does nothing that was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_aside_carries_its_record_and_runs_nothing_twice_when_it_comes_back() {
    let stream = Stream::start().await;
    let policy = Policy { retention: Duration::ZERO, ..onlyonce_consume::policy() };
    let desk = Desk::open(Settings { policy, attempts_max: 2, ..settings() }).await;
    desk.hand.ends(|body| match body {
        "lost" => Ran::CannotTell(Cause::TimedOut),
        "wrong" => never("it is\r\nno order"),
        "busy" => later("always"),
        _ => Ran::Happened(reply(body)),
    });
    let jet = Jet::new(&stream.url(), streams()).unwrap();
    let running = Running::start(&desk, &jet);
    let aside = |told: &Told| matches!(told, Told::Aside(..));
    stream.send(&[("lost", "lost"), ("good", "good")]).await;
    until("one is put aside", || running.count(aside) == 1).await;
    let headers = stream.first("warehouse-aside").await;
    let header = |name: &str| headers.get(name).map(|it| it.as_str().to_owned());
    let fence = desk.record("lost").await.fence;
    let id = desk.inbox.id(&Key::new("lost").unwrap());
    for (name, value) in [
        ("onlyonce-why", "unknown"),
        ("onlyonce-happened", "unknown"),
        ("onlyonce-state", "unknown"),
        ("onlyonce-subject", "orders.new"),
        ("onlyonce-key-id", &id.to_string()),
        ("onlyonce-fence", &fence.get().to_string()),
        ("order", "lost"),
    ] {
        assert_eq!(header(name).as_deref(), Some(value), "{name}");
    }
    // All tests number their messages together.
    assert!(header("onlyonce-id").is_some_and(|it| it.starts_with("m-")), "{headers:?}");
    stream.send(&[("wrong", "wrong"), ("busy", "busy"), ("", "nameless")]).await;
    until("four are put aside", || running.count(aside) == 4).await;
    assert_eq!(desk.hand.outside.times("busy"), 2);
    assert_eq!(stream.unacknowledged().await, 0, "what was put aside is not delivered again");
    let why = |why: Why| running.count(|it| matches!(it, Told::Aside(is, _) if *is == why));
    let each = [Why::Unknown, Why::Never, Why::Exhausted, Why::NoKey].map(why);
    assert_eq!(each, [1, 1, 1, 1]);

    // Handed in again: what is in doubt does not run.
    desk.hand.ends(|body| Ran::Happened(reply(body)));
    assert_eq!(jet.replay(1).await.unwrap(), 1);
    until("it is put aside again", || running.count(aside) == 5).await;
    assert_eq!(desk.hand.outside.times("lost"), 1);
    let engine = desk.inbox.engine();
    let verdict = Verdict::NotExecuted;
    engine.resolve(id, &policy, fence, verdict, "olga", "looked").await.unwrap();
    assert_eq!(jet.replay(100).await.unwrap(), 4);
    until("the nameless one is put aside again", || running.count(aside) == 6).await;
    until("the others are done", || running.count(is_settled) == 4).await;
    // Copies of all of them, long after: nothing is run.
    stream.send(&["lost", "good", "wrong", "busy"].map(|it| (it, it))).await;
    until("all are done with", || running.count(is_settled) == 8).await;
    running.stop().await;
    let times = ["lost", "good", "wrong", "busy"].map(|it| desk.hand.outside.times(it));
    assert_eq!(times, [2, 1, 2, 3]);
    assert_eq!(stream.count("warehouse-aside").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_runs_and_gives_the_rest_back() {
    let stream = Stream::start().await;
    let desk = Desk::open(settings()).await;
    desk.hand.takes(Duration::from_millis(300));
    let names: Vec<_> = (0..30).map(|number| format!("m{number}")).collect();
    let all: Vec<_> = names.iter().map(|it| (&**it, &**it)).collect();
    stream.send(&all).await;
    let ack_wait = Duration::from_secs(2);
    let jet = Jet::new(&stream.url(), Streams { at_once: 4, ack_wait, ..streams() }).unwrap();
    let running = Running::start(&desk, &jet);
    until("some are done", || 4 <= running.count(is_settled)).await;
    let told = running.stop().await;
    let done = told.iter().filter(|it| is_settled(it)).count();
    assert_eq!((desk.hand.outside.lines().len(), desk.hand.begun()), (done, done));
    assert!(done < names.len());
    desk.hand.takes(Duration::ZERO);
    let running = Running::start(&desk, &jet);
    until("all ran", || desk.hand.outside.lines().len() == names.len()).await;
    let told = running.stop().await;
    assert_eq!(told.iter().filter(|it| matches!(it, Told::Duplicate)).count(), 0);
    assert!(names.iter().all(|name| desk.hand.outside.times(name) == 1));
}
