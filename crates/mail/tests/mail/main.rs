//! A sender before a mail server that misbehaves: what arrives is counted there, per recipient.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

mod archive;
mod doubt;
mod kinds;
mod outbox;
mod provider;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use onlyonce::{Engine, Settings};
use onlyonce_core::{Fence, Secret, StateKind, Timestamp, Verdict};
use onlyonce_mail::{
    Added, Became, Class, Destination, Pace, Route, Rules, Sender, Shelf, Spool, frozen,
};
use onlyonce_smtp::{Mailbox, Waits};
use onlyonce_store::{MemoryStore, Store as _};
use onlyonce_tokio::TokioRuntime;

use crate::server::{At, Does, Server};

const TEXT: &[u8] = b"From: shop@shop.example\nSubject: Welcome\n\n.hidden\nHello\n";

/// A shop with a store and a spool, before a server.
struct Shop {
    server: Server,
    engine: Engine,
    spool: Spool,
    waits: Waits,
    workers: usize,
    per_domain: usize,
    apart: Duration,
    rules: Rules,
    classes: Vec<Class>,
    destinations: Vec<Destination>,
    /// In place of the server.
    provider: Option<Arc<onlyonce_mail::provider::Provider>>,
    dir: tempfile::TempDir,
}

fn secret() -> Secret {
    Secret::from_bytes([7; 32])
}

impl Shop {
    async fn open(chunking: bool) -> Self {
        let server = Server::start(chunking).await;
        let (store, runtime) = (Arc::new(MemoryStore::new()), Arc::new(TokioRuntime::new()));
        let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let rules = Rules::default();
        let (waits, workers, per_domain) = (Waits::default(), 1, usize::MAX);
        let apart = Duration::ZERO;
        let (provider, classes, destinations) = (None, Vec::new(), Vec::new());
        Self {
            server,
            engine,
            spool,
            waits,
            workers,
            per_domain,
            apart,
            rules,
            classes,
            destinations,
            provider,
            dir,
        }
    }

    /// Adds one message for these recipients.
    fn add(&self, key: &str, to: &[&str]) -> Vec<Added> {
        self.add_text(key, to, TEXT)
    }

    fn add_text(&self, key: &str, to: &[&str], text: &[u8]) -> Vec<Added> {
        let to: Vec<Mailbox> = to.iter().map(|it| Mailbox::new(it).unwrap()).collect();
        let from = Mailbox::new("shop@shop.example").unwrap();
        let messages = frozen(key, Some(&from), &to, text, self.engine.now()).unwrap();
        messages.iter().map(|it| self.spool.add(it).unwrap()).collect()
    }

    /// Tries each message that waits once, by a sender that knows nothing of earlier ones. What
    /// became of each, by recipient.
    async fn run(&self) -> BTreeMap<String, Became> {
        let route = self.provider.clone().map(Route::to_provider);
        let route = route.unwrap_or_else(|| Route::new(self.server.relay(self.waits)));
        let route = Arc::new(route);
        let (workers, per_domain, apart) = (self.workers, self.per_domain, self.apart);
        let pace = Pace { workers, per_domain, apart, ..Pace::default() };
        let (engine, spool) = (self.engine.clone(), self.spool.clone());
        let names = self.spool.names(Shelf::Queue).unwrap();
        let recipient = |name: &String| {
            let read = self.spool.read(Shelf::Queue, name).unwrap();
            (name.clone(), read.to().to_string())
        };
        let to: BTreeMap<String, String> = names.iter().map(recipient).collect();
        let sender = Sender::new(engine, secret(), spool, route, pace).unwrap();
        let (classes, destinations) = (self.classes.clone(), self.destinations.clone());
        let sender = sender.by_kind(self.rules.clone(), classes, destinations);
        let mut all = BTreeMap::new();
        let tell = |name: &str, became: &Became| {
            assert_eq!(all.insert(to[name].clone(), became.clone()), None, "tried once");
        };
        sender.run(true, std::future::pending(), tell).await.unwrap();
        all
    }

    /// The record of a message that is in the queue.
    async fn state(&self, name: &str) -> (StateKind, Fence, onlyonce_core::KeyId) {
        let message = self.spool.read(Shelf::Queue, name).unwrap();
        let id = Sender::id(&secret(), &message).unwrap();
        let record = self.engine.get(id).await.unwrap().unwrap();
        (record.state.kind(), record.fence, id)
    }

    /// A person settles the one message that nobody knows of.
    async fn says(&self, verdict: Verdict) {
        let [name] = &self.spool.names(Shelf::Queue).unwrap()[..] else { panic!("not one") };
        let (_, fence, id) = self.state(name).await;
        let policy = self.rules.policy();
        self.engine.resolve(id, &policy, fence, verdict, "olga", "looked").await.unwrap();
    }

    fn count(&self, shelf: Shelf) -> usize {
        self.spool.names(shelf).unwrap().len()
    }
}

const ANN: &str = "ann@mail.example";

/// A server that does this at that moment, until it is told otherwise.
fn unlike(at: At, does: Does) -> impl FnMut(At, &str) -> Does + Send + 'static {
    move |now, _| if now == at { does } else { Does::Usual }
}

fn patience() -> Waits {
    let short = Duration::from_millis(200);
    Waits { answer: short, end: short, ..Waits::default() }
}

#[tokio::test]
async fn a_message_is_sent_once_however_often_it_is_added_and_run() {
    for chunking in [false, true] {
        let shop = Shop::open(chunking).await;
        assert_eq!(shop.add("welcome", &[ANN, "bob@mail.example"]), [Added::New, Added::New]);
        assert_eq!(shop.add("welcome", &[ANN]), [Added::There]);
        let became = shop.run().await;
        let Became::Sent(receipt) = &became[ANN] else { panic!("{became:?}") };
        assert!(receipt.contains("\"queue_id\":\"4F8A31C2E7\""), "{receipt}");
        assert!(receipt.contains("\"server\":\"mx.example\""), "{receipt}");
        assert!(receipt.contains("\"in_doubt_us\":"), "{receipt}");
        assert_eq!(shop.add("welcome", &[ANN]), [Added::There]);
        assert_eq!(shop.run().await, BTreeMap::new());
        let [content] = &shop.server.ended(ANN)[..] else { panic!("not once") };
        let text = String::from_utf8(content.clone()).unwrap();
        assert!(text.contains("Date: ") && text.contains("Message-ID: <"), "{text}");
        assert!(text.ends_with("\r\n\r\n.hidden\r\nHello\r\n"), "{text}");
        assert_eq!(shop.server.all_ended(), 2);
        assert_eq!(shop.server.connections(), 1, "the second message takes the same connection");
        assert_eq!(shop.count(Shelf::Sent), 2);
    }
}

/// The sender ended between the answer and the move to another shelf.
#[tokio::test]
async fn a_message_that_was_answered_and_still_waits_is_not_sent_again() {
    let shop = Shop::open(false).await;
    shop.add("welcome", &[ANN]);
    shop.run().await;
    let [name] = &shop.spool.names(Shelf::Sent).unwrap()[..] else { panic!() };
    let (sent, queue) = (shop.dir.path().join("sent"), shop.dir.path().join("queue"));
    std::fs::rename(sent.join(name), queue.join(name)).unwrap();
    assert!(matches!(&shop.run().await[ANN], Became::Sent(_)));
    assert_eq!((shop.server.all_ended(), shop.count(Shelf::Sent)), (1, 1));
}

/// Case B126. A refusal for now, a lost connection or silence before the end: tried again. A
/// refusal for good: kept, and not tried again.
#[tokio::test]
async fn a_refusal_for_now_waits_and_one_for_good_is_kept() {
    use At::{Chunk, Data, Ehlo, End, Greeting, Mail, Rcpt};
    for at in [Greeting, Ehlo, Mail, Rcpt, Data, Chunk, End] {
        let before_the_end = [Does::Closes, Does::Hangs];
        let for_now =
            [Does::Says("421 busy"), Does::Says("450 later"), Does::Says("451 4.3.0 later")];
        let ways = for_now.into_iter().chain(before_the_end.into_iter().filter(|_| at != End));
        for does in ways {
            let shop = Shop { waits: patience(), ..Shop::open(at == Chunk).await };
            shop.add("welcome", &[ANN]);
            shop.server.manner(unlike(at, does));
            let became = shop.run().await;
            assert!(matches!(&became[ANN], Became::Waiting(_)), "{at:?} {does:?}: {became:?}");
            assert_eq!(shop.count(Shelf::Queue), 1);
            let refused = shop.server.ended(ANN);
            shop.server.manner(|_, _| Does::Usual);
            assert!(matches!(&shop.run().await[ANN], Became::Sent(_)), "{at:?} {does:?}");
            let ended = shop.server.ended(ANN);
            assert_eq!(ended.len(), refused.len() + 1, "{at:?} {does:?}");
            // The same bytes, so that whoever has both can tell.
            assert!(ended.iter().all(|it| *it == ended[0]));
        }
    }
    for at in [Mail, Rcpt, Data, Chunk, End] {
        for says in ["550 5.1.1 nobody", "552 full", "554 5.7.1 spam"] {
            let shop = Shop::open(at == Chunk).await;
            shop.add("welcome", &[ANN]);
            shop.server.manner(unlike(at, Does::Says(says)));
            let became = shop.run().await;
            let Became::Refused(why) = &became[ANN] else { panic!("{at:?} {became:?}") };
            assert!(why.contains(says), "{why}");
            shop.server.manner(|_, _| Does::Usual);
            assert_eq!(shop.add("welcome", &[ANN]), [Added::There]);
            assert_eq!(shop.run().await, BTreeMap::new());
            assert_eq!(shop.count(Shelf::Refused), 1);
            assert_eq!(shop.server.all_ended(), usize::from(at == End));
        }
    }
}

/// Case B123. The end was said and no answer came: nobody knows, and nothing is sent again until
/// somebody says so.
#[tokio::test]
async fn an_answer_lost_after_the_end_is_unknown_and_not_sent_again() {
    for chunking in [false, true] {
        for does in [Does::Closes, Does::Hangs, Does::Says("!garbage")] {
            let shop = Shop { waits: patience(), ..Shop::open(chunking).await };
            shop.add("welcome", &[ANN]);
            shop.server.manner(unlike(At::End, does));
            assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)), "{does:?}");
            shop.server.manner(|_, _| Does::Usual);
            for _ in 0..3 {
                assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)), "{does:?}");
            }
            assert_eq!(shop.server.ended(ANN).len(), 1);
            let [name] = &shop.spool.names(Shelf::Queue).unwrap()[..] else { panic!("{does:?}") };
            let (state, fence, id) = shop.state(name).await;
            assert_eq!(state, StateKind::Unknown);
            // Somebody looks at the server and says: it may go again.
            let (policy, verdict) = (Rules::default().policy(), Verdict::NotExecuted);
            let settled = shop.engine.resolve(id, &policy, fence, verdict, "olga", "looked");
            settled.await.unwrap();
            assert!(matches!(&shop.run().await[ANN], Became::Sent(_)), "{does:?}");
            let [first, second] = &shop.server.ended(ANN)[..] else { panic!("{does:?}") };
            assert_eq!(first, second, "the same Message-ID, Date and bytes");
        }
    }
}

/// Case B125. Twenty recipients: one refused for good, one for now, the server closes after ten
/// connections' worth, and the sender is ended after thirteen.
#[tokio::test]
async fn one_bad_recipient_sends_nothing_twice_to_the_others() {
    let shop = Shop::open(false).await;
    let all: Vec<String> = (1..=20).map(|it| format!("r{it}@mail.example")).collect();
    shop.add("news", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let mut taken = 0;
    let told = move |at: At, to: &str| match (at, to) {
        (At::Rcpt, "r7@mail.example") => Does::Says("550 5.1.1 nobody"),
        (At::Rcpt, "r12@mail.example") => Does::Says("450 4.2.1 later"),
        (At::Rcpt, _) if 10 <= taken => Does::Says("421 4.7.0 too many"),
        (At::End, _) => {
            taken += 1;
            Does::Usual
        }
        _ => Does::Usual,
    };
    shop.server.manner(told);
    let became = shop.run().await;
    assert_eq!(became.len(), 20);
    assert_eq!(shop.count(Shelf::Sent), 10);
    let bad = |at: At, to: &str| match (at, to) {
        (At::Rcpt, "r7@mail.example") => Does::Says("550 5.1.1 nobody"),
        (At::Rcpt, "r12@mail.example") => Does::Says("450 4.2.1 later"),
        _ => Does::Usual,
    };
    shop.server.manner(bad);
    shop.run().await;
    shop.run().await;
    let (sent, refused) = (shop.count(Shelf::Sent), shop.count(Shelf::Refused));
    assert_eq!((sent, refused, shop.count(Shelf::Queue)), (18, 1, 1));
    shop.server.manner(|_, _| Does::Usual);
    shop.run().await;
    for to in &all {
        let expected = usize::from(to != "r7@mail.example");
        assert_eq!(shop.server.ended(to).len(), expected, "{to}");
    }
}

/// Case B128. After an answer that did not come in time the connection is gone: the late answer is
/// nobody else's.
#[tokio::test]
async fn no_answer_is_taken_for_another_messages() {
    let shop = Shop { waits: patience(), ..Shop::open(false).await };
    let all: Vec<String> = (1..=4).map(|it| format!("r{it}@mail.example")).collect();
    shop.add("news", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let mut ends = 0;
    // The second end is never answered; were its connection used again, the third would hang too.
    shop.server.manner(move |at, _| {
        ends += usize::from(at == At::End);
        if at == At::End && ends == 2 { Does::Hangs } else { Does::Usual }
    });
    let became = shop.run().await;
    let count = |is: fn(&Became) -> bool| became.values().filter(|it| is(it)).count();
    assert_eq!(count(|it| matches!(it, Became::Sent(_))), 3);
    assert_eq!(count(|it| matches!(it, Became::Unknown(_))), 1);
    assert_eq!(shop.server.connections(), 2);
    assert!(all.iter().all(|to| shop.server.ended(to).len() == 1));
}

/// A server closes connections that wait: the next message takes a new one, and none is lost.
#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_message() {
    let shop = Shop::open(false).await;
    let all: Vec<String> = (1..=6).map(|it| format!("r{it}@mail.example")).collect();
    shop.add("news", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let mut fresh = false;
    // Each connection takes one message.
    shop.server.manner(move |at, _| {
        fresh |= at == At::Greeting;
        let is_second = at == At::Mail && !std::mem::take(&mut fresh);
        if is_second { Does::Closes } else { Does::Usual }
    });
    let became = shop.run().await;
    assert!(became.values().all(|it| matches!(it, Became::Sent(_))), "{became:?}");
    assert_eq!(shop.server.all_ended(), 6);
}

/// Nothing is known of a message that is older than the store.
#[tokio::test]
async fn a_message_older_than_a_store_that_was_made_anew_is_not_sent() {
    let shop = Shop::open(false).await;
    let to = Mailbox::new(ANN).unwrap();
    let before = Timestamp::from_millis(1);
    let [message] = &frozen("welcome", None, &[to], TEXT, before).unwrap()[..] else { panic!() };
    shop.spool.add(message).unwrap();
    let store = Arc::new(MemoryStore::new());
    store.raise_floor(onlyonce_core::Floor::at(shop.engine.now())).await.unwrap();
    let runtime = Arc::new(TokioRuntime::new());
    let engine = Engine::start(store, runtime, Settings::default(), None).await.unwrap();
    let shop = Shop { engine, ..shop };
    assert!(matches!(&shop.run().await[ANN], Became::Unknown(_)));
    assert_eq!(shop.server.all_ended(), 0);
}

/// Two senders on one store and one spool.
#[tokio::test]
async fn two_senders_send_each_message_once() {
    let shop = Shop { workers: 4, ..Shop::open(false).await };
    let all: Vec<String> = (1..=30).map(|it| format!("r{it}@mail.example")).collect();
    shop.add("news", &all.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::join!(shop.run(), shop.run());
    shop.run().await;
    assert!(all.iter().all(|to| shop.server.ended(to).len() == 1));
    assert_eq!(shop.count(Shelf::Sent), 30);
}

/// A domain whose servers are slow has one message on its way, and the others are not held up.
#[tokio::test]
async fn a_domain_has_no_more_on_its_way_than_was_allowed() {
    let apart = Duration::from_millis(2);
    let shop = Shop { workers: 4, per_domain: 1, apart, ..Shop::open(false).await };
    let all: Vec<String> = (1..=12)
        .map(|it| format!("r{it}@{}.example", if it % 2 == 0 { "a" } else { "B" }))
        .collect();
    shop.add("news", &all.iter().map(String::as_str).collect::<Vec<_>>());
    let most = Arc::new(std::sync::Mutex::new([0_usize; 3]));
    let seen = Arc::clone(&most);
    // Now in a, now in B, and the most of either.
    shop.server.manner(move |at, to| {
        let mut seen = seen.lock().unwrap();
        let domain = usize::from(to.ends_with("@B.example"));
        match at {
            At::Rcpt => seen[domain] += 1,
            At::End => seen[domain] -= 1,
            At::Greeting | At::Ehlo | At::Mail | At::Data | At::Chunk => {}
        }
        seen[2] = seen[2].max(seen[0]).max(seen[1]);
        Does::Usual
    });
    let became = shop.run().await;
    assert!(became.values().all(|it| matches!(it, Became::Sent(_))), "{became:?}");
    assert_eq!((became.len(), shop.server.all_ended()), (12, 12));
    assert_eq!(*most.lock().unwrap(), [0, 0, 1]);
}
