//! The consumer before a real RabbitMQ.

use std::time::Duration;

use onlyonce::Ran;
use onlyonce_consume::{Settings, Told, Why, later, never};
use onlyonce_core::{Cause, Key, Policy, Reply, Verdict};
use onlyonce_testbed::{Relay, Way, rabbitmq_url};

use crate::broker::{Broker, FROM, Running, properties, queues, rabbit, until};
use crate::desk::{Desk, reply};

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

fn is_settled(told: &Told) -> bool {
    matches!(told, Told::Done | Told::Duplicate)
}

/// Each message twice, the network cut, answers lost, the broker killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_runs_once_over_cuts_and_kills_of_the_broker() {
    let mut broker = Broker::start().await;
    let relay = Relay::to(broker.server.address());
    let desk = Desk::open(Settings::default()).await;
    desk.hand.takes(Duration::from_millis(30));
    let url = rabbitmq_url(relay.address());
    let running = Running::start(&desk, &rabbit(&url, queues(), 4));
    let mut sent = Vec::new();
    for round in 0..6 {
        let some = names(&format!("r{round}-"), 30);
        broker.send(&some).await;
        broker.send(&some).await;
        sent.extend(some);
        let part = sent.len() - 20;
        until("some ran", || part <= desk.hand.outside.lines().len()).await;
        match round % 3 {
            0 => {
                relay.cut();
                relay.mend();
            }
            1 => broker.kill_and_restart().await,
            _ => {
                // Acknowledgements go nowhere for a moment, then the line is cut.
                relay.lose(Way::ToServer);
                tokio::time::sleep(Duration::from_millis(100)).await;
                relay.cut();
                relay.mend();
            }
        }
    }
    until("all ran", || sent.len() <= desk.hand.outside.lines().len()).await;
    // Whatever was not acknowledged comes again: the last word on each is that it was done.
    broker.send(&["last".to_owned()]).await;
    until("the last ran", || desk.hand.outside.times("last") == 1).await;
    let told = running.stop().await;
    assert!(3 <= told.iter().filter(|it| matches!(it, Told::Lost(_))).count(), "{told:?}");
    for name in &sent {
        assert_eq!(desk.hand.outside.times(name), 1, "{name}");
    }
    let aside = broker.ready("orders.aside").await;
    assert_eq!((broker.ready(FROM).await, aside), (0, 0));
}

/// The line is cut while a message runs: it is the broker's until then, and comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_the_brokers_until_its_end_is_recorded() {
    let broker = Broker::start().await;
    let relay = Relay::to(broker.server.address());
    let desk = Desk::open(Settings::default()).await;
    let began = desk.hand.clone();
    desk.hand.takes(Duration::from_secs(2));
    let url = rabbitmq_url(relay.address());
    let running = Running::start(&desk, &rabbit(&url, queues(), 4));
    broker.send(&["m".to_owned()]).await;
    until("it runs", || 0 < began.begun()).await;
    relay.cut();
    relay.mend();
    until("it comes again", || running.count(|told| matches!(told, Told::Duplicate)) == 1).await;
    running.stop().await;
    assert_eq!(desk.hand.outside.lines(), ["m"]);
}

/// What nobody knows and what cannot work is put aside with its record; handed in again, days
/// later and when no answer is kept, it does nothing that was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_aside_carries_its_record_and_runs_nothing_twice_when_it_comes_back() {
    let broker = Broker::start().await;
    // No answer is kept: what is left of it is that it was given.
    let policy = Policy { retention: Duration::ZERO, ..onlyonce_consume::policy() };
    let desk = Desk::with(policy).await;
    desk.hand.ends(|body| match body {
        "lost" => Ran::CannotTell(Cause::TimedOut),
        "wrong" => never("it is no order"),
        _ => Ran::Happened(reply(body)),
    });
    let consumer = broker.consumer(queues(), 8);
    let running = Running::start(&desk, &consumer);
    let nameless = lapin::BasicProperties::default().with_expiration("60000".into());
    let all = ["lost", "wrong", "good"].map(|name| (name, properties(name)));
    broker.publish(&all).await;
    until("the good one is done", || running.count(is_settled) == 1).await;
    broker.publish(&[("no name", nameless), ("other", properties("good"))]).await;
    let aside = |told: &Told| matches!(told, Told::Aside(..));
    until("four are put aside", || running.count(aside) == 4).await;
    // Whoever moves them by hand to look keeps them.
    let mut found = broker.empty("orders.aside").await;
    found.sort();
    let header = |at: usize, name: &str| {
        let (_, headers): &(_, Vec<(String, String)>) = &found[at];
        headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone())
    };
    let bodies: Vec<_> = found.iter().map(|(body, _)| body.as_str()).collect();
    assert_eq!(bodies, ["lost", "no name", "other", "wrong"]);
    for (at, why, happened) in [
        (0, Why::Unknown, "unknown"),
        (1, Why::NoKey, "no"),
        (2, Why::Mismatch, "no"),
        (3, Why::Never, "no"),
    ] {
        assert_eq!(header(at, "onlyonce-why").as_deref(), Some(why.name()));
        assert_eq!(header(at, "onlyonce-happened").as_deref(), Some(happened));
        assert_eq!(header(at, "onlyonce-queue").as_deref(), Some(FROM));
    }
    let key = Key::new("lost").unwrap();
    let (id, fence) = (desk.inbox.id(&key), desk.record("lost").await.fence);
    assert_eq!(header(0, "onlyonce-key-id"), Some(id.to_string()));
    assert_eq!(header(0, "onlyonce-fence"), Some(fence.get().to_string()));
    assert_eq!(header(0, "onlyonce-state").as_deref(), Some("unknown"));
    assert!(header(0, "onlyonce-history").unwrap().starts_with('['));

    // Sent again, it is put aside again, and nothing runs. Then somebody finds out.
    broker.publish(&all[..1]).await;
    until("it is put aside again", || running.count(aside) == 5).await;
    assert_eq!(desk.hand.outside.times("lost"), 1);
    let (engine, verdict) = (desk.inbox.engine(), Verdict::NotExecuted);
    engine.resolve(id, &policy, fence, verdict, "olga", "looked").await.unwrap();
    desk.hand.ends(|body| Ran::Happened(reply(body)));
    assert_eq!(consumer.replay(10).await.unwrap(), 1);
    until("it ran", || desk.hand.outside.times("lost") == 2).await;
    // Copies of all of them, handed in again and again.
    for _ in 0..3 {
        let before = running.count(is_settled);
        broker.publish(&[all[0].clone(), all[2].clone()]).await;
        until("both are done with", || before + 2 <= running.count(is_settled)).await;
    }
    running.stop().await;
    assert_eq!((desk.hand.outside.times("lost"), desk.hand.outside.times("good")), (2, 1));
    assert_eq!(broker.ready("orders.aside").await, 0);
}

/// Case B120. A hundred messages that always fail stand before the good ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_fail_hold_up_no_other_and_are_put_aside_in_the_end() {
    let broker = Broker::start().await;
    let desk = Desk::open(Settings { attempts_max: 3, ..Settings::default() }).await;
    desk.hand.ends(|body| match body.starts_with("bad") {
        true => later("always"),
        false => Ran::Happened(reply(body)),
    });
    let (bad, good) = (names("bad", 100), names("good", 300));
    broker.send(&bad).await;
    broker.send(&good).await;
    let consumer = broker.consumer(queues(), 10);
    let running = Running::start(&desk, &consumer);
    let aside = |told: &Told| matches!(told, Told::Aside(Why::Exhausted, _));
    until("all are settled", || {
        running.count(is_settled) == good.len() && running.count(aside) == bad.len()
    })
    .await;
    let lines = desk.hand.outside.lines();
    let last_good = lines.iter().rposition(|it| it.starts_with("good")).unwrap();
    assert!(last_good < lines.len() - 1, "the good ones did not wait for the last attempt");
    for name in &bad {
        assert_eq!(desk.hand.outside.times(name), 3, "{name}");
    }
    assert_eq!(broker.ready("orders.aside").await, 100);
    // Somebody mends what was wrong, and hands them in again.
    desk.hand.ends(|body| Ran::Happened(reply(body)));
    assert_eq!(consumer.replay(1_000).await.unwrap(), 100);
    let all = bad.len() + good.len();
    until("all are done", || running.count(is_settled) == all).await;
    running.stop().await;
    for name in &bad {
        assert_eq!(desk.hand.outside.times(name), 4, "{name}");
    }
    for name in &good {
        assert_eq!(desk.hand.outside.times(name), 1, "{name}");
    }
}

/// Case B122. Duplicates are ordinary; only what somebody should look at is an alarm. Who asked is
/// told the same each time, and first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_answered_with_the_same_bytes_and_duplicates_raise_no_alarm() {
    let broker = Broker::start().await;
    broker.make("answers").await;
    let desk = Desk::open(Settings::default()).await;
    desk.hand.ends(|body| match body {
        "wrong" => never("it is no order"),
        _ => Ran::Happened(Reply::kept(409, format!("sold out: {body}"))),
    });
    let asking = |name: &str| properties(name).with_reply_to("answers".into());
    let mut all: Vec<_> = (0..1_000).map(|_| ("m", asking("m"))).collect();
    all.push(("wrong", asking("wrong")));
    let nowhere = properties("n").with_reply_to("nobody.is.here".into());
    all.push(("n", nowhere));
    broker.publish(&all).await;
    let running = Running::start(&desk, &broker.consumer(queues(), 16));
    until("all are settled", || {
        running.count(|told| is_settled(told) || matches!(told, Told::Aside(..))) == all.len()
    })
    .await;
    let told = running.stop().await;
    assert_eq!(told.iter().filter(|it| it.is_alarm()).count(), 1, "the one that is wrong");
    let answers = broker.empty("answers").await;
    assert_eq!(answers.len(), 1_000);
    assert!(answers.iter().all(|it| *it == answers[0]), "the same bytes, the same headers");
    assert_eq!(answers[0].0, "sold out: m");
    assert!(answers[0].1.contains(&("onlyonce-status".to_owned(), "409".to_owned())));
    assert_eq!(desk.hand.outside.times("m"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_runs_and_gives_the_rest_back() {
    let broker = Broker::start().await;
    let desk = Desk::open(Settings::default()).await;
    desk.hand.takes(Duration::from_millis(300));
    let sent = names("m", 40);
    broker.send(&sent).await;
    let running = Running::start(&desk, &broker.consumer(queues(), 4));
    until("some are done", || 4 <= running.count(is_settled)).await;
    let told = running.stop().await;
    let done = told.iter().filter(|it| is_settled(it)).count();
    // What ran is recorded and acknowledged, the rest lies where it was.
    assert_eq!(desk.hand.outside.lines().len(), done);
    assert_eq!(broker.ready(FROM).await as usize, sent.len() - done);
    desk.hand.takes(Duration::ZERO);
    let running = Running::start(&desk, &broker.consumer(queues(), 4));
    until("all ran", || desk.hand.outside.lines().len() == sent.len()).await;
    let told = running.stop().await;
    assert_eq!(told.iter().filter(|it| matches!(it, Told::Duplicate)).count(), 0);
    assert!(sent.iter().all(|name| desk.hand.outside.times(name) == 1));
}
