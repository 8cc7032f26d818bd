//! Messages that go to Amazon SES by its API: the service is one of ours that checks each
//! signature, from what has arrived and by code of its own, before it takes a message.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::{Shop, WELCOME};
use crate::process::{Ran, Running};

const ANN: &str = "ann@mail.example";
const PATH: &str = "/v2/email/outbound-emails";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// What becomes of a request that was signed as it must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Does {
    #[default]
    Accepts,
    /// It sends the message, and its answer is lost.
    AcceptsAndCloses,
    /// It takes nothing, and says this.
    Says(u16),
}

#[derive(Default)]
struct Ses {
    does: Mutex<Does>,
    /// What was sent.
    sent: Mutex<Vec<Value>>,
    /// Requests whose signature was wrong.
    forged: Mutex<usize>,
}

impl Ses {
    fn open() -> (String, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, ses) = (listener.local_addr().unwrap(), Arc::new(Self::default()));
        let serving = Arc::clone(&ses);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that is gone is no news.
                let _ = serving.serve(&stream.unwrap());
            }
        });
        (address.to_string(), ses)
    }

    fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn sent(&self) -> Vec<Value> {
        self.sent.lock().unwrap().clone()
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut first, mut fields) = (String::new(), BTreeMap::new());
        reader.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = fields.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
        let mut content = vec![0; length];
        reader.read_exact(&mut content)?;
        let is_here = first.starts_with(&format!("POST {PATH} "));
        let (status, answer) = if !is_here || !is_signed(&fields, &content) {
            *self.forged.lock().unwrap() += 1;
            (403, json!({ "message": "The request signature we calculated does not match" }))
        } else {
            let does = *self.does.lock().unwrap();
            if !matches!(does, Does::Says(_)) {
                self.sent.lock().unwrap().push(serde_json::from_slice(&content)?);
            }
            match does {
                Does::Accepts => (200, json!({ "MessageId": "0100018c-welcome" })),
                Does::AcceptsAndCloses => return Ok(()),
                Does::Says(status) => (status, json!({ "message": "Sending is paused" })),
            }
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes())
    }
}

/// Whether whoever has the secret has signed this, as AWS describes it.
fn is_signed(fields: &BTreeMap<String, String>, content: &[u8]) -> bool {
    let check = || {
        let says = fields.get("authorization")?.strip_prefix("AWS4-HMAC-SHA256 Credential=")?;
        let (credential, rest) = says.split_once(", SignedHeaders=")?;
        let (names, signature) = rest.split_once(", Signature=")?;
        let (key, scope) = credential.split_once('/')?;
        let [day, region, service, end] = scope.split('/').collect::<Vec<_>>().try_into().ok()?;
        let at = fields.get("x-amz-date")?;
        let known = (key, region, service, end) == ("AKID", "eu-west-1", "ses", "aws4_request");
        let whole =
            ["host", "x-amz-date"].iter().all(|it| names.split(';').any(|name| name == *it));
        if !known || !whole || !at.starts_with(day) {
            return None;
        }
        let line = |name: &str| Some(format!("{name}:{}\n", fields.get(name)?));
        let lines: String = names.split(';').map(line).collect::<Option<_>>()?;
        let request = format!("POST\n{PATH}\n\n{lines}\n{names}\n{}", sha256(content));
        let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", sha256(request.as_bytes()));
        let first = format!("AWS4{SECRET}").into_bytes();
        let key = [day, region, service, end].iter().fold(first, |key, part| mac(&key, part));
        Some(hex(&mac(&key, &text)) == signature)
    };
    check().unwrap_or(false)
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Shop {
    fn by_ses(&self, address: &str, secret: &str) -> Ran {
        let file = format!("like = \"ses\"\nurl = \"http://{address}{PATH}\"\n");
        let (store, file) = (self.folder.store(), self.folder.write("ses.toml", &file));
        let arguments = ["mail", "run", "--once", "--spool", &self.spool, "--store", &store];
        let arguments = arguments.into_iter().chain(["--provider", &file]);
        let environment = [
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_SESSION_TOKEN", ""),
        ];
        let environment = environment.map(|(name, value)| (name, value.to_owned()));
        Running::start_with(arguments, environment).ended()
    }
}

#[test]
fn a_message_goes_to_ses_whole_and_signed_and_one_that_was_answered_goes_once() {
    let (shop, (address, ses)) = (Shop::open(), Ses::open());
    shop.add("welcome", &[ANN, "bob@mail.example"], WELCOME).done();
    let out = shop.by_ses(&address, SECRET).done();
    assert_eq!(out.matches("0100018c-welcome").count(), 2, "{out}");
    assert_eq!(shop.by_ses(&address, SECRET).done(), "");
    assert_eq!((shop.counts(), *ses.forged.lock().unwrap()), ([0, 0, 0, 2, 0], 0));
    let sent = ses.sent();
    let of_ann = |it: &&Value| it["Destination"]["ToAddresses"] == json!([ANN]);
    let ann: Vec<_> = sent.iter().filter(of_ann).collect();
    let ([ann], 2) = (&ann[..], sent.len()) else { panic!("{sent:?}") };
    assert_eq!(ann["FromEmailAddress"], "shop@shop.example");
    assert_eq!(ann["EmailTags"][0]["Value"].as_str().unwrap().len(), 32, "its key");
    let raw = STANDARD.decode(ann["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap();
    let raw = String::from_utf8(raw).unwrap();
    assert!(raw.contains("Message-ID: <") && raw.ends_with("\r\n\r\nHello\r\n"), "{raw}");
}

/// Case B123. It knows no key: what nobody knows is held.
#[test]
fn an_answer_of_ses_that_is_lost_is_unknown_and_a_refusal_for_now_waits() {
    let (shop, (address, ses)) = (Shop::open(), Ses::open());
    shop.add("welcome", &[ANN], WELCOME).done();
    for (does, secret) in
        [(Does::Says(400), SECRET), (Does::Says(429), SECRET), (Does::Accepts, "another")]
    {
        ses.does(does);
        let out = shop.by_ses(&address, secret).done();
        assert!(out.contains("waiting welcome/ann@mail.example"), "{does:?}: {out}");
        assert_eq!((ses.sent().len(), shop.counts()), (0, [1, 0, 0, 0, 0]), "{does:?}");
    }
    assert_eq!(*ses.forged.lock().unwrap(), 1, "the one with another secret");
    ses.does(Does::AcceptsAndCloses);
    for _ in 0..2 {
        let out = shop.by_ses(&address, SECRET).done();
        assert!(out.contains("unknown welcome/ann@mail.example"), "{out}");
        ses.does(Does::Accepts);
    }
    assert_eq!((ses.sent().len(), shop.counts()), (1, [0, 0, 1, 0, 0]));
}
