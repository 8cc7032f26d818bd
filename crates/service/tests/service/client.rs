//! A client that speaks HTTP by hand, one request to a connection, and may go away at any time.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Where a service is.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client with a token, or without.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: Address,
    pub(crate) token: Option<&'static str>,
}

/// An answer, all of it.
#[derive(Clone, Debug)]
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

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That it is what was asked for.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()
    }

    /// That it is this problem, with the three answers.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["type"], format!("urn:onlyonce:problem:{name}"), "{problem}");
        assert_eq!(problem["status"], status);
        for member in ["title", "detail", "happened", "who"] {
            assert!(problem[member].is_string(), "{member}: {problem}");
        }
        assert!(problem["retryable"].is_boolean(), "{problem}");
        problem
    }
}

impl Client {
    pub(crate) async fn connect(&self) -> Box<dyn Stream> {
        match &self.address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await.unwrap()),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.unwrap()),
        }
    }

    /// What is written for a request.
    pub(crate) fn request(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: records\r\nconnection: close\r\n");
        if let Some(token) = self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        head += "content-type: application/json\r\n";
        head += &format!("content-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    /// Sends these bytes and reads the answer.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        exchange(&mut self.connect().await, bytes).await.unwrap()
    }

    /// Asks an endpoint.
    pub(crate) async fn post(&self, name: &str, body: &Value) -> Answer {
        self.raw(&self.request(&format!("/v1/{name}"), body.to_string().as_bytes())).await
    }

    /// Asks an endpoint, and goes away before the answer.
    pub(crate) async fn post_and_leave(&self, name: &str, body: &Value) {
        let mut stream = self.connect().await;
        let request = self.request(&format!("/v1/{name}"), body.to_string().as_bytes());
        stream.write_all(&request).await.unwrap();
        stream.flush().await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: records\r\nconnection: close\r\n");
        if let Some(token) = self.token {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        self.raw(format!("{head}\r\n").as_bytes()).await
    }
}

/// One request on a connection that ends with its answer.
pub(crate) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> io::Result<Answer> {
    // Who is refused early may find the connection closed before all is written.
    let _ = stream.write_all(request).await;
    let _ = stream.flush().await;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes).await;
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
        read?;
        return Err(cut());
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|it| it.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let (headers, body) = (headers.collect(), bytes[end + 4..].to_vec());
    Ok(Answer { status: status.ok_or_else(cut)?, headers, body })
}
