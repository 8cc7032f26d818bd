//! Takes the disk from under `onlyonce mail run --config`: the one that its spool is on, or the one
//! that has its records. What it sends is counted at its mail server.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onlyonce::{Answer, Engine, Ran, Request, Settings, direct};
use onlyonce_core::{Fingerprint, Key, Policy, Reply, Scope};
use onlyonce_journal::Journal;
use onlyonce_tokio::TokioRuntime;

use crate::disk::Disk;
use crate::proxy::init;
use crate::random::Random;

/// Two segments of a journal, and some more.
const DISK_MIB: u64 = 140;
/// Shops with a full disk, each with a spool and a store of its own.
const SHOPS: u64 = 16;
const MESSAGES: usize = 12;
/// How often a sender is started until nothing waits.
const CALLS_MAX: u32 = 20;
/// An answer that does not fit into a store that is full for all, in bytes.
const NONE: usize = 128;
/// And one that does not fit into a store that is full for a few messages: at least, and how
/// many more at most.
const ROOM_MIN: usize = 6_000;
const ROOM_MORE: u64 = 10_000;
/// The largest answer that takes its room: so often that many bytes.
const LARGE: usize = 512;

/// What is full, and from when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// The spool, before the sender begins,
    AtFirst,
    /// when the server has heard of so many recipients, and has not answered,
    AtRecipient(usize),
    /// or when it has heard so many ends.
    AtEnd(usize),
    /// The store: an answer of so many bytes does not fit any more.
    Store(usize),
}

/// Has each shop send its messages on a disk that is filled, and then until nothing waits. `Err`
/// says which promise was broken.
pub(crate) async fn run(binary: &Path, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut felt = [0; 2];
    for number in 0..SHOPS {
        let at = 1 + random.below(5) as usize;
        let full = match number % 8 {
            0 | 4 => Full::AtFirst,
            1 | 5 => Full::AtRecipient(at),
            2 | 6 => Full::AtEnd(at),
            3 => Full::Store(NONE),
            _ => Full::Store(ROOM_MIN + random.below(ROOM_MORE) as usize),
        };
        let shop = Shop::open(binary, full).await.map_err(|it| format!("{full:?}: {it}"))?;
        let was_felt = shop.played(full).map_err(|it| format!("{full:?}: {it}"))?;
        felt[usize::from(matches!(full, Full::Store(_)))] += usize::from(was_felt);
    }
    // Else it was not tried.
    match felt {
        [0, _] | [_, 0] => Err(format!("the disk was not full where it matters: {felt:?}")),
        [_, _] => Ok(()),
    }
}

fn said(error: &io::Error) -> String {
    error.to_string()
}

/// A spool and a store, one of them on a small disk.
struct Shop<'a> {
    binary: &'a Path,
    disk: Arc<Disk>,
    other: tempfile::TempDir,
    spool: String,
    store: String,
    server: Server,
}

impl<'a> Shop<'a> {
    async fn open(binary: &'a Path, full: Full) -> Result<Self, String> {
        let disk = Arc::new(Disk::mount(DISK_MIB)?);
        let other = tempfile::tempdir().map_err(|it| said(&it))?;
        let (small, large) = (disk.path(), other.path());
        let is_store = matches!(full, Full::Store(_));
        let (spool, store) = if is_store { (large, small) } else { (small, large) };
        let (spool, store) = (spool.join("spool"), store.join("journal"));
        init(binary, &store)?;
        let server = Server::open(full, &disk).map_err(|it| said(&it))?;
        let config = format!("[server]\nhost = \"{}\"\ntls = \"none\"\n", server.address);
        std::fs::write(large.join("mail.toml"), config).map_err(|it| said(&it))?;
        if let Full::Store(bytes) = full {
            disk.fill();
            occupied(&store, bytes).await?;
        }
        let spool = spool.display().to_string();
        let store = format!("journal:{}", store.display());
        Ok(Self { binary, disk, other, spool, store, server })
    }

    fn call(&self, words: &[&str], more: &[&str]) -> Result<Output, String> {
        let mut command = Command::new(self.binary);
        command.args(words).args(["--spool", &self.spool]).args(more).stdin(Stdio::null());
        command.output().map_err(|it| said(&it))
    }

    /// Takes in the first messages: whether it could.
    fn adds(&self, count: usize) -> Result<bool, String> {
        let line = |number: usize| {
            format!(
                "{{\"key\": \"news/{number}\", \"from\": \"shop@shop.example\", \"to\": \
                 [\"r{number}@mail.example\"], \"subject\": \"News\", \"text\": \"Hello\"}}\n"
            )
        };
        let lines: String = (0..count).map(line).collect();
        let file = self.other.path().join("news.jsonl");
        std::fs::write(&file, lines).map_err(|it| said(&it))?;
        let file = file.display().to_string();
        Ok(self.call(&["mail", "add", "--lines", &file], &[])?.status.success())
    }

    /// What a sender says that tries all once, and whether it ended well.
    fn sends(&self) -> Result<(bool, String), String> {
        let config = self.other.path().join("mail.toml").display().to_string();
        let words = ["mail", "run", "--once", "--config", &config];
        let Output { status, stdout, stderr } = self.call(&words, &["--store", &self.store])?;
        let told = [stdout, stderr].map(|it| String::from_utf8_lossy(&it).into_owned()).concat();
        match (status.code(), self.server.twice()) {
            (None, _) => Err(format!("{status}: {told}")),
            (_, Some(to)) => Err(format!("{to} was sent twice: {told}")),
            (code, None) => Ok((code == Some(0), told)),
        }
    }

    /// How many messages wait, nobody knows of, and were sent.
    fn counts(&self) -> Result<[u64; 3], String> {
        let status = self.call(&["mail", "status", "--json"], &["--store", &self.store])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)
            .map_err(|it| format!("{it}: {}", String::from_utf8_lossy(&status.stderr)))?;
        let count = |kind: &str| status[kind]["messages"].as_u64().unwrap_or_default();
        let waiting = ["queued", "answered", "sending", "damaged"].map(count).iter().sum();
        Ok([waiting, count("unknown"), count("sent")])
    }

    /// Whether the disk was full for anybody.
    fn played(&self, full: Full) -> Result<bool, String> {
        if !self.adds(MESSAGES / 2)? {
            return Err("messages could not be added on a disk with room".into());
        }
        if full == Full::AtFirst {
            self.disk.fill();
        }
        let (ended_well, told) = self.sends()?;
        let added = self.adds(MESSAGES)?;
        let is_felt = !ended_well || !added || told.contains("not sent");
        self.disk.free()?;
        if !self.adds(MESSAGES)? {
            return Err(format!("messages could not be added again: {told}"));
        }
        for _ in 0..CALLS_MAX {
            let (_, again) = self.sends()?;
            if let [0, unknown, sent] = self.counts()? {
                let (all, ended) = (unknown + sent, self.server.ended() as u64);
                let fits = all == MESSAGES as u64 && (sent..=all).contains(&ended);
                let text = || format!("{sent} sent, {unknown} unknown, {ended} ended: {again}");
                return if fits { Ok(is_felt) } else { Err(text()) };
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("it does not become quiet: {:?} {told}", self.counts()?))
    }
}

/// Answers are kept until one of so many bytes does not fit.
async fn occupied(journal: &Path, least: usize) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| format!("to take the room: {error}");
    let store = Journal::open(journal, onlyonce_journal::Settings::default());
    let store = Arc::new(store.map_err(|it| wrong(&it))?);
    let secret = Journal::read_secret(journal).map_err(|it| wrong(&it))?;
    let scope = Scope::new("others").map_err(|it| wrong(&it))?;
    let runtime = Arc::new(TokioRuntime::new());
    let engine = Engine::start(store.clone(), runtime, Settings::default(), None).await;
    let engine = engine.map_err(|it| wrong(&it))?;
    let (mut bytes, mut number) = (LARGE * least, 0);
    while least <= bytes {
        number += 1;
        let key = Key::new(format!("{number}")).map_err(|it| wrong(&it))?;
        let id = secret.key_id(&scope, &key);
        let request = Request::new(id, Fingerprint::new(1, [0; 32]));
        let reply = Reply::kept(200, vec![b'x'; bytes]);
        let run = direct(move |_| async move { Ran::Happened(reply) });
        let answer = engine.once(&request, &Policy::default(), Duration::ZERO, run).await;
        let record = engine.get(id).await.ok().flatten();
        let is_kept = matches!(answer, Ok(Answer::Reply(_)))
            && record.is_some_and(|it| has_content(&it.state));
        if !is_kept {
            bytes /= 2;
        }
    }
    store.close();
    Ok(())
}

fn has_content(state: &onlyonce_core::State) -> bool {
    matches!(state, onlyonce_core::State::Completed { reply, .. } if reply.content().is_some())
}

/// A mail server that takes everything, and fills a disk when it is told to.
struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    full: Full,
    disk: Arc<Disk>,
    /// How many recipients it has heard of.
    recipients: Mutex<usize>,
    /// Those of the messages whose end it has seen.
    ended: Mutex<Vec<String>>,
}

impl Server {
    fn open(full: Full, disk: &Arc<Disk>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (recipients, ended) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { full, disk: Arc::clone(disk), recipients, ended });
        // It ends with the process.
        let serving = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), Some(shared)) = (stream, serving.upgrade()) else { return };
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Ok(Self { address, shared })
    }

    fn ended(&self) -> usize {
        self.shared.ended.lock().unwrap().len()
    }

    /// Who got a message twice, if anybody did.
    fn twice(&self) -> Option<String> {
        let mut once = BTreeSet::new();
        let ended = self.shared.ended.lock().unwrap();
        ended.iter().find(|to| !once.insert(*to)).cloned()
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        stream.write_all(b"220 mx.example ESMTP\r\n")?;
        let (mut to, mut in_content) = (String::new(), false);
        while let Some(line) = lines.next().transpose()? {
            let word = line.split_whitespace().next().unwrap_or_default();
            if in_content && word != "." {
                continue;
            }
            let answer: &[u8] = match word {
                "." => {
                    in_content = false;
                    self.heard_end(&to);
                    b"250 2.0.0 Ok: queued as 4F8A31C2E7\r\n"
                }
                "RCPT" => {
                    to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    self.heard_recipient();
                    b"250 ok\r\n"
                }
                "DATA" => {
                    in_content = true;
                    b"354 go on\r\n"
                }
                "QUIT" => return Ok(()),
                _ => b"250 ok\r\n",
            };
            stream.write_all(answer)?;
        }
        Ok(())
    }

    fn heard_recipient(&self) {
        let mut recipients = self.recipients.lock().unwrap();
        *recipients += 1;
        if self.full == Full::AtRecipient(*recipients) {
            self.disk.fill();
        }
    }

    fn heard_end(&self, to: &str) {
        let mut ended = self.ended.lock().unwrap();
        ended.push(to.to_owned());
        if self.full == Full::AtEnd(ended.len()) {
            self.disk.fill();
        }
    }
}
