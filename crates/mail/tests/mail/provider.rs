//! A sender before a provider over HTTP that misbehaves on purpose: what it has sent is counted
//! there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce_mail::provider::Provider;
use onlyonce_mail::{Asking, Became, Keyed, Rules, Whom};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};

use crate::{ANN, Shop};

/// What the provider does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Accepts,
    /// It sends the message, and its answer is lost.
    AcceptsAndCloses,
    /// It sends the message, and somebody in between says this.
    AcceptsAndSays(u16),
    AcceptsAndHangs,
    /// The answer is cut off behind its status.
    AcceptsAndIsCut,
    /// It takes nothing, and says this.
    Says(u16),
    /// It takes nothing, and says nothing.
    Closes,
}

/// A request: its key, and its content.
type Request = (String, Value);

#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    /// What was sent.
    sent: Vec<Request>,
    /// What is found by a look-up, in place of what was sent.
    found: Option<Value>,
}

struct Shared {
    /// Whether it remembers keys.
    keyed: bool,
    does: Mutex<Does>,
    seen: Mutex<Seen>,
}

struct Fake {
    address: String,
    shared: Arc<Shared>,
}

impl Fake {
    async fn start(keyed: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Shared { keyed, does: Mutex::new(Does::Accepts), seen: Mutex::default() };
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { shared.serve(BufStream::new(stream)).await });
            }
        });
        Self { address, shared }
    }

    fn does(&self, does: Does) {
        *self.shared.does.lock().unwrap() = does;
    }

    fn requests(&self) -> Vec<Request> {
        self.shared.seen.lock().unwrap().requests.clone()
    }

    /// How many messages were sent.
    fn sent(&self) -> usize {
        self.shared.seen.lock().unwrap().sent.len()
    }

    /// A shop that uses it, with this in the provider's file.
    async fn shop(&self, more: &str) -> Shop {
        let url = &self.address;
        let file = format!(
            "url = \"http://{url}/emails\"\nid = \"/id\"\nwithin = \"500ms\"\n{more}\n[headers]\n\
             idempotency-key = \"${{key}}\"\n[json]\nfrom = \"${{from}}\"\nto = [\"${{to}}\"]\n\
             subject = \"${{subject}}\"\ntext = \"${{text}}\"\nhtml = \"${{html}}\"\n"
        );
        let provider = Arc::new(Provider::read("provider.toml", &file).unwrap());
        let keyed = provider.window().map(|window| Keyed { window, late: provider.late() });
        let asking = provider.bounds().map(|(settle, late)| Asking {
            whom: Whom::Provider(Arc::clone(&provider)),
            settle,
            late,
        });
        let rules = Rules { asking, keyed, ..Rules::default() };
        assert!(rules.policy().check().is_ok(), "{more}");
        let shop = Shop::open(false).await;
        Shop { provider: Some(provider), rules, ..shop }
    }

    /// What is asked about messages, with these bounds.
    fn look(&self, settle: &str, late: &str) -> String {
        format!(
            "look = {{ url = \"http://{}/look?key=${{key}}\", items = \"/items\", id = \"/id\", \
             marker = \"/key\", settle = \"{settle}\", late = \"{late}\" }}",
            self.address
        )
    }
}

impl Shared {
    async fn serve(&self, mut stream: BufStream<TcpStream>) {
        let (mut head, mut line) = (Vec::new(), String::new());
        while stream.read_line(&mut line).await.unwrap_or(0) != 0 && line != "\r\n" {
            head.push(std::mem::take(&mut line));
        }
        let field = |name: &str| {
            let lines = head.iter().filter_map(|line| line.split_once(':'));
            let mut found = lines.filter(|(it, _)| it.eq_ignore_ascii_case(name));
            found.next().map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let answer = if head.first().is_some_and(|it| it.starts_with("GET /look?key=")) {
            Some((200, json!({ "items": self.looked(&head[0]) }).to_string()))
        } else {
            let mut content = vec![0; field("content-length").parse().unwrap_or(0)];
            // A client that is gone has sent nothing.
            if stream.read_exact(&mut content).await.is_err() {
                return;
            }
            let content = serde_json::from_slice(&content).unwrap_or_default();
            let does = *self.does.lock().unwrap();
            let answer = self.posted(does, (field("idempotency-key"), content));
            if does == Does::AcceptsAndHangs {
                return std::future::pending().await;
            }
            if does == Does::AcceptsAndIsCut {
                let cut = b"HTTP/1.1 202 Accepted\r\ncontent-length: 90\r\n\r\n{";
                let _ = stream.write_all(cut).await;
                let _ = stream.flush().await;
                return;
            }
            answer
        };
        let Some((status, body)) = answer else { return };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}");
        // A client that is gone hears nothing.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.flush().await;
    }

    fn looked(&self, line: &str) -> Value {
        let seen = self.seen.lock().unwrap();
        let key = line.split(['=', ' ']).nth(2).unwrap();
        seen.found.clone().unwrap_or_else(|| {
            let sent = seen.sent.iter().filter(|(it, _)| it == key);
            sent.map(|(key, _)| json!({ "id": format!("m-{key}"), "key": key })).collect()
        })
    }

    fn posted(&self, does: Does, (key, content): Request) -> Option<(u16, String)> {
        let mut seen = self.seen.lock().unwrap();
        seen.requests.push((key.clone(), content.clone()));
        let accepted = (200, json!({ "id": format!("m-{key}") }).to_string());
        let accept = |seen: &mut Seen| {
            let known = seen.sent.iter().find(|(it, _)| self.keyed && *it == key);
            let is_other = known.is_some_and(|(_, before)| *before != content);
            if known.is_none() {
                seen.sent.push((key.clone(), content.clone()));
            }
            !is_other
        };
        match does {
            Does::Says(status) => Some((status, "no".to_owned())),
            Does::Closes => None,
            _ if !accept(&mut seen) => Some((409, "this key was used".to_owned())),
            Does::Accepts => Some(accepted),
            Does::AcceptsAndSays(status) => Some((status, "sorry".to_owned())),
            Does::AcceptsAndCloses | Does::AcceptsAndHangs | Does::AcceptsAndIsCut => None,
        }
    }
}

/// What becomes of Ann's message at the next attempt.
async fn next(shop: &Shop) -> Became {
    shop.run().await.remove(ANN).unwrap()
}

#[tokio::test]
async fn a_provider_gets_each_message_once_with_what_it_says_and_its_key() {
    let fake = Fake::start(false).await;
    let shop = fake.shop("").await;
    shop.add("welcome", &[ANN, "bob@mail.example"]);
    let became = shop.run().await;
    let Became::Sent(receipt) = &became[ANN] else { panic!("{became:?}") };
    assert!(receipt.contains("\"id\":\"m-") && receipt.contains("\"in_doubt_us\":"), "{receipt}");
    assert!(shop.run().await.is_empty());
    let requests = fake.requests();
    let (key, content) = requests.iter().find(|(_, it)| it["to"][0] == ANN).unwrap();
    assert_eq!(content["from"], "shop@shop.example");
    assert_eq!((&content["subject"], &content["html"]), (&json!("Welcome"), &Value::Null));
    assert_eq!(content["text"], ".hidden\r\nHello\r\n");
    assert_eq!((key.len(), requests.len(), fake.sent()), (32, 2, 2));
    assert_ne!(requests[0].0, requests[1].0, "each recipient has a key of its own");
}

/// The status says that it was taken, whatever is lost of the rest.
#[tokio::test]
async fn an_answer_that_is_cut_off_behind_its_status_counts() {
    let fake = Fake::start(false).await;
    let shop = fake.shop("").await;
    shop.add("welcome", &[ANN]);
    fake.does(Does::AcceptsAndIsCut);
    assert!(matches!(next(&shop).await, Became::Sent(_)));
    assert_eq!((fake.requests().len(), fake.sent()), (1, 1));
}

#[tokio::test]
async fn a_provider_without_keys_is_not_asked_again_while_nobody_knows() {
    let all = [
        Does::AcceptsAndCloses,
        Does::AcceptsAndHangs,
        Does::AcceptsAndSays(500),
        Does::AcceptsAndSays(502),
        Does::AcceptsAndSays(503),
        Does::AcceptsAndSays(409),
        Does::AcceptsAndSays(408),
        Does::AcceptsAndSays(307),
        Does::Closes,
    ];
    for does in all {
        let fake = Fake::start(false).await;
        let shop = fake.shop("").await;
        shop.add("welcome", &[ANN]);
        fake.does(does);
        assert!(matches!(next(&shop).await, Became::Unknown(_)), "{does:?}");
        fake.does(Does::Accepts);
        for _ in 0..3 {
            assert!(matches!(next(&shop).await, Became::Unknown(_)), "{does:?}");
        }
        assert_eq!(fake.requests().len(), 1, "{does:?}");
    }
}

#[tokio::test]
async fn a_definite_refusal_is_final_or_tried_again_as_it_says() {
    for status in [400, 413, 422] {
        let fake = Fake::start(false).await;
        let shop = fake.shop("").await;
        shop.add("welcome", &[ANN]);
        fake.does(Does::Says(status));
        let Became::Refused(why) = next(&shop).await else { panic!("{status}") };
        assert!(why.contains(&status.to_string()), "{why}");
        fake.does(Does::Accepts);
        assert!(shop.run().await.is_empty());
        assert_eq!(fake.requests().len(), 1, "{status}");
    }
    for status in [401, 403, 429] {
        let fake = Fake::start(false).await;
        let shop = fake.shop("").await;
        shop.add("welcome", &[ANN]);
        fake.does(Does::Says(status));
        assert!(matches!(next(&shop).await, Became::Waiting(_)), "{status}");
        fake.does(Does::Accepts);
        assert!(matches!(next(&shop).await, Became::Sent(_)), "{status}");
        assert_eq!((fake.requests().len(), fake.sent()), (2, 1), "{status}");
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_has_nothing() {
    let fake = Fake::start(false).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let (address, shared) = (closed.to_string(), Arc::clone(&fake.shared));
    let shop = Fake { address, shared }.shop("").await;
    shop.add("welcome", &[ANN]);
    assert!(matches!(next(&shop).await, Became::Waiting(_)));
    let provider = fake.shop("").await.provider;
    let shop = Shop { provider, ..shop };
    assert!(matches!(next(&shop).await, Became::Sent(_)));
    assert_eq!(fake.sent(), 1);
}

#[tokio::test]
async fn a_provider_that_remembers_keys_is_asked_again_and_sends_once() {
    for does in [Does::AcceptsAndCloses, Does::AcceptsAndHangs, Does::AcceptsAndSays(502)] {
        let fake = Fake::start(true).await;
        let shop = fake.shop("window = \"24h\"").await;
        shop.add("welcome", &[ANN]);
        fake.does(does);
        assert!(matches!(next(&shop).await, Became::Unknown(_)), "{does:?}");
        // What is refused now says nothing of the first attempt, however final it sounds.
        for status in [401, 422, 500] {
            fake.does(Does::Says(status));
            let became = next(&shop).await;
            assert!(!matches!(became, Became::Sent(_) | Became::Refused(_)), "{became:?}");
        }
        fake.does(Does::Accepts);
        assert!(matches!(next(&shop).await, Became::Sent(_)), "{does:?}");
        let requests = fake.requests();
        assert!(requests.iter().all(|it| *it == requests[0]), "the same key and bytes");
        assert_eq!((requests.len(), fake.sent()), (5, 1), "{does:?}");
    }
}

/// Nobody doubts that it has none of these: that it remembers keys is no reason to go on for ever.
#[tokio::test]
async fn a_provider_that_remembers_keys_is_given_up_as_others_are() {
    let never = Some(Duration::ZERO);
    for (says, rules) in [
        (429, Rules { tries: Some(3), ..Rules::default() }),
        (422, Rules::default()),
        (429, Rules { try_for: never, ..Rules::default() }),
    ] {
        let fake = Fake::start(true).await;
        let mut shop = fake.shop("window = \"24h\"").await;
        shop.add("welcome", &[ANN]);
        fake.does(Does::Says(429));
        for _ in 0..2 {
            assert!(matches!(next(&shop).await, Became::Waiting(_)), "{rules:?}");
        }
        fake.does(Does::Says(says));
        shop.rules = Rules { keyed: shop.rules.keyed, ..rules };
        let became = next(&shop).await;
        assert!(matches!(became, Became::Refused(_)), "{became:?}");
        assert_eq!((shop.run().await.len(), fake.sent()), (0, 0));
    }
}

/// The provider's file was changed while nobody knew: it refuses another content under the key.
#[tokio::test]
async fn a_key_that_the_provider_knows_with_another_content_leaves_it_unknown() {
    let fake = Fake::start(true).await;
    let shop = fake.shop("window = \"24h\"").await;
    shop.add("welcome", &[ANN]);
    fake.does(Does::AcceptsAndCloses);
    assert!(matches!(next(&shop).await, Became::Unknown(_)));
    fake.does(Does::Accepts);
    fake.shared.seen.lock().unwrap().sent[0].1 = json!({ "other": true });
    for _ in 0..2 {
        assert!(matches!(next(&shop).await, Became::Unknown(_)));
    }
    assert_eq!(fake.sent(), 1);
}

/// After that time the provider would send it a second time.
#[tokio::test]
async fn a_provider_is_not_asked_again_once_it_may_have_forgotten_the_key() {
    let fake = Fake::start(true).await;
    // A second longer than the lease, the clocks' difference and `late` need.
    let shop = fake.shop("window = \"33s\"\nlate = \"1s\"").await;
    shop.add("welcome", &[ANN]);
    fake.does(Does::AcceptsAndCloses);
    let mut requests = 0;
    loop {
        assert!(matches!(next(&shop).await, Became::Unknown(_)));
        if fake.requests().len() == requests {
            break;
        }
        requests = fake.requests().len();
    }
    assert!(1 < requests, "it was asked again while it remembered");
    fake.does(Does::Accepts);
    assert!(matches!(next(&shop).await, Became::Unknown(_)));
    assert_eq!((fake.requests().len(), fake.sent()), (requests, 1));
}

#[tokio::test]
async fn a_look_up_settles_what_nobody_knew() {
    let fake = Fake::start(false).await;
    let shop = fake.shop(&fake.look("1h", "1h")).await;
    shop.add("welcome", &[ANN]);
    fake.does(Does::AcceptsAndCloses);
    assert!(matches!(next(&shop).await, Became::Unknown(_)));
    fake.does(Does::Accepts);
    // Other people's messages, and what is no list, say nothing.
    for found in [json!([{ "id": "1", "key": "other" }]), json!([{ "id": "1" }]), json!(7)] {
        fake.shared.seen.lock().unwrap().found = Some(found.clone());
        assert!(matches!(next(&shop).await, Became::Unknown(_)), "{found}");
    }
    fake.shared.seen.lock().unwrap().found = None;
    let Became::Sent(receipt) = next(&shop).await else { panic!() };
    assert!(receipt.contains("\"evidence\":\"m-"), "{receipt}");
    assert_eq!((fake.requests().len(), fake.sent()), (1, 1));
}

#[tokio::test]
async fn a_look_up_that_finds_nothing_counts_once_the_bounds_have_passed() {
    let fake = Fake::start(false).await;
    let shop = fake.shop(&fake.look("1h", "0s")).await;
    shop.add("welcome", &[ANN]);
    fake.does(Does::Closes);
    assert!(matches!(next(&shop).await, Became::Unknown(_)));
    fake.does(Does::Accepts);
    assert!(matches!(next(&shop).await, Became::Unknown(_)));
    assert_eq!(fake.requests().len(), 1);
    let Shop { provider, rules, .. } = fake.shop(&fake.look("0s", "0s")).await;
    let shop = Shop { provider, rules, ..shop };
    // Long enough that a "no" would be believed; what is none never is.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    for found in [json!([{ "id": "1", "key": "other" }]), json!([{ "id": "1" }]), json!(7)] {
        fake.shared.seen.lock().unwrap().found = Some(found.clone());
        assert!(matches!(next(&shop).await, Became::Unknown(_)), "{found}");
    }
    assert_eq!(fake.requests().len(), 1);
    fake.shared.seen.lock().unwrap().found = None;
    while !matches!(next(&shop).await, Became::Sent(_)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((fake.requests().len(), fake.sent()), (2, 1));
}

#[tokio::test]
async fn what_the_file_has_no_place_for_is_refused_before_anything_is_sent() {
    let fake = Fake::start(false).await;
    let shop = fake.shop("").await;
    let text = b"From: shop@shop.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; \
                 boundary=m\n\n--m\nContent-Type: text/plain\n\nHello\n--m\nContent-Type: \
                 application/pdf\nContent-Disposition: attachment\n\nbill\n--m--\n";
    shop.add_text("bill", &[ANN], text);
    let Became::Refused(why) = next(&shop).await else { panic!() };
    assert!(why.contains("attachments"), "{why}");
    assert_eq!(fake.requests().len(), 0);
}
