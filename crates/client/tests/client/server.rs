//! A server that answers with what it was given, one connection each, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) key: Option<String>,
    pub(crate) body: Value,
}

/// The answer to the next request; an empty one ends the connection.
pub(crate) type Script = Arc<Mutex<VecDeque<String>>>;

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
    count: watch::Receiver<usize>,
}

impl Server {
    /// Answers so, in order, and with 500 from then on.
    pub(crate) async fn start(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script: Script = Arc::new(Mutex::new(answers.into_iter().collect()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (counting, count) = watch::channel(0);
        let (theirs, seen) = (Arc::clone(&script), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(request) = read(&mut stream).await else { continue };
                seen.lock().unwrap().push(request);
                let answer = theirs.lock().unwrap().pop_front();
                let answer = answer.unwrap_or_else(|| plain(500, &[], "no more"));
                let _ = stream.write_all(answer.as_bytes()).await;
                drop(stream);
                counting.send_modify(|count| *count += 1);
            }
        });
        Self { url, script, asked, count }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn came(&self, count: usize) {
        let mut seen = self.count.clone();
        let coming = seen.wait_for(|it| count <= *it);
        tokio::time::timeout(LIMIT, coming).await.expect("they do not come").unwrap();
    }

    /// The keys that came, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.asked().into_iter().map(|it| it.key.unwrap()).collect()
    }

    /// The paths that were asked, in order.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|it| it.path).collect()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece).await.ok().filter(|it| 0 < *it)?;
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            let line = head.lines().find(|it| it.to_ascii_lowercase().starts_with(name))?;
            line.split_once(": ").map(|(_, value)| value.to_owned())
        };
        let length = field("content-length").map_or(0, |it| it.parse().unwrap());
        if body.len() < length {
            continue;
        }
        let path = head.split(' ').nth(1)?.to_owned();
        let body = serde_json::from_str(body).unwrap_or_default();
        return Some(Asked { path, key: field("idempotency-key"), body });
    }
}

pub(crate) fn plain(status: u16, fields: &[&str], body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for field in fields {
        text += &format!("{field}\r\n");
    }
    format!("{text}\r\n{body}")
}

pub(crate) fn document(body: &Value) -> String {
    plain(200, &["content-type: application/json"], &body.to_string())
}

/// A problem of this name, with what it says of the key.
pub(crate) fn problem(status: u16, name: &str, retryable: bool, reuse_key: &str) -> String {
    let body = json!({
        "type": format!("urn:onlyonce:problem:{name}"), "title": name, "status": status,
        "happened": "unknown", "retryable": retryable, "who": "caller", "reuse_key": reuse_key,
    });
    plain(status, &["content-type: application/problem+json"], &body.to_string())
}

/// The connection ends.
pub(crate) fn lost() -> String {
    String::new()
}
