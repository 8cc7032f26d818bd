//! A relay between a sender of mail and its server that reads along: it counts the ends of
//! messages, and at each word of the sender it can lose the word, or its answer.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::port::Port;

/// What a sender says, in the order in which it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word {
    /// `EHLO`.
    Hello,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, or `BDAT` with a chunk that is not the last.
    Content,
    /// The content itself.
    Text,
    /// The dot, or `BDAT 0 LAST`: from here on the server may have the message.
    End,
    /// Anything else.
    Other,
}

impl Word {
    /// Those of each message that goes well.
    pub const ALL: [Self; 6] =
        [Self::Hello, Self::Sender, Self::Recipient, Self::Content, Self::Text, Self::End];
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In good order, as the system does for a process that ended: what was sent before arrives.
    Close,
    /// At once: what the other side has not read yet, it may never see.
    Reset,
}

/// What becomes of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Passes,
    /// It gets lost, and the connection with it; of a text, a part arrives.
    Lost(Cut),
    /// It arrives, and the connection is cut at once.
    Arrives(Cut),
    /// It arrives and is answered; the answer gets lost, and the connection with it. A text by
    /// `DATA` has the answer of its end.
    Unanswered(Cut),
    /// It arrives and is answered; no answer gets through any more, and nothing is closed.
    Silent,
}

type Decide = Box<dyn FnMut(Word, &str) -> Fate + Send>;

/// Stands before a mail server.
pub struct MailRelay {
    port: Port,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    decide: Mutex<Decide>,
    ends: Mutex<BTreeMap<String, usize>>,
    /// Those that are open, by their number.
    links: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

/// How answers are treated.
const PASS: u8 = 0;
const SWALLOW: u8 = 1;
const CLOSE: u8 = 2;
const RESET: u8 = 3;

impl MailRelay {
    /// One in front of `target` that lets all pass.
    pub fn to(target: SocketAddr) -> Self {
        let port = Port::free();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let decide: Mutex<Decide> = Mutex::new(Box::new(|_, _| Fate::Passes));
        let (ends, links) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { target, decide, ends, links });
        let serving = Arc::clone(&shared);
        // It ends with the test's process.
        thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                serving.link(number, client);
            }
        });
        Self { port, shared }
    }

    /// Where senders connect to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// From now on this decides what becomes of each word; it is told the word and the recipient,
    /// if one was named.
    pub fn decide(&self, decide: impl FnMut(Word, &str) -> Fate + Send + 'static) {
        *self.shared.decide.lock().unwrap() = Box::new(decide);
    }

    /// How often the end of a message for this recipient was said here, whether or not it was
    /// passed on.
    pub fn ends(&self, to: &str) -> usize {
        self.shared.ends.lock().unwrap().get(to).copied().unwrap_or(0)
    }

    /// The same for everybody.
    pub fn all_ends(&self) -> BTreeMap<String, usize> {
        self.shared.ends.lock().unwrap().clone()
    }

    /// Whether there is no connection: what senders that are gone have said was passed on.
    pub fn is_idle(&self) -> bool {
        self.shared.links.lock().unwrap().is_empty()
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        for end in self.shared.links.lock().unwrap().values().flatten() {
            cut(end, Cut::Close);
        }
    }
}

fn cut(stream: &TcpStream, how: Cut) {
    // It may be closed already, and then there is nothing to cut.
    let _ = match how {
        Cut::Close => stream.shutdown(Shutdown::Both),
        Cut::Reset => rustix::net::connect_unspec(stream).map_err(Into::into),
    };
}

impl Shared {
    fn link(self: &Arc<Self>, number: u64, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let same = |stream: &TcpStream| stream.try_clone().unwrap();
        let (ends, answers) = ([same(&client), same(&server)], Arc::new(AtomicU8::new(PASS)));
        self.links.lock().unwrap().insert(number, ends);
        let (from, to, mode) = (same(&server), same(&client), Arc::clone(&answers));
        thread::spawn(move || answer(&from, &to, &mode));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let links = Arc::clone(&shared);
            let link = Link { shared, client, server, answers, to: String::new() };
            // What becomes of it has been seen to.
            let _ = link.run();
            let link = links.links.lock().unwrap().remove(&number);
            // Also after a reset: a server that is told of no end waits for minutes, and takes in
            // only so many at once.
            let _ = link.map(|[_, server]| server.shutdown(Shutdown::Write));
        });
    }
}

/// Passes answers on, until one is to be lost.
fn answer(mut server: &TcpStream, mut client: &TcpStream, mode: &AtomicU8) {
    let mut piece = vec![0; 4 << 10];
    loop {
        let read = server.read(&mut piece).unwrap_or(0);
        let mode = mode.load(Ordering::SeqCst);
        let is_over = match mode {
            _ if read == 0 => true,
            PASS => client.write_all(&piece[..read]).is_err(),
            SWALLOW => false,
            _ => true,
        };
        if is_over {
            let how = if mode == RESET { Cut::Reset } else { Cut::Close };
            cut(client, how);
            cut(server, how);
            return;
        }
    }
}

/// One connection, seen from the sender.
struct Link {
    shared: Arc<Shared>,
    client: TcpStream,
    server: TcpStream,
    answers: Arc<AtomicU8>,
    to: String,
}

impl Link {
    fn run(mut self) -> std::io::Result<()> {
        let mut lines = BufReader::new(self.client.try_clone()?);
        // Whether a content has just begun.
        let (mut line, mut in_text) = (Vec::new(), None);
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
                // A line that was not ended arrives as it is.
                self.server.write_all(&line)?;
                return self.server.shutdown(Shutdown::Write);
            }
            match in_text {
                Some(_) if line == b".\r\n" => {
                    in_text = None;
                    self.pass(Word::End, &line)?;
                    continue;
                }
                Some(true) => {
                    in_text = Some(false);
                    self.pass(Word::Text, &line)?;
                    continue;
                }
                Some(false) => {
                    self.server.write_all(&line)?;
                    continue;
                }
                None => {}
            }
            let words = String::from_utf8_lossy(&line).to_ascii_uppercase();
            let mut words = words.split_whitespace();
            match words.next().unwrap_or_default() {
                "EHLO" => self.pass(Word::Hello, &line)?,
                "MAIL" => self.pass(Word::Sender, &line)?,
                "RCPT" => {
                    let text = String::from_utf8_lossy(&line);
                    self.to = text.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    self.pass(Word::Recipient, &line)?;
                }
                "DATA" => {
                    self.pass(Word::Content, &line)?;
                    in_text = Some(true);
                }
                "BDAT" => {
                    let size = words.next().and_then(|it| it.parse().ok()).unwrap_or(0);
                    let word = if words.next().is_some() { Word::End } else { Word::Content };
                    self.pass(word, &line)?;
                    let mut text = vec![0; size];
                    lines.read_exact(&mut text)?;
                    if 0 < size {
                        self.pass(Word::Text, &text)?;
                    }
                }
                _ => self.pass(Word::Other, &line)?,
            }
        }
    }

    /// Does with a word what is decided; an error is the end of the connection.
    fn pass(&mut self, word: Word, bytes: &[u8]) -> std::io::Result<()> {
        if word == Word::End {
            *self.shared.ends.lock().unwrap().entry(self.to.clone()).or_default() += 1;
        }
        let fate = (self.shared.decide.lock().unwrap())(word, &self.to);
        let (mut server, client) = (&self.server, &self.client);
        let over = |how| {
            cut(server, how);
            cut(client, how);
            Err(std::io::ErrorKind::ConnectionAborted.into())
        };
        match fate {
            Fate::Passes => server.write_all(bytes),
            Fate::Lost(how) => {
                if word == Word::Text {
                    server.write_all(&bytes[..bytes.len() / 2])?;
                }
                over(how)
            }
            Fate::Arrives(how) => {
                server.write_all(bytes)?;
                over(how)
            }
            Fate::Unanswered(how) => {
                let mode = if how == Cut::Reset { RESET } else { CLOSE };
                self.answers.store(mode, Ordering::SeqCst);
                server.write_all(bytes)
            }
            Fate::Silent => {
                self.answers.store(SWALLOW, Ordering::SeqCst);
                server.write_all(bytes)
            }
        }
    }
}

impl fmt::Debug for MailRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailRelay({} to {})", self.address(), self.shared.target)
    }
}
