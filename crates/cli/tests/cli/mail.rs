//! `onlyonce mail`: the sender is killed after the server has seen a message's end, before it could
//! write down what became of it.

mod archive;
mod config;
mod doubt;
mod mariadb;
mod outbox;
mod provider;
mod real;
mod ses;
mod sqlite;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Folder, Running, onlyonce, until};

const WELCOME: &str = "From: shop@shop.example\nSubject: Welcome\n\nHello\n";

/// A mail server that counts the ends of messages and, while told so, leaves a word unanswered.
struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The word that is not answered, if one is not.
    unanswered: Mutex<&'static str>,
    /// How many words were not answered.
    left: Mutex<usize>,
    /// The recipients of the messages whose end was seen.
    ended: Mutex<Vec<String>>,
    /// The Message-ID of the last message.
    id: Mutex<String>,
}

impl Server {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let serving = Arc::clone(&shared);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&serving));
                // A client that is killed ends its session with an error, and that is no news.
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { address, shared }
    }

    fn ended(&self) -> Vec<String> {
        let mut ended = self.shared.ended.lock().unwrap().clone();
        ended.sort();
        ended
    }

    /// From now on this word is not answered.
    fn leaves(&self, word: &'static str) {
        *self.shared.unanswered.lock().unwrap() = word;
    }

    /// From now on all are.
    fn answers(&self) {
        self.leaves("");
    }

    /// How many words were left unanswered.
    fn left(&self) -> usize {
        *self.shared.left.lock().unwrap()
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        stream.write_all(b"220 mx.example ESMTP\r\n")?;
        let (mut to, mut in_content) = (String::new(), false);
        while let Some(line) = lines.next().transpose()? {
            let word = line.split_whitespace().next().unwrap_or_default();
            if in_content && word != "." {
                if let Some(id) = line.strip_prefix("Message-ID: ") {
                    *self.id.lock().unwrap() = id.to_owned();
                }
                continue;
            }
            if word == "." {
                self.ended.lock().unwrap().push(to.clone());
            }
            if word == *self.unanswered.lock().unwrap() {
                *self.left.lock().unwrap() += 1;
                continue;
            }
            let answer = match word {
                "." => {
                    in_content = false;
                    "250 2.0.0 Ok: queued as 4F8A31C2E7\r\n"
                }
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap().to_owned();
                    "250 ok\r\n"
                }
                "DATA" => {
                    in_content = true;
                    "354 go on\r\n"
                }
                "QUIT" => return Ok(()),
                _ => "250 ok\r\n",
            };
            stream.write_all(answer.as_bytes())?;
        }
        Ok(())
    }
}

/// A shop with its store and its spool.
struct Shop {
    folder: Folder,
    server: Server,
    /// The mail server that it uses.
    address: SocketAddr,
    spool: String,
}

impl Shop {
    fn open() -> Self {
        let (folder, server) = (Folder::with_store(), Server::open());
        let spool = folder.path("spool").display().to_string();
        Self { folder, address: server.address, server, spool }
    }

    /// One that uses another server.
    fn before(address: SocketAddr) -> Self {
        Self { address, ..Self::open() }
    }

    fn add(&self, key: &str, to: &[&str], text: &str) -> crate::process::Ran {
        let file = self.folder.write("mail.eml", text);
        let mut arguments = vec!["mail", "add", "--spool", &self.spool, "--key", key];
        arguments.extend(["--from", "shop@shop.example"]);
        arguments.extend(to.iter().flat_map(|to| ["--to", to]));
        arguments.push(&file);
        onlyonce(arguments)
    }

    fn run(&self, more: &[&str]) -> Running {
        let more = more.iter().map(ToString::to_string);
        Running::start(self.arguments().into_iter().chain(more))
    }

    /// Of a sender.
    fn arguments(&self) -> Vec<String> {
        let (store, server) = (self.folder.store(), self.address.to_string());
        let arguments = ["mail", "run", "--spool", &self.spool, "--store", &store];
        let server = ["--server", &server, "--tls", "none"];
        arguments.iter().chain(&server).map(ToString::to_string).collect()
    }

    fn status(&self) -> Value {
        self.status_with(&[])
    }

    fn status_with(&self, more: &[&str]) -> Value {
        let store = self.folder.store();
        let arguments = ["mail", "status", "--spool", &self.spool, "--store", &store, "--json"];
        serde_json::from_str(&onlyonce(arguments.into_iter().chain(more.iter().copied())).done())
            .unwrap()
    }

    /// A person settles the one message that nobody knows of.
    fn settles(&self, how: &str) {
        let (status, store) = (self.status(), self.folder.store());
        let [doubt] = &status["doubts"].as_array().unwrap()[..] else { panic!("{status}") };
        let (id, fence) = (doubt["id"].as_str().unwrap(), doubt["fence"].to_string());
        let settle = ["keys", "resolve", id, "--fence", &fence, how, "--why", "looked"];
        onlyonce(settle.iter().chain(&["--store", &store])).done();
    }

    /// The one row of an outbox says what is true from its doubt to its end, also while the next
    /// attempt is far away. `runs` starts a sender, `says` is the row's state and what it was told.
    fn lets_a_row_go(&self, runs: impl Fn(&[&str]) -> Running, says: impl Fn() -> String) {
        let state = |state: &str| says().starts_with(state).then_some(());
        for how in ["--did-not-happen", "--run-again"] {
            let before = self.server.left();
            self.server.leaves(".");
            let running = runs(&[]);
            until("an end that is not answered", || (before < self.server.left()).then_some(()));
            running.signal(Signal::KILL);
            running.ended();
            self.server.answers();
            let running = runs(&[]);
            until("its row that is told", || state("unknown"));
            self.settles(how);
            until("its row that goes on", || state("taken"));
            let is_known = !says().contains("nobody knows whether it was sent");
            assert_eq!(is_known, how == "--did-not-happen", "{}", says());
            running.signal(Signal::TERM);
            running.ended().done();
        }
        runs(&["--once"]).ended().done();
        assert!(says().starts_with("sent"), "{}", says());
        assert_eq!(self.server.ended().len(), 3);
    }

    /// How many of each kind; they add up.
    fn counts(&self) -> [u64; 5] {
        let status = self.status();
        let count = |kind: &str| status[kind]["messages"].as_u64().unwrap();
        let all = ["queued", "answered", "sending", "unknown", "sent", "refused", "damaged"];
        assert_eq!(status["all"], all.iter().map(|it| count(it)).sum::<u64>());
        ["queued", "sending", "unknown", "sent", "refused"].map(count)
    }
}

/// Case B123. One welcome, though the sender was killed between the end and writing it down.
#[test]
fn a_sender_killed_after_sending_and_before_marking_sends_nothing_twice() {
    let shop = Shop::open();
    let to = ["ann@mail.example", "bob@mail.example"];
    let added = shop.add("welcome", &to, WELCOME).done();
    assert_eq!(added, "added welcome/ann@mail.example\nadded welcome/bob@mail.example\n");
    assert_eq!(shop.counts(), [2, 0, 0, 0, 0]);

    shop.server.leaves(".");
    let running = shop.run(&["--workers", "1"]);
    until("the end of a message", || (shop.server.ended().len() == 1).then_some(()));
    // While it runs, the one on its way is shown by the process that has the journal.
    assert_eq!(shop.counts(), [1, 1, 0, 0, 0]);
    running.signal(Signal::KILL);
    assert_eq!(running.ended().code, None);

    shop.server.answers();
    assert_eq!(shop.counts(), [1, 0, 1, 0, 0]);
    for _ in 0..3 {
        let out = shop.run(&["--once"]).ended().done();
        assert!(out.contains("unknown welcome/"), "{out}");
    }
    assert_eq!(shop.server.ended(), to, "each was sent once");
    assert_eq!(shop.counts(), [0, 0, 1, 1, 0]);

    // What is in doubt is named here and where all doubts are, and a person settles it.
    let store = shop.folder.store();
    let listed = onlyonce(["keys", "list", "--state", "unknown", "--store", &store]).done();
    assert!(listed.contains(shop.status()["doubts"][0]["id"].as_str().unwrap()), "{listed}");
    shop.settles("--did-not-happen");
    shop.run(&["--once"]).ended().done();
    assert_eq!(shop.counts(), [0, 0, 0, 2, 0]);
    assert_eq!(shop.server.ended().len(), 3, "once more, as was said");
}

#[test]
fn a_message_is_added_once_and_another_needs_another_key() {
    let shop = Shop::open();
    shop.add("welcome", &["ann@mail.example"], WELCOME).done();
    let again = shop.add("welcome", &["ann@mail.example"], WELCOME).done();
    assert_eq!(again, "there already welcome/ann@mail.example\n");
    let other = shop.add("welcome", &["ann@mail.example"], "From: a@b.example\n\nBye\n");
    assert!(other.failed(1).contains("welcome/ann@mail.example"));
    let wrong = shop.add("news", &["ann@mail.example"], "From: a@b.example\nno field\n\n");
    assert!(wrong.failed(2).contains("mail.eml: line 2"));
    let nobody = shop.add("news", &["ann"], WELCOME).failed(2);
    assert!(nobody.contains("to \"ann\""), "{nobody}");
    assert_eq!(shop.counts(), [1, 0, 0, 0, 0]);
    shop.run(&["--once"]).ended().done();
    assert_eq!((shop.counts(), shop.server.ended().len()), ([0, 0, 0, 1, 0], 1));
}

#[test]
fn a_sender_that_is_asked_to_end_lets_the_message_on_its_way_end() {
    let shop = Shop::open();
    let running = shop.run(&[]);
    shop.add("welcome", &["ann@mail.example"], WELCOME).done();
    until("a message that is sent", || (shop.server.ended().len() == 1).then_some(()));
    running.signal(Signal::TERM);
    assert!(running.ended().done().contains("sent welcome/ann@mail.example"));
    assert_eq!(shop.counts(), [0, 0, 0, 1, 0]);
}

/// Another store knows nothing of what was sent.
#[test]
fn a_spool_is_sent_by_the_store_that_has_its_records_alone() {
    let shop = Shop::open();
    shop.add("welcome", &["ann@mail.example"], WELCOME).done();
    shop.run(&["--once"]).ended().done();
    shop.add("news", &["ann@mail.example"], WELCOME).done();
    let other = Folder::with_store();
    let server = shop.address.to_string();
    let arguments = ["mail", "run", "--once", "--spool", &shop.spool, "--store", &other.store()];
    let told = onlyonce(arguments.iter().chain(&["--server", &server, "--tls", "none"])).failed(1);
    assert!(told.contains("another store") && told.contains("spool/store"), "{told}");
    assert_eq!((shop.server.ended().len(), shop.counts()), (1, [1, 0, 0, 1, 0]));
    shop.run(&["--once"]).ended().done();
    assert_eq!((shop.server.ended().len(), shop.counts()), (2, [0, 0, 0, 2, 0]));
}

/// Each line is a message of its own, and the whole may be repeated: it ends at the first line that
/// is none, and names it.
#[test]
fn messages_come_as_lines_of_json_too_and_are_added_once() {
    let shop = Shop::open();
    let line = |number: u32, to: &str| {
        let key = format!("news/{number}");
        let (from, text) = ("shop@shop.example", "Grüße\n");
        let subject = "Neuigkeiten für Jörg";
        json!({ "key": key, "from": from, "to": [to], "subject": subject, "text": text })
    };
    let lines = format!("{}\n{}\n", line(1, "ann@mail.example"), line(2, "bob"));
    let add = |lines: &str| {
        let file = shop.folder.write("news.jsonl", lines);
        onlyonce(["mail", "add", "--spool", &shop.spool, "--lines", &file])
    };
    let told = add(&lines);
    assert_eq!(told.out, "added news/1/ann@mail.example\n");
    assert!(told.failed(2).contains("news.jsonl: line 2: to \"bob\""));
    let lines = lines.replace("\"bob\"", "\"bob@mail.example\"");
    let told = add(&lines).done();
    assert_eq!(told, "there already news/1/ann@mail.example\nadded news/2/bob@mail.example\n");
    let told = add(&lines.replace("Gr", "gr"));
    assert!(told.failed(1).contains("news/1/ann@mail.example, news/2/bob@mail.example"));
    shop.run(&["--once", "--per-domain", "1", "--rate", "10/s"]).ended().done();
    assert_eq!(shop.server.ended(), ["ann@mail.example", "bob@mail.example"]);
    for rate in ["10", "0/s", "1001/s", "1/d"] {
        let told = shop.run(&["--once", "--rate", rate]).ended().failed(2);
        assert!(told.contains("a rate is N/s"), "{told}");
    }
}
