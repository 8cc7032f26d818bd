//! A caller with one request to a connection, blocking.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::process::until;

/// Longer than anything takes here; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A POST to the shop.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    key: String,
    authorization: Option<String>,
    item: String,
}

/// Orders a blender under this key, as nobody in particular.
pub(crate) fn order(key: &str) -> Order {
    Order { key: key.to_owned(), authorization: None, item: "blender".to_owned() }
}

impl Order {
    pub(crate) fn by(self, authorization: &str) -> Self {
        Self { authorization: Some(authorization.to_owned()), ..self }
    }

    pub(crate) fn of(self, item: &str) -> Self {
        Self { item: item.to_owned(), ..self }
    }

    /// Sends it, and leaves the answer for later.
    pub(crate) fn begin(&self, proxy: SocketAddr) -> Begun {
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = format!("item={}", self.item);
        let mut head = String::from("POST /orders HTTP/1.1\r\nHost: shop\r\n");
        head += "Connection: close\r\n";
        head += &format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", body.len());
        head += &format!("Idempotency-Key: {}\r\n", self.key);
        if let Some(authorization) = &self.authorization {
            head += &format!("Authorization: {authorization}\r\n");
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        Begun(stream)
    }

    /// Sends it and reads the answer.
    pub(crate) fn send(&self, proxy: SocketAddr) -> Answer {
        self.begin(proxy).answer().unwrap()
    }

    /// Sends it until nobody is at work on it any more.
    pub(crate) fn settle(&self, proxy: SocketAddr) -> Answer {
        until("settled", || Some(self.send(proxy)).filter(|it| it.says() != "in-progress"))
    }
}

/// A request whose answer was not read yet.
pub(crate) struct Begun(TcpStream);

impl Begun {
    /// Reads the whole answer; an error if it does not come whole.
    pub(crate) fn answer(mut self) -> io::Result<Answer> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes)?;
        let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").ok_or_else(cut)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|it| it.split(' ').nth(1)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let answer = Answer {
            status: status.ok_or_else(cut)?,
            headers: headers.collect(),
            body: bytes[end + 4..].to_vec(),
        };
        let length = answer.header("content-length").and_then(|it| it.parse().ok());
        if length == Some(answer.body.len()) { Ok(answer) } else { Err(cut()) }
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// How far the request got.
    pub(crate) fn says(&self) -> &str {
        self.header("idempotency-status").unwrap_or_default()
    }

    /// The name of the problem that it is.
    pub(crate) fn problem(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    /// That it ran, now; and what is the same in every replay.
    #[track_caller]
    pub(crate) fn ran(&self) -> Kept {
        assert_eq!((self.status, self.says()), (201, "executed"), "{self:?}");
        self.kept()
    }

    /// That it is given again.
    #[track_caller]
    pub(crate) fn replayed(&self) -> Kept {
        assert_eq!(self.says(), "replayed", "{self:?}");
        self.kept()
    }

    /// That it is this problem.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, name: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.problem(), name, "{self:?}");
    }

    fn kept(&self) -> Kept {
        let shop = self.header("x-shop").map(str::to_owned);
        Kept { status: self.status, shop, body: self.body.clone() }
    }
}

/// What a replay has in common with the first answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) status: u16,
    pub(crate) shop: Option<String>,
    pub(crate) body: Vec<u8>,
}
