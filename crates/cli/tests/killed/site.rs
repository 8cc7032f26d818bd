//! Receivers of each class, over HTTP: what they do is counted, and they keep what they promise.

#![allow(clippy::disallowed_methods, reason = "a receiver has a clock of its own")]

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use onlyonce_testbed::Postgres;

use crate::bench::until;

/// What a receiver does with a request that it has seen before, or that comes late.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// A row of PostgreSQL keeps the fence of who has written it, and takes no lower one.
    Fenced(Arc<Postgres>),
    /// A row of PostgreSQL has the key as its primary key, for ever.
    UniqueName(Arc<Postgres>),
    /// It drops duplicates of a key for so long.
    Keyed(Duration),
    /// It acts on whatever comes, and can be asked.
    Acts,
}

/// A receiver; its threads end with the connections.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    rule: Rule,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The answer to each effect, and when it was first given.
    effects: Mutex<HashMap<String, Vec<(String, Instant)>>>,
    /// The key and the number of each attempt that came whole.
    seen: Mutex<Vec<(String, u32)>>,
    /// Attempts with these numbers wait before anything is done, or before they are answered.
    held: Mutex<Held>,
    let_go: Condvar,
}

#[derive(Default)]
struct Held {
    before: Option<u32>,
    after: Option<u32>,
}

/// A request that came whole.
struct Asked {
    is_question: bool,
    key: String,
    fence: u64,
    attempt: u32,
}

impl Site {
    pub(crate) fn open(rule: Rule) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let site = Self { address, rule, inner: Arc::default() };
        let serving = site.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let site = serving.clone();
                // An error is the end of the connection.
                std::thread::spawn(move || while site.serve(&stream).is_ok() {});
            }
        });
        site
    }

    /// How often it acted under a key.
    pub(crate) fn effects_of(&self, key: &str) -> usize {
        match &self.rule {
            Rule::Fenced(postgres) => {
                let told = postgres.sql(
                    "postgres",
                    &format!("SELECT coalesce(sum(written), 0) FROM fenced WHERE key = '{key}'"),
                );
                told.trim().parse().unwrap()
            }
            Rule::UniqueName(_) | Rule::Keyed(_) | Rule::Acts => {
                self.inner.effects.lock().unwrap().get(key).map_or(0, Vec::len)
            }
        }
    }

    /// From now on an attempt with this number waits as in a queue.
    pub(crate) fn queue(&self, attempt: u32) {
        self.inner.held.lock().unwrap().before = Some(attempt);
    }

    /// Takes what waits out of the queue.
    pub(crate) fn take(&self) {
        self.inner.held.lock().unwrap().before = None;
        self.inner.let_go.notify_all();
    }

    /// From now on the answer to an attempt with this number is held back.
    pub(crate) fn hold(&self, attempt: u32) {
        self.inner.held.lock().unwrap().after = Some(attempt);
    }

    pub(crate) fn let_go(&self) {
        self.inner.held.lock().unwrap().after = None;
        self.inner.let_go.notify_all();
    }

    /// Waits until it has acted under a key.
    pub(crate) fn began(&self, key: &str) {
        until("an effect", || (0 < self.effects_of(key)).then_some(()));
    }

    /// Waits until an attempt has come whole.
    pub(crate) fn sees(&self, key: &str, attempt: u32) {
        let seen = &self.inner.seen;
        let has = || seen.lock().unwrap().iter().any(|(of, it)| of == key && *it == attempt);
        until("an attempt", || has().then_some(()));
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let asked = read(stream)?;
        let (status, body) = if asked.is_question {
            self.answer(&asked)
        } else {
            self.inner.seen.lock().unwrap().push((asked.key.clone(), asked.attempt));
            self.wait(|held| held.before == Some(asked.attempt));
            let told = self.act(&asked);
            self.wait(|held| held.after == Some(asked.attempt));
            told
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}", body.len());
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
    }

    fn wait(&self, waits: impl Fn(&Held) -> bool) {
        let held = self.inner.held.lock().unwrap();
        drop(self.inner.let_go.wait_while(held, |held| waits(held)).unwrap());
    }

    fn answer(&self, asked: &Asked) -> (&'static str, String) {
        match self.inner.effects.lock().unwrap().get(&asked.key).and_then(|it| it.first()) {
            Some((told, _)) => ("200 OK", told.clone()),
            None => ("404 Not Found", r#"{"error": "no such order"}"#.to_owned()),
        }
    }

    fn act(&self, asked: &Asked) -> (&'static str, String) {
        let Asked { key, fence, .. } = asked;
        match &self.rule {
            Rule::Fenced(postgres) => {
                let told = postgres.sql("postgres", &format!(
                    "INSERT INTO fenced VALUES ('{key}', {fence}, 1) ON CONFLICT (key) DO UPDATE \
                     SET fence = excluded.fence, written = fenced.written + 1 \
                     WHERE fenced.fence < excluded.fence RETURNING written"
                ));
                match told.trim() {
                    "" => ("412 Precondition Failed", "a newer claim has written it".to_owned()),
                    count => ("201 Created", format!("write {count} of {key}")),
                }
            }
            Rule::UniqueName(postgres) => {
                let told = postgres.sql(
                    "postgres",
                    &format!(
                        "INSERT INTO named VALUES ('{key}') ON CONFLICT DO NOTHING RETURNING key"
                    ),
                );
                if !told.trim().is_empty() {
                    self.happens(key);
                }
                ("201 Created", format!("{key} is there"))
            }
            Rule::Keyed(window) => {
                let known = self.inner.effects.lock().unwrap().get(key).and_then(|it| {
                    let (told, then) = it.last()?;
                    (then.elapsed() < *window).then(|| told.clone())
                });
                ("201 Created", known.unwrap_or_else(|| self.happens(key)))
            }
            Rule::Acts => ("201 Created", self.happens(key)),
        }
    }

    fn happens(&self, key: &str) -> String {
        let mut effects = self.inner.effects.lock().unwrap();
        let of_key = effects.entry(key.to_owned()).or_default();
        let told = format!("effect {} of {key}", of_key.len() + 1);
        of_key.push((told.clone(), Instant::now()));
        told
    }

    /// Waits until a receiver that remembers keys for some time has forgotten this one.
    pub(crate) fn forgets(&self, key: &str) {
        let Rule::Keyed(window) = self.rule else { return };
        until("the end of a window", || {
            let effects = self.inner.effects.lock().unwrap();
            let (_, then) = effects.get(key)?.last()?;
            (window <= then.elapsed()).then_some(())
        });
    }
}

/// The tables of the receivers that are rows of PostgreSQL.
pub(crate) const TABLES: &str = "\
    CREATE TABLE fenced (key text PRIMARY KEY, fence bigint NOT NULL, written int NOT NULL); \
    CREATE TABLE named (key text PRIMARY KEY)";

/// Reads a request whole.
fn read(mut stream: &TcpStream) -> io::Result<Asked> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4_096]);
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(cut());
        }
        bytes.extend_from_slice(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let number = |name: &str| field(name).and_then(|it| it.parse::<u64>().ok());
        let length = number("content-length").unwrap_or_default() as usize;
        if bytes.len() < end + 4 + length {
            continue;
        }
        let key = field("idempotency-key").ok_or_else(cut)?.trim_matches('"').to_owned();
        return Ok(Asked {
            is_question: head.starts_with("get "),
            key,
            fence: number("idempotency-fence").unwrap_or_default(),
            attempt: number("idempotency-attempt").unwrap_or_default() as u32,
        });
    }
}
