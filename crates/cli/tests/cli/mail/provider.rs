//! Messages that go to a provider over HTTP, and what the sender has counted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Shop, WELCOME};
use crate::process::{Ran, Running, onlyonce, until};

const ANN: &str = "ann@mail.example";

/// A provider that remembers keys, and whose first answer is lost.
#[derive(Default)]
struct Fake {
    requests: Mutex<Vec<(String, Value)>>,
}

impl Fake {
    fn open() -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, fake) = (listener.local_addr().unwrap(), Arc::new(Self::default()));
        let serving = Arc::clone(&fake);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that is gone is no news.
                let _ = serving.serve(&stream.unwrap());
            }
        });
        (address.to_string(), fake)
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut length, mut head) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line.to_ascii_lowercase());
        }
        let mut content = vec![0; length];
        reader.read_exact(&mut content)?;
        let mut requests = self.requests.lock().unwrap();
        // A form, or nothing, is kept as it is.
        let text = String::from_utf8(content).unwrap();
        let key = head.split("?key=").nth(1).map(|it| it[..32].to_owned());
        requests.push((head, serde_json::from_str(&text).unwrap_or(Value::String(text))));
        if requests.len() == 1 {
            return Ok(());
        }
        // Under each name that one of them has for it.
        let told = match key {
            Some(key) => {
                json!({ "Messages": [{ "MessageID": "m-1", "Metadata": { "onlyonce": key } }] })
            }
            None => json!({ "id": "m-1", "messageId": "m-1", "MessageID": "m-1" }),
        };
        let (told, field) = (told.to_string(), "x-message-id: m-1");
        let length = told.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\n{field}\r\ncontent-length: {length}\r\n\r\n{told}");
        stream.write_all(answer.as_bytes())
    }
}

impl Shop {
    fn by_provider(&self, file: &str, environment: &[(&'static str, &str)]) -> Ran {
        let (store, file) = (self.folder.store(), self.folder.write("provider.toml", file));
        let arguments = ["mail", "run", "--once", "--spool", &self.spool, "--store", &store];
        let arguments = arguments.into_iter().chain(["--provider", &file]);
        let environment = environment.iter().map(|(name, it)| (*name, (*it).to_owned()));
        Running::start_with(arguments, environment).ended()
    }
}

/// A ready file, with another address laid over it: the lost answer is settled by the key.
#[test]
fn a_message_goes_to_a_provider_by_a_ready_file_and_a_lost_answer_is_settled_by_its_key() {
    let (shop, (address, fake)) = (Shop::open(), Fake::open());
    shop.add("welcome", &[ANN], WELCOME).done();
    let file = format!("like = \"resend\"\nurl = \"http://{address}/emails\"\n");
    let told = shop.by_provider(&file, &[]).failed(2);
    assert!(told.contains("RESEND_API_KEY is not set"), "{told}");
    let key = [("RESEND_API_KEY", "re_secret")];
    let out = shop.by_provider(&file, &key).done();
    assert!(out.contains("unknown welcome/ann@mail.example"), "{out}");
    assert_eq!(shop.counts(), [0, 0, 1, 0, 0]);
    assert_eq!(shop.status()["took"], Value::Null, "none was answered");
    let out = shop.by_provider(&file, &key).done();
    assert!(out.contains("sent welcome/ann@mail.example") && out.contains("m-1"), "{out}");
    assert_eq!(shop.by_provider(&file, &key).done(), "");
    assert_eq!(shop.counts(), [0, 0, 0, 1, 0]);
    let requests = fake.requests.lock().unwrap();
    let [(head, content), again] = &requests[..] else { panic!("{requests:?}") };
    assert!(head.contains("authorization: bearer re_secret\r\n"), "{head}");
    assert!(head.contains("idempotency-key: ") && *again == (head.clone(), content.clone()));
    assert_eq!((&content["to"][0], &content["subject"]), (&ANN.into(), &"Welcome".into()));
}

/// The others as well; that of SES is tried where its signatures are.
#[test]
fn each_ready_file_does_about_a_lost_answer_what_its_provider_offers() {
    for (like, secret, then, posts) in [
        ("brevo", "BREVO_API_KEY", "sent", 2),
        ("postmark", "POSTMARK_SERVER_TOKEN", "sent", 1),
        ("sendgrid", "SENDGRID_API_KEY", "unknown", 1),
        ("mailgun", "MAILGUN_AUTHORIZATION", "unknown", 1),
    ] {
        let (shop, (address, fake)) = (Shop::open(), Fake::open());
        shop.add("welcome", &[ANN], WELCOME).done();
        let url = format!("http://{address}");
        let file = match like {
            // The environment says where it is.
            "mailgun" => "like = \"mailgun\"\n".to_owned(),
            "postmark" => format!(
                "like = \"{like}\"\nurl = \"{url}\"\n[look]\nurl = \"{url}?key=${{key}}\"\n"
            ),
            _ => format!("like = \"{like}\"\nurl = \"{url}\"\n"),
        };
        let environment = [(secret, "s3cret"), ("MAILGUN_URL", &*url)];
        let run = || shop.by_provider(&file, &environment).done();
        let out = run();
        assert!(out.contains("unknown welcome/ann@mail.example"), "{like}: {out}");
        let out = run();
        assert!(out.contains(&format!("{then} welcome/ann@mail.example")), "{like}: {out}");
        let requests = fake.requests.lock().unwrap().clone();
        let posted: Vec<_> = requests.iter().filter(|it| it.0.starts_with("post ")).collect();
        assert_eq!(posted.len(), posts, "{like}: {requests:?}");
        assert!(posted.iter().all(|it| **it == *posted[0]), "{like}: the same key and bytes");
        assert!(requests.iter().all(|(head, _)| head.contains("s3cret")), "{like}: {requests:?}");
        let content = posted[0].1.to_string();
        assert!(content.contains("mail.example") && content.contains("Welcome"), "{content}");
        // One whose answer arrives.
        shop.add("news", &[ANN], WELCOME).done();
        let out = run();
        assert!(out.contains("sent news/ann@mail.example") && out.contains("m-1"), "{like}: {out}");
    }
}

/// A mail server may have the message: a provider that remembers keys has never seen this one.
#[test]
fn what_nobody_knows_of_one_way_is_not_sent_by_another() {
    let (shop, (address, fake)) = (Shop::open(), Fake::open());
    shop.add("welcome", &[ANN], WELCOME).done();
    shop.server.leaves(".");
    let running = shop.run(&[]);
    until("the end of a message", || (shop.server.ended().len() == 1).then_some(()));
    running.signal(rustix::process::Signal::KILL);
    running.ended();
    shop.server.answers();
    shop.add("news", &[ANN], WELCOME).done();
    let file = format!("like = \"resend\"\nurl = \"http://{address}/emails\"\n");
    let key = [("RESEND_API_KEY", "re_secret")];
    for _ in 0..2 {
        let told = shop.by_provider(&file, &key).failed(1);
        assert!(told.contains(&shop.address.to_string()), "{told}");
        assert!(told.contains("--on-unknown hold"), "{told}");
    }
    assert_eq!(fake.requests.lock().unwrap().len(), 0);
    // The way that it went knows, or holds.
    let out = shop.run(&["--once"]).ended().done();
    assert!(out.contains("unknown welcome/") && out.contains("sent news/"), "{out}");
    shop.settles("--did-not-happen");
    // What cannot be read now may be what nobody knows of.
    let mut queue = std::fs::read_dir(shop.folder.path("spool/queue")).unwrap();
    let file_of_it = queue.next().unwrap().unwrap().path();
    let whole = std::fs::read(&file_of_it).unwrap();
    std::fs::write(&file_of_it, &whole[1..]).unwrap();
    let told = shop.by_provider(&file, &key).failed(1);
    assert!(told.contains(&shop.address.to_string()), "{told}");
    std::fs::write(&file_of_it, &whole).unwrap();
    // Nobody doubts any more: it goes by whichever way.
    shop.by_provider(&file, &key).done();
    assert_eq!(fake.requests.lock().unwrap().len(), 1);
}

#[test]
fn a_mistake_in_the_file_of_a_provider_is_named_with_its_line() {
    let shop = Shop::open();
    let told = shop.by_provider("like = \"resend\"\nwindw = \"1h\"\n", &[]).failed(2);
    assert!(told.contains("provider.toml:2:1") && told.contains("did you mean `window`"), "{told}");
    // A receiver that forgets before anything can arrive remembers nothing.
    let short = "like = \"resend\"\nwindow = \"10s\"\n";
    let told = shop.by_provider(short, &[("RESEND_API_KEY", "x")]).failed(2);
    assert!(told.contains("it would never count"), "{told}");
}

/// For how long nobody knew, beside the whole: in the status, and where figures are collected.
#[test]
fn a_sender_says_for_how_long_nobody_knew() {
    let shop = Shop::open();
    let to: Vec<String> = (0..5).map(|number| format!("r{number}@mail.example")).collect();
    shop.add("news", &to.iter().map(String::as_str).collect::<Vec<_>>(), WELCOME).done();
    shop.run(&["--once"]).ended().done();
    let took = &shop.status()["took"];
    assert_eq!(
        (&took["in_doubt"]["messages"], &took["session"]["messages"]),
        (&5.into(), &5.into())
    );
    let within = |what: &str| took[what]["most_within"].as_f64().unwrap();
    assert!(within("in_doubt") <= within("session"), "{took}");
    let page = std::fs::read_to_string(shop.folder.path("spool/metrics.prom")).unwrap();
    assert!(page.contains("onlyonce_mail_attempts_total{became=\"sent\"} 5\n"), "{page}");
    let store = shop.folder.store();
    let arguments = ["mail", "status", "--spool", &shop.spool, "--store", &store];
    let said = onlyonce(arguments).done();
    assert!(said.contains("the last sender has sent 5: nobody knew for half within"), "{said}");
}
