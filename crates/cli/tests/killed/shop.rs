//! An upstream that counts what it does, a thread to a connection: a request that came whole has
//! its effect, whatever becomes of the one who sent it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use crate::bench::until;

/// How the shop treats the next requests. Each has its effect, if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Answer,
    /// An answer of so many bytes.
    Large(usize),
    /// An answer in three pieces, the last of them once it is let go.
    Stream,
    /// An answer once it is let go.
    Hold,
    /// It refuses, and has no effect.
    Refuse,
    /// It cuts the connection.
    Cut,
    /// It reads nothing until it is let go.
    Unread,
}

/// The shop; its threads end with the connections.
#[derive(Clone)]
pub(crate) struct Shop {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    manner: Mutex<Manner>,
    /// The key of each effect, in their order.
    effects: Mutex<Vec<String>>,
    /// How often something was let go.
    let_go: Mutex<u64>,
    lets_go: Condvar,
    open: Mutex<u64>,
    /// Who came last.
    last: Mutex<Option<SocketAddr>>,
}

impl Shop {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            manner: Mutex::new(Manner::Answer),
            effects: Mutex::default(),
            let_go: Mutex::default(),
            lets_go: Condvar::new(),
            open: Mutex::default(),
            last: Mutex::default(),
        });
        let shop = Self { address, inner };
        let serving = shop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shop = serving.clone();
                *shop.inner.open.lock().unwrap() += 1;
                *shop.inner.last.lock().unwrap() = stream.peer_addr().ok();
                std::thread::spawn(move || {
                    // An error is the end of the connection.
                    let _ = shop.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                    *shop.inner.open.lock().unwrap() -= 1;
                });
            }
        });
        shop
    }

    pub(crate) fn manner(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap() = manner;
    }

    pub(crate) fn effects_of(&self, key: &str) -> usize {
        self.inner.effects.lock().unwrap().iter().filter(|it| *it == key).count()
    }

    /// Waits for an effect.
    pub(crate) fn began(&self, key: &str) {
        until("an effect", || (0 < self.effects_of(key)).then_some(()));
    }

    /// Lets everything go that is held now.
    pub(crate) fn let_go(&self) {
        *self.inner.let_go.lock().unwrap() += 1;
        self.inner.lets_go.notify_all();
    }

    /// Lets everything go, and waits until all that was sent here is read and its effects are
    /// counted.
    pub(crate) fn quiet(&self) {
        let (open, last) = (&self.inner.open, &self.inner.last);
        // Whoever came before us is served by now.
        let us = TcpStream::connect(self.address).unwrap();
        let name = us.local_addr().ok();
        until("our own visit", || (*last.lock().unwrap() == name).then_some(()));
        drop(us);
        until("a quiet shop", || {
            // Who came late is held too.
            self.let_go();
            (*open.lock().unwrap() == 0).then_some(())
        });
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        loop {
            let manner = *self.inner.manner.lock().unwrap();
            let before = *self.inner.let_go.lock().unwrap();
            let wait = || {
                let gate = self.inner.let_go.lock().unwrap();
                drop(self.inner.lets_go.wait_while(gate, |now| *now == before).unwrap());
            };
            if manner == Manner::Unread {
                wait();
            }
            let key = request(stream)?;
            // Which it is is said before a request is sent, and it may have waited for it here.
            let manner = *self.inner.manner.lock().unwrap();
            if manner == Manner::Refuse {
                stream.write_all(
                    b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 9\r\n\r\nslow down",
                )?;
                continue;
            }
            let number = {
                let mut effects = self.inner.effects.lock().unwrap();
                effects.push(key.clone());
                effects.len()
            };
            let whole = |body: String| {
                let length = body.len();
                format!("HTTP/1.1 201 Created\r\nContent-Length: {length}\r\n\r\n{body}")
            };
            let text = format!("effect {number} of {key}");
            match manner {
                Manner::Cut => return Ok(()),
                Manner::Answer | Manner::Unread | Manner::Refuse => {
                    stream.write_all(whole(text).as_bytes())?;
                }
                Manner::Large(size) => {
                    stream.write_all(whole(text + &"x".repeat(size)).as_bytes())?;
                }
                Manner::Hold => {
                    wait();
                    stream.write_all(whole(text).as_bytes())?;
                }
                Manner::Stream => {
                    let head = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n";
                    let piece = |name: &str| format!("{:x}\r\n{name}\r\n", name.len());
                    let first = format!("{head}{}{}", piece("piece-1"), piece("piece-2"));
                    stream.write_all(first.as_bytes())?;
                    wait();
                    stream.write_all(format!("{}0\r\n\r\n", piece("piece-3")).as_bytes())?;
                }
            }
        }
    }
}

/// Reads a request whole, and returns its key.
fn request(mut stream: &TcpStream) -> io::Result<String> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    let mut whole = None;
    while whole.as_ref().is_none_or(|(_, whole)| bytes.len() < *whole) {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..count]);
        if whole.is_none() {
            let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4);
            whole = end.map(|end| {
                let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
                let length: usize = field(&head, "content-length").parse().unwrap();
                (field(&head, "idempotency-key").trim_matches('"').to_owned(), end + length)
            });
        }
    }
    whole.map(|(key, _)| key).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
}
