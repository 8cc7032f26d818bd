//! A caller with one request to a connection, and what came back to it before the end.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A request that was sent.
pub(crate) struct Caller {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

/// What a caller saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saw {
    Nothing,
    /// Something, but no end.
    Part,
    Whole(Answer),
}

/// An answer that came whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// How far the request got.
    pub(crate) says: String,
    pub(crate) body: Vec<u8>,
}

impl Caller {
    /// Orders something of this length.
    pub(crate) fn ask(proxy: SocketAddr, path: &str, key: &str, length: usize) -> Self {
        Self::try_ask(proxy, path, key, length).expect("a proxy that listens")
    }

    /// The same; `None` if nobody listens.
    pub(crate) fn try_ask(proxy: SocketAddr, path: &str, key: &str, length: usize) -> Option<Self> {
        let mut stream = TcpStream::connect(proxy).ok()?;
        let end = "the-end";
        let body = "x".repeat(length) + end;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\
             Content-Type: text/plain\r\nContent-Length: {}\r\nIdempotency-Key: {key}\r\n\r\n",
            body.len()
        );
        // The proxy may be gone before it has taken all of it.
        let _ = stream.write_all((head + &body).as_bytes());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (mut from, into) = (stream.try_clone().unwrap(), Arc::clone(&bytes));
        let reading = std::thread::spawn(move || {
            let mut piece = [0; 1 << 16];
            // An error is an end like any other: the other side is gone.
            while let Ok(count @ 1..) = from.read(&mut piece) {
                into.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Some(Self { stream, bytes, reading })
    }

    /// Whether this has come.
    pub(crate) fn has(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).contains(text)
    }

    /// Whether nothing more can come.
    pub(crate) fn is_over(&self) -> bool {
        self.reading.is_finished()
    }

    pub(crate) fn hang_up(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.reading.join().unwrap();
    }

    /// What came until the end.
    pub(crate) fn saw(self) -> Saw {
        self.reading.join().unwrap();
        let bytes = std::mem::take(&mut *self.bytes.lock().unwrap());
        if bytes.is_empty() {
            return Saw::Nothing;
        }
        parsed(&bytes).map_or(Saw::Part, Saw::Whole)
    }
}

impl Saw {
    pub(crate) fn whole(self) -> Option<Answer> {
        match self {
            Self::Whole(answer) => Some(answer),
            Self::Nothing | Self::Part => None,
        }
    }
}

impl Answer {
    /// The name of the problem that it is, if it is one.
    pub(crate) fn problem(&self) -> Option<String> {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(problem["type"].as_str()?.rsplit(':').next()?.to_owned())
    }

    /// Whether it is what the shop said.
    pub(crate) fn is_the_shops(&self) -> bool {
        self.status == 201
    }
}

/// An answer, if all of it is there.
fn parsed(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    let body = match field("content-length") {
        Some(length) => {
            let body = &bytes[end..];
            (length.parse() == Ok(body.len())).then(|| body.to_vec())?
        }
        None => unchunked(&bytes[end..])?,
    };
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, says: field("idempotency-status").unwrap_or_default(), body })
}

fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|it| it == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        let data = bytes.get(line + 2..line + 2 + size)?;
        bytes = bytes.get(line + 2 + size + 2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(data);
    }
}
